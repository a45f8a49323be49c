// The question of ../../mem_stats.c to Go: runtime.ReadMemStats.
package main

import (
	"runtime"
	"sync/atomic"
	"time"

	"weft/bench/internal/bench"
)

func main() {
	fibers, calls := bench.Arg(1, 1), bench.Arg(2, 5000)
	var waiting atomic.Int64
	var stats runtime.MemStats
	gate := make(chan struct{})
	ns := make([]int64, calls)
	for i := 0; i < fibers; i++ {
		go func() {
			waiting.Add(1)
			<-gate
		}()
	}
	for waiting.Load() < int64(fibers) {
		runtime.Gosched()
	}
	for i := 0; i < 100; i++ {
		runtime.ReadMemStats(&stats)
	}
	t := bench.Begin()
	for i := range ns {
		one := time.Now()
		runtime.ReadMemStats(&stats)
		ns[i] = time.Since(one).Nanoseconds()
	}
	t = t.End()
	bench.Open("mem_stats").Num("ns_per_op", float64(t.Wall)/float64(calls)).Num("ops", float64(calls)).
		Num("cpu_s", t.CPU.Seconds()).Latencies(ns).Close()
}
