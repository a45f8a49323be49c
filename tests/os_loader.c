/* Modules that come and go under the collector. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include "test.h"

typedef void **tls_fn(void);

/* A thread of the host that does something whenever it is told to, and sleeps between. */
static struct {
    atomic_int wanted, done;
    void (*fn)(void);
} guest;

static void *guest_main(void *arg)
{
    (void)arg;
    void *volatile own = weft_alloc(16); /* attaches it */
    (void)own;
    for (int step = 1; guest.done == step - 1; step++) {
        while (guest.wanted < step)
            test_pause();
        if (guest.fn == NULL)
            break;
        guest.fn();
        guest.done = step;
    }
    return NULL;
}

static void guest_do(void (*fn)(void))
{
    guest.fn = fn;
    int step = ++guest.wanted;
    if (fn != NULL)
        test_until(guest.done == step);
}

static tls_fn *tls_word;
static void touch(void) { tls_word(); }

enum { NODES = 1000 };
struct node { struct node *next; uint64_t tag; };

static void keep_list(void)
{
    struct node *head = NULL;
    for (uint64_t i = 0; i < NODES; i++) {
        struct node *n = weft_alloc(sizeof *n);
        *n = (struct node){ head, i };
        head = n;
    }
    *tls_word() = head;
}

static int found;
static void count_list(void)
{
    for (struct node *n = *tls_word(); n != NULL && n->tag == NODES - 1u - (unsigned)found; n = n->next)
        found++;
}

/* The block of a module that is gone stays in the other thread, and the next module with thread-local storage gets its number. */
static void a_number_of_another_size(void *arg)
{
    (void)arg;
    pthread_t t;
    void *small = dlopen(TEST_MOD("tls_small"), RTLD_NOW | RTLD_LOCAL);
    cr_assert_not_null(small);
    pthread_create(&t, NULL, guest_main, NULL);
    tls_word = (tls_fn *)dlsym(small, "mod_tls");
    guest_do(touch);
    dlclose(small);
    void *large = dlopen(TEST_MOD("tls_large"), RTLD_NOW | RTLD_LOCAL);
    cr_assert_not_null(large);
    weft_gc();
    /* and once the thread has a block of the right size, all of it is a root */
    tls_word = (tls_fn *)dlsym(large, "mod_tls");
    guest_do(keep_list);
    weft_gc();
    guest_do(count_list);
    cr_assert_eq(found, NODES);
    guest_do(NULL);
    pthread_join(t, NULL);
    dlclose(large);
}

Test(os_loader, thread_keeps_block_of_a_module_that_is_gone)
{
    test_run_debug(0, "gcpoison=1", a_number_of_another_size, NULL);
}
