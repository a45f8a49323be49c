/* [CONC]: marking beside the program without a write barrier.
 *
 * The collector learns of the program's stores from the pages that were written to. This model asks whether something that the program can still
 * reach may be unmarked when the sweep begins. All interleavings are tried of a collector that does what it may in any order, and a program that
 * makes STEPS steps in one cycle, each a load, a store, an allocation, a park or a resume of any of its parts.
 *
 * Who stands for what
 *   thread     a thread in user code, or a fiber that runs from the first stop to the second one: t0, t1 are its registers and stack
 *   fiber      a fiber that parks and is resumed; f0 is its stack, while it runs its registers
 *   data       all that is no page of the heap, no thread and no stack: data segments, thread-local storage, handles, ranges of weft_root_add,
 *              tasks, timers, deferred calls, arguments of finalizers
 *   A, B, C    objects, each with one word in it and on a page of its own. C is a free slot until the thread takes it into its processor's cache
 *              (gc/alloc.c takes a run), and till then on a page that is not mapped and was never armed; with GAP it may be armed before, as part
 *              of a gap between two that are mapped, and which pages are armed is decided a while before they are
 *   kernel     with KERNEL: a thread between weft_blocking_begin and _end, which no stop stops, and whose system call writes to the heap. It holds
 *              A; what it held when it left (its stack was published then) is all that it may use: it writes bytes to A, and pointers to A
 *   collector  the fiber of the runtime that marks, those who assist, and idle processors: an object is scanned in one step here, a mark bit is set
 *              by an atomic or, so any number of markers is as good as one that takes grey objects in any order
 *
 * A store faults if its page is armed, and again each time it is tried, so it happens after the page was noted and before it is armed anew. But a
 * page is armed in two moments: its bit in the page table is exchanged, and only when the call returns has each processor forgotten what it had
 * cached of the table. In between (stale) a store may go unnoticed; the call has not returned, so whoever reads the page afterwards sees it.
 * Processors that hold stores back change nothing: the interrupt that makes them forget drains these. A store in two halves stands for memcpy and
 * the like, that moves a pointer by bytes: meanwhile the place holds nothing, and the source still does.
 *
 * The collector begins after the first stop (short: caches are flushed, what is allocated from now on is born marked, each stack is due). Then it
 * does, in any order and as often as it likes: arm; scan data; scan the stack of the parked fiber ([PIN] in sched/fiber.h); scan a grey object;
 * preclean, that is take the written pages, arm them again, and rescan the marked objects there. At some moment comes the second stop: threads,
 * data, the stacks that are due, the last written pages; and it drains. Due is a stack that was not scanned in this cycle, or that was since
 * resumed, or written to by others. With QUIET it takes the last written pages only if a fault of a thread has been counted, or C's page was mapped,
 * since the last preclean began.
 *
 * Left out, as they only add what is there already: more objects on a page (more is rescanned), more words in an object (read at more moments, each
 * after the mark bit was set), stacks of more words (a pinned one only changes by what others write to it, which makes it due), more processors. A
 * weak pointer that is read is a load by somebody who is scanned in the stop. That the stops are stops is for stw.pml to show.
 *
 * What it taught, beyond what was thought:
 *   - The first arming is a preclean like the others. An object may be born marked before its page is armed; it is never grey, and what was stored
 *     in it till then would be seen by nobody (ARM_FORGETS). With that, arming may come at any time, even after scanning.
 *   - Others write to the stack of a parked fiber, by plain stores: a child to the place for its result, a sender to the receiver's variable. So it
 *     does not do to scan those that ran (STACKS_UNWATCHED).
 *   - That no fault was counted does not say that nothing was written (KERNEL,QUIET): the kernel ends an arming for a system call, and before that
 *     is counted the program stores to the same page without a fault.
 *   - That objects are born marked is not for what is reached, which would be found; it is for slots that lie in a cache when the sweep begins.
 *
 * right  STEPS=5
 * right  STEPS=4,KERNEL
 * right  STEPS=5,GAP
 * wrong  STEPS=5,FORGET_RAN        a fiber that was resumed since its scan is left out of the stop
 * wrong  STEPS=3,STACKS_UNWATCHED  a parked fiber whose stack others have written to is left out of the stop
 * wrong  STEPS=3,FLAG_LATE         that a stack is due is forgotten after its scan, and not before
 * wrong  STEPS=3,THREADS_FORGOTTEN the stop does not scan the registers and stack of a thread
 * wrong  STEPS=2,NO_DATA_ROOTS     the stop does not scan data again
 * wrong  STEPS=3,NO_LAST_PAGES     the stop does not take the last written pages
 * wrong  STEPS=3,ARM_LATE          pages are armed after the first scanning, and what was written till then is not asked for
 * wrong  STEPS=5,ARM_FORGETS       the same before the first scanning: forgets objects that are born already
 * wrong  STEPS=5,FRESH_CLEAN       pages that were never armed count as not written
 * wrong  STEPS=3,TAKE_AFTER_RESCAN marked objects on written pages are rescanned first, then the pages are taken
 * wrong  STEPS=3,ARM_AFTER_RESCAN  written pages are taken, rescanned, and only then armed
 * wrong  STEPS=5,GAP,MAP_EARLY     what was free when the range was decided is not rescanned, though an object was born there before it was armed
 * wrong  STEPS=4,KERNEL,QUIET      the stop does not look at pages as no page fault has been counted: one of a system call is, when it is too late
 * wrong  STEPS=3,RESCAN_EARLY      they are rescanned before the call that arms them has returned
 * wrong  STEPS=2,BORN_WHITE        new objects are born unmarked
 * wrong  STEPS=2,CACHES_KEPT       the first stop leaves the caches what they have
 * wrong  STEPS=3,KERNEL,LOADS      a thread that is not stopped uses a pointer that it read from the heap */
#ifndef STEPS
#define STEPS 5
#endif

#define A 1
#define B 2
#define C 3
#define BIT(o) (1 << (o))

#define FREE 0
#define CACHED 1
#define USED 2

byte steps = STEPS;
byte field[4];           /* of an object its one word; 0: no pointer */
byte t0, t1;
byte f0;
byte data;
byte fresh = FREE;       /* what C is */
byte half;               /* between the halves of a store: 1 into t0's object, 2 into t1's */

bool running;            /* the fiber runs; else it is parked */
bool pinned;
bool due = true;         /* its stack is to be scanned in the stop */

bool stopped, over;
byte marked, grey;       /* sets of objects, and below of their pages */
byte armed;              /* the first write is noted */
byte written;            /* and was, since they were armed */
byte stale;              /* being armed: some processor may still write unnoticed */
byte report;             /* taken and not rescanned yet */

#define MAPPED (BIT(A) | BIT(B) | (fresh == FREE -> 0 : BIT(C)))
#ifdef GAP
byte range, map;         /* pages to be armed; those that were mapped when that was decided */
#endif
#ifdef QUIET
bool faulted, made;      /* since the last take began: a thread has written to an armed page; C's page was mapped */
bool counted;
#define NOTE(what) what = true
#define FORGET d_step { faulted = false; made = false }
#define LOOKS (faulted || made)
#else
#define NOTE(what) skip
#define FORGET skip
#define LOOKS true
#endif
#ifdef FRESH_CLEAN
#define WRITTEN written
#else
#define WRITTEN (written | (MAPPED & ~armed))
#endif

/* ---- the program ------------------------------------------------------------------------------------------- */

#define MAY !stopped && steps > 0
#define GO MAY && half == 0

inline store(o, v)
{
    field[o] = v;
    if
    :: stale & BIT(o) -> skip
    :: armed & BIT(o) & written -> skip
    :: armed & BIT(o) & ~written -> written = written | BIT(o); NOTE(faulted)
    :: !(armed & BIT(o)) -> skip
    fi
}

inline born(to) { fresh = USED; store(C, 0); to = C }

#ifdef BORN_WHITE
#define BORN 0
#else
#define BORN BIT(C)
#endif

proctype thread()
{
end:
    do
    :: atomic { !stopped && half == 1 -> store(t0, t1); half = 0 }
    :: atomic { !stopped && half == 2 -> store(t1, t0); half = 0 }
    :: atomic { GO && t0 != 0 -> steps--; store(t0, 0); if :: half = 0 :: t1 != 0 -> half = 1 fi }
    :: atomic { GO && t1 != 0 -> steps--; store(t1, 0); if :: half = 0 :: t0 != 0 -> half = 2 fi }
    :: atomic { GO && t0 != 0 -> steps--; if :: t0 = field[t0] :: t1 = field[t0] :: data = t0 :: t0 = 0 fi }
    :: atomic { GO && t1 != 0 -> steps--; if :: t0 = field[t1] :: t1 = field[t1] :: data = t1 :: t1 = 0 fi }
    :: atomic { GO -> steps--; if :: t0 = data :: t1 = data fi }
    :: atomic { GO && fresh == FREE -> steps--; fresh = CACHED; NOTE(made); marked = marked | BORN }
    :: atomic { GO && fresh == CACHED -> steps--; if :: born(t0) :: born(t1) fi }
    :: atomic { GO && !running && t0 != 0 -> steps--; f0 = t0;
#ifndef STACKS_UNWATCHED
        due = true
#endif
        }
    :: over -> break
    od
}

proctype fiber()
{
end:
    do
    :: atomic { MAY && !running && !pinned -> steps--; running = true;
#ifndef FORGET_RAN
        due = true
#endif
        }
    :: atomic { MAY && running -> steps--; running = false }
    :: atomic { MAY && running -> steps--; if :: f0 = data :: f0 = 0 fi }
    :: atomic { MAY && running && f0 != 0 -> steps--; if :: f0 = field[f0] :: data = f0 :: store(f0, 0) :: data != 0 -> store(data, f0) fi }
    :: over -> break
    od
}

#ifdef KERNEL
#define HELD BIT(A)
proctype kernel()
{
    byte v;
end:
    do
#ifdef QUIET
    :: atomic { !over -> counted = faulted; if :: store(A, 0) :: store(A, A) fi; faulted = counted } /* its fault may be counted too late */
#else
    :: atomic { !over -> if :: store(A, 0) :: store(A, A) fi }
#endif
#ifdef LOADS
    :: atomic { !over && field[A] != 0 -> v = field[A] }
    :: atomic { !over && v != 0 -> store(A, v); v = 0 }
#endif
    :: over -> break
    od
}
#else
#define HELD 0
#endif

/* ---- the collector ------------------------------------------------------------------------------------------- */

inline mark(v)
{
    if
    :: v != 0 && !(marked & BIT(v)) -> marked = marked | BIT(v); grey = grey | BIT(v)
    :: else
    fi
}

inline scan_one()
{
    if
    :: grey & BIT(A) -> grey = grey & ~BIT(A); mark(field[A])
    :: grey & BIT(B) -> grey = grey & ~BIT(B); mark(field[B])
    :: grey & BIT(C) -> grey = grey & ~BIT(C); mark(field[C])
    fi
}

inline drain()
{
    do
    :: atomic { grey != 0 -> scan_one() }
    :: grey == 0 -> break
    od
}

inline arm_begin() { stale = WRITTEN; armed = MAPPED; written = 0 }
inline rescan() { d_step { grey = grey | (marked & report); report = 0 } }

inline take()
{
    FORGET;
#if defined(TAKE_AFTER_RESCAN)
    report = WRITTEN;
    rescan();
    drain();
    skip;
    d_step { arm_begin() }
    stale = 0
#elif defined(ARM_AFTER_RESCAN)
    d_step { report = WRITTEN; written = 0; armed = armed & ~report }
    rescan();
    drain();
    skip;
    d_step { stale = MAPPED & ~armed; armed = MAPPED }
    stale = 0
#elif defined(RESCAN_EARLY)
    d_step { report = WRITTEN; arm_begin() }
    rescan();
    drain();
    stale = 0
#elif defined(GAP)
    d_step { map = MAPPED; range = MAPPED }
    if
    :: skip
    :: range = BIT(A) | BIT(B) | BIT(C)
    fi;
    d_step {
        report = range & (written | ~armed);
        stale = report;
        armed = armed | range;
        written = written & ~range;
#ifdef MAP_EARLY
        report = report & map
#endif
    }
    stale = 0;
    rescan()
#else
    d_step { report = WRITTEN; arm_begin() }
    stale = 0;
    rescan()
#endif
}

inline arm()
{
#if defined(ARM_FORGETS) || defined(ARM_LATE)
    d_step { arm_begin() }
    stale = 0
#else
    take()
#endif
}

#define SET(p) ((p) == 0 -> 0 : BIT(p))
#define NEXT(o) ((v & BIT(o)) && field[o] != 0 -> BIT(field[o]) : 0)

proctype collector()
{
    byte v;
#ifndef ARM_LATE
    arm();
#endif
    /* beside the program */
    do
    :: atomic { mark(data) }
#ifdef FLAG_LATE
    :: atomic { !running && !pinned -> pinned = true; mark(f0) }
       pinned = false;
       due = false
#else
    :: atomic { !running && !pinned -> pinned = true; due = false }
       atomic { mark(f0); pinned = false }
#endif
    :: atomic { grey != 0 -> scan_one() }
#ifdef ARM_LATE
    :: armed == 0 && grey == 0 -> arm()
    :: armed != 0 -> take()
#else
    :: take()
#endif
    :: stopped = true; break
    od;
    skip;
    /* the second stop */
    d_step {
#ifndef THREADS_FORGOTTEN
        mark(t0);
        mark(t1);
#endif
#ifndef NO_DATA_ROOTS
        mark(data);
#endif
#ifdef KERNEL
        mark(A);
#endif
        if
        :: running || due -> mark(f0)
        :: else
        fi;
#ifndef NO_LAST_PAGES
        report = (LOOKS -> WRITTEN : 0);
        grey = grey | (marked & report)
#endif
    }
    drain();
    skip;
    d_step {
        v = SET(t0) | SET(t1) | SET(f0) | SET(data) | HELD;
        v = v | NEXT(A) | NEXT(B) | NEXT(C);
        v = v | NEXT(A) | NEXT(B) | NEXT(C);
        assert((v & ~marked) == 0);                  /* nothing that can be reached is swept */
        assert(fresh != CACHED || (marked & BIT(C))); /* nor what a processor will give out */
        over = true
    }
}

#ifdef CACHES_KEPT
#define AT_FIRST_STOP CACHED
#else
#define AT_FIRST_STOP FREE
#endif

init
{
    atomic {
        field[A] = B;
        data = A;
        if :: t0 = 0 :: t0 = A fi;
        if :: f0 = 0 :: f0 = B fi;
        if :: fresh = FREE :: fresh = AT_FIRST_STOP fi;
        run thread();
        run fiber();
#ifdef KERNEL
        run kernel();
#endif
        run collector()
    }
}
