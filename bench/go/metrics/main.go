// The question of ../../metrics.c to Go: runtime/metrics.Read.
package main

import (
	"os"
	"runtime"
	"runtime/metrics"
	"sync/atomic"

	"weft/bench/internal/bench"
)

var pairs = map[string][2]string{
	"heap":   {"/memory/classes/heap/objects:bytes", "/sched/goroutines:goroutines"},
	"memory": {"/memory/classes/total:bytes", "/memory/classes/heap/free:bytes"},
	"pauses": {"/sched/pauses/total/gc:seconds", "/sched/latencies:seconds"},
}

var sink []byte

func main() {
	want := bench.Word(1)
	if want == "" {
		want = "heap"
	}
	names, ok := pairs[want]
	if !ok {
		os.Exit(2)
	}
	calls := bench.Arg(2, 1000000)
	m := []metrics.Sample{{Name: names[0]}, {Name: names[1]}}
	var waiting atomic.Int64
	gate := make(chan struct{})
	for i := 0; i < 1000; i++ {
		go func() {
			waiting.Add(1)
			<-gate
		}()
	}
	for waiting.Load() < 1000 {
		runtime.Gosched()
	}
	for i := 0; i < 100000; i++ {
		sink = make([]byte, i%500)
	}
	runtime.GC()
	for i := 0; i < calls/10; i++ {
		metrics.Read(m)
	}
	t := bench.Begin()
	for i := 0; i < calls; i++ {
		metrics.Read(m)
	}
	bench.Report("metrics", calls, t.End())
}
