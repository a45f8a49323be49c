// The question of ../../foreign.c to Go: a thread of C (thread.c) calls exported Go functions.
package main

// void run_thread(long calls, double *attach_ns, double *alloc_ns, double *chan_ns, double *cpu_s);
import "C"

import (
	"unsafe"

	"weft/bench/internal/bench"
)

var (
	kept unsafe.Pointer
	c    = make(chan int64, 1)
)

type object struct {
	first unsafe.Pointer
	_     uint64
}

//export goAlloc
func goAlloc() { kept = unsafe.Pointer(new(object)) }

//export goChan
func goChan(v int64) int64 {
	select {
	case c <- v:
	default:
		return -1
	}
	select {
	case v = <-c:
	default:
		return -1
	}
	return v
}

func main() {
	calls := bench.Arg(1, 1000000)
	var attach, alloc, ch, cpu C.double
	C.run_thread(C.long(calls), &attach, &alloc, &ch, &cpu)
	bench.Open("foreign").Num("ns_per_op", float64(alloc)).Num("ops", float64(calls)).Num("chan_ns", float64(ch)).
		Num("attach_ns", float64(attach)).Num("cpu_s", float64(cpu)).Close()
}
