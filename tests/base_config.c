/* Settings: where they come from, what is refused, and what the user is told. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include "base/config.h"
#include "test.h"

static char said[4096];
static int lines;

static void say(void *arg, const char *line)
{
    (void)arg;
    lines++;
    strcat(said, line);
    strcat(said, "\n");
}

static int load(const weft_config *cfg, struct config *out)
{
    said[0] = 0;
    lines = 0;
    return config_load(cfg, out, say, NULL);
}

static void clean(void)
{
    static const char *const ours[] = { "WEFT_MAXPROCS", "WEFT_GC", "WEFT_MEMLIMIT", "WEFT_STACK", "WEFT_DEBUG" };
    for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++)
        unsetenv(ours[i]);
}

TestSuite(config, .init = clean);

Test(config, defaults)
{
    struct config c;
    cr_assert_eq(load(NULL, &c), 0, "%s", said);
    cr_expect_eq(c.maxprocs, 0);
    cr_expect_eq(c.gc_percent, 100);
    cr_expect_eq(c.memory_limit, INT64_MAX);
    cr_expect_eq(c.stack_size, 65536);
    cr_expect_eq(c.main_stack_size, 1 << 20);
    cr_expect_eq(c.max_threads, 10000);
    cr_expect_eq(c.stop_signal, SIGURG);
    cr_expect_eq(c.stop_timeout_ms, 1000);
    cr_expect_eq(c.madvdontneed, 1);
    cr_expect_eq(c.memprofilerate, 524288);
    cr_expect_eq(c.mem_profile_rate, 0);
    cr_expect(c.gctrace == 0 && c.gcstress == 0 && c.gcpoison == 0 && c.gcverify == 0 && c.gc == CONFIG_GC_AUTO);
    cr_expect(c.migrate == 0 && c.schedseed == 0 && c.failmem == 0 && c.failthread == 0 && c.failfd == 0 && c.faildirty == 0 && c.failrun == 1);
    weft_config init = WEFT_CONFIG_INIT;
    struct config d;
    cr_assert_eq(load(&init, &d), 0);
    cr_expect_eq(memcmp(&c, &d, sizeof c), 0);
}

Test(config, environment_then_struct)
{
    struct config c;
    setenv("WEFT_MAXPROCS", "3", 1);
    setenv("WEFT_GC", "off", 1);
    setenv("WEFT_MEMLIMIT", "512MiB", 1);
    setenv("WEFT_STACK", "100KiB", 1);
    setenv("WEFT_DEBUG", "gctrace=1,gcstress=50,madvdontneed=0,gc=stw,cgrouproot=/some/where", 1);
    cr_assert_eq(load(NULL, &c), 0, "%s", said);
    cr_expect_eq(c.maxprocs, 3);
    cr_expect_eq(c.gc_percent, -1);
    cr_expect_eq(c.memory_limit, 512ll << 20);
    cr_expect_eq(c.stack_size, 128 << 10, "rounded up to a power of two");
    cr_expect(c.gctrace == 1 && c.gcstress == 50 && c.madvdontneed == 0 && c.gc == CONFIG_GC_STW);
    cr_expect_str_eq(c.cgrouproot, "/some/where");

    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.maxprocs = 2;
    cfg.gc_percent = 50;
    cfg.memory_limit = 1000;
    cfg.debug = "gcstress=7,gcpoison=1,gc=mprotect";
    cr_assert_eq(load(&cfg, &c), 0, "%s", said);
    cr_expect_eq(c.maxprocs, 2);
    cr_expect_eq(c.gc_percent, 50);
    cr_expect_eq(c.memory_limit, 1000);
    cr_expect(c.gctrace == 1 && c.gcstress == 7 && c.gcpoison == 1 && c.gc == CONFIG_GC_MPROTECT);
    cfg.gc_percent = WEFT_GC_OFF;
    cr_assert_eq(load(&cfg, &c), 0);
    cr_expect_eq(c.gc_percent, -1);
}

Test(config, sizes_with_units)
{
    static const struct { const char *text; int64_t bytes; } ok[] = {
        { "123", 123 },          { "123B", 123 },         { "2KiB", 2048 },  { "3MiB", 3 << 20 },
        { "4GiB", 4ll << 30 }, { "1TiB", 1ll << 40 },
        { "0", 0 }, { "off", INT64_MAX }, { "", INT64_MAX }, { "9223372036854775807", INT64_MAX },
    };
    static const char *const bad[] = { "1kb", "1 KiB", "KiB", "-1", "1.5GiB", "0x10", "8388608TiB",
                                      "9223372036854775808", "1MiBx", "Off" };
    struct config c;
    for (size_t i = 0; i < sizeof ok / sizeof ok[0]; i++) {
        setenv("WEFT_MEMLIMIT", ok[i].text, 1);
        cr_expect_eq(load(NULL, &c), 0, "%s", said);
        cr_expect_eq(c.memory_limit, ok[i].bytes, "%s", ok[i].text);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        setenv("WEFT_MEMLIMIT", bad[i], 1);
        cr_expect_eq(load(NULL, &c), -EINVAL, "%s was taken", bad[i]);
        cr_expect_eq(lines, 1);
        cr_expect_not_null(strstr(said, "WEFT_MEMLIMIT="), "%s", said);
        cr_expect_not_null(strstr(said, bad[i]), "%s", said);
        cr_expect_eq(c.memory_limit, INT64_MAX, "the default stands in");
    }
}

Test(config, misspelt_keys_are_reported_with_the_nearest)
{
    static const struct { const char *text, *says; } bad[] = {
        { "gctrce=1", "did you mean \"gctrace\"?" },   { "gcstres=1", "did you mean \"gcstress\"?" },
        { "GCTRACE=1", "All keys: gctrace" },          { "gctrace", "gctrace= cannot be used: it must be 0 or 1" },
        { "gctrace=2", "gctrace=2 cannot be used" },   { "gcstress=lots", "it must be a number" },
        { "cgrouproot=", "it must be a path of at most 127 bytes" }, { "gcstress=-1", "it must be a number" },
        { "gc=fast", "gc=fast cannot be used: it must be auto|uffd|mprotect|stw" },
        { "=1", "unknown key \"\"" },                  { "nothing=1", "unknown key \"nothing\"." },
    };
    struct config c;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        setenv("WEFT_DEBUG", bad[i].text, 1);
        cr_expect_eq(load(NULL, &c), -EINVAL, "%s was taken", bad[i].text);
        cr_expect_eq(lines, 1, "%s", said);
        cr_expect_not_null(strstr(said, bad[i].says), "%s: %s", bad[i].text, said);
    }
    setenv("WEFT_DEBUG", ",gctrce=1,gcpoison=1,,gcverfy=1,", 1);
    setenv("WEFT_MAXPROCS", "0", 1);
    cr_expect_eq(load(NULL, &c), -EINVAL);
    cr_expect_eq(lines, 3, "all that is wrong in one go: %s", said);
    cr_expect_eq(c.gcpoison, 1);
}

Test(config, a_variable_close_to_ours_is_only_mentioned)
{
    struct config c;
    setenv("WEFT_MAXPROC", "2", 1);
    setenv("WEFT_HOME", "/tmp", 1);
    cr_expect_eq(load(NULL, &c), 0);
    cr_expect_eq(lines, 1, "%s", said);
    cr_expect_not_null(strstr(said, "did you mean WEFT_MAXPROCS?"), "%s", said);
}

Test(config, values_out_of_range_in_the_struct)
{
    struct config c;
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.maxprocs = -1;
    cr_expect_eq(load(&cfg, &c), -EINVAL);
    cr_expect_not_null(strstr(said, "weft_config.maxprocs is -1"), "%s", said);
    cfg = (weft_config)WEFT_CONFIG_INIT;
    cfg.stack_size = 100;
    cr_expect_eq(load(&cfg, &c), -EINVAL);
    cfg = (weft_config)WEFT_CONFIG_INIT;
    cfg.stop_signal = SIGKILL;
    cr_expect_eq(load(&cfg, &c), -EINVAL);
    cfg = (weft_config)WEFT_CONFIG_INIT;
    cfg.memory_limit = -5;
    cr_expect_eq(load(&cfg, &c), -EINVAL);
    cfg = (weft_config)WEFT_CONFIG_INIT;
    cfg.stop_timeout_ms = -1;
    cr_expect_eq(load(&cfg, &c), 0, "%s", said);
}

/* The size field: a program built with an older or a newer header. */
Test(config, other_versions_of_the_struct)
{
    struct { weft_config cfg; long more; } newer = { WEFT_CONFIG_INIT, 0 };
    struct config c;
    newer.cfg.size = sizeof newer;
    newer.cfg.maxprocs = 5;
    cr_expect_eq(load(&newer.cfg, &c), 0, "%s", said);
    cr_expect_eq(c.maxprocs, 5);
    newer.more = 1;
    cr_expect_eq(load(&newer.cfg, &c), -EINVAL);
    cr_expect_not_null(strstr(said, "newer"), "%s", said);

    weft_config older = WEFT_CONFIG_INIT;
    older.size = offsetof(weft_config, gc_percent);
    older.maxprocs = 4;
    older.gc_percent = 77; /* beyond its end: not looked at */
    cr_expect_eq(load(&older, &c), 0, "%s", said);
    cr_expect_eq(c.maxprocs, 4);
    cr_expect_eq(c.gc_percent, 100);

    weft_config none = { 0 };
    cr_expect_eq(load(&none, &c), -EINVAL);
    cr_expect_not_null(strstr(said, "WEFT_CONFIG_INIT"), "%s", said);
}
