// The question of ../../yield.c to Go: runtime.Gosched, which goes through the global queue.
package main

import (
	"runtime"
	"sync"

	"weft/bench/internal/bench"
)

func runAll(fibers, each int) {
	var wg sync.WaitGroup
	for i := 0; i < fibers; i++ {
		wg.Add(1)
		go func() {
			for n := each; n > 0; n-- {
				runtime.Gosched()
			}
			wg.Done()
		}()
	}
	wg.Wait()
}

func main() {
	fibers := bench.Arg(1, 2)
	yields := bench.Arg(2, 10000000/fibers)
	runAll(fibers, yields/10)
	t := bench.Begin()
	runAll(fibers, yields)
	bench.Report("yield", fibers*yields, t.End())
}
