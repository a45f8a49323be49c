/* A program that says in its trace what it does: requests, each with two parts, which wait for a channel, a lock, a socket and the clock. Argument: the
 * file. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include <weft.h>

enum { REQUESTS = 20 };

static weft_chan *answers, *wanted;
static weft_mutex lock;
static weft_fd *pair[2];

static int to_file(void *ctx, const void *data, size_t n) { return fwrite(data, 1, n, ctx) == n ? 0 : -EIO; }

static void part(void *arg)
{
    weft_task_use(weft_task_begin("part", *(weft_task *)arg));
    {
        WEFT_REGION("read");
        char byte;
        weft_chan_send(wanted, NULL);
        if (weft_read(pair[0], &byte, 1) != 1)
            exit(3);
    }
    {
        WEFT_REGION("compute");
        weft_mutex_lock(&lock);
        weft_sleep(5000000); /* long enough for the other part to come to the lock meanwhile, in one of the requests at least */
        weft_mutex_unlock(&lock);
    }
    weft_task_end(weft_task_use(WEFT_TASK_ASK));
    weft_chan_send(answers, NULL);
}

static void writer(void *arg)
{
    (void)arg;
    for (int i = 0; i < 2 * REQUESTS; i++) {
        weft_chan_recv(wanted, NULL);
        weft_sleep(100000); /* so who reads waits */
        if (weft_write(pair[1], "x", 1) != 1)
            exit(4);
    }
}

static void app_main(void *arg)
{
    FILE *f = arg;
    answers = weft_chan_make(0, 0);
    wanted = weft_chan_make(0, 2);
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) != 0 || weft_fd_open(fds[0], &pair[0]) != 0 || weft_fd_open(fds[1], &pair[1]) != 0)
        exit(6);
    if (weft_trace_start(to_file, f, NULL) != 0)
        exit(2);
    weft_go(writer, NULL);
    for (int i = 0; i < REQUESTS; i++) {
        weft_task request = weft_task_begin("request", 0);
        weft_task_use(request);
        WEFT_REGION("whole");
        weft_go(part, &request);
        weft_go(part, &request);
        weft_chan_recv(answers, NULL);
        weft_chan_recv(answers, NULL);
        weft_trace_logf("progress", "request %d is answered", i);
        weft_gc();
        weft_task_end(request);
    }
    if (weft_trace_stop(to_file, f, NULL) != 0)
        exit(5);
}

int main(int argc, char **argv)
{
    FILE *f = argc == 2 ? fopen(argv[1], "w") : NULL;
    if (f == NULL)
        return 1;
    int err = weft_run(app_main, f, NULL);
    return fclose(f) == 0 && err == 0 ? 0 : 1;
}
