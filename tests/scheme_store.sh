#!/bin/sh
# scheme_store - examples/scheme with stores that tell the collector (weft_store): what they fail to tell ends the program.
. tests/support/scheme.sh

use scheme-store
export WEFT_DEBUG=gcverify=1,slowstop=1000 # all is looked through while the world stands
language
ports
tables
errors
fibers
# Lists that change places: where each is now, only the last store says.
moves() {
    gives '(define n 100000) (define v (make-vector n 0)) (do ((i 0 (+ i 1))) ((= i n)) (vector-set! v i (list i)))
        (define seed 1) (define (random) (set! seed (modulo (+ (* seed 1103515245) 12345) 2147483648)) (modulo (quotient seed 8) n))
        (do ((k 0 (+ k 1))) ((= k 1000000))
            (let* ((i (random)) (j (random)) (x (vector-ref v i))) (vector-set! v i (vector-ref v j)) (vector-set! v j x) (make-vector 20 0)))
        (let loop ((i 0) (sum 0)) (if (= i n) sum (loop (+ i 1) (+ sum (car (vector-ref v i))))))' '4999950000'
}
moves
report store
for name in nqueens gcbench strings tables sieve; do program $name; done
report store_programs

not_under_tsan
export WEFT_DEBUG=gcstress=20,gcpoison=1,gcverify=1,slowstop=1000
tables
fibers
report stress_store
exit $bad
