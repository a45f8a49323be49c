// The question of ../../block_profile.c to Go, which knows no budget.
package main

import (
	"runtime"
	"slices"
	"time"

	"weft/bench/internal/bench"
)

const turns = 9

func ask(there, back chan int64, n int) float64 {
	t := bench.Begin()
	for i := int64(0); i < int64(n); i++ {
		there <- i
		if <-back != i {
			panic("lost")
		}
	}
	return float64(t.End().CPU/time.Nanosecond) / float64(n)
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

func main() {
	trips := bench.Arg(1, 200000)
	there, back := make(chan int64), make(chan int64)
	go func() {
		for v := range there {
			back <- v
		}
	}()
	ask(there, back, trips/10)
	var off, on, slowdown, added []float64
	for i := 0; i < turns; i++ {
		without := ask(there, back, trips)
		runtime.SetBlockProfileRate(1)
		ask(there, back, trips/4)
		with := ask(there, back, trips)
		runtime.SetBlockProfileRate(0)
		off = append(off, without)
		on = append(on, with)
		slowdown = append(slowdown, with/without)
		added = append(added, (with-without)/2)
	}
	l := bench.Open("block_profile")
	l.Num("ns_per_op", median(on)).Num("off_ns", median(off)).Num("slowdown", median(slowdown)).Num("added_ns", median(added))
	l.Close()
}
