// The question of ../../skynet.c to Go.
package main

import "weft/bench/internal/bench"

func skynet(up chan int64, first, leaves int64) {
	if leaves == 1 {
		up <- first
		return
	}
	down := make(chan int64)
	for i := int64(0); i < 10; i++ {
		go skynet(down, first+i*(leaves/10), leaves/10)
	}
	var sum int64
	for i := 0; i < 10; i++ {
		sum += <-down
	}
	up <- sum
}

func once(n int64) {
	up := make(chan int64)
	go skynet(up, 0, n)
	if <-up != n*(n-1)/2 {
		panic("lost")
	}
}

func main() {
	leaves := bench.Arg(1, 1000000)
	once(1000)
	t := bench.Begin()
	once(int64(leaves))
	bench.Report("skynet", leaves, t.End())
}
