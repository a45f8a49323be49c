# For the test scripts of examples/scheme, which include it: what the language gives, how its errors look, how it ends, and the benchmark programs, each
# tried by a function with the interpreter $S. The script says what went wrong by report, and ends with: exit $bad
B=${B:?output directory}
S=$B/examples/scheme/scheme
TMP=$(mktemp -d) || exit 1
trap 'rm -rf "$TMP"' EXIT
bad=0 wrong=
unset WEFT_DEBUG # what is to be collected how often is said below

report() { # name: what is in $wrong is the verdict
    if [ -z "$wrong" ]; then echo "ok $1"; else printf '%s\n' "not ok $1:$wrong"; bad=1; fi
    wrong=
}
check() { # exit code, output (lines joined by a blank), arguments; under AddressSanitizer, with a collection for every twenty objects, it takes half a minute
    code=$1 want=$2; shift 2
    got=$(timeout 120 "$S" "$@" 2>&1 < /dev/null)
    gotcode=$?
    got=$(printf '%s' "$got" | tr '\n' ' ')
    [ "$gotcode" = "$code" ] && [ "$got" = "$want" ] && return
    wrong="$wrong
  [$*]
    wanted $code: $want
    got    $gotcode: $(printf '%s' "$got" | cut -c1-600)"
}
gives() { check 0 "$2" -e "$1"; }
fails() { check 1 "$2" -e "$1"; }
file() { # name; the text from stdin
    cat > "$TMP/$1"
}

# ---- the language -----------------------------------------------------------------------------------------------------------------
language() {
    gives '(list 1 -2 #xff 1.5 1e3 .5 -0.25 (/ 1 2) (/ 6 3) (* 1.0 3) 1e21)' '(1 -2 255 1.5 1000.0 0.5 -0.25 0.5 2 3.0 1e+21)'
    gives '(list (+) (*) (+ 1 2 3) (- 5) (- 10 1 2) (quotient -7 2) (remainder -7 2) (modulo -7 2) (modulo 7 -2))' '(0 1 6 -5 7 -3 -1 1 -1)'
    gives '(list (< 1 2 3) (< 1 3 2) (= 1 1.0) (max 1 2.0) (min 3 1 2) (abs -5) (expt 2 10) (sqrt 16) (exact (floor 2.7)) (even? 4) (odd? 4))' \
        '(#t #f #t 2.0 1 5 1024 4 2 #t #f)'
    gives '(list (* 4611686018427387903 2) (+ 4611686018427387903 1) 4611686018427387903 -4611686018427387903)' \
        '(9.223372036854776e+18 4.611686018427388e+18 4611686018427387903 -4611686018427387903)'
    gives '(list (number->string 255 16) (string->number "ff" 16) (string->number "x") (number->string 1.5))' '("ff" 255 #f "1.5")'
    gives "(list 'sym '(1 . 2) '(1 2 . 3) #\\a #\\space #\\x41 \"a\\\"b\\n\" '#(1 (2) \"x\") '() #t #f)" \
        '(sym (1 . 2) (1 2 . 3) #\a #\space #\A "a\"b\n" #(1 (2) "x") () #t #f)'
    gives "(list \`(1 ,(+ 1 1) ,@(list 3 4)) \`#(a ,(* 2 3)) \`(1 \`(2 ,(3 ,(+ 1 3)))) '(quote a))" \
        '((1 2 3 4) #(a 6) (1 (quasiquote (2 (unquote (3 4))))) (quote a))'
    gives "(let* ((x 1) (y (+ x 1))) (let loop ((i 0) (l '())) (if (= i y) (list x y l) (loop (+ i 1) (cons i l)))))" '(1 2 (1 0))'
    gives '(letrec ((even? (lambda (n) (or (= n 0) (odd? (- n 1))))) (odd? (lambda (n) (and (> n 0) (even? (- n 1)))))) (even? 1001))' '#f'
    gives '(let () (define (f) (g)) (define (g) (h 1)) (define x 5) (define (h n) (+ n x)) (set! x 6) (f))' '7'
    gives '(let () (define a 1) (define (f) (set! a (+ a 1)) a) (f) (f) (list a (f)))' '(3 4)'
    gives '(define (counter) (let ((n 0)) (lambda () (set! n (+ n 1)) n)))' ''
    gives '(define (f a #;(not this) b . rest) #| nor #| this |# |# (list a b rest)) (f 1 2 3 4)' '(1 2 (3 4))'
    gives '(map (lambda (f) (f)) (do ((i 0 (+ i 1)) (l (list) (cons (lambda () i) l))) ((= i 3) l)))' '(2 1 0)'
    gives "(map (lambda (x) (case x ((1 2) 'few) ((#\\a) 'char) ((sym) 'symbol) (else 'other))) (list 1 2 #\\a 'sym 9))" '(few few char symbol other)'
    gives "(list (cond ((assv 2 '((1 . a) (2 . b))) => cdr) (else 'no)) (cond (#f 1)) (cond (5)) (when #f 1) (unless #f 1 2))" '(b #<void> 5 #<void> 2)'
    gives '(list (and) (or) (and 1 2) (or #f 3) (not 1) (if #f #f))' '(#t #f 2 3 #f #<void>)'
    gives '(list (apply + 1 2 (list 3 4)) (apply max (iota 100)) (map + (list 1 2) (list 10 20)) (append (list 1) (list 2 3) 4))' '(10 99 (11 22) (1 2 3 . 4))'
    gives '(list (string-append "ab" "c") (substring "hello" 1 3) (string->list "abc") (list->string (list #\x #\y)) (string<? "a" "b"))' \
        '("abc" "el" (#\a #\b #\c) "xy" #t)'
    gives '(let ((s (make-string 3 #\-))) (string-set! s 1 #\+) (list s (string-ref s 1) (string-length s) (string=? s "-+-")))' '("-+-" #\+ 3 #t)'
    gives '(let ((v (make-vector 3 0))) (vector-set! v 1 (quote x)) 
        (list v (vector-ref v 1) (vector-length v) (vector-map (lambda (x) (list x)) v)))' \
        '(#(0 x 0) x 3 #((0) (x) (0)))'
    gives '(list (equal? (list 1 (vector 2 "x")) (list 1 (vector 2 "x"))) (eq? (list) (list)) (eqv? 1.5 1.5) (eq? "a" "a") (memv 2 (list 1 2 3)))' \
        '(#t #t #t #f (2 3))'
    gives '(define-record-type point (make-point x y) point? (x px set-px!) (y py)) (define p (make-point 1 2))
        (set-px! p 5) (list (px p) (py p) (point? p) (point? 1) p)' \
        '(5 2 #t #f #<point 5 2>)'
    gives '(list (call/cc (lambda (k) (+ 1 (k 42)))) (+ 1 (call/cc (lambda (k) 
        (for-each (lambda (x) (if (> x 2) (k x))) (list 1 2 3 4)) 0))))' '(42 4)'
    gives "(list (guard (e (#t (list 'caught e))) (raise 'x)) (guard (e ((string? e) e)) (guard (e ((number? e) e)) (raise \"s\"))))" '((caught x) "s")'
    gives '(guard (e ((error-object? e) (list (error-object-message e) (error-object-irritants e)))) (error "bad thing:" 1 "two"))' '("bad thing:" (1 "two"))'
    gives '(guard (e (#t (error-object-message e))) (car 5))' '"car: not a pair:"'
    gives '(call/cc (lambda (k) (guard (e (#t 1)) (guard (e (#t 2)) (k 3)))))' '3'
    gives "(sort '(3 1 2 5 4) <)" '(1 2 3 4 5)'
    gives "(list (eval '(+ 1 2)) (eval (list 'let (list (list 'x 5)) '(* x x))))" '(3 25)'
    gives '(define (car x) (list x)) (car 5)' '(5)'
    # In tail position nothing grows, also through and, or, cond, case, when, do, apply; a million deep is no trouble.
    gives '(define (f n) (cond ((= n 0) 0) (else (and #t (or #f (let ((m (- n 1))) 
        (case 1 ((1) (when #t (apply f (list m))))))))))) (f 1000000)' '0'
    gives '(define (deep n) (if (= n 0) 0 (+ 1 (deep (- n 1))))) (deep 1000000)' '1000000'
    gives '(length (let loop ((n 300000)) (if (= n 0) (list) (cons n (call/cc (lambda (k) (loop (- n 1))))))))' '300000'
    gives '(define (f n k) (if (= n 0) (k 7) (+ 1 (f (- n 1) k)))) (+ 1 (call/cc (lambda (k) (f 100000 k))))' '8'
    check 0 '3' -e '(define x 1)' -e '(+ x 2)'
}

check_file() { # exit code, output, name
    check "$1" "$2" "$TMP/$3"
}
ports() {
    gives '(let ((p (open-input-string "a (b c) \"d\" 5"))) 
        (let loop ((l (list))) (let ((x (read p))) (if (eof-object? x) (reverse l) (loop (cons x l))))))' \
        '(a (b c) "d" 5)'
    gives '(let ((p (open-input-string "one\ntwo"))) 
        (let* ((a (read-line p)) (b (peek-char p)) (c (read-char p)) (d (read-line p)) (e (read-line p))) (list a b c d (eof-object? e))))' \
        '("one" #\t #\t "wo" #t)'
    gives "(call-with-output-string (lambda (p) (write '(a \"b\" #\\c) p) (display '(a \"b\" #\\c) p)))" '"(a \"b\" #\\c)(a b c)"'
    gives "(call-with-output-file \"$TMP/out\" (lambda (p) (do ((i 0 (+ i 1))) ((= i 20000)) (write i p) (newline p))))" ''
    gives "(call-with-input-file \"$TMP/out\" 
        (lambda (p) (let loop ((n 0) (sum 0)) (let ((x (read p))) (if (eof-object? x) (list n sum) (loop (+ n 1) (+ sum x)))))))" \
        '(20000 199990000)'
    fails '(let ((p (open-input-string "x"))) (close-port p) (read-char p))' '-e:1: the port is closed: #<port string>'
    fails "(open-input-file \"$TMP/none\")" "-e:1: cannot open, No such file or directory: \"$TMP/none\""
    [ "$(echo '(display (+ 1 2)) (newline) (display (read-line)) this is read' | "$S" | tr '\n' ' ')" = '3  this is read' ] || wrong="$wrong [stdin]"
    # Ports that are dropped are closed by their finalizers, and write what they have: 2000 of them with 64 descriptors. A collection for every 50 or so
    # takes most of the time where collections are checked, which the doctor would rightly say.
    dropped=$(ulimit -n 64; WEFT_DEBUG=${WEFT_DEBUG:+$WEFT_DEBUG,}w04=off "$S" -e "(do ((i 0 (+ i 1))) ((= i 2000) 'opened) (write i (open-output-file \"$TMP/dropped\")))" 2>&1)
    [ "$dropped" = opened ] || wrong="$wrong [finalizers: $dropped]"
}

tables() {
    gives "(let ((t (make-hash-table))) (hash-table-set! t \"k\" 1) (hash-table-set! t '(1 #(2)) 2) (hash-table-set! t 1.5 3)
        (list (hash-table-ref t \"k\") (hash-table-ref t '(1 #(2))) (hash-table-ref t 1.5) (hash-table-ref t 'no 'none) (hash-table-count t)))" \
        '(1 2 3 none 3)'
    gives "(let ((t (make-eq-hash-table)) (k \"k\")) (hash-table-set! t k 1) (hash-table-delete! t \"k\") 
        (list (hash-table-contains? t k) (hash-table-contains? t \"k\")))" '(#t #f)'
    # A weak table forgets keys that died, keeps those that live, and small integers.
    gives "(define t (make-weak-hash-table)) (define kept (map list (iota 1000))) 
        (define (fill n) (if (> n 0) (begin (hash-table-set! t (list n) n) (fill (- n 1)))))
        (for-each (lambda (k) (hash-table-set! t k 'kept)) kept) (hash-table-set! t 5 5) (fill 10000) (gc)
        (list (< 1000 (hash-table-count t) 1200)
            (hash-table-ref t 5) (length (filter (lambda (k) (eq? (hash-table-ref t k 'gone) 'kept)) kept)))" '(#t 5 1000)'
}

# ---- errors -------------------------------------------------------------------------------------------------------------------------
errors() {
    fails '(car 5)' '-e:1: car: not a pair: 5'
    fails '(vector-ref (vector 1 2) 2)' '-e:1: vector-ref: no such index: 2'
    fails '(string-ref "" 0)' '-e:1: string-ref: no such index: 0'
    fails '(+ 1 "x")' '-e:1: +: not a number: "x"'
    fails '(< 1 (quote x))' '-e:1: <: not a number: x'
    fails '(quotient 1 0)' '-e:1: quotient: division by zero: 1'
    fails 'nosuch' '-e:1: undefined variable: nosuch'
    fails '(nosuch 1)' '-e:1: undefined variable: nosuch'
    fails '(set! nosuch 1)' '-e:1: undefined variable: nosuch'
    fails '(5 5)' '-e:1: not a procedure: 5'
    fails '((lambda (a b) a) 1)' '-e:1: procedure: expects 2 arguments, got 1'
    fails '(define (f a . b) a) (f)' '-e:1: f: expects at least 1 argument, got 0'
    fails '(car)' '-e:1: car: expects 1 argument, got 0'
    fails '(error "my error:" 1 "x")' '-e:1: my error: 1 "x"'
    fails "(raise 'x)" 'raised: x'
    fails '(letrec ((a (b)) (b (lambda () a))) a)' '-e:1: used before its definition: b'
    fails '(hash-table-ref (make-hash-table) 1)' '-e:1: hash-table-ref: no such key: 1'
    fails '(define k (call/cc (lambda (k) k))) (k 1)' "-e:1: the call/cc that gave this continuation has returned, or is another fiber's"
    fails '(define (f x) (car x)) (define (car x) x)' '-e:1: cannot be changed, code that uses the builtin was compiled: car'
    fails '(' '-e:1: a list that begins here has no end'
    fails ')' '-e:1: a ) too many'
    fails '"abc' '-e:1: a string that begins here has no end'
    fails '(if)' '-e:1: bad syntax: (if)'
    fails '(let ((x)) x)' '-e:1: bad syntax: (x)'
    fails '(lambda (1) 1)' '-e:1: bad parameters: (1)'
    fails '(if #t (define x 1))' '-e:1: a definition where an expression is expected: (define x 1)'
    fails '(else 1)' '-e:1: does not stand by itself: (else 1)'
    fails '(define-record-type p (mp x) p? (x px)) (px 5)' '-e:1: not a record of this type: p: 5'
    fails '(let loop ((n 0)) (+ 1 (loop (+ n 1))))' '-e:1: recursion too deep'
    fails '(guard (e ((string? e) e)) (let loop ((n 0)) (+ 1 (loop n))))' '-e:1: recursion too deep'
    gives '(guard (e (#t (error-object-message e))) (let loop ((n 0)) (+ 1 (loop n))))' '"recursion too deep"'
    gives '(define (nest n x) (if (= n 0) x (nest (- n 1) (list x)))) 
        (guard (e (#t (error-object-message e))) (equal? (nest 1000000 1) (nest 1000000 1)))' \
        '"equal?: nested too deeply"'
    gives '(define (nest n x) (if (= n 0) x (nest (- n 1) (list x)))) 
        (guard (e (#t (error-object-message e))) (call-with-output-string (lambda (p) (write (nest 1000000 1) p))))' \
        '"nested too deeply"'
    check 1 'out of memory' -m 32 -e '(let loop ((l (list))) (loop (cons 1 l)))'
    check 0 '"out of memory" 5000' -m 32 -e '(guard (e (#t (error-object-message e))) (let loop ((l (list))) (loop (cons 1 l))))' -e '(length (iota 5000))'
    check 3 '' -e '(exit 3)'
    file lines.scm <<'SCM'
(define (f x)
  (display "before")
  (newline)
  (+ 1
     (car
       x)))
(display "start")
(newline)
(f 5)
SCM
    check_file 1 "start before $TMP/lines.scm:5: car: not a pair: 5" lines.scm
    file syntax.scm <<'SCM'
(display 1)

(let ((a 1)
      (b))
  a)
SCM
    check_file 1 "1$TMP/syntax.scm:4: bad syntax: (b)" syntax.scm
    file open.scm <<'SCM'
(define a 1)
(define (b)
  (list a
SCM
    check_file 1 "$TMP/open.scm:3: a list that begins here has no end" open.scm
    check 1 "cannot open, No such file or directory: \"$TMP/none.scm\"" "$TMP/none.scm"
    [ "$("$S" a b 2>&1 | cut -c1-6 | head -n 1)" = usage: ] || wrong="$wrong [usage]"
    "$S" -x > "$TMP/usage" 2>&1
    [ $? = 2 ] || wrong="$wrong [exit code of a bad option]"
}

fibers() {
    gives '(define c (make-channel)) (define end (spawn (lambda () (channel-send c 1) (channel-send c 2) (channel-close c))))
        (let* ((a (channel-receive c)) (b (channel-receive c))) (list a b (channel-receive c)))' \
        '(1 2 #<eof>)'
    # A fiber's error is reported and ends the fiber; the program ends with 1.
    check 1 '-e:1: car: not a pair: 5 (#t 7)' -e '(let ((failed (spawn (lambda () (car 5)))) (well (spawn (lambda () 7))))
        (list (eof-object? (channel-receive failed)) (channel-receive well)))'
    gives '(channel-receive (spawn list))' '()'
    fails '(define c (make-channel)) (channel-close c) (channel-send c 1)' '-e:1: channel-send: the channel is closed: #<channel>'
    got=$("$S" -e '(channel-receive (make-channel))' 2>&1)
    [ $? = 1 ] || wrong="$wrong [deadlock: exit code]"
    case $got in *deadlock*) ;; *) wrong="$wrong [deadlock: $got]" ;; esac
    # What fibers share is safe to use: one table, one port, new symbols.
    gives '(define t (make-hash-table)) (define out (open-output-string)) (define done (make-channel))
        (define (work id) (do ((i 0 (+ i 1))) ((= i 2000) (channel-send done id))
            (hash-table-set! t (list id i) i) (display "12345678\n" out) (string->symbol (number->string i))))
        (for-each (lambda (id) (spawn (lambda () (work id)))) (iota 8)) (for-each (lambda (id) (channel-receive done)) (iota 8))
        (list (hash-table-count t) (string-length (get-output-string out)) (eq? (string->symbol "77") (string->symbol "77")))' '(16000 144000 #t)'
}

# ---- the benchmark programs -----------------------------------------------------------------------------------------------------------
cat > "$TMP/want" <<'WANT'
tak 9 7
deriv (+ (* (* 3 x x) (+ (/ 0 3) (/ 1 x) (/ 1 x))) (* (* a x x) (+ (/ 0 a) (/ 1 x) (/ 1 x))) (* (* b x) (+ (/ 0 b) (/ 1 x))) 0 (- (/ 1 2) (/ x (* 2 2 0))))
nqueens (1 1 0 0 2 10 4 40 92 352) (3 8 6 1 10 5 11 9 7 4 2 0)
gcbench 524287 (4 16384 31 31) (6 4096 127 127) (8 1024 511 511) (10 256 2047 2047) (12 64 8191 8191) (14 16 32767 32767) (16 4 131071 131071) 2996001 (262143 0.001)
strings (588890 4999950000) (("and" . 1000) ("cloth" . 500) ("goes" . 1000) ("is" . 500) ("made" . 500) ("over" . 500) ("so" . 500) ("the" . 2500) ("under" . 500) ("warp" . 500) ("weft" . 1500)) (#t (symbol "a \"string\"\n" #\space #(1 2.5 (nested . pair)) #t ()))
tables (50000 100000 166666666650000) (4999950000 4999950000) (23416728348467685 79)
sieve (29 541 1987) (20000 9990000)
WANT
program() { # name
    check 0 "$(sed -n "s/^$1 //p" "$TMP/want")" examples/scheme/bench/"$1".scm
}

use() { # scheme-boehm or scheme-store, which is made if need be
    wrong=$(MAKEFLAGS= ${MAKE:-make} --no-print-directory B="$B" "$B/examples/scheme/$1" 2>&1 | grep -E 'warning|error')
    S=$B/examples/scheme/$1
}
not_under_tsan() { # where a thousand collections take minutes
    [ "$SAN" != thread ] || exit $bad
}
