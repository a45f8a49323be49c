// The question of ../../binary_trees.c to Go.
package main

import "weft/bench/internal/bench"

type node struct{ left, right *node }

func build(d int) *node {
	n := &node{}
	if d > 0 {
		n.left = build(d - 1)
		n.right = build(d - 1)
	}
	return n
}

func check(n *node) int {
	if n.left == nil {
		return 1
	}
	return 1 + check(n.left) + check(n.right)
}

func main() {
	const least = 4
	depth := bench.Arg(1, 18)
	t := bench.Begin()
	nodes := check(build(depth + 1))
	stays := build(depth)
	for d := least; d <= depth; d += 2 {
		for i := 1 << (depth - d + least); i > 0; i-- {
			nodes += check(build(d))
		}
	}
	nodes += check(stays)
	bench.Report("binary_trees", nodes, t.End())
}
