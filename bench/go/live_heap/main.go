// The question of ../../live_heap.c to Go, over the same graph from the same random numbers. A node is one of eight types, one for each size; all
// begin alike, and are used as the smallest one. Stops: /sched/pauses/total/gc.
package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"weft/bench/internal/bench"
)

const (
	chain    = 3
	steps    = 4
	dropped  = 3
	turn     = 16
	mutators = 2
	mean     = 122
)

type node struct {
	links uint64
	next  *node
	first [2]*node
}

type sized[A any] struct {
	links uint64
	next  *node
	link  A
}

func alloc[A any]() *node { return (*node)(unsafe.Pointer(new(sized[A]))) }

func (n *node) at(i uint64) **node { return (**node)(unsafe.Add(unsafe.Pointer(&n.first), i*8)) }

var (
	hub  []*node
	hot  uint64
	over atomic.Bool
	done [mutators]struct {
		ops, sum uint64
		pad      [6]uint64
	}
	late []int64
)

func makeNode(random uint64) (n *node) {
	switch random & 7 {
	case 0:
		n = alloc[[2]*node]()
		n.links = 2
	case 1:
		n = alloc[[4]*node]()
		n.links = 4
	case 2:
		n = alloc[[6]*node]()
		n.links = 6
	case 3:
		n = alloc[[10]*node]()
		n.links = 10
	case 4:
		n = alloc[[14]*node]()
		n.links = 14
	case 5:
		n = alloc[[18]*node]()
		n.links = 18
	case 6:
		n = alloc[[22]*node]()
		n.links = 22
	default:
		n = alloc[[30]*node]()
		n.links = 30
	}
	return
}

func push(h, as *node, random uint64) {
	c := makeNode(random)
	for i, j := uint64(0), uint64(0); i < c.links; i++ {
		*c.at(i) = *as.at(j)
		if j++; j == as.links {
			j = 0
		}
	}
	c.next = h.next
	h.next = c
}

func build(n uint64) {
	seed := bench.Random(88172645463325252)
	hub = make([]*node, n)
	for i := range hub {
		hub[i] = makeNode(seed.Next() >> 32)
	}
	for _, h := range hub {
		for j := uint64(0); j < h.links; j++ {
			*h.at(j) = hub[seed.Next()%n]
		}
	}
	stride := n/8*5 | 1
	for ; ; stride += 2 {
		a, b := n, stride
		for b != 0 {
			a, b = b, a%b
		}
		if a == 1 {
			break
		}
	}
	for range chain {
		at := uint64(0)
		for range n {
			r := seed.Next()
			push(hub[at], hub[r%n], r>>32)
			at = (at + stride) % n
		}
	}
}

func operation(who uint64, seed *bench.Random, op uint64) uint64 {
	r, s, n := seed.Next(), seed.Next(), uint64(len(hub))
	window, at := n/64, r%n
	if (r>>40)%100 < hot {
		at = ((op>>16)*(window/2) + r%window) % n
	}
	h := hub[at&^1|who]
	to := h
	for k := 0; k < steps; k++ {
		to = *to.at((s >> (5 * k) & 31) % to.links)
	}
	if to.links > 30 {
		os.Exit(1)
	}
	var gone *node
	for k := range dropped {
		d := makeNode(s >> (50 + 3*k))
		*d.at(0) = to
		d.next = gone
		gone = d
	}
	push(h, to, s>>61)
	last := h
	for range chain {
		last = last.next
	}
	last.next = nil
	*h.at((s >> 40 & 255) % h.links) = hub[seed.Next()%n]
	return (*gone.next.at(0)).links
}

func mutate(who uint64) {
	seed := bench.Random(1234567 + who)
	var op, sum uint64
	for !over.Load() {
		for range turn {
			sum += operation(who, &seed, op)
			op++
		}
		runtime.Gosched()
	}
	done[who].ops, done[who].sum = op, sum
}

func tick() {
	due := time.Now()
	for !over.Load() && len(late) < cap(late) {
		due = due.Add(time.Millisecond)
		time.Sleep(time.Until(due))
		late = append(late, time.Since(due).Nanoseconds())
	}
}

func collect() {
	for !over.Load() {
		time.Sleep(250 * time.Millisecond)
		runtime.GC()
	}
}

func main() {
	mb, seconds, idle := bench.Arg(1, 500), bench.Arg(2, 60), bench.Word(3) == "idle"
	if !idle {
		hot = uint64(bench.Arg(3, 90))
	}
	percent := debug.SetGCPercent(-1)
	build(uint64(mb) * 1000000 / (mean*(chain+1) + 8) &^ 1)
	late = make([]int64, seconds*1000+5000)
	for i := range late {
		late[i] = 1 // resident now, not while it runs
	}
	late = late[:0]
	debug.SetGCPercent(percent)
	runtime.GC()
	before := bench.LookAtStops()
	var wg sync.WaitGroup
	t := bench.Begin()
	wg.Go(tick)
	if idle {
		wg.Go(collect)
	} else {
		for i := range uint64(mutators) {
			wg.Go(func() { mutate(i) })
		}
	}
	time.Sleep(time.Duration(seconds) * time.Second)
	over.Store(true)
	wg.Wait()
	t = t.End()
	stops := bench.LookAtStops().Since(before)
	var ops uint64
	for _, d := range done {
		ops += d.ops
	}
	l := bench.Open("live_heap")
	if ops > 0 {
		l.Num("ns_per_op", float64(t.Wall)/float64(ops)).Num("ops_per_s", float64(ops)/t.Wall.Seconds()).
			Num("cpu_ns_per_op", float64(t.CPU)/float64(ops))
	}
	slices.Sort(late)
	n := len(late)
	l.Num("stops", float64(stops.Count())).Num("stop_p50_ns", stops.NS(.5)).Num("stop_p99_ns", stops.NS(.99)).Num("stop_max_ns", stops.NS(1)).
		Num("late_p50_ns", float64(late[(n-1)/2])).Num("late_p99_ns", float64(late[(n-1)*99/100])).
		Num("late_p999_ns", float64(late[(n-1)*999/1000])).Num("late_max_ns", float64(late[n-1])).
		Num("cycles", float64(stops.Cycles)).Num("wall_s", t.Wall.Seconds()).Num("cpu_s", t.CPU.Seconds()).Close()
	runtime.KeepAlive(hub)
}
