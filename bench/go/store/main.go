// The question of ../../store.c to Go: the write barrier, while no collection runs and while one does.
package main

import (
	"runtime"
	"runtime/debug"
	"sort"
	"sync/atomic"

	"weft/bench/internal/bench"
)

const (
	slots  = 1 << 16
	passes = 40
	rounds = 15
)

type object struct{ to [8]*object }

var (
	slot  [slots]**object
	value [slots]*object
)

//go:noinline
func store() {
	for p := 0; p < passes; p++ {
		for i := range slot {
			*slot[i] = value[i]
		}
	}
}

func median(v []float64) float64 {
	sort.Float64s(v)
	return v[len(v)/2]
}

func nsEach() float64 {
	t := bench.Begin()
	store()
	return float64(t.End().Wall) / (slots * passes)
}

func main() {
	mib := 1
	if bench.Word(1) == "far" {
		mib = 256
	}
	debug.SetGCPercent(-1)
	objects := uint64(bench.Arg(2, mib)) << 20 / 64
	all := make([]object, objects)
	random := bench.Random(88172645463325252)
	for i := range slot {
		slot[i] = &all[random.Next()%objects].to[random.Next()%8]
		value[i] = &all[random.Next()%objects]
	}
	store()
	quiet, marking := make([]float64, rounds), make([]float64, rounds)
	for i := range quiet {
		quiet[i] = nsEach()
	}
	var stop atomic.Bool
	done := make(chan bool)
	go func() {
		for !stop.Load() {
			runtime.GC()
		}
		done <- true
	}()
	for i := range marking {
		marking[i] = nsEach()
	}
	stop.Store(true)
	<-done
	bench.Open("store").Num("store_ns", median(quiet)).Num("marking_ns", median(marking)).Close()
	runtime.KeepAlive(all)
}
