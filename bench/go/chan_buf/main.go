// The question of ../../chan_buf.c to Go.
package main

import "weft/bench/internal/bench"

func pass(c chan int64, n int) {
	go func() {
		for i := int64(0); i < int64(n); i++ {
			c <- i
		}
	}()
	for i := int64(0); i < int64(n); i++ {
		if <-c != i {
			panic("lost")
		}
	}
}

func main() {
	items := bench.Arg(1, 10000000)
	c := make(chan int64, 128)
	pass(c, items/10)
	t := bench.Begin()
	pass(c, items)
	bench.Report("chan_buf", items, t.End())
}
