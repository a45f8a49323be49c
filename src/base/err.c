/* Texts of errors. One table: every errno that weft returns has a line that says what it means here and what to do.
 * To add one: a line in ERRORS. Numbers that are not in it come from a system call and get libc's static
 * description. */
#include <errno.h>
#include <string.h>
#include <weft/base.h>
#include "base/base.h"

#define ERRORS(X)                                                                                                      \
    X(EINVAL,                                                                                                          \
      "invalid argument: compare with the function's comment in its header; is the size field set?")                   \
    X(ENOMEM,                                                                                                          \
      "out of memory: free or drop memory, or raise the limit (ulimit -v, the cgroup's memory.max) and try again")     \
    X(EPIPE,                                                                                                           \
      "the channel or the connection is closed: do not send on it any more")                                           \
    X(ETIMEDOUT,                                                                                                       \
      "the deadline passed before it happened: try again with a later one, or give up")                                \
    X(EAGAIN,                                                                                                          \
      "cannot be done right now: try again later, use the form that waits, or raise the limit on threads (ulimit -u)") \
    X(EDEADLK,                                                                                                         \
      "nothing could ever wake who waits: all fibers are asleep (the log lists them), or a call would wait for itself") \
    X(EALREADY,                                                                                                        \
      "already running: stop it first, and start it only once")                                                        \
    X(ESRCH,                                                                                                           \
      "the runtime is not running, or there is no such thing: call this inside weft_run, or before weft_stop")         \
    X(EBUSY,                                                                                                           \
      "in use: wait until those who use it are done, then try again")                                                  \
    X(EPERM,                                                                                                           \
      "not allowed: see in the header who may call this (a fiber, a thread of the host), and at which address it may be")\
    X(EEXIST,                                                                                                          \
      "exists already: remove the old one first")                                                                      \
    X(ELOOP,                                                                                                           \
      "a circle: the argument points into the object it is for (pass what is needed by itself), or too many symlinks") \
    X(ENOENT,                                                                                                          \
      "no such file or object: check the name or the pointer")                                                         \
    X(EOVERFLOW,                                                                                                       \
      "the number does not fit: a count or size would overflow; nothing was changed")                                  \
    X(ERANGE,                                                                                                          \
      "out of range: the result would leave the allowed range; nothing was changed")                                   \
    X(ECANCELED,                                                                                                       \
      "closed or cancelled while waiting: the object is gone, do not use it again")                                    \
    X(ENOSPC,                                                                                                          \
      "no room: a table or the device is full; remove something first")                                                \
    X(E2BIG,                                                                                                           \
      "too large: more objects, or bytes, than this call can deal with; nothing was done")                             \
    X(EIO,                                                                                                             \
      "a file or device could not be read or written: look at its path, its permissions and what is in it")            \
    X(EXDEV,                                                                                                           \
      "of another thread: the address was taken before a call that may move the fiber; take it anew afterwards")       \
    X(ENOSYS,                                                                                                          \
      "the kernel does not have this call: see the list of platforms in README.md")                                    \
    X(ENOTSUP,                                                                                                         \
      "not supported on this platform or for this object: see the function's comment in its header")                   \
    X(EMFILE,                                                                                                          \
      "too many open descriptors in this process: close some, or raise the limit (ulimit -n)")                         \
    X(ENFILE,                                                                                                          \
      "too many open descriptors in the system: close some, or raise fs.file-max")                                     \
    X(EBADF,                                                                                                           \
      "not an open descriptor: it was closed, or never opened")                                                        \
    X(EINTR,                                                                                                           \
      "interrupted by a signal: try again")                                                                            \
    X(EFAULT,                                                                                                          \
      "bad address: the memory passed is not mapped")                                                                  \
    X(EADDRINUSE,                                                                                                      \
      "the address is in use: choose another port or end the program that listens there")                              \
    X(EADDRNOTAVAIL,                                                                                                   \
      "no such address on this machine: listen at one that it has (ip addr), or at 127.0.0.1")                         \
    X(EACCES,                                                                                                          \
      "permission denied: look at the file's or folder's mode, or take a port from 1024 on")                           \
    X(ECONNREFUSED,                                                                                                    \
      "nobody listens at that address: start the server or check the port")                                            \
    X(ECONNRESET,                                                                                                      \
      "the other side ended the connection: connect again if you need it")

static const struct { int err; const char *text; } table[] = {
#define X(e, text) { e, text },
    ERRORS(X)
#undef X
};

const char *weft_strerror(int err)
{
    /* INT_MIN has no positive twin; it matches nothing below. */
    int e = err < 0 ? (int)-(unsigned)err : err;
    if (e == 0)
        return "success";
    for (size_t i = 0; i < w_countof(table); i++)
        if (table[i].err == e)
            return table[i].text;
    const char *desc = e > 0 ? strerrordesc_np(e) : NULL; /* untranslated, static: takes no lock, needs no buffer */
    return desc != NULL ? desc : "unknown error: not a number that weft or the system returns";
}

const char *weft_version(void)
{
    return WEFT_VERSION;
}
