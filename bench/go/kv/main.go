// kv - the server of examples/kv in Go, for comparison: a goroutine per connection, 64 shards of a map and a mutex, a buffered
// reader and writer per connection, flushed when no more input is buffered. Arguments are read into memory that the connection
// reuses, and only what is stored is allocated.
//
// It knows the commands that the benches and the tour send; what is an error in the input ends the connection.
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"hash/maphash"
	"io"
	"log"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const shards = 64

type value struct {
	str     []byte
	list    *deque
	hash    map[string][]byte
	expires int64 // milliseconds since start; 0: never
}

type shard struct {
	mu   sync.Mutex
	keys map[string]*value
	_    [64]byte
}

var (
	db    [shards]shard
	seed  = maphash.MakeSeed()
	start = time.Now()

	commands atomic.Int64
)

// deque is a list in chunks, as in examples/kv.
type chunk struct {
	prev, next *chunk
	lo, hi     int
	items      [61][]byte
}

type deque struct {
	first, last *chunk
	n           int
}

func (d *deque) push(front bool, s []byte) {
	c := d.last
	if front {
		c = d.first
	}
	if c == nil || (front && c.lo == 0) || (!front && c.hi == len(c.items)) {
		c = &chunk{}
		switch {
		case d.first == nil:
			c.lo, c.hi = len(c.items)/2, len(c.items)/2
			d.first, d.last = c, c
		case front:
			c.lo, c.hi = len(c.items), len(c.items)
			c.next, d.first.prev, d.first = d.first, c, c
		default:
			c.prev, d.last.next, d.last = d.last, c, c
		}
	}
	if front {
		c.lo--
		c.items[c.lo] = s
	} else {
		c.items[c.hi] = s
		c.hi++
	}
	d.n++
}

func (d *deque) pop(front bool) []byte {
	var c *chunk
	var s []byte
	if front {
		c = d.first
		s, c.items[c.lo] = c.items[c.lo], nil
		c.lo++
	} else {
		c = d.last
		c.hi--
		s, c.items[c.hi] = c.items[c.hi], nil
	}
	d.n--
	if c.lo == c.hi {
		if c.prev != nil {
			c.prev.next = c.next
		} else {
			d.first = c.next
		}
		if c.next != nil {
			c.next.prev = c.prev
		} else {
			d.last = c.prev
		}
	}
	return s
}

type client struct {
	r    *bufio.Reader
	w    *bufio.Writer
	mem  []byte // of the arguments of one request
	ends []int
	args [][]byte
	num  []byte
	now  int64
}

var errProtocol = errors.New("protocol error")

func (c *client) line() ([]byte, error) {
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		return nil, err
	}
	line = line[:len(line)-1]
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	return line, nil
}

func atoi(b []byte) (int64, bool) {
	if len(b) == 0 || len(b) > 19 {
		return 0, false
	}
	i, neg := 0, b[0] == '-'
	if neg {
		i++
	}
	var v int64
	for ; i < len(b); i++ {
		if b[i] < '0' || b[i] > '9' {
			return 0, false
		}
		v = v*10 + int64(b[i]-'0')
	}
	if neg {
		v = -v
	}
	return v, true
}

// request reads the next one into c.args.
func (c *client) request() error {
	c.mem, c.ends, c.args = c.mem[:0], c.ends[:0], c.args[:0]
	line, err := c.line()
	if err != nil {
		return err
	}
	if len(line) == 0 || line[0] != '*' {
		for _, word := range strings.Fields(string(line)) {
			c.args = append(c.args, []byte(word))
		}
		return nil
	}
	n, ok := atoi(line[1:])
	if !ok || n > 1024*1024 {
		return errProtocol
	}
	for ; n > 0; n-- {
		if line, err = c.line(); err != nil {
			return err
		}
		if len(line) == 0 || line[0] != '$' {
			return errProtocol
		}
		size, ok := atoi(line[1:])
		if !ok || size < 0 || size > 64<<20 {
			return errProtocol
		}
		at := len(c.mem)
		if need := at + int(size) + 2; need <= cap(c.mem) {
			c.mem = c.mem[:need]
		} else {
			c.mem = append(c.mem, make([]byte, size+2)...)
		}
		if _, err = io.ReadFull(c.r, c.mem[at:]); err != nil {
			return err
		}
		c.mem = c.mem[:at+int(size)]
		c.ends = append(c.ends, len(c.mem))
	}
	from := 0
	for _, end := range c.ends {
		c.args = append(c.args, c.mem[from:end])
		from = end
	}
	return nil
}

func (c *client) simple(s string) {
	c.w.WriteByte('+')
	c.w.WriteString(s)
	c.w.WriteString("\r\n")
}

func (c *client) fail(s string) {
	c.w.WriteByte('-')
	c.w.WriteString(s)
	c.w.WriteString("\r\n")
}

func (c *client) number(kind byte, v int64) {
	c.num = strconv.AppendInt(append(c.num[:0], kind), v, 10)
	c.num = append(c.num, '\r', '\n')
	c.w.Write(c.num)
}

func (c *client) bulk(b []byte) {
	c.number('$', int64(len(b)))
	c.w.Write(b)
	c.w.WriteString("\r\n")
}

func (c *client) null() { c.w.WriteString("$-1\r\n") }

func shardOf(key []byte) *shard { return &db[maphash.Bytes(seed, key)%shards] }

// find returns the value of key; the shard is locked.
func (c *client) find(s *shard, key []byte) *value {
	v := s.keys[string(key)]
	if v != nil && v.expires != 0 && v.expires <= c.now {
		delete(s.keys, string(key))
		return nil
	}
	return v
}

func (c *client) make(s *shard, key []byte) *value {
	v := c.find(s, key)
	if v == nil {
		v = &value{}
		s.keys[string(key)] = v
	}
	return v
}

func (c *client) store(key, b []byte, expires int64) {
	s := shardOf(key)
	s.mu.Lock()
	v := c.make(s, key)
	v.str, v.list, v.hash, v.expires = append([]byte(nil), b...), nil, nil, expires
	if v.str == nil {
		v.str = []byte{}
	}
	s.mu.Unlock()
}

func (c *client) get(key []byte) {
	s := shardOf(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if v := c.find(s, key); v != nil && v.str != nil {
		c.bulk(v.str)
	} else {
		c.null()
	}
}

const wrongType = "WRONGTYPE Operation against a key holding the wrong kind of value"

type command struct {
	min int
	run func(c *client, a [][]byte)
}

func push(front bool) func(c *client, a [][]byte) {
	return func(c *client, a [][]byte) {
		s := shardOf(a[1])
		s.mu.Lock()
		defer s.mu.Unlock()
		v := c.make(s, a[1])
		if v.str != nil || v.hash != nil {
			c.fail(wrongType)
			return
		}
		if v.list == nil {
			v.list = &deque{}
		}
		for _, e := range a[2:] {
			v.list.push(front, append([]byte(nil), e...))
		}
		c.number(':', int64(v.list.n))
	}
}

func pop(front bool) func(c *client, a [][]byte) {
	return func(c *client, a [][]byte) {
		s := shardOf(a[1])
		s.mu.Lock()
		defer s.mu.Unlock()
		v := c.find(s, a[1])
		switch {
		case v == nil:
			c.null()
		case v.list == nil:
			c.fail(wrongType)
		default:
			c.bulk(v.list.pop(front))
			if v.list.n == 0 {
				delete(s.keys, string(a[1]))
			}
		}
	}
}

func add(c *client, key []byte, delta int64) {
	s := shardOf(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	v := c.make(s, key)
	if v.list != nil || v.hash != nil {
		c.fail(wrongType)
		return
	}
	var n int64
	if v.str != nil {
		var ok bool
		if n, ok = atoi(v.str); !ok {
			c.fail("ERR value is not an integer or out of range")
			return
		}
	}
	n += delta
	v.str = strconv.AppendInt(nil, n, 10)
	c.number(':', n)
}

var table = map[string]command{
	"ping": {1, func(c *client, a [][]byte) {
		if len(a) > 1 {
			c.bulk(a[1])
		} else {
			c.simple("PONG")
		}
	}},
	"echo": {2, func(c *client, a [][]byte) { c.bulk(a[1]) }},
	"get":  {2, func(c *client, a [][]byte) { c.get(a[1]) }},
	"set": {3, func(c *client, a [][]byte) {
		var expires int64
		for i := 3; i+1 < len(a); i += 2 {
			n, ok := atoi(a[i+1])
			unit := int64(1)
			switch strings.ToLower(string(a[i])) {
			case "ex":
				unit = 1000
			case "px":
			default:
				ok = false
			}
			if !ok {
				c.fail("ERR syntax error")
				return
			}
			expires = c.now + n*unit
		}
		c.store(a[1], a[2], expires)
		c.simple("OK")
	}},
	"mset": {3, func(c *client, a [][]byte) {
		for i := 1; i+1 < len(a); i += 2 {
			c.store(a[i], a[i+1], 0)
		}
		c.simple("OK")
	}},
	"mget": {2, func(c *client, a [][]byte) {
		c.number('*', int64(len(a)-1))
		for _, key := range a[1:] {
			c.get(key)
		}
	}},
	"incr": {2, func(c *client, a [][]byte) { add(c, a[1], 1) }},
	"decr": {2, func(c *client, a [][]byte) { add(c, a[1], -1) }},
	"del": {2, func(c *client, a [][]byte) {
		n := int64(0)
		for _, key := range a[1:] {
			s := shardOf(key)
			s.mu.Lock()
			if c.find(s, key) != nil {
				delete(s.keys, string(key))
				n++
			}
			s.mu.Unlock()
		}
		c.number(':', n)
	}},
	"lpush": {3, push(true)},
	"rpush": {3, push(false)},
	"lpop":  {2, pop(true)},
	"rpop":  {2, pop(false)},
	"lrange": {4, func(c *client, a [][]byte) {
		from, _ := atoi(a[2])
		to, _ := atoi(a[3])
		s := shardOf(a[1])
		s.mu.Lock()
		defer s.mu.Unlock()
		v := c.find(s, a[1])
		if v == nil || v.list == nil {
			c.number('*', 0)
			return
		}
		n := int64(v.list.n)
		if from < 0 {
			from = max(from+n, 0)
		}
		if to < 0 {
			to += n
		}
		to = min(to, n-1)
		c.number('*', max(to-from+1, 0))
		k := v.list.first
		skip := from
		for ; k != nil && skip >= int64(k.hi-k.lo); k = k.next {
			skip -= int64(k.hi - k.lo)
		}
		if k == nil {
			return
		}
		at := k.lo + int(skip)
		for left := to - from + 1; left > 0 && k != nil; left-- {
			if at == k.hi {
				k = k.next
				at = k.lo
			}
			c.bulk(k.items[at])
			at++
		}
	}},
	"hset": {4, func(c *client, a [][]byte) {
		s := shardOf(a[1])
		s.mu.Lock()
		defer s.mu.Unlock()
		v := c.make(s, a[1])
		if v.str != nil || v.list != nil {
			c.fail(wrongType)
			return
		}
		if v.hash == nil {
			v.hash = map[string][]byte{}
		}
		before := len(v.hash)
		for i := 2; i+1 < len(a); i += 2 {
			v.hash[string(a[i])] = append([]byte(nil), a[i+1]...)
		}
		c.number(':', int64(len(v.hash)-before))
	}},
	"hget": {3, func(c *client, a [][]byte) {
		s := shardOf(a[1])
		s.mu.Lock()
		defer s.mu.Unlock()
		v := c.find(s, a[1])
		if v == nil || v.hash == nil {
			c.null()
			return
		}
		if b, ok := v.hash[string(a[2])]; ok {
			c.bulk(b)
		} else {
			c.null()
		}
	}},
	"dbsize": {1, func(c *client, a [][]byte) {
		n := 0
		for i := range db {
			db[i].mu.Lock()
			n += len(db[i].keys)
			db[i].mu.Unlock()
		}
		c.number(':', int64(n))
	}},
	"flushall": {1, func(c *client, a [][]byte) {
		for i := range db {
			db[i].mu.Lock()
			db[i].keys = map[string]*value{}
			db[i].mu.Unlock()
		}
		c.simple("OK")
	}},
	"config": {3, func(c *client, a [][]byte) { // what redis-benchmark asks before it starts
		c.number('*', 2)
		c.bulk(a[2])
		c.bulk(nil)
	}},
	"command": {1, func(c *client, a [][]byte) { c.number('*', 0) }},
	"client":  {1, func(c *client, a [][]byte) { c.simple("OK") }},
	"info":    {1, func(c *client, a [][]byte) { c.bulk([]byte(fmt.Sprintf("commands:%d\r\n", commands.Load()))) }},
}

func (c *client) run() {
	var name [16]byte
	n := copy(name[:], c.args[0])
	for i := 0; i < n; i++ {
		if 'A' <= name[i] && name[i] <= 'Z' {
			name[i] += 'a' - 'A'
		}
	}
	cmd, ok := table[string(name[:n])]
	switch {
	case !ok:
		c.fail("ERR unknown command '" + string(c.args[0]) + "'")
	case len(c.args) < cmd.min:
		c.fail("ERR wrong number of arguments for '" + string(name[:n]) + "' command")
	default:
		cmd.run(c, c.args)
	}
}

func serve(conn net.Conn) {
	defer conn.Close()
	c := &client{r: bufio.NewReaderSize(conn, 16*1024), w: bufio.NewWriterSize(conn, 16*1024)}
	fresh := true
	n := int64(0)
	for {
		if err := c.request(); err != nil {
			return
		}
		if fresh { // one look at the clock per batch
			c.now = time.Since(start).Milliseconds() + 1
			fresh = false
		}
		if len(c.args) > 0 {
			c.run()
			n++
		}
		if c.r.Buffered() == 0 {
			if c.w.Flush() != nil {
				return
			}
			commands.Add(n)
			n = 0
			fresh = true
		}
	}
}

func main() {
	addr := flag.String("addr", "127.0.0.1:6379", "address to listen on")
	flag.Parse()
	for i := range db {
		db[i].keys = map[string]*value{}
	}
	l, err := net.Listen("tcp", *addr)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("kv: ready on %s\n", l.Addr())
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-stop
		os.Exit(0)
	}()
	for {
		conn, err := l.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go serve(conn)
	}
}
