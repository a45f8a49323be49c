// The question of ../../select.c to Go.
package main

import "weft/bench/internal/bench"

const chans = 4

func receive(c [chans]chan int64, n int, ready bool) (sum int64) {
	for i := 0; i < n; i++ {
		if ready {
			c[i%chans] <- int64(i)
		}
		var v int64
		select {
		case v = <-c[0]:
		case v = <-c[1]:
		case v = <-c[2]:
		case v = <-c[3]:
		}
		sum += v
	}
	return sum
}

func main() {
	ready := bench.Word(1) == "ready"
	items := bench.Arg(2, 3000000)
	var c [chans]chan int64
	for i := range c {
		if ready {
			c[i] = make(chan int64, 1)
		} else {
			c[i] = make(chan int64)
			go func() {
				for n := int64(0); ; n++ {
					c[i] <- n
				}
			}()
		}
	}
	sum := receive(c, items/10, ready)
	t := bench.Begin()
	sum += receive(c, items, ready)
	name := "select_wait"
	if ready {
		name = "select_ready"
	}
	bench.Report(name, items, t.End())
	if sum == 0 {
		panic("lost")
	}
}
