/* Bug 02: finalizers as the way to close files.
 *
 * What the call promises: the finalizer runs some time after the object has become unreachable. A cycle starts when
 *                         the heap has grown.
 * What the bug assumes:   that descriptors come back in time.
 * What goes wrong:        an object that holds a descriptor has 16 bytes. The collector sees kilobytes of growth
 *                         where the process sees a table that is full: EMFILE, while cycles happen at their own pace.
 * Instead:                close explicitly, when done. A finalizer is a net for what was forgotten, and it is taken
 *                         away on close.
 * Guarded:                a collection runs because descriptors are short, and not only when the heap has grown. */
#include "bug.h"

#include <fcntl.h>
#include <sys/resource.h>

enum { REQUESTS = 10000, DESCRIPTORS = 128, WORK_BYTES = 2048 };

struct file { int fd; };

static void close_late(void *obj, void *ctx)
{
    (void)ctx;
    close(((struct file *)obj)->fd);
}

static struct file *file_open(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    struct file *f = weft_alloc_noscan(sizeof *f);
    f->fd = fd;
    weft_set_finalizer(f, close_late, NULL);
    return f;
}

static void file_close(struct file *f)
{
    weft_set_finalizer(f, NULL, NULL);
    close(f->fd);
}

static int emfile;

/* Opens a file, does some work that makes garbage, as work does. */
static void request(bool buggy)
{
    struct file *f = file_open("/dev/null");
    if (!f) {
        emfile += errno == EMFILE;
        f = NULL;
    }
    char *text = weft_alloc_noscan(WORK_BYTES);
    if (f)
        snprintf(text, WORK_BYTES, "%d", f->fd);
    if (f && !buggy)
        file_close(f);
    weft_keep_alive(f);
}

static void measure(bool buggy)
{
    struct rlimit limit = { DESCRIPTORS, DESCRIPTORS };
    weft_mem_stats *m = weft_alloc_noscan(sizeof *m);
    setrlimit(RLIMIT_NOFILE, &limit);
    for (int i = 0; i < REQUESTS; i++) {
        request(buggy);
        if (i % 16 == 0)
            weft_yield(); /* others run, the finalizers' fiber among them */
    }
    m->size = sizeof *m;
    weft_read_mem_stats(m);
    bug_value("emfile", emfile);
    bug_value("cycles", m->num_gc);
    bug_say("%d requests, a limit of %d descriptors, %u collections: %d times EMFILE", REQUESTS, DESCRIPTORS, m->num_gc,
            emfile);
    bug_cell("%d x EMFILE", emfile);
}

static void buggy(void *arg) { (void)arg, measure(true); }
static void fixed(void *arg) { (void)arg, measure(false); }

static const char *verdict(const struct bug_result *r)
{
    const struct bug_result *b = &r[BUGGY], *f = &r[FIXED], *g = &r[GUARDED];
    if (bug_get(b, "emfile") < 10)
        return "no EMFILE without close";
    if (bug_get(b, "cycles") < 1)
        return "no collection happened, so the bug was not put to the test";
    if (bug_get(f, "emfile") != 0)
        return "EMFILE although every file was closed";
    if (bug_get(g, "emfile") > bug_get(b, "emfile") / 100)
        return "guarded, descriptors run out all the same";
    return NULL;
}

int main(int argc, char **argv)
{
    static const struct bug bug = {
        .number = "02",
        .title = "finalizer as the way to close",
        .buggy = buggy,
        .fixed = fixed,
        .instead = "file_close(f);   /* when done; it takes the finalizer away, too, which is only a net */",
        .code = WEFT_W02,
        .guard = "WEFT_GUARD_DESCRIPTORS: weft_set_finalizer collects when three quarters of the descriptors are taken, and lets finalizers run",
        .verdict = verdict,
        .plots = { { "emfile", "requests that met EMFILE, of 10000", "", false } },
    };
    return bug_main(argc, argv, &bug);
}
