; All placements of n queens: lists as sets, and the first one found by escaping from the search.
(define (ok? row distance placed)
  (or (null? placed)
      (and (not (= (car placed) (+ row distance)))
           (not (= (car placed) (- row distance)))
           (ok? row (+ distance 1) (cdr placed)))))

(define (queens n found)
  (let try ((rows (iota n)) (tried '()) (placed '()))
    (cond ((pair? rows)
           (when (ok? (car rows) 1 placed)
             (try (append tried (cdr rows)) '() (cons (car rows) placed)))
           (try (cdr rows) (cons (car rows) tried) placed))
          ((null? tried) (found placed)))))

(define (count n)
  (let ((sum 0))
    (queens n (lambda (placed) (set! sum (+ sum 1))))
    sum))

(display (map count (iota 10)))
(newline)
(display (call/cc (lambda (return) (queens 12 return) 'none)))
(newline)
