/* [ENTRY] and [HANDOFF] (sched/entry.c, sched/sysmon.c, sched/machine.c): who owns a processor.
 *
 * A machine enters the runtime by two plain stores and looks, without a fence, and its processor may be taken away at any time while it is outside.
 * This model asks whether two may ever work with the processor at once, whether each sees what the last one did with it, and whether one may wait
 * for it for ever while it idles.
 *
 * Who stands for what
 *   machine    a thread with a fiber that enters and leaves for ever: rt_enter, rt_enter_slow and rt_own, rt_leave; while it waits,
 *              proc_wait_in_place. There are two, and one processor. What happens inside is one plain store to a field of the processor (tick). It
 *              may also give the processor up: m_disown, as after POLL_HANDOFF and in weft_blocking_begin
 *   taker      the monitor's retake, at any time, of any machine: p_take, then proc_handoff. A stop of the world takes in the same way
 *   scheduler  a machine that sleeps until it is given the processor, and then has no fiber of its own: schedule_next, proc_give_bound
 *   memory     what x86 does to stores: each processor holds back its own, in order, for as long as it likes, and reads what it holds back. A locked
 *              operation, a fence and membarrier wait until nothing is held back. membarrier interrupts one processor after the other, between two
 *              of its steps
 *   looker     looks, whenever everybody is in user code or asleep, whether somebody should not be
 *
 * Each look at shared memory is a step of its own, as are a locked operation, and what a lock guards (of sched.lock the taking and the dropping are
 * steps, both locked operations). The taker's own plain stores are not held back: a late one of pstate only makes a machine spin.
 *
 * Left out: more processors and queues of their own, since a processor changes hands in the same way for each (when a searching machine may fall
 * asleep is another protocol, at the top of sched/schedule.c); machines that weaker memory than x86's would reorder further: what is said of acquire
 * and release at the operations is for them. [PIN] (sched/fiber.h) is the same pair: pin, membarrier, look at state, against state, compiler
 * barrier, look at pin.
 *
 * right  -
 * right  FENCED_MODE             membarrier(2) is missing: each entry takes the slow way, with a fence
 * wrong  NO_MEMBARRIER           the taker looks without it
 * wrong  FENCED_MODE,NO_FENCE    the slow way has no fence either
 * wrong  LOOK_FIRST              the compiler moves the look at pstate before the store of in_runtime
 * wrong  LEAVE_EARLY             in_runtime is cleared before the last store to the processor
 * wrong  NO_TAKING               the taker looks before it has said that it takes, and not again
 * wrong  TAKES_ALL               the taker takes also from who is inside
 * wrong  QUEUE_BLINDLY           who queues for a processor does not look afterwards whether one idles
 * wrong  SLEEP_LATE              it says that it sleeps only when it can be found in the queue */
#define NONE 9
#define TAKER 3
#define SCHED 2

/* pstate */
#define OWNED 0
#define TAKING 1
#define GONE 2
#ifdef FENCED_MODE
#define OURS 3
#else
#define OURS OWNED
#endif

byte in_runtime[2];
byte pstate[2] = GONE;
byte sleep[2];
byte tick;               /* a field of the processor that its owner counts by plain stores */
bool lock;               /* sched.lock */
bool idle_p;             /* the processor idles */
byte nspinning;
#define PLAIN 1
#define SPINNING 2
byte start;              /* a machine is woken, with the processor */
chan globq = [2] of { byte };

/* what is true, for the assertions only */
byte holder = NONE;      /* who is inside with the processor, or has taken it and not passed it on yet */
byte ticked;             /* what tick is */
byte unseen[2];          /* stores of tick that are on the way */
bool user[2], asleep[2];
bool taking;
bool nsched;             /* the scheduler is at work */

/* ---- memory -------------------------------------------------------------------------------------------------------- */

#define IN 0
#define TICK 1
chan late[2] = [2] of { byte, byte };
#define FENCE(i) ((i) >= 2 || empty(late[i]))

proctype memory(byte i)
{
    byte what, v;
end:
    do
    :: d_step { late[i]?what, v ->
        if
        :: what == IN -> in_runtime[i] = v
        :: what == TICK -> tick = v; unseen[i]--
        fi;
        what = 0;
        v = 0 }
    od
}

inline take_lock(i) { atomic { FENCE(i) && !lock -> lock = true } }
inline drop_lock(i) { atomic { FENCE(i) -> lock = false } }
inline has_it(who) { assert(holder == NONE); holder = who }

/* ---- the scheduler -------------------------------------------------------------------------------------------------- */

/* m_wake: what others gave it, the lock has published */
inline wake(i) { sleep[i] = 2; asleep[i] = false }

/* A machine that is woken with the processor, or made: it takes a fiber from the global queue and hands the processor on to the thread that the fiber
 * is bound to (proc_give_bound). There is one here, as it is at once ready for the next time. */
proctype scheduler()
{
    byte i;
end:
    do
    :: atomic { start != 0 -> has_it(SCHED) }
       take_lock(SCHED);
       globq?i;
       drop_lock(SCHED);
       atomic {
           nspinning = nspinning - (start == SPINNING -> 1 : 0);
           start = 0 };
       take_lock(SCHED);
       atomic { holder = NONE; pstate[i] = OURS };
       drop_lock(SCHED);
       atomic { wake(i); i = 0; nsched = 0 }
    od
}

inline start_scheduler(how) { assert(nsched == 0); nsched = 1; start = how }

/* proc_handoff, of who had the processor */
inline handoff(i)
{
    take_lock(i);
    atomic { holder = NONE;
        if
        :: nempty(globq) -> start_scheduler(PLAIN)
        :: empty(globq) -> idle_p = true
        fi };
    drop_lock(i)
}

/* proc_wake, after a fence */
inline proc_wake(i)
{
    FENCE(i);
    if
    :: idle_p && nspinning == 0 ->
        if
        :: atomic { nspinning == 0 -> nspinning = 1 };
           take_lock(i);
           if
           :: atomic { idle_p -> idle_p = false; start_scheduler(SPINNING) }; drop_lock(i)
           :: !idle_p -> drop_lock(i); nspinning--
           fi
        :: nspinning != 0
        fi
    :: !(idle_p && nspinning == 0)
    fi
}

/* ---- a machine with its fiber --------------------------------------------------------------------------------------- */

proctype machine(byte i)
{
    byte s;
outside:
    atomic { user[i] = true }
end:
    atomic { user[i] = false };
    /* rt_enter */
#ifdef LOOK_FIRST
    s = pstate[i];
    late[i]!IN, 1;
#else
    late[i]!IN, 1;
#endif
    atomic {
#ifndef LOOK_FIRST
        s = pstate[i];
#endif
        if
        :: s == OWNED && OURS == OWNED -> has_it(i); goto inside
        :: else
        fi }
    /* rt_enter_slow */
#ifndef NO_FENCE
    FENCE(i);
#endif
own:
    atomic { s = pstate[i];
        if
        :: s == OURS && OURS == OWNED -> has_it(i); goto inside
        :: else
        fi }
    if
    :: s == OURS ->
#ifndef NO_FENCE
        FENCE(i);
#endif
        atomic {
            if
            :: pstate[i] == OURS -> has_it(i); goto inside
            :: else -> goto own
            fi }
    :: s == TAKING -> pstate[i] != TAKING; goto own
    :: s == GONE
    fi;
    take_lock(i);
    if
    :: atomic { pstate[i] == GONE && idle_p -> idle_p = false; pstate[i] = OURS }; drop_lock(i); goto own
    :: atomic { pstate[i] == GONE && !idle_p }; drop_lock(i)
    :: pstate[i] != GONE -> drop_lock(i); goto own
    fi;
    /* proc_wait_in_place */
    sleep[i] = 1;
    take_lock(i);
    globq!i;
    drop_lock(i);
#ifndef QUEUE_BLINDLY
    proc_wake(i);
#endif
#ifdef SLEEP_LATE
    sleep[i] = 1;
#endif
    atomic { asleep[i] = (sleep[i] == 1) };
    atomic { sleep[i] != 1 -> sleep[i] = 0; goto own }

inside:
    atomic { assert(unseen[i] > 0 || tick == ticked); s = 0 };
#ifdef LEAVE_EARLY
    late[i]!IN, 0;
    atomic { holder = NONE; ticked = 1 - ticked; unseen[i]++; late[i]!TICK, ticked; goto outside };
#endif
    atomic { ticked = 1 - ticked; unseen[i]++; late[i]!TICK, ticked };
    if
    :: skip
    :: /* POLL_HANDOFF, weft_blocking_begin: m_disown */
        atomic { FENCE(i) && pstate[i] == OURS -> pstate[i] = GONE };
        handoff(i);
        late[i]!IN, 0;
        goto outside
    fi;
    /* rt_leave */
    atomic { holder = NONE; late[i]!IN, 0; goto outside }
}

/* ---- the monitor ---------------------------------------------------------------------------------------------------- */

inline membarrier()
{
#ifndef NO_MEMBARRIER
#ifndef FENCED_MODE
    FENCE(0);
    FENCE(1)
#else
    skip
#endif
#else
    skip
#endif
}

proctype taker()
{
    byte i;
end:
    do
    :: atomic { i = 0; taking = true }
       if
       :: i = 0
       :: i = 1
       fi;
       if
       :: in_runtime[i] == 0 ->
           if
           :: atomic { pstate[i] == OURS -> pstate[i] = TAKING };
#ifndef NO_TAKING
              membarrier();
#endif
              if
#ifdef NO_TAKING
              :: atomic { has_it(TAKER) };
                 pstate[i] = GONE;
                 handoff(SCHED)
#else
#ifdef TAKES_ALL
              :: in_runtime[i] != 0 -> pstate[i] = GONE; atomic { has_it(TAKER) }; handoff(SCHED)
#else
              :: in_runtime[i] != 0 -> pstate[i] = OURS
#endif
              :: atomic { in_runtime[i] == 0 -> has_it(TAKER) };
                 pstate[i] = GONE;
                 handoff(SCHED)
#endif
              fi
           :: pstate[i] != OURS
           fi
       :: in_runtime[i] != 0
       fi;
       atomic { i = 0; taking = false }
    od
}

#define RESTS(i) (user[i] || asleep[i])
proctype looker()
{
end:
    do
    :: atomic { nsched == 0 && !taking && RESTS(0) && RESTS(1) ->
        assert(!(len(globq) != 0 && idle_p));
        assert(!(asleep[0] && pstate[0] != GONE) && !(asleep[1] && pstate[1] != GONE)) }
    od
}

init { atomic { pstate[0] = OURS; run memory(0); run memory(1); run machine(0); run machine(1); run scheduler(); run taker(); run looker() } }
