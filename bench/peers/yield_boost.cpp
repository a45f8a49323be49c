// The question of ../yield.c to Boost.Fiber, with its default scheduler: round robin, one thread, no lock.
#include "../bench.h"
#include <boost/fiber/all.hpp>
#include <vector>

static void run_all(long fibers, long each)
{
    std::vector<boost::fibers::fiber> all;
    for (long i = 0; i < fibers; i++)
        all.emplace_back([each] {
            for (long n = each; n > 0; n--)
                boost::this_fiber::yield();
        });
    for (auto &f : all)
        f.join();
}

int main(int argc, char **argv)
{
    long fibers = bench_arg(argc, argv, 1, 2);
    long yields = bench_arg(argc, argv, 2, 10000000 / fibers);
    run_all(fibers, yields / 10);
    bench_span t = bench_begin();
    run_all(fibers, yields);
    bench_report("yield", "boost", (double)fibers * (double)yields, bench_end(t));
}
