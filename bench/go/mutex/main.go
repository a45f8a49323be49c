// The question of ../../mutex.c to Go: sync.Mutex.
package main

import (
	"sync"
	"sync/atomic"

	"weft/bench/internal/bench"
)

var (
	mutex   sync.Mutex
	counter int
	sink    atomic.Uint64
)

func alone(n int) {
	for i := 0; i < n; i++ {
		mutex.Lock()
		counter++
		mutex.Unlock()
	}
}

func contender(n int, seed bench.Random) {
	for ; n > 0; n-- {
		mutex.Lock()
		counter++
		mutex.Unlock()
		for k := 0; k < 20; k++ {
			seed.Next()
		}
	}
	sink.Store(uint64(seed))
}

func runAll(fibers, n int) {
	counter = 0
	if fibers == 1 {
		alone(n)
	} else {
		var wg sync.WaitGroup
		for i := 0; i < fibers; i++ {
			wg.Add(1)
			go func() {
				contender(n, bench.Random(i+1))
				wg.Done()
			}()
		}
		wg.Wait()
	}
	if counter != n*fibers {
		panic("lost")
	}
}

func main() {
	fibers := bench.Arg(1, 1)
	locks := 50000000
	if fibers > 1 {
		locks = 4000000 / fibers
	}
	locks = bench.Arg(2, locks)
	runAll(fibers, locks/10)
	t := bench.Begin()
	runAll(fibers, locks)
	bench.Report("mutex", locks*fibers, t.End())
}
