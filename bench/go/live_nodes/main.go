// The question of ../../live_nodes.c to Go: runtime.GC, over the same graph from the same random numbers.
package main

import (
	"runtime"
	"runtime/debug"
	"time"

	"weft/bench/internal/bench"
)

type node struct {
	left, right, other *node
	payload            [5]uint64
}

func build(n int) *node {
	seed := bench.Random(88172645463325252)
	at := make([]*node, n)
	place := make([]uint32, n)
	index := make([]uint32, n)
	for i := range at {
		at[i] = new(node)
		place[i] = uint32(i)
	}
	for i := n - 1; i > 0; i-- {
		j := seed.Next() % uint64(i+1)
		place[i], place[j] = place[j], place[i]
	}
	for i := range index {
		index[place[i]] = uint32(i)
	}
	for i := range at {
		k := int(index[i])
		if 2*k+1 < n {
			at[i].left = at[place[2*k+1]]
		}
		if 2*k+2 < n {
			at[i].right = at[place[2*k+2]]
		}
		at[i].other = at[seed.Next()%uint64(n)]
		at[i].payload[0] = uint64(i)
	}
	return at[place[0]]
}

func main() {
	nodes := bench.Arg(1, 1<<23)
	collections := bench.Arg(2, 5)
	debug.SetGCPercent(-1)
	root := build(nodes)
	runtime.GC()
	ns := make([]int64, collections)
	t := bench.Begin()
	for i := range ns {
		one := time.Now()
		runtime.GC()
		ns[i] = time.Since(one).Nanoseconds()
	}
	t = t.End()
	ops := float64(nodes * collections)
	bench.Open("live_nodes").Num("ns_per_op", float64(t.Wall)/ops).Num("ops", ops).
		Num("cpu_s", t.CPU.Seconds()/float64(collections)).Latencies(ns).Close()
	runtime.KeepAlive(root)
}
