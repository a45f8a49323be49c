// The question of ../../timers.c to Go: time.NewTimer and Stop; time.Sleep.
package main

import (
	"sync"
	"sync/atomic"
	"time"

	"weft/bench/internal/bench"
)

func startStop(started []*time.Timer) {
	seed := bench.Random(88172645463325252)
	for i := range started {
		started[i] = time.NewTimer(time.Hour + time.Duration(seed.Next()%1000000000))
	}
	for _, t := range started {
		if !t.Stop() {
			panic("not running")
		}
	}
}

func main() {
	timers := bench.Arg(1, 100000)
	started := make([]*time.Timer, timers)
	late := make([]int64, timers)
	startStop(started)
	t := bench.Begin()
	for i := 0; i < 10; i++ {
		startStop(started)
	}
	t = t.End()
	var next atomic.Int64
	var wg sync.WaitGroup
	sleeping := bench.Begin()
	for i := 0; i < timers; i++ {
		wg.Add(1)
		go func() {
			seed := bench.Random(uint64(i+1)*2685821657736338717 + 1)
			seed.Next()
			ns := time.Duration(100000000 + seed.Next()%900000000)
			since := time.Now()
			time.Sleep(ns)
			late[next.Add(1)-1] = int64(time.Since(since) - ns)
			wg.Done()
		}()
	}
	wg.Wait()
	sleeping = sleeping.End()
	bench.Open("timers").Num("ns_per_op", float64(t.Wall)/(10*float64(timers))).Num("ops", float64(timers)).
		Num("cpu_s", sleeping.CPU.Seconds()).Latencies(late).Close()
}
