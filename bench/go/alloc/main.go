// The question of ../../alloc.c to Go: new of a struct whose first word is a pointer (the rest is plain, so Go
// looks at one word where a conservative collector looks at all), or of plain words.
package main

import (
	"sync"
	"unsafe"

	"weft/bench/internal/bench"
)

const maxThreads = 64

type slot struct {
	last unsafe.Pointer
	_    [120]byte
}

var kept [maxThreads]slot

type scanned[T any] struct {
	first unsafe.Pointer
	_     T
}

func allocate[T any](thread, n int) {
	for i := 0; i < n; i++ {
		p := new(T)
		*(*uintptr)(unsafe.Pointer(p)) = 0
		kept[thread].last = unsafe.Pointer(p)
	}
}

func pick(size int, noscan bool) func(thread, n int) {
	if noscan {
		switch size {
		case 16:
			return allocate[[2]uint64]
		case 32:
			return allocate[[4]uint64]
		case 64:
			return allocate[[8]uint64]
		case 128:
			return allocate[[16]uint64]
		case 256:
			return allocate[[32]uint64]
		case 512:
			return allocate[[64]uint64]
		}
	}
	switch size {
	case 16:
		return allocate[scanned[[1]uint64]]
	case 32:
		return allocate[scanned[[3]uint64]]
	case 64:
		return allocate[scanned[[7]uint64]]
	case 128:
		return allocate[scanned[[15]uint64]]
	case 256:
		return allocate[scanned[[31]uint64]]
	case 512:
		return allocate[scanned[[63]uint64]]
	}
	panic("size")
}

func main() {
	threads := bench.Arg(2, 1)
	objects := bench.Arg(4, 10000000)
	f := pick(bench.Arg(1, 16), bench.Word(3) == "noscan")
	runAll := func(n int) {
		var wg sync.WaitGroup
		for i := 0; i < threads; i++ {
			wg.Add(1)
			go func() {
				f(i, n)
				wg.Done()
			}()
		}
		wg.Wait()
	}
	runAll(objects / 10)
	t := bench.Begin()
	runAll(objects)
	bench.Report("alloc", objects, t.End())
}
