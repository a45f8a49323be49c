; Symbolic derivation: allocates lists, dispatches on symbols.
(define (deriv a)
  (cond ((not (pair? a)) (if (eq? a 'x) 1 0))
        ((eq? (car a) '+) (cons '+ (map deriv (cdr a))))
        ((eq? (car a) '-) (cons '- (map deriv (cdr a))))
        ((eq? (car a) '*) (list '* a (cons '+ (map (lambda (f) (list '/ (deriv f) f)) (cdr a)))))
        ((eq? (car a) '/)
         (list '-
               (list '/ (deriv (cadr a)) (caddr a))
               (list '/ (cadr a) (list '* (caddr a) (caddr a) (deriv (caddr a))))))
        (else (error "deriv: no rule for" (car a)))))

(define expression '(+ (* 3 x x) (* a x x) (* b x) 5 (/ x 2)))
(do ((i 1 (+ i 1)))
    ((= i 50000) (write (deriv expression)) (newline))
  (deriv expression))
