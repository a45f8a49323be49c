; Hash tables by contents and by identity, that grow, shrink and are walked.
(define n 100000)
(define by-number (make-eq-hash-table))
(define by-text (make-hash-table))
(do ((i 0 (+ i 1))) ((= i n))
  (hash-table-set! by-number i (* i i))
  (hash-table-set! by-text (number->string i) i))
(do ((i 0 (+ i 2))) ((>= i n))
  (hash-table-delete! by-number i))

(define (sum-odd)
  (let loop ((i 0) (sum 0))
    (if (= i n) sum (loop (+ i 1) (+ sum (hash-table-ref by-number i 0))))))
(display (list (hash-table-count by-number) (hash-table-count by-text) (sum-odd)))
(newline)

(define (sum-text)
  (let ((sum 0))
    (do ((i 0 (+ i 1))) ((= i n) sum)
      (set! sum (+ sum (hash-table-ref by-text (number->string i)))))))
(display (list (sum-text) (reduce + 0 (hash-table-values by-text))))
(newline)

; Fibonacci's numbers, remembered by a list as the key.
(define memo (make-hash-table))
(define (fib n)
  (if (< n 2)
      n
      (let ((known (hash-table-ref memo (list 'fib n) #f)))
        (or known
            (let ((r (+ (fib (- n 1)) (fib (- n 2)))))
              (hash-table-set! memo (list 'fib n) r)
              r)))))
(display (list (fib 80) (hash-table-count memo)))
(newline)
