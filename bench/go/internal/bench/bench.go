// Package bench is bench.h for the Go twins: clocks of wall and process, memory, arguments, one JSON line. Garbage collection and processors are set
// by the environment (GOMAXPROCS comes from run.sh).
package bench

import (
	"fmt"
	"math"
	"os"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Span is wall time and CPU time of the whole process.
type Span struct{ Wall, CPU time.Duration }

var start = time.Now()

func Begin() Span {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return Span{time.Since(start), time.Duration(u.Utime.Nano() + u.Stime.Nano())}
}

func (s Span) End() Span {
	n := Begin()
	return Span{n.Wall - s.Wall, n.CPU - s.CPU}
}

// Arg is the i-th argument, or otherwise.
func Arg(i, otherwise int) int {
	if i < len(os.Args) {
		n, err := strconv.Atoi(os.Args[i])
		if err != nil {
			panic(err)
		}
		return n
	}
	return otherwise
}

func Word(i int) string {
	if i < len(os.Args) {
		return os.Args[i]
	}
	return ""
}

// Random is bench_random of bench.h: the same sequence.
type Random uint64

func (r *Random) Next() uint64 {
	x := uint64(*r)
	x ^= x >> 12
	x ^= x << 25
	x ^= x >> 27
	*r = Random(x)
	return x * 2685821657736338717
}

func RSSKiB() int64 {
	b, _ := os.ReadFile("/proc/self/statm")
	f := strings.Fields(string(b))
	n, _ := strconv.ParseInt(f[1], 10, 64)
	return n * int64(os.Getpagesize()) / 1024
}

// Stops are those of the world by the collector, between two looks.
type Stops struct {
	hist   *metrics.Float64Histogram
	Cycles uint64
}

func LookAtStops() Stops {
	m := []metrics.Sample{{Name: "/sched/pauses/total/gc:seconds"}, {Name: "/gc/cycles/total:gc-cycles"}}
	metrics.Read(m)
	return Stops{m[0].Value.Float64Histogram(), m[1].Value.Uint64()}
}

// Since are those from the first look on.
func (s Stops) Since(first Stops) Stops {
	for i, n := range first.hist.Counts {
		s.hist.Counts[i] -= n
	}
	return Stops{s.hist, s.Cycles - first.Cycles}
}

func (s Stops) Count() (n uint64) {
	for _, c := range s.hist.Counts {
		n += c
	}
	return
}

// NS is how long part of them were at the most: the upper end of a bucket.
func (s Stops) NS(part float64) float64 {
	var n uint64
	all := float64(s.Count())
	for i, c := range s.hist.Counts {
		if n += c; n > 0 && float64(n) >= part*all {
			return math.Round(s.hist.Buckets[i+1] * 1e9)
		}
	}
	return 0
}

// Line is the JSON line.
type Line struct{ b strings.Builder }

func Open(name string) *Line {
	l := &Line{}
	fmt.Fprintf(&l.b, `{"bench":%q,"impl":"go"`, name)
	return l
}

func (l *Line) Num(name string, v float64) *Line {
	if v == float64(int64(v)) {
		fmt.Fprintf(&l.b, `,%q:%d`, name, int64(v))
	} else {
		fmt.Fprintf(&l.b, `,%q:%.6g`, name, v)
	}
	return l
}

// Latencies sorts ns.
func (l *Line) Latencies(ns []int64) *Line {
	slices.Sort(ns)
	n := len(ns)
	l.Num("p50_ns", float64(ns[(n-1)/2])).Num("p95_ns", float64(ns[(n-1)*95/100]))
	return l.Num("p99_ns", float64(ns[(n-1)*99/100])).Num("max_ns", float64(ns[n-1]))
}

func (l *Line) Close() {
	var u syscall.Rusage
	l.Num("rss_kib", float64(RSSKiB()))
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	l.Num("peak_kib", float64(u.Maxrss))
	fmt.Println(l.b.String() + "}")
}

func Report(name string, ops int, s Span) {
	Open(name).Num("ns_per_op", float64(s.Wall)/float64(ops)).Num("ops", float64(ops)).
		Num("wall_s", s.Wall.Seconds()).Num("cpu_s", s.CPU.Seconds()).Close()
}
