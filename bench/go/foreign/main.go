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

//export goSend
func goSend(v int64) C.int {
	select {
	case c <- v:
		return 1
	default:
		return 0
	}
}

//export goRecv
func goRecv() int64 {
	select {
	case v := <-c:
		return v
	default:
		return -1
	}
}

func main() {
	calls := bench.Arg(1, 1000000)
	var attach, alloc, ch, cpu C.double
	C.run_thread(C.long(calls), &attach, &alloc, &ch, &cpu)
	bench.Open("foreign").Num("ns_per_op", float64(alloc)).Num("ops", float64(calls)).Num("chan_ns", float64(ch)).
		Num("attach_ns", float64(attach)).Num("cpu_s", float64(cpu)).Close()
}
