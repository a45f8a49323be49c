/* [STW] (sched/world.c): stopping and starting the world.
 *
 * This model asks whether in a stop anybody may be at work on a processor, or in user code if threads are stopped too; whether one may go wrong by
 * what an earlier stop has left behind; and whether all that stop go on and all stops come about: in the end each must have done its rounds.
 *
 * Who stands for what
 *   machine    a thread with a fiber and a processor, ROUNDS times in user code and in the runtime again (rt_enter, rt_own, rt_leave). Inside it
 *              does nothing; or it stops the world, with threads or without, and starts it, STOPS times in all; or it gives its processor up, is in
 *              user code where no stop may wait for it, and comes back (weft_blocking_begin, _end; the same for who parks in place)
 *   host       with WITH_HOST: a thread that attaches (m_attach), calls, and detaches (m_detach, m_bury_lock), at any time. It has a processor only
 *              while it is inside
 *   handler    stop_signal, on a thread of these: it comes at any time after it was sent, and the thread does not go on meanwhile
 *
 * Steps are single looks and stores, each locked operation, and the taking and dropping of sched.lock; some that nobody else sees are joined to
 * their neighbours. Memory is in order here. Where it must not be taken to be, (in_runtime = 1; look at pstate) against membarrier, see entry.pml;
 * and who leaves without having seen poll, as its store of in_runtime was late, is found in user code when that store comes out. Waiting for an
 * event is waiting for what is looked at; that is what the code's time-outs make of it, but at the gate, which has none: there the futex and who wakes
 * it are written out.
 *
 * Left out: that a signal may get lost, and is sent again (late); what the stopper does with the stop; helpers; fork, which is a stop without
 * threads whose owner is the forking thread (sched/fork.c).
 *
 * right  ROUNDS=2,STOPS=2
 * right  ROUNDS=1,STOPS=1,WITH_HOST
 * wrong  ROUNDS=2,STOPS=2,ACK_WITHOUT_NUMBER  an acknowledgement says that a stop was seen, and not which
 * wrong  ROUNDS=2,STOPS=2,HANDLER_INSIDE      the handler stands still also if it has interrupted the runtime
 * wrong  ROUNDS=1,STOPS=1,TAKES_NOTHING       processors of machines in user code stay with them
 * wrong  ROUNDS=1,STOPS=2,WAITS_MOVING        who waits to stop the world does not stand still for who is at it
 * wrong  ROUNDS=1,STOPS=1,LOCKS_NOT           sched.lock is not taken after `stopping` was set
 * wrong  ROUNDS=1,STOPS=1,RESTLESS            it is not waited for who has given a processor up and not put it away yet
 * wrong  ROUNDS=1,STOPS=1,EVENT_LATE          what has acknowledged is counted from the end of world_stop, so who sleeps is not woken
 * wrong  ROUNDS=1,STOPS=2,GATE_FIRST          the gate is opened before `stopping` is cleared
 * wrong  ROUNDS=2,STOPS=2,GIVES_UNLOCKED      processors are given back without sched.lock
 * wrong  ROUNDS=1,STOPS=1,OWNS_BLINDLY        who takes an idle processor does not look whether he got his own back
 * wrong  ROUNDS=1,STOPS=1,WITH_HOST,DETACHES_BLINDLY  a thread of the host vanishes in a stop */
#ifndef STOPS
#define STOPS 2
#endif
#ifndef ROUNDS
#define ROUNDS 2
#endif

#define N 3
#define HOST 2
#define NOBODY 9

/* pstate */
#define OWNED 0
#define TAKING 1
#define GONE 2

bool in_runtime[N], poll[N], alive[N], cur[N], taken[N];
byte pstate[N] = GONE;
byte stop_ack[N], stop_sent[N];
bool signal[N];          /* one is on the way */
bool handling[N];        /* its handler runs; the thread does not */
bool futex[N];           /* asleep at the gate */

bool owner, stopping;
byte gate = 1;
byte event;
bool lock, take_lock;
byte idle = 1;           /* processors */
byte stops = STOPS;

/* what is true, for the assertions only */
byte stopper = NOBODY;   /* between world_stop and world_start */
bool threads;
bool works[N];           /* on its processor, or on one that it is about to put away */

#define RUNS (!handling[i])
#define FORCE(t) (stopper != NOBODY && stopper != i && (!(t) || threads))

inline works_on(i) { assert(!FORCE(false)); works[i] = true }

inline take_sched(i) { atomic { RUNS && !lock -> lock = true } }

/* ---- standing still ---------------------------------------------------------------------------------------------- */

/* acknowledge, and the wait for the gate; the caller is the thread, or its handler */
inline stand_still_once(i, stop)
{
    stop_ack[i] = stop;
    event++;
    do
    :: atomic { gate == stop -> futex[i] = true };
       !futex[i]
    :: gate != stop -> break
    od
}

inline stand_still(i)
{
    do
    :: stopping ->
        n = gate;
        if
        :: stopping -> stand_still_once(i, n)
        :: !stopping -> break
        fi
    :: !stopping -> break
    od
}

/* stop_signal */
proctype handler(byte i)
{
    byte n;
end:
    do
    :: atomic { signal[i] -> signal[i] = false; handling[i] = true };
       if
#ifndef HANDLER_INSIDE
       :: in_runtime[i] -> skip
       :: !in_runtime[i] ->
#else
       :: true ->
#endif
           if
           :: stopping ->
               if
               :: atomic { stop_sent[i] == gate -> n = stop_sent[i] }; stand_still_once(i, n)
               :: stop_sent[i] != gate
               fi
           :: !stopping
           fi
       fi;
       atomic { handling[i] = false; n = 0 }
    od
}

/* ---- stopping ---------------------------------------------------------------------------------------------------- */

#ifdef ACK_WITHOUT_NUMBER
#define ACKED(m) (stop_ack[m] != 0)
#else
#define ACKED(m) (stop_ack[m] == gate)
#endif

inline stop_proc(m)
{
    do
    :: pstate[m] == GONE || ACKED(m) -> break
#ifndef TAKES_NOTHING
    :: atomic { pstate[m] == OWNED && !in_runtime[m] -> pstate[m] = TAKING };
       if
       :: in_runtime[m] -> pstate[m] = OWNED
       :: !in_runtime[m] -> atomic { taken[m] = true; pstate[m] = GONE }; break
       fi
#else
    :: !in_runtime[m] -> break
#endif
    od
}

inline stop_thread(m)
{
    do
    :: !alive[m] || !cur[m] || ACKED(m) -> break
    :: atomic { alive[m] && cur[m] && !in_runtime[m] && stop_sent[m] != gate -> stop_sent[m] = gate; signal[m] = true }
    od
}

#define AT_REST(m) (taken[m] || (pstate[m] != GONE && alive[m]))

inline world_stop(i)
{
    do
    :: atomic { !owner -> owner = true; event_before = event }; break
#ifndef WAITS_MOVING
    :: atomic { owner && stopping }; stand_still(i)
#endif
    od;
    stopping = true;
#ifndef LOCKS_NOT
    take_sched(i);
#endif
    all_host = alive[HOST];
    lock = false;
    poll[0] = true; poll[1] = true;
    if
    :: all_host -> poll[HOST] = true
    :: !all_host
    fi;
    atomic { !take_lock -> take_lock = true };
    stop_proc(1 - i);
    if
    :: all_host -> stop_proc(HOST)
    :: !all_host
    fi;
    take_lock = false;
#ifndef RESTLESS
    atomic { !lock && idle + AT_REST(0) + AT_REST(1) + AT_REST(HOST) == N };
#endif
    if
    :: t ->
        stop_thread(1 - i);
        if
        :: all_host -> stop_thread(HOST)
        :: !all_host
        fi
    :: !t
    fi;
#ifdef EVENT_LATE
    event_before = event;
#endif
}

inline give_back(m)
{
    atomic {
        if
        :: taken[m] && m == HOST -> taken[m] = false; idle++
        :: taken[m] && m != HOST -> taken[m] = false; pstate[m] = OWNED
        :: !taken[m]
        fi;
        poll[m] = false }
}

inline world_start(i)
{
#ifndef GIVES_UNLOCKED
    take_sched(i);
#endif
    give_back(0);
    give_back(1);
    give_back(HOST);
#ifdef GATE_FIRST
    gate++;
    stopping = false;
    lock = false;
#else
    stopping = false;
    lock = false;
    gate++;
#endif
    if
    :: event != event_before -> atomic { futex[0] = false; futex[1] = false; futex[HOST] = false }
    :: event == event_before
    fi;
    owner = false
}

/* ---- machines ------------------------------------------------------------------------------------------------------ */

/* rt_own */
inline own(i)
{
    do
    :: atomic { pstate[i] == OWNED -> works_on(i) }; break
    :: pstate[i] == GONE ->
        if
        :: stopping -> stand_still(i)
        :: !stopping ->
            take_sched(i);
            atomic {
                if
#ifdef OWNS_BLINDLY
                :: idle > 0 && !stopping -> idle--; assert(pstate[i] == GONE); pstate[i] = OWNED
                :: !(idle > 0 && !stopping)
#else
                :: pstate[i] == GONE && idle > 0 && !stopping -> idle--; pstate[i] = OWNED
                :: !(pstate[i] == GONE && idle > 0 && !stopping)
#endif
                fi };
            lock = false
        fi
    od
}

/* m_disown, proc_handoff */
inline give_up(i)
{
    atomic { pstate[i] == OWNED -> pstate[i] = GONE };
    take_sched(i);
    idle++;
    atomic { lock = false; works[i] = false }
}

inline leave(i)
{
    atomic { works[i] = false; in_runtime[i] = false };
    do
    :: atomic { RUNS && !poll[i] }; break
    :: atomic { RUNS && poll[i] -> in_runtime[i] = true };
       stand_still(i);
       in_runtime[i] = false
    od
}

proctype machine(byte i)
{
    byte n, event_before, rounds = ROUNDS;
    bool all_host, t;
    do
    :: atomic { RUNS && rounds > 0 -> rounds--; assert(!FORCE(true)); in_runtime[i] = true };
       own(i);
       if
       :: leave(i)
       :: atomic { stops > 0 -> stops--; works[i] = false; if :: t = true :: t = false fi };
          world_stop(i);
          atomic { assert(stopper == NOBODY); stopper = i; threads = t;
              assert(!works[0] && !works[1] && !works[HOST]) };
          atomic { stopper = NOBODY; threads = false };
          world_start(i);
          own(i);
          leave(i)
#ifndef WITH_HOST
       :: /* weft_blocking_begin, and _end */
          cur[i] = false;
          give_up(i);
          in_runtime[i] = false;
          atomic { RUNS -> in_runtime[i] = true };
          own(i);
          cur[i] = true;
          leave(i)
#endif
       fi
    :: rounds == 0 -> break
    od;
    /* it stays in user code */
end:
    do
    :: atomic { RUNS && FORCE(true) -> assert(false) }
    od
}

/* A thread of the host: attaches, calls, detaches. It owns a processor only while it is inside. */
proctype host()
{
    byte n;
    byte i = HOST;
    in_runtime[i] = true;
    cur[i] = true;
    take_sched(i);
    alive[i] = true;
    lock = false;
    own(i);
    give_up(i);
    leave(i);
    atomic { RUNS -> assert(!FORCE(true)) };
    /* m_detach */
    atomic { RUNS -> in_runtime[i] = true };
    cur[i] = false;
    do
    :: take_sched(i);
#ifdef DETACHES_BLINDLY
       break
#else
       if
       :: !stopping -> break
       :: stopping -> lock = false; stand_still(i)
       fi
#endif
    od;
    atomic { assert(!FORCE(false)); alive[i] = false };
    lock = false
}

init
{
    atomic {
        alive[0] = true; alive[1] = true; cur[0] = true; cur[1] = true;
        in_runtime[0] = false; in_runtime[1] = false;
        pstate[0] = OWNED; pstate[1] = OWNED;
        run machine(0); run machine(1); run handler(0); run handler(1)
#ifdef WITH_HOST
        ; run host(); run handler(HOST)
#endif
    }
}
