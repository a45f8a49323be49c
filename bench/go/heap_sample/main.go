// The question of ../../heap_sample.c to Go: new of 64 bytes whose first word is a pointer, by turns with runtime.MemProfileRate 0 and the one asked.
package main

import (
	"os"
	"runtime"
	"slices"
	"unsafe"

	"weft/bench/internal/bench"
)

const objects = 1000000

type object struct {
	first unsafe.Pointer
	_     [56]byte
}

var kept *object

//go:noinline
func allocate(deeper int) {
	if deeper > 0 {
		allocate(deeper - 1)
		runtime.KeepAlive(deeper)
		return
	}
	for i := 0; i < objects; i++ {
		kept = new(object)
	}
}

func timed(rate, depth int) float64 {
	runtime.MemProfileRate = rate
	runtime.GC()
	t := bench.Begin()
	allocate(depth)
	return float64(t.End().CPU) / objects
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

func main() {
	rounds, rate, depth := bench.Arg(2, 201), bench.Arg(3, 524288), bench.Arg(4, 10)
	if bench.Arg(1, 64) != 64 || rounds < 1 {
		os.Exit(2)
	}
	var off, on, slower []float64
	timed(rate, depth)
	for i := 0; i < rounds; i++ {
		var a, b float64
		if i%2 == 0 {
			a = timed(0, depth)
			b = timed(rate, depth)
		} else {
			b = timed(rate, depth)
			a = timed(0, depth)
		}
		off, on, slower = append(off, a), append(on, b), append(slower, (b/a-1)*100)
	}
	l := bench.Open("heap_sample")
	l.Num("off_ns", median(off))
	l.Num("on_ns", median(on))
	l.Num("slower_percent", median(slower))
	l.Close()
}
