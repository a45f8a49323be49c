/* weft/io.h - descriptors that make the fiber wait and not the thread.
 *
 * A weft_fd owns a descriptor, made non-blocking and watched by epoll. One that epoll cannot watch, a regular file for instance, works as well: its
 * calls keep a thread for as long as they take, but no processor, and a collection does not wait for them. Deadlines and closing do not end such a
 * call once it has begun. It is not collected: close it. Errors are negative errno of the system call;
 * besides: -ETIMEDOUT (deadline), -ECANCELED (closed while waiting, or closed before). All may block unless they say otherwise.
 * Several fibers may use one weft_fd; reads are served one at a time in order, and so are writes. */
#ifndef WEFT_IO_H
#define WEFT_IO_H

#include <sys/socket.h>
#include <sys/uio.h>
#include <weft/base.h>

WEFT_BEGIN_DECLS

typedef struct weft_fd weft_fd;

/* Takes fd over (sockets, pipes, eventfds, terminals, files). 0, -ENOMEM, -EBADF, -ENOSPC (too many descriptors are watched:
 * fs.epoll.max_user_watches). On error fd stays the caller's. */
WEFT_API int weft_fd_open(int fd, weft_fd **out) WEFT_MUST_CHECK;
/* Closes the descriptor; fibers that wait on it get -ECANCELED. The weft_fd is freed when the last of them has left. 0, -ECANCELED (closed already).
 * Does not block. */
WEFT_API int weft_fd_close(weft_fd *f);
/* shutdown(2): SHUT_RD, SHUT_WR, SHUT_RDWR. Who waits to read gets what is left and then the end of file, who writes gets -EPIPE; the descriptor
 * stays open. 0, -ENOTSOCK, -ENOTCONN, -EINVAL, -ECANCELED (closed). Does not block. */
WEFT_API int weft_fd_shutdown(weft_fd *f, int how);
/* The descriptor; -1 once closed. It stays weft's. */
WEFT_API int weft_fd_number(const weft_fd *f);
/* Deadlines of all later and waiting reads and writes, times of weft_now(); 0: none. In the past: fail at once. To accept is to read, to connect is
 * to write. */
WEFT_API int weft_fd_set_deadline(weft_fd *f, int64_t read_deadline, int64_t write_deadline);

/* As read(2): what is there, at least 1 byte; 0 at end of file, and at once if there is no room for a byte. */
WEFT_API ssize_t weft_read(weft_fd *f, void *buf, size_t n);
WEFT_API ssize_t weft_readv(weft_fd *f, const struct iovec *iov, int n);
/* Reads n bytes; fewer only at end of file; an error after some bytes returns them, the next call the error. */
WEFT_API ssize_t weft_read_full(weft_fd *f, void *buf, size_t n);
/* Writes all n bytes; fewer only on error after some bytes. No SIGPIPE for sockets. */
WEFT_API ssize_t weft_write(weft_fd *f, const void *buf, size_t n);
WEFT_API ssize_t weft_writev(weft_fd *f, const struct iovec *iov, int n);
WEFT_API ssize_t weft_recvfrom(weft_fd *f, void *buf, size_t n, int flags, struct sockaddr *from, socklen_t *fromlen);
WEFT_API ssize_t weft_sendto(weft_fd *f, const void *buf, size_t n, int flags, const struct sockaddr *to, socklen_t tolen);

WEFT_API int weft_accept(weft_fd *listener, weft_fd **out, struct sockaddr *peer, socklen_t *peerlen) WEFT_MUST_CHECK;
WEFT_API int weft_connect(weft_fd *f, const struct sockaddr *to, socklen_t tolen) WEFT_MUST_CHECK;

/* "127.0.0.1:6379", "[::1]:0", ":6379" (all addresses), or "unix:/path" ("unix:@name": abstract). Numeric addresses; a host name is looked up by
 * getaddrinfo, which holds up this fiber only. -EINVAL: not of that form. */
WEFT_API int weft_listen(const char *address, int backlog, weft_fd **out) WEFT_MUST_CHECK;
WEFT_API int weft_dial(const char *address, int64_t deadline, weft_fd **out) WEFT_MUST_CHECK;
/* The port of a listening or connected TCP/UDP descriptor; negative errno. Does not block. */
WEFT_API int weft_fd_port(const weft_fd *f);

WEFT_END_DECLS
#endif
