; String ports, characters, symbols: writes data as text and reads it again, counts words.
(define (numbers n)
  (call-with-output-string
    (lambda (port)
      (do ((i 0 (+ i 1))) ((= i n))
        (write i port)
        (write-char #\space port)))))

(define (sum text)
  (let ((port (open-input-string text)))
    (let loop ((total 0))
      (let ((x (read port)))
        (if (eof-object? x) total (loop (+ total x)))))))

(define text (numbers 100000))
(display (list (string-length text) (sum text)))
(newline)

(define (words text)
  (let ((counts (make-hash-table)) (port (open-input-string text)))
    (let loop ((word '()))
      (let ((c (read-char port)))
        (if (and (char? c) (char-alphabetic? c))
            (loop (cons (char-downcase c) word))
            (begin
              (when (pair? word)
                (hash-table-update! counts (list->string (reverse word)) (lambda (n) (+ n 1)) 0))
              (unless (eof-object? c) (loop '()))))))
    (sort (hash-table->alist counts) (lambda (a b) (string<? (car a) (car b))))))

(define poem "The warp and the weft: the weft goes over, the weft goes under; and so the cloth is made.\n")
(define (times n s) (if (= n 0) "" (string-append s (times (- n 1) s))))
(write (words (times 500 poem)))
(newline)

(define data '(symbol "a \"string\"\n" #\space #(1 2.5 (nested . pair)) #t ()))
(define copy (read (open-input-string (call-with-output-string (lambda (p) (write data p))))))
(write (list (equal? data copy) copy))
(newline)
