// The question of ../../prodcons.c to Go.
package main

import (
	"sync"
	"sync/atomic"

	"weft/bench/internal/bench"
)

func runAll(producers, consumers, n int) {
	var sending, receiving sync.WaitGroup
	var sum atomic.Int64
	c := make(chan int64, 128)
	each := int64(n / producers)
	for i := 0; i < consumers; i++ {
		receiving.Add(1)
		go func() {
			var mine int64
			for v := range c {
				mine += v
			}
			sum.Add(mine)
			receiving.Done()
		}()
	}
	for i := 0; i < producers; i++ {
		sending.Add(1)
		go func() {
			for v := int64(1); v <= each; v++ {
				c <- v
			}
			sending.Done()
		}()
	}
	sending.Wait()
	close(c)
	receiving.Wait()
	if sum.Load() != int64(producers)*(each*(each+1)/2) {
		panic("lost")
	}
}

func main() {
	producers, consumers := bench.Arg(1, 8), bench.Arg(2, 8)
	items := bench.Arg(3, 4000000)
	runAll(producers, consumers, items/10)
	t := bench.Begin()
	runAll(producers, consumers, items)
	bench.Report("prodcons", items/producers*producers, t.End())
}
