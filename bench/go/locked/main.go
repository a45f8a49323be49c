// The question of ../../locked.c to Go: runtime.LockOSThread.
package main

import (
	"runtime"

	"weft/bench/internal/bench"
)

func pass(there, back chan int64, n int64) {
	for i := int64(0); i < n; i++ {
		there <- i
		if <-back != i {
			panic("lost")
		}
	}
}

func main() {
	rounds := bench.Arg(1, 50000)
	runtime.LockOSThread()
	there, back := make(chan int64), make(chan int64)
	go func() {
		runtime.LockOSThread()
		for v := range there {
			back <- v
		}
	}()
	pass(there, back, int64(rounds/10))
	t := bench.Begin()
	pass(there, back, int64(rounds))
	bench.Report("locked", rounds, t.End())
	close(there)
}
