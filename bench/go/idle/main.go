// The question of ../../idle.c to Go.
package main

import (
	"bufio"
	"fmt"
	"os"
	"time"

	"weft/bench/internal/bench"
)

func threads() (n int) {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return 0
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		fmt.Sscanf(s.Text(), "Threads: %d", &n)
	}
	return n
}

func main() {
	seconds := bench.Arg(1, 10)
	t := bench.Begin()
	time.Sleep(time.Duration(seconds) * time.Second)
	t = t.End()
	bench.Open("idle").Num("wall_s", t.Wall.Seconds()).Num("cpu_s", t.CPU.Seconds()).
		Num("cpu_percent", 100*t.CPU.Seconds()/t.Wall.Seconds()).Num("threads", float64(threads())).Close()
}
