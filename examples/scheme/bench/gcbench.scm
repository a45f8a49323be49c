; Garbage: trees of all depths are built and dropped while a long-lived tree and an array stay, after Ellis, Kovac and Boehm's GCBench; then short-lived
; closures and lists. A node is a vector of two children and two numbers.
(define (make-node left right) (vector left right 0 0))
(define (node-left node) (vector-ref node 0))
(define (node-right node) (vector-ref node 1))

(define (bottom-up depth)
  (if (= depth 0)
      (make-node #f #f)
      (make-node (bottom-up (- depth 1)) (bottom-up (- depth 1)))))

(define (top-down! depth node)
  (when (> depth 0)
    (vector-set! node 0 (make-node #f #f))
    (vector-set! node 1 (make-node #f #f))
    (top-down! (- depth 1) (node-left node))
    (top-down! (- depth 1) (node-right node))))

(define (count node)
  (if (node-left node)
      (+ 1 (count (node-left node)) (count (node-right node)))
      1))

(define stretch-depth 18)
(define long-lived-depth 17)
(define max-depth 16)

(define (build depth)
  (let ((n (quotient (expt 2 (+ stretch-depth 1)) (expt 2 (+ depth 1)))))
    (display
      (list depth n
            (do ((i 1 (+ i 1)) (root (make-node #f #f) (make-node #f #f)))
                ((= i n) (top-down! depth root) (count root))
              (top-down! depth root))
            (do ((i 1 (+ i 1)) (root (bottom-up depth) (bottom-up depth)))
                ((= i n) (count root)))))
    (newline)))

(display (count (bottom-up stretch-depth)))
(newline)
(define long-lived (make-node #f #f))
(top-down! long-lived-depth long-lived)
(define array (make-vector 500000 0.0))
(do ((i 1 (+ i 1))) ((= i 250000)) (vector-set! array i (/ 1.0 i)))

(do ((depth 4 (+ depth 2))) ((> depth max-depth)) (build depth))

(define (churn n)
  (let loop ((i 0) (keep '()) (sum 0))
    (cond ((= i n) sum)
          ((= (modulo i 1000) 0) (loop (+ i 1) '() (+ sum (length keep))))
          (else (loop (+ i 1) (cons (lambda () i) keep) sum)))))
(display (churn 3000000))
(newline)

(display (list (count long-lived) (vector-ref array 1000)))
(newline)
