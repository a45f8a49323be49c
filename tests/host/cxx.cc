// A host in C++: exceptions thrown and caught within a fiber, over frames that wait and move to other threads, also in the middle of a handler;
// destructors of static and thread-local objects that come when the runtime has ended, or while it runs. An exception that leaves a fiber's
// function ends the program, as one that leaves a thread's does.
#include "host.h"
#include <atomic>
#include <pthread.h>
#include <signal.h>
#include <stdexcept>
#include <string>

namespace {

struct counted {
    static std::atomic<int> alive;
    std::string text;
    explicit counted(std::string t) : text(std::move(t)) { alive++; }
    counted(const counted &o) : text(o.text) { alive++; }
    ~counted() { alive--; }
};
std::atomic<int> counted::alive{0};

void wait_somehow(int how)
{
    if (how % 3 == 0)
        weft_yield();
    else if (how % 3 == 1)
        weft_sleep(10 * WEFT_MICROSECOND);
    else
        list_check(list_make(50), 50);
}

__attribute__((noinline)) void throws(int depth, int how)
{
    counted here("frame " + std::to_string(depth) + " of a fiber that throws");
    wait_somehow(how + depth);
    if (depth == 0)
        throw counted("thrown by " + std::to_string(how));
    throws(depth - 1, how);
    wait_somehow(how);
}

std::atomic<int> done{0};

void fiber(void *arg)
{
    int n = (int)(long)arg;
    for (int i = 0; i < 30; i++) {
        try {
            try {
                throws(5, n);
                CHECK(false);
            } catch (counted &e) {
                CHECK(e.text == "thrown by " + std::to_string(n), "%s", e.text.c_str());
                wait_somehow(i); // in the handler: others throw and catch meanwhile, on this thread too
                CHECK(std::uncaught_exceptions() == 0);
                try {
                    throws(2, n + 1000);
                } catch (counted &inner) {
                    wait_somehow(i + 1);
                    CHECK(inner.text == "thrown by " + std::to_string(n + 1000), "%s", inner.text.c_str());
                }
                wait_somehow(i + 2);
                CHECK(e.text == "thrown by " + std::to_string(n));
                throw; // the outer one again
            }
        } catch (const counted &again) {
            CHECK(again.text == "thrown by " + std::to_string(n), "%s", again.text.c_str());
        }
    }
    done++;
}

void all(void *)
{
    for (long i = 0; i < 40; i++)
        OK(weft_go(fiber, (void *)i));
    for (int i = 0; done < 40; i++) {
        if (i % 100 == 0)
            weft_gc();
        weft_sleep(100 * WEFT_MICROSECOND);
    }
}

void exceptions()
{
    for (int procs = 1; procs <= 4; procs++) {
        weft_config cfg = WEFT_CONFIG_INIT;
        cfg.maxprocs = procs;
        done = 0;
        OK(weft_run(all, nullptr, &cfg));
        CHECK(counted::alive == 0, "%d", counted::alive.load());
    }
}

// ---- destructors -------------------------------------------------------------------------------------------------

bool expect_running, check_at_exit;
struct at_exit {
    ~at_exit()
    {
        if (!check_at_exit)
            return;
        CHECK(weft_running() == expect_running);
        if (weft_running()) {
            work(5);
            OK(weft_stop());
        }
        CHECK(weft_go(fiber, nullptr) == -ESRCH);
        CHECK(weft_stop() == -ESRCH && weft_detach() == 0 && weft_attach() == -ESRCH);
        CHECK(std::string(weft_strerror(-ESRCH)) != "");
    }
};
at_exit global;

struct at_thread_exit {
    int n = 0;
    ~at_thread_exit() { OK(weft_attach()); list_check(list_make(10), 10); }
};
thread_local at_thread_exit mine;

void *thread(void *)
{
    mine.n++;
    list_check(list_make(10), 10);
    return nullptr;
}

void some(void *) { work(5); }

void destructors_after_stop()
{
    OK(weft_run(some, nullptr, nullptr));
    check_at_exit = true;
    puts("ok");
    exit(0);
}

void destructors_while_running()
{
    OK(weft_start(nullptr));
    pthread_t t[20];
    for (auto &one : t)
        CHECK(pthread_create(&one, nullptr, thread, nullptr) == 0);
    weft_gc();
    for (auto &one : t)
        pthread_join(one, nullptr);
    check_at_exit = expect_running = true;
    puts("ok");
    exit(0);
}

// ---- what is not caught --------------------------------------------------------------------------------------------

void leaves(void *) { throw std::runtime_error("not caught"); }
void main_leaves(void *)
{
    OK(weft_go(leaves, nullptr));
    weft_sleep(5 * WEFT_SECOND);
}

void run_and_leave(long) { OK(weft_run(main_leaves, nullptr, nullptr)); }

void uncaught()
{
    int status = in_child(run_and_leave, 0);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT && strstr(said, "not caught") != nullptr, "status 0x%x: %s", (unsigned)status, said);
}

} // namespace

int main(int argc, char **argv)
{
    static const host_case cases[] = {
        { "exceptions", exceptions }, { "after_stop", destructors_after_stop }, { "while_running", destructors_while_running }, { "uncaught", uncaught },
    };
    return host_main(argc, argv, cases, sizeof cases / sizeof *cases);
}
