/* fiber.c - spawn and channels: a fiber of weft's for each, with a machine of its own on its C stack; a channel of values.
 *
 * (spawn thunk) calls the thunk on a new fiber, in parallel with the others, and gives a channel: it receives what the thunk returned, and
 * then is closed. An error that nobody catches is reported and ends the fiber; the channel is closed, the program goes on, and ends with
 * status 1. */
#include "scheme.h"

#ifdef SCHEME_BOEHM
const struct builtin_def builtins_fibers[] = { { NULL, NULL, 0, 0, 0 } };
#else

enum { FIBER_STACK_BYTES = 256 << 10 }; /* for the reader, the printer, equal?: they call themselves; only what is touched is there */

struct channel { uint64_t head; weft_chan *chan; };
struct start { struct world *world; value thunk; weft_chan *end; };

static void fiber(void *arg)
{
    struct start *start = arg;
    struct vm vm;
    value result;
    vm_init(&vm, start->world, FIBER_STACK_BYTES);
    if (vm_call(&vm, start->thunk, &result)) {
        weft_chan_send(start->end, &result); /* there is room for one */
    } else {
        __atomic_add_fetch(&start->world->failed, 1, __ATOMIC_RELAXED); /* relaxed: read by main, which flushes and exits, whenever it sees it */
        vm_report(&vm, vm.raised);
    }
    weft_chan_close(start->end);
}

static value make_channel(struct vm *vm, size_t capacity)
{
    struct channel *c = (struct channel *)check_memory(vm, mem_new(MEM_TYPE(struct channel, chan)));
    c->head = make_head(T_CHANNEL, 0);
    c->chan = (weft_chan *)check_memory(vm, weft_chan_make(sizeof(value), capacity));
    return (value)c;
}

BUILTIN(spawn)
{
    if (!is(a[0], T_CLOSURE) && !is(a[0], T_BUILTIN))
        vm_bad(vm, "not a procedure", a[0]);
    struct channel *end = (struct channel *)make_channel(vm, 1);
    struct start *s = (struct start *)check_memory(vm, mem_new(MEM_TYPE(struct start, thunk, end)));
    *s = (struct start){ vm->world, a[0], end->chan };
    weft_go_opts opts = WEFT_GO_OPTS_INIT;
    opts.stack_size = FIBER_STACK_BYTES;
    opts.name = "spawn";
    int r = weft_go_opts_run(fiber, s, &opts);
    if (r != 0)
        vm_bad(vm, weft_strerror(r), a[0]);
    return (value)end;
}

static weft_chan *arg_channel(struct vm *vm, value v)
{
    if (!is(v, T_CHANNEL))
        vm_bad(vm, "not a channel", v);
    return ((struct channel *)v)->chan;
}

BUILTIN(make_channel)
{
    if (a[0] != V_UNDEF && (!is_fix(a[0]) || fix(a[0]) < 0))
        vm_bad(vm, "not a capacity", a[0]);
    return make_channel(vm, a[0] == V_UNDEF ? 0 : (size_t)fix(a[0]));
}
BUILTIN(channel_send)
{
    if (weft_chan_send(arg_channel(vm, a[0]), &a[1]) != 0)
        vm_bad(vm, "the channel is closed", a[0]);
    return V_VOID;
}
BUILTIN(channel_receive)
{
    value v;
    return weft_chan_recv(arg_channel(vm, a[0]), &v) == 1 ? v : V_EOF;
}
BUILTIN(channel_close)
{
    if (weft_chan_close(arg_channel(vm, a[0])) != 0)
        vm_bad(vm, "the channel is closed", a[0]);
    return V_VOID;
}
BUILTIN(is_channel) { return make_bool(is(a[0], T_CHANNEL)); }
BUILTIN(yield) { weft_yield(); return V_VOID; }
BUILTIN(sleep)
{
    if (!is_fix(a[0]))
        vm_bad(vm, "not a number of milliseconds", a[0]);
    weft_sleep(fix(a[0]) * WEFT_MILLISECOND);
    return V_VOID;
}

const struct builtin_def builtins_fibers[] = {
    { "spawn", b_spawn, 1, 1, 0 },                     { "make-channel", b_make_channel, 0, 1, 0 },
    { "channel-send", b_channel_send, 2, 2, 0 },       { "channel-receive", b_channel_receive, 1, 1, 0 },
    { "channel-close", b_channel_close, 1, 1, 0 },     { "channel?", b_is_channel, 1, 1, 0 },
    { "yield", b_yield, 0, 0, 0 },                     { "sleep", b_sleep, 1, 1, 0 },
    { NULL, NULL, 0, 0, 0 },
};
#endif
