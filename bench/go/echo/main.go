// The question of ../../echo.c to Go: a goroutine per connection, net.Conn.
package main

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"weft/bench/internal/bench"
)

const bytes = 64

func serve(c net.Conn) {
	buf := make([]byte, bytes)
	for {
		n, err := c.Read(buf)
		if n > 0 {
			if _, err := c.Write(buf[:n]); err != nil {
				break
			}
		}
		if err != nil {
			break
		}
	}
	c.Close()
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	connections, requests := bench.Arg(1, 1000), bench.Arg(2, 300)
	took := make([]int64, connections*requests)
	var next atomic.Int64
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	go func() {
		for range connections {
			c, err := listener.Accept()
			must(err)
			go serve(c)
		}
	}()
	conns := make([]net.Conn, connections)
	for i := range conns {
		conns[i], err = net.Dial("tcp", listener.Addr().String())
		must(err)
	}
	var wg sync.WaitGroup
	t := bench.Begin()
	for _, c := range conns {
		wg.Add(1)
		go func() {
			buf := make([]byte, bytes)
			for range requests {
				since := time.Now()
				_, err := c.Write(buf)
				must(err)
				_, err = io.ReadFull(c, buf)
				must(err)
				took[next.Add(1)-1] = int64(time.Since(since))
			}
			c.Close()
			wg.Done()
		}()
	}
	wg.Wait()
	t = t.End()
	n := float64(connections * requests)
	bench.Open("echo").Num("ns_per_op", float64(t.Wall)/n).Num("rps", n*1e9/float64(t.Wall)).
		Num("cpu_s", t.CPU.Seconds()).Latencies(took).Close()
}
