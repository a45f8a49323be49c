// The question of ../../free_os.c to Go: debug.FreeOSMemory.
package main

import (
	"runtime/debug"
	"time"

	"weft/bench/internal/bench"
)

//go:noinline
func fill(mib, size int) {
	all := make([][]byte, (mib<<20)/size)
	for i := range all {
		all[i] = make([]byte, size)
		for k := range all[i] {
			all[i][k] = 1
		}
	}
	clear(all)
}

func main() {
	mib := bench.Arg(1, 1024)
	size := bench.Arg(2, 1024)
	rounds := bench.Arg(3, 5)
	debug.SetGCPercent(-1)
	debug.FreeOSMemory()
	before := bench.RSSKiB()
	ns := make([]int64, rounds)
	var cpu time.Duration
	for i := -1; i < rounds; i++ {
		fill(mib, size)
		t := bench.Begin()
		debug.FreeOSMemory()
		t = t.End()
		if i >= 0 {
			ns[i] = t.Wall.Nanoseconds()
			cpu += t.CPU
		}
	}
	left := bench.RSSKiB() - before
	bench.Open("free_os").Num("ops", float64(rounds)).Num("cpu_s", cpu.Seconds()/float64(rounds)).Num("left_kib", float64(left)).
		Latencies(ns).Close()
}
