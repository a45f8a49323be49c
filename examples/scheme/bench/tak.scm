; Takeuchi's function: nothing but calls and comparisons of small integers.
(define (tak x y z)
  (if (not (< y x))
      z
      (tak (tak (- x 1) y z) (tak (- y 1) z x) (tak (- z 1) x y))))

; The same with closures that call each other.
(define (ctak x y z)
  (define (go x y z k)
    (if (not (< y x))
        (k z)
        (go (- x 1) y z
            (lambda (a) (go (- y 1) z x
                            (lambda (b) (go (- z 1) x y
                                            (lambda (c) (go a b c k)))))))))
  (go x y z (lambda (r) r)))

(display (tak 22 16 8))
(newline)
(display (ctak 18 12 6))
(newline)
