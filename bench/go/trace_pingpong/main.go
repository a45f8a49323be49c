// The question of ../../trace_pingpong.c to Go.
package main

import (
	"runtime/trace"
	"sync/atomic"

	"weft/bench/internal/bench"
)

type counter struct{ n atomic.Int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return len(p), nil
}

func ask(there, back chan int64, n int) float64 {
	t := bench.Begin()
	for i := int64(0); i < int64(n); i++ {
		there <- i
		if <-back != i {
			panic("lost")
		}
	}
	return float64(t.End().Wall) / float64(n)
}

func main() {
	trips := bench.Arg(1, 1000000)
	there, back := make(chan int64), make(chan int64)
	go func() {
		for v := range there {
			back <- v
		}
	}()
	ask(there, back, trips/10)
	off := ask(there, back, trips)
	var c counter
	if err := trace.Start(&c); err != nil {
		panic(err)
	}
	ask(there, back, trips/10)
	on := ask(there, back, trips)
	trace.Stop()
	bench.Open("trace_pingpong").Num("off_ns", off).Num("on_ns", on).Num("slowdown", on/off).Num("event_ns", (on-off)/6).
		Num("bytes", float64(c.n.Load())/(6*1.1*float64(trips))).Close()
}
