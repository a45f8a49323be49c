// The question of ../../spawn_join.c to Go: a go statement and a sync.WaitGroup.
package main

import (
	"sync"

	"weft/bench/internal/bench"
)

//go:noinline
func child() {}

func runAll(batch, n int) {
	var wg sync.WaitGroup
	for i := 0; i < n; i += batch {
		for j := 0; j < batch; j++ {
			wg.Add(1)
			go func() {
				child()
				wg.Done()
			}()
		}
		wg.Wait()
	}
}

func main() {
	batch := bench.Arg(1, 1)
	fibers := bench.Arg(2, 3000000)
	runAll(batch, fibers/10)
	t := bench.Begin()
	runAll(batch, fibers)
	bench.Report("spawn_join", fibers, t.End())
}
