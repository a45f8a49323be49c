// The question of ../../chan_unbuf.c to Go.
package main

import (
	"os"
	"runtime"

	"weft/bench/internal/bench"
)

func ask(there, back chan int64, n int) {
	for i := int64(0); i < int64(n); i++ {
		there <- i
		if <-back != i {
			panic("lost")
		}
	}
}

func main() {
	trips := bench.Arg(1, 2000000)
	locked := len(os.Args) > 2 && os.Args[2] == "locked"
	there, back := make(chan int64), make(chan int64)
	if locked {
		runtime.LockOSThread()
	}
	go func() {
		if locked {
			runtime.LockOSThread()
		}
		for v := range there {
			back <- v
		}
	}()
	ask(there, back, trips/10)
	t := bench.Begin()
	ask(there, back, trips)
	bench.Report("chan_unbuf", trips, t.End())
}
