// The question of ../../cpu_profile.c to Go: the same computation, by turns while runtime/pprof takes a CPU profile. Its rate is fixed at 100 Hz.
package main

import (
	"io"
	"os"
	"runtime"
	"runtime/pprof"
	"slices"
	"syscall"
	"time"
	"unsafe"

	"weft/bench/internal/bench"
)

const turns = 40000000

var kept uint64

//go:noinline
func compute(deeper int) {
	if deeper > 0 {
		compute(deeper - 1)
		runtime.KeepAlive(deeper)
		return
	}
	x := kept | 1
	for i := 0; i < turns; i++ {
		x = x*6364136223846793005 + x>>29
	}
	kept = x
}

func clock(id uintptr) float64 {
	var ts syscall.Timespec
	syscall.Syscall(syscall.SYS_CLOCK_GETTIME, id, uintptr(unsafe.Pointer(&ts)), 0)
	return float64(ts.Nano())
}

const threadTime, processTime = 3, 2

func timed(profile bool, depth int) (thread, others float64) {
	if profile {
		if err := pprof.StartCPUProfile(io.Discard); err != nil {
			os.Exit(1)
		}
		time.Sleep(100 * time.Millisecond)
	}
	t, all := clock(threadTime), clock(processTime)
	compute(depth)
	thread = clock(threadTime) - t
	others = clock(processTime) - all - thread
	if profile {
		pprof.StopCPUProfile()
	}
	return
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

func main() {
	hz, rounds, depth := bench.Arg(1, 100), bench.Arg(2, 31), bench.Arg(3, 20)
	if hz != 100 || rounds < 1 {
		os.Exit(2)
	}
	runtime.LockOSThread()
	var off, on, slower, others []float64
	timed(true, depth)
	for i := 0; i < rounds; i++ {
		a, ao := timed(i%2 == 1, depth)
		b, bo := timed(i%2 == 0, depth)
		if i%2 == 1 {
			a, ao, b, bo = b, bo, a, ao
		}
		off, on, slower, others = append(off, a), append(on, b), append(slower, (b/a-1)*100), append(others, bo/b*100)
	}
	l := bench.Open("cpu_profile")
	l.Num("off_ms", median(off)/1e6)
	l.Num("on_ms", median(on)/1e6)
	l.Num("slower_percent", median(slower))
	l.Num("helpers_percent", median(others))
	l.Close()
}
