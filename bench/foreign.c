/* foreign [calls] - what does a call into the runtime cost on a thread of the host?
 *
 * A thread made by pthread_create allocates 16 bytes (ns_per_op), then puts an element into a channel and takes
 * it out again without waiting (chan_ns). Its first call attaches it (attach_ns, with the thread's first
 * allocation).
 * Peers: Go: a thread of C calls exported Go functions that do the same (cgo). Two processors. */
#include "bench_weft.h"
#include <pthread.h>

static long calls;
static weft_chan *c;

static void *thread(void *arg)
{
    (void)arg;
    int64_t v = 0;
    bench_span attach = bench_begin();
    bench_use(weft_alloc(16));
    attach = bench_end(attach);
    for (long i = 0; i < calls / 10; i++)
        bench_use(weft_alloc(16));
    bench_span t = bench_begin();
    for (long i = 0; i < calls; i++)
        bench_use(weft_alloc(16));
    t = bench_end(t);
    bench_span chan = bench_begin();
    for (long i = 0; i < calls; i++) {
        bench_must(weft_chan_try_send(c, &v), "weft_chan_try_send");
        bench_must(weft_chan_try_recv(c, &v), "weft_chan_try_recv");
    }
    chan = bench_end(chan);
    bench_open("foreign", "weft");
    bench_num("ns_per_op", (double)t.wall_ns / (double)calls);
    bench_num("ops", (double)calls);
    bench_num("chan_ns", (double)chan.wall_ns / (double)calls);
    bench_num("attach_ns", (double)attach.wall_ns);
    bench_num("cpu_s", (double)(t.cpu_ns + chan.cpu_ns) / 1e9);
    bench_close();
    return NULL;
}

int main(int argc, char **argv)
{
    calls = bench_arg(argc, argv, 1, 1000000);
    bench_must(weft_start(NULL), "weft_start");
    pthread_t t;
    c = weft_chan_make_noscan(8, 1);
    if (pthread_create(&t, NULL, thread, NULL) != 0)
        return 1;
    pthread_join(t, NULL);
    bench_must(weft_stop(), "weft_stop");
    return 0;
}
