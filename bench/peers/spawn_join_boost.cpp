// The question of ../spawn_join.c to Boost.Fiber: fiber and join; its default stacks of 128 KiB, from
// pooled_fixedsize_stack, so that they are reused.
#include "../bench.h"
#include <boost/fiber/all.hpp>
#include <vector>

static void run_all(long batch, long n)
{
    boost::fibers::pooled_fixedsize_stack stacks;
    std::vector<boost::fibers::fiber> all(batch);
    for (long i = 0; i < n; i += batch) {
        for (auto &f : all)
            f = boost::fibers::fiber(std::allocator_arg, stacks, [] { bench_use(nullptr); });
        for (auto &f : all)
            f.join();
    }
}

int main(int argc, char **argv)
{
    long batch = bench_arg(argc, argv, 1, 1);
    long fibers = bench_arg(argc, argv, 2, 3000000);
    run_all(batch, fibers / 10);
    bench_span t = bench_begin();
    run_all(batch, fibers);
    bench_report("spawn_join", "boost", (double)fibers, bench_end(t));
}
