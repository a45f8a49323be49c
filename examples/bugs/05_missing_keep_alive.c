/* Bug 05: an object is collected while its buffer is still in use.
 *
 * What the call promises: the finalizer runs some time after the object has become unreachable. That is after the
 *                         last use of its pointer, which may be long before the end of the block that declares it.
 * What the bug assumes:   that the object lives until the function returns. But all that weft_write gets of it is the
 *                         address of its buffer, which is not in the heap.
 * What goes wrong:        weft_write waits, for the pipe is full; a collection comes along, the finalizer gives the
 *                         buffer back, the next packet is composed in it, and the reader gets that packet's bytes in
 *                         the middle of ours. No error anywhere, and only under load.
 * Instead:                weft_keep_alive(packet) after the last use of what belongs to the packet.
 * Guarded:                nothing can make it harmless. In the mode that looks for it (gcstress and gcpoison, as tests run with) the
 *                         doctor sees the finalizer run while the buffer is being written, and with w05=abort that is the end. */
#include "bug.h"

#include <fcntl.h>
#include <sys/ioctl.h>

enum { SENDERS = 64, PACKET_BYTES = 32768, PIPE_BYTES = 4096, CYCLES = 5 };

/* ---- packets, whose bytes come from a pool ----------------------------------------------------------- */

struct packet { char *bytes; };

static weft_mutex lock;
static char *pool[4 * SENDERS];
static int in_pool, recycled;

static void give_back(void *obj, void *ctx)
{
    (void)ctx;
    weft_mutex_lock(&lock);
    pool[in_pool++] = ((struct packet *)obj)->bytes;
    recycled++;
    weft_mutex_unlock(&lock);
}

__attribute__((noinline)) static struct packet *packet_new(void)
{
    struct packet *p = weft_alloc_noscan(sizeof *p);
    weft_mutex_lock(&lock);
    p->bytes = in_pool > 0 ? pool[--in_pool] : NULL;
    weft_mutex_unlock(&lock);
    if (!p->bytes)
        p->bytes = malloc(PACKET_BYTES);
    weft_set_finalizer(p, give_back, NULL);
    return p;
}

/* "packet 17 packet 17 packet 17 ..." */
__attribute__((noinline)) static void compose(char *bytes, int number)
{
    char text[64];
    int n = snprintf(text, sizeof text, "packet %d ", number);
    for (int i = 0; i < PACKET_BYTES; i++)
        bytes[i] = text[i % n];
}

/* ---- senders, each with a pipe ------------------------------------------------------------------------- */

static struct sender { int number, pipe[2]; weft_fd *in, *out; } senders[SENDERS];

static void send_buggy(void *arg)
{
    struct sender *s = arg;
    struct packet *packet = packet_new();
    char *bytes = packet->bytes;
    compose(bytes, s->number);
    weft_write(s->in, bytes, PACKET_BYTES); /* here it happens */
}

static void send_fixed(void *arg)
{
    struct sender *s = arg;
    struct packet *packet = packet_new();
    char *bytes = packet->bytes;
    compose(bytes, s->number);
    weft_write(s->in, bytes, PACKET_BYTES);
    weft_keep_alive(packet);
}

static void sender_open(struct sender *s, int number)
{
    s->number = number;
    if (pipe2(s->pipe, O_CLOEXEC) != 0 || fcntl(s->pipe[1], F_SETPIPE_SZ, PIPE_BYTES) < 0 ||
        weft_fd_open(s->pipe[1], &s->in) != 0 || weft_fd_open(s->pipe[0], &s->out) != 0)
        abort();
}

/* The sender waits in the middle of its packet. */
static void until_full(struct sender *s)
{
    int n = 0;
    while (ioctl(s->pipe[0], FIONREAD, &n) == 0 && n < PIPE_BYTES)
        weft_sleep(WEFT_MILLISECOND);
}

static void collect(void)
{
    for (int i = 0; i < CYCLES; i++) {
        weft_gc();
        weft_sleep(10 * WEFT_MILLISECOND); /* finalizers are queued by the cycle and run after it */
    }
}

/* What the others do meanwhile: packets of their own. */
static void others(struct packet **kept)
{
    for (int i = 0; i < SENDERS; i++) {
        kept[i] = packet_new();
        compose(kept[i]->bytes, 1000 + i);
    }
}

/* Wrong bytes of the packet that arrived. */
static int receive(struct sender *s)
{
    static char got[PACKET_BYTES], sent[PACKET_BYTES];
    int wrong = weft_read_full(s->out, got, sizeof got) != PACKET_BYTES ? PACKET_BYTES : 0;
    compose(sent, s->number);
    for (int i = 0; i < PACKET_BYTES; i++)
        wrong += got[i] != sent[i];
    return wrong;
}

static void measure(weft_fn *send)
{
    weft_waitgroup wg = { 0 };
    for (int i = 0; i < SENDERS; i++) {
        sender_open(&senders[i], i);
        weft_waitgroup_go(&wg, send, &senders[i]);
    }
    for (int i = 0; i < SENDERS; i++)
        until_full(&senders[i]);
    collect();
    int early = recycled, damaged = 0;
    struct packet **kept = weft_alloc(SENDERS * sizeof *kept);
    others(kept);
    for (int i = 0; i < SENDERS; i++)
        damaged += receive(&senders[i]) > 0;
    weft_waitgroup_wait(&wg);
    collect();
    weft_keep_alive(kept);
    bug_value("damaged", damaged);
    bug_value("early", early);
    bug_value("recycled", recycled);
    bug_say("%d of %d packets arrived with bytes of another one; %d buffers were given back while they were being written, %d in the end",
            damaged, SENDERS, early, recycled);
    bug_cell("%d of %d packets damaged", damaged, SENDERS);
}

static void buggy(void *arg) { (void)arg, measure(send_buggy); }
static void fixed(void *arg) { (void)arg, measure(send_fixed); }

static const char *verdict(const struct bug_result *r)
{
    const struct bug_result *b = &r[BUGGY], *f = &r[FIXED];
    /* Stacks are read conservatively: a stale word may keep a packet or two alive. */
    if (bug_get(b, "damaged") < SENDERS * 0.9)
        return "packets that nobody keeps alive arrive as they were sent";
    if (bug_get(f, "damaged") != 0 || bug_get(f, "early") != 0)
        return "a buffer was given back although its packet was kept alive";
    if (bug_get(f, "recycled") < SENDERS * 0.9)
        return "packets that were sent are not collected";
    return NULL;
}

int main(int argc, char **argv)
{
    static const struct bug bug = {
        .number = "05",
        .title = "object collected, its buffer in use",
        .buggy = buggy,
        .fixed = fixed,
        .instead = "weft_write(fd, packet->bytes, n); weft_keep_alive(packet);",
        .config = { .debug = "gcstress=1000,gcpoison=1" }, /* all three modes: elsewhere it is not looked for */
        .code = WEFT_W05,
        .doctor = "w05=abort",
        .guard = "in a test run (gcstress, gcpoison) the doctor ends the program (w05=abort) when a finalizer runs whose buffer is in use",
        .verdict = verdict,
        .plots = { { "damaged", "packets damaged, of 64", "", false } },
    };
    return bug_main(argc, argv, &bug);
}
