// The question of ../../specials.c to Go: runtime.SetFinalizer, runtime.AddCleanup, weak.Pointer.
package main

import (
	"os"
	"runtime"
	"sync/atomic"
	"time"
	"weak"

	"weft/bench/internal/bench"
)

type object struct {
	next *object
	pad  [3]uintptr
}

var ran atomic.Int64

func calls(what string, objects int) {
	all := make([]*object, objects)
	t := bench.Begin()
	for i := range all {
		p := &object{}
		all[i] = p
		if what == "finalizer" {
			runtime.SetFinalizer(p, func(*object) { ran.Add(1) })
		} else {
			runtime.AddCleanup(p, func(int) { ran.Add(1) }, 0)
		}
	}
	t = t.End()
	clear(all)
	r := bench.Begin()
	for ran.Load() < int64(objects-10) {
		runtime.GC()
		for i := 0; i < 1000 && ran.Load() < int64(objects-10); i++ {
			time.Sleep(100 * time.Microsecond)
		}
	}
	r = r.End()
	bench.Open("specials").Num("ns_per_op", float64(t.Wall)/float64(objects)).
		Num("run_ns", float64(r.Wall)/float64(objects)).Close()
}

func weaks(objects int) {
	all, w := make([]*object, objects), make([]weak.Pointer[object], objects)
	for i := range all {
		all[i] = &object{}
	}
	alive := 0
	mk := bench.Begin()
	for i := range all {
		w[i] = weak.Make(all[i])
	}
	mk = mk.End()
	again := bench.Begin()
	for i := range all {
		if weak.Make(all[i]) == w[i] {
			alive++
		}
	}
	again = again.End()
	get := bench.Begin()
	for i := range all {
		if w[i].Value() == all[i] {
			alive++
		}
	}
	get = get.End()
	if alive != 2*objects {
		panic("weak pointers")
	}
	bench.Open("specials").Num("ns_per_op", float64(mk.Wall)/float64(objects)).
		Num("again_ns", float64(again.Wall)/float64(objects)).
		Num("get_ns", float64(get.Wall)/float64(objects)).Close()
	runtime.KeepAlive(all)
}

func main() {
	what, objects := "finalizer", bench.Arg(2, 1000000)
	if len(os.Args) > 1 {
		what = os.Args[1]
	}
	if what == "weak" {
		weaks(objects)
	} else {
		calls(what, objects)
	}
}
