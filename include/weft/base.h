/* weft/base.h - what all other headers need: version, visibility, errors.
 *
 * Conventions of the whole API:
 *   - A function that can fail returns 0 (or a count) or a negative errno such as -EINVAL. It never sets errno.
 *     weft_strerror() turns the number into a sentence that says what to do.
 *   - Results come back through pointers. Option structs carry their size first (use the _INIT macros) and are
 *     zero for "the default".
 *   - Unless its comment says otherwise, a function may be called by fibers and by any thread of the host while the runtime
 *     runs; a host thread attaches itself on its first call. None may be called from a signal handler, a handler of
 *     pthread_atfork, or a callback of dl_iterate_phdr (which holds a lock of the loader's that a collection takes). While the runtime does not run, those whose
 *     comment has -ESRCH return that, and others that need it end the program with a line that says so.
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

WEFT_END_DECLS
#endif
