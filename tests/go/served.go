// The debug endpoint of Go, for tests/serve_viewers.sh: the same questions have the same answers. Prints where it listens.
package main

import (
	"fmt"
	"net"
	"net/http"
	_ "net/http/pprof"
	"runtime/pprof"
)

func main() {
	pprof.NewProfile("own")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(l.Addr())
	panic(http.Serve(l, nil))
}
