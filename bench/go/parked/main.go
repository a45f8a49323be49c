// The question of ../../parked.c to Go.
package main

import (
	"runtime"
	"sync"
	"sync/atomic"

	"weft/bench/internal/bench"
)

func main() {
	fibers := bench.Arg(1, 1000000)
	var wg sync.WaitGroup
	var waiting atomic.Int64
	gate := make(chan struct{})
	before := bench.RSSKiB()
	create := bench.Begin()
	for i := 0; i < fibers; i++ {
		wg.Add(1)
		go func() {
			waiting.Add(1)
			<-gate
			wg.Done()
		}()
	}
	for waiting.Load() < int64(fibers) {
		runtime.Gosched()
	}
	create = create.End()
	after := bench.RSSKiB()
	wake := bench.Begin()
	close(gate)
	wg.Wait()
	wake = wake.End()
	n := float64(fibers)
	bench.Open("parked").Num("ns_per_op", float64(create.Wall)/n).Num("ops", n).
		Num("kib_each", float64(after-before)/n).Num("wake_ns", float64(wake.Wall)/n).
		Num("cpu_s", (create.CPU + wake.CPU).Seconds()).Close()
}
