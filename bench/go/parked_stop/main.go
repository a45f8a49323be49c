// The question of ../../parked_stop.c to Go.
package main

import (
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"weft/bench/internal/bench"
)

const (
	channels = 1000
	atOnce   = 10
)

var (
	at      [channels]chan struct{}
	waiting atomic.Int64
	over    atomic.Bool
)

func waiter(i uint64) {
	own := new([4]uint64)
	own[0], own[3] = i, i
	waiting.Add(1)
	for range at[i%channels] {
		if own[0] != own[3] {
			os.Exit(1)
		}
	}
}

func waker() {
	seed := bench.Random(88172645463325252)
	for !over.Load() {
		for range atOnce {
			at[seed.Next()%channels] <- struct{}{}
		}
		time.Sleep(time.Millisecond)
	}
}

func main() {
	fibers, collections := bench.Arg(1, 1000000), bench.Arg(2, 20)
	for i := range at {
		at[i] = make(chan struct{})
	}
	for i := range fibers {
		go waiter(uint64(i))
	}
	for waiting.Load() < int64(fibers) {
		runtime.Gosched()
	}
	runtime.GC()
	var wakers sync.WaitGroup
	wakers.Go(waker)
	before := bench.LookAtStops()
	ns := make([]int64, collections)
	t := bench.Begin()
	for i := range ns {
		time.Sleep(200 * time.Millisecond)
		one := time.Now()
		runtime.GC()
		ns[i] = time.Since(one).Nanoseconds()
	}
	t = t.End()
	stops := bench.LookAtStops().Since(before)
	over.Store(true)
	wakers.Wait()
	slices.Sort(ns)
	bench.Open("parked_stop").Num("stop_p50_ns", stops.NS(.5)).Num("stop_max_ns", stops.NS(1)).Num("stops", float64(stops.Count())).
		Num("gc_ns", float64(ns[collections/2])).Num("ops", float64(fibers)).Num("cpu_s", t.CPU.Seconds()).Close()
}
