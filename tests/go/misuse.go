// Writes traces and profiles of healthy and unhealthy Go programs, for weft-doctor:  misuse DIR
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"runtime/pprof"
	"runtime/trace"
	"strings"
	"sync"
	"syscall"
	"time"
)

var dir string

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func create(name string) *os.File {
	f, err := os.Create(filepath.Join(dir, name))
	must(err)
	return f
}

// While what runs, a trace goes to name.trace.
func traced(name string, what func()) {
	f := create(name + ".trace")
	must(trace.Start(f))
	what()
	trace.Stop()
	must(f.Close())
}

func profiled(name, profile string, what func()) {
	f := create(name + ".pb.gz")
	if profile == "cpu" {
		must(pprof.StartCPUProfile(f))
	}
	what()
	if profile == "cpu" {
		pprof.StopCPUProfile()
	} else {
		must(pprof.Lookup(profile).WriteTo(f, 0))
	}
	must(f.Close())
}

var sink [][]byte

// Work of an ordinary kind: some fibers hand over values, allocate, and lock for a moment.
func healthy() {
	var wg sync.WaitGroup
	var mu sync.Mutex
	c := make(chan int, 16)
	for i := 0; i < 8; i++ {
		wg.Add(2)
		go func() {
			defer wg.Done()
			for k := 0; k < 3000; k++ {
				c <- len(make([]byte, 200))
			}
		}()
		go func() {
			defer wg.Done()
			sum := 0
			for k := 0; k < 3000; k++ {
				sum += <-c
				for j := 0; j < 100; j++ {
					sum ^= j
				}
			}
			mu.Lock()
			sink = append(sink[:0], make([]byte, sum&1023))
			mu.Unlock()
		}()
	}
	wg.Wait()
	var m [1]metrics.Sample
	m[0].Name = "/memory/classes/heap/objects:bytes"
	for i := 0; i < 10; i++ {
		metrics.Read(m[:])
		time.Sleep(10 * time.Millisecond)
	}
}

func lockedAndGone() {
	for i := 0; i < 100; i++ {
		done := make(chan bool)
		go func() {
			runtime.LockOSThread()
			close(done)
		}()
		<-done
		time.Sleep(time.Millisecond)
	}
}

func collectAlways() {
	for i := 0; i < 200; i++ {
		sink = append(sink[:0], make([]byte, 1000))
		runtime.GC()
	}
}

func pollMemStats() {
	var m runtime.MemStats
	for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end); {
		runtime.ReadMemStats(&m)
	}
}

func spin(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
	}
}

var forever = make(chan int)

func waits() { <-forever }

// Whether so many fibers have the same stack, which they have when all of them wait there.
func areAtOnePlace(n int) bool {
	var text strings.Builder
	must(pprof.Lookup("goroutine").WriteTo(&text, 1))
	return strings.Contains(text.String(), fmt.Sprintf("\n%d @ ", n))
}

func leak(n int) {
	for i := 0; i < n; i++ {
		go waits()
	}
	for !areAtOnePlace(n) {
		time.Sleep(time.Millisecond)
	}
}

func used() time.Duration {
	var u syscall.Rusage
	must(syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// Many that wait for each other all the time, with every wait recorded.
func contended() {
	runtime.SetBlockProfileRate(1)
	runtime.SetMutexProfileFraction(1)
	var wg sync.WaitGroup
	var mu sync.Mutex
	n := 0
	procs := runtime.GOMAXPROCS(1) // on several, how much of the time goes into waking each other depends on the machine
	until := used() + time.Second // by the processor time of all: there are to be samples
	for i := 0; i < 16; i++ {
		wg.Add(1)
		go func() {
			defer wg.Done()
			c := make(chan int)
			go func() {
				for range c {
				}
			}()
			for k := 1; k%256 != 0 || used() < until; k++ {
				mu.Lock()
				n++
				mu.Unlock()
				c <- n
			}
			close(c)
		}()
	}
	wg.Wait()
	runtime.SetBlockProfileRate(0)
	runtime.GOMAXPROCS(procs)
	runtime.SetMutexProfileFraction(0)
}

// A lock that is held while its holder sleeps.
func convoy() {
	runtime.SetMutexProfileFraction(1)
	var wg sync.WaitGroup
	var mu sync.Mutex
	for i := 0; i < 16; i++ {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for k := 0; k < 40; k++ {
				mu.Lock()
				time.Sleep(2 * time.Millisecond)
				mu.Unlock()
			}
		}()
	}
	wg.Wait()
	runtime.SetMutexProfileFraction(0)
}

func main() {
	dir = os.Args[1]
	healthy()
	traced("healthy", healthy)
	profiled("healthy_cpu", "cpu", func() { healthy(); spin(300 * time.Millisecond) })
	profiled("before", "goroutine", func() {})
	profiled("heap", "heap", func() {})
	profiled("quiet", "mutex", func() {})
	traced("w03", lockedAndGone)
	traced("w04", collectAlways)
	traced("w06", pollMemStats)
	convoy()
	profiled("convoy", "mutex", func() {})
	profiled("w10_cpu", "cpu", contended)
	profiled("block", "block", func() {})
	leak(200)
	profiled("after", "goroutine", func() {})
}
