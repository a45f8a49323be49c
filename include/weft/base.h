/* weft/base.h - what all other headers need: version, visibility, errors.
 *
 * Conventions of the whole API:
 *   - A function that can fail returns 0 (or a count) or a negative errno such as -EINVAL. It never sets errno.
 *     weft_strerror() turns the number into a sentence that says what to do.
 *   - Results come back through pointers. Option structs carry their size first (use the _INIT macros) and are
 *     zero for "the default".
 *   - Unless its comment says otherwise, a function may be called by fibers and by any thread of the host while the runtime
 *     runs; a host thread attaches itself on its first call. None may be called from a signal handler, a handler of
 *     pthread_atfork, or a callback of dl_iterate_phdr (which holds a lock of the loader's that a collection takes). While the runtime does not run,
 *     those whose comment has -ESRCH return that, and others that need it end the program with a line that says so.
 *   - C++: an exception may be thrown and caught within a fiber, and its handler may wait. One that leaves the fiber's function calls
 *     std::terminate. weft_exit and the end of the runtime unwind nothing: destructors of the frames that are left do not run. Static
 *     destructors that come after the stop may call what has -ESRCH. (C++ must be in the process when the runtime starts.)
 *   - Link the library once. A program whose modules use it too links libweft.so everywhere; with libweft.a in the program, export its
 *     names to them (-rdynamic). Of two copies in one process one runs at a time: the start of the other is refused (-EALREADY, and the
 *     log says so). A module that has libweft.a inside and is loaded by dlopen must stay: link it with -Wl,-z,nodelete.
 *   - libweft.so may be loaded by dlopen, and then stays loaded, if the process was started with
 *     GLIBC_TUNABLES=glibc.rtld.optional_static_tls=4096; else dlopen fails ("cannot allocate memory in static TLS block").
 *   - Limits and sandboxes: system calls that the library can do without may be refused (membarrier, userfaultfd, madvise, process_madvise,
 *     process_vm_readv, epoll_pwait2, sched_getaffinity, sched_setaffinity, prctl, ...). Where memory, threads or descriptors are short, a call returns the
 *     error its comment names; what no call could return ends the program with a line that names the limit: no memory for the stack of a
 *     fiber that is to start, no thread at all. Fewer threads than processors will do. RLIMIT_STACK does not matter.
 *   - "May block" means: the calling fiber waits and others run. "May collect" means: the call may run a
 *     garbage collection. "May move" means: the fiber may continue on another thread, so addresses of
 *     thread-local variables must be taken anew afterwards. A call that may block may also move. */
#ifndef WEFT_BASE_H
#define WEFT_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define WEFT_VERSION_MAJOR 0
#define WEFT_VERSION_MINOR 1
#define WEFT_VERSION_PATCH 0
#define WEFT_VERSION "0.1.0"

#ifdef __cplusplus
#define WEFT_BEGIN_DECLS extern "C" {
#define WEFT_END_DECLS }
#else
#define WEFT_BEGIN_DECLS
#define WEFT_END_DECLS
#endif

#define WEFT_API __attribute__((visibility("default")))
#define WEFT_MUST_CHECK __attribute__((warn_unused_result))
#define WEFT_NORETURN __attribute__((noreturn))

WEFT_BEGIN_DECLS

/* A piece of work: what a fiber runs, what weft_defer remembers. */
typedef void weft_fn(void *arg);

/* A deadline is a time of weft_now(), in nanoseconds of the monotonic clock. 0 stands for "never". */
WEFT_API int64_t weft_now(void);

/* A sentence for a negative errno returned by this library; never NULL, static storage. Positive numbers are
 * taken as errno too. Callable at any time, by anyone. */
WEFT_API const char *weft_strerror(int err);

/* The version of the library that is linked, such as "0.1.0"; WEFT_VERSION is that of the header. */
WEFT_API const char *weft_version(void);

/* Where text goes: write n bytes, return 0 or a negative errno (which ends the writing). May be called several times. */
typedef int weft_writer(void *ctx, const void *data, size_t n);

/* A writer for a descriptor: ctx is the number, (void *)(intptr_t)fd. All n bytes, in one write(2) unless the kernel takes fewer; waits for a
 * descriptor that is full, with the thread. 0, or what write(2) or poll(2) said. At any time. */
WEFT_API int weft_fd_writer(void *ctx, const void *data, size_t n);

WEFT_END_DECLS
#endif
