// The question of ../chan_unbuf.c to Boost.Fiber: unbuffered_channel, one thread.
#include "../bench.h"
#include <boost/fiber/all.hpp>

typedef boost::fibers::unbuffered_channel<int64_t> channel;
static const auto ok = boost::fibers::channel_op_status::success;

static void ask(channel &there, channel &back, long n)
{
    int64_t v;
    for (int64_t i = 0; i < n; i++)
        if (there.push(i) != ok || back.pop(v) != ok || v != i)
            abort();
}

int main(int argc, char **argv)
{
    long trips = bench_arg(argc, argv, 1, 2000000);
    channel there, back;
    boost::fibers::fiber echo([&] {
        int64_t v;
        while (there.pop(v) == ok && back.push(v) == ok)
            ;
    });
    ask(there, back, trips / 10);
    bench_span t = bench_begin();
    ask(there, back, trips);
    bench_report("chan_unbuf", "boost", (double)trips, bench_end(t));
    there.close();
    echo.join();
}
