/* From when on the doctor says something, and why from there on. No false alarm is the first virtue: what a sound program may do now and then, or in
 * a burst, is no finding. Times in nanoseconds. */
#ifndef WEFT_DEBUG_THRESHOLDS_H
#define WEFT_DEBUG_THRESHOLDS_H

#define T_SECOND INT64_C(1000000000)

/* W02. Of so few objects it is no matter when they go. A finalizer that closes a descriptor is caught at that more often than not; that what another
 * thread closes in just this microsecond is a number in just this object, four times in a batch, does not happen. */
#define T_W02_OBJECTS 8u
#define T_W02_LOOKS 128u
#define T_W02_CLOSED 4u

/* W03. A fiber that ends locked is how a thread is got rid of on purpose, whose state cannot be put back (a namespace, a seccomp filter): a thing of
 * starts and of operations that take longer themselves. A thread costs some 20 us to make. By forgetting it happens for each request. From one
 * place, as many as this in ten seconds are more than six a second for all that time, or a burst that no start has. */
#define T_W03_WINDOW_NS (10 * T_SECOND)
#define T_W03_THREADS 64u

/* W04. Between phases of a program, or in a test between two cases, a forced cycle is fine; cases may be short, and heaps of tests small, so that
 * hundreds in a second cost nothing. What harms is the time that goes into it. So: ten in a second from one place, all over it (six of its eighths),
 * and a tenth of the second spent. The pacer itself spends a quarter at the most, at the default percentage, for a heap that doubles each time. */
#define T_W04_WINDOW_NS T_SECOND
#define T_W04_CYCLES 10u
#define T_W04_SLOTS 6u
#define T_W04_SHARE_PERCENT 10u
#define T_W04_KEPT 100u /* with WEFT_GUARD_GC, which keeps the share below that: calls of which most came in vain */

/* W05. The program is about to end, perhaps with a lock that the host's log wants: so long it waits for its last words to be told. */
#define T_W05_LAST_WORDS_NS (2 * T_SECOND)

/* W06. Whoever draws curves reads the statistics once in ten seconds, a live page some ten times a second. A stop of all processors takes some 20 us
 * up to a millisecond. A hundred in a second from one place, all over it, is what a loop does or a handler of requests, no clock. */
#define T_W06_WINDOW_NS T_SECOND
#define T_W06_READS 100u
#define T_W06_SLOTS 6u

/* W07: beyond what profiles with limits have (LIVE_BYTES, LIVE_NS in prof/live.h), or on when the runtime ends. Who asks for none has been told
 * that he is to stop it himself (weft/prof.h). To tell of it while the process ends takes milliseconds, with symbols; whoever has called exit with
 * a lock that the host's log wants is not held up for ever. */
#define T_W07_EXIT_NS (2 * T_SECOND)

/* W08. More calls than this are a metric; it is looked at only while there have been no more than two. */
#define T_W08_CALLS 2u

/* W10. A budget of half a percent is what is recommended, and a profile that takes a few percent may be worth it for a while; nobody wants a tenth.
 * Rates of 100 us, or one unlock in 100, are what documentation advises: of those the looks at the clock may cost much where fibers do nothing but
 * wait, and whoever has chosen such a rate has thought of it. Whoever takes 1 has not. The samples of a quarter of a second of processor time are
 * at least twenty if they come to a tenth of it, since none counts for more than 64 times 20 us. */
#define T_W10_CPU_NS (T_SECOND / 4)
#define T_W10_PERCENT 10u
#define T_W10_BLOCK_NS 10000
#define T_W10_MUTEX_ONE_IN 10

/* W11. Between a call that tells the size and the next, with a buffer of that size, lies an allocation: microseconds, or a collection, or a machine
 * that swaps. */
#define T_W11_NS (10 * T_SECOND)

/* W12. A period of the kernel's is 100 ms. With the default as well one in ten may be cut short, as a third thread of the process runs for a moment
 * (malloc's, the monitor, the host's own). With twice as many processors as the quota pays for, a burst of any length takes the rest of its period.
 * Ten periods with something to run are a second at least. */
#define T_W12_PERIODS 10u
#define T_W12_PERCENT 20u

/* W13. Right after weft_gc what it has freed is still the process's; it goes back in the background within seconds, or at once by
 * weft_free_os_memory. So a reading that comes at once, by the same fiber, sees nothing of it: if the heap was at least this large and is nearly
 * empty now, and nobody asks for the memory to be given back in the seconds that follow, whoever reads draws the wrong conclusion. Smaller heaps,
 * and those that are used again, are measured like that for good reasons: tests and programs that look what is alive. */
#define T_W13_KEPT_BYTES (UINT64_C(128) << 20)
#define T_W13_TIMES_LIVE 8u
#define T_W13_READ_NS T_SECOND
#define T_W13_JUDGE_NS (5 * T_SECOND)

/* W15. To compute for long is no fault: the monitor takes the processor away after 10 ms, if somebody wants it, and the fiber goes on without. What
 * harms is a processor that cannot be taken, as its thread is inside the runtime and does not come out: fibers that are queued there, and every stop
 * of the world, wait for it. So: a second without a step, with work queued at each look, in which the thread has used half a second of CPU time, or
 * slept in user code at half of the looks. One that wanted a CPU and got none is a busy machine's, and is not counted. A host that wants to know of
 * every fiber that computes for long sets slowfiber: then it is that much CPU time (or sleep). Looks of the monitor are 20 us to 10 ms apart; one in
 * 4 ms is enough. */
#define T_W15_STUCK_NS T_SECOND
#define T_W15_STUCK_CPU_NS (T_SECOND / 2)
#define T_W15_LOOK_NS INT64_C(4000000)
#define T_W15_ASLEEP_PERCENT 50

/* W16. A thread in user code stops by a signal, within microseconds if it has a CPU; one inside the runtime when it leaves it. Who does not although
 * he has used 100 ms of CPU time since (slowstop), or slept as long in user code, has the signal blocked, or is in the runtime for long. (On a busy
 * machine threads wait for a CPU that long: nobody's fault.) A stop that takes ten times as long altogether is the collector's, with a heap that is
 * too large to be marked in a stop; the process must have used CPU time of half of that, or it stood still for another reason (SIGSTOP, a debugger,
 * a machine that swaps). */
#define T_W16_LONG 10
#define T_W16_CPU_PERCENT 50

#endif
