// The question of ../chan_buf.c to Boost.Fiber: buffered_channel of 128, one thread. It keeps one slot free.
#include "../bench.h"
#include <boost/fiber/all.hpp>

typedef boost::fibers::buffered_channel<int64_t> channel;
static const auto ok = boost::fibers::channel_op_status::success;

static void pass(channel &c, long n)
{
    int64_t v;
    boost::fibers::fiber producer([&c, n] {
        for (int64_t i = 0; i < n; i++)
            if (c.push(i) != ok)
                abort();
    });
    for (int64_t i = 0; i < n; i++)
        if (c.pop(v) != ok || v != i)
            abort();
    producer.join();
}

int main(int argc, char **argv)
{
    long items = bench_arg(argc, argv, 1, 10000000);
    channel c(128);
    pass(c, items / 10);
    bench_span t = bench_begin();
    pass(c, items);
    bench_report("chan_buf", "boost", (double)items, bench_end(t));
}
