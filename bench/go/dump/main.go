// The question of ../../dump.c to Go: pprof.Lookup("goroutine").WriteTo.
package main

import (
	"runtime"
	"runtime/pprof"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"weft/bench/internal/bench"
)

var (
	waiting, longest atomic.Int64
	stop             atomic.Bool
	gate             = make(chan struct{})
	wg               sync.WaitGroup
)

//go:noinline
func waitDeep(depth int) {
	if depth > 0 {
		waitDeep(depth - 1)
	} else {
		waiting.Add(1)
		<-gate
	}
}

func waiter(depth int) {
	waitDeep(depth)
	wg.Done()
}

func ticker() {
	last := time.Now()
	for !stop.Load() {
		time.Sleep(time.Millisecond)
		now := time.Now()
		late := int64(now.Sub(last) - time.Millisecond)
		if late > longest.Load() {
			longest.Store(late)
		}
		last = now
	}
	wg.Done()
}

type counter struct{ bytes int }

func (c *counter) Write(p []byte) (int, error) {
	c.bytes += len(p)
	return len(p), nil
}

func main() {
	fibers, debug, rounds := bench.Arg(1, 10000), bench.Arg(2, 2), bench.Arg(3, 9)
	wg.Add(fibers + 1)
	for i := 0; i < fibers; i++ {
		go waiter(i % 8)
	}
	for waiting.Load() < int64(fibers) {
		runtime.Gosched()
	}
	go ticker()
	var wall, stall []int64
	var c counter
	all := bench.Begin()
	for i := 0; i < rounds; i++ {
		time.Sleep(20 * time.Millisecond)
		longest.Store(0)
		c.bytes = 0
		t := bench.Begin()
		if err := pprof.Lookup("goroutine").WriteTo(&c, debug); err != nil {
			panic(err)
		}
		wall = append(wall, int64(t.End().Wall))
		time.Sleep(2 * time.Millisecond)
		stall = append(stall, longest.Load())
	}
	all = all.End()
	stop.Store(true)
	close(gate)
	wg.Wait()
	for _, s := range [][]int64{wall, stall} {
		sort.Slice(s, func(i, j int) bool { return s[i] < s[j] })
	}
	bench.Open("dump").Num("wall_ns", float64(wall[rounds/2])).Num("stall_ns", float64(stall[rounds/2])).
		Num("stall_max_ns", float64(stall[rounds-1])).Num("bytes", float64(c.bytes)).Num("cpu_s", all.CPU.Seconds()).Close()
}
