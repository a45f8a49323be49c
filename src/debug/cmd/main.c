/* weft-doctor FILE...: reads traces and profiles that weft or Go has written, and tells what misuse and what trouble they show. For CI.
 * The readers (trace.c, profile.c) know nothing of what is looked for; the rules (look_trace.c, look_profile.c, with their thresholds in rules.h)
 * nothing of bytes. None of it runs in a program that uses weft. */
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include "debug/cmd/file.h"
#include "debug/cmd/profile.h"
#include <weft/base.h>

static const char usage[] =
    "usage: weft-doctor [--json] [--base PROFILE] FILE...\n"
    "Reads traces (Go 1.22 or newer) and profiles (for go tool pprof) that weft or Go has written; - is the standard input.\n"
    "  --json           findings as JSON\n"
    "  --base PROFILE   a profile of fibers (goroutine) from before: FILEs of the same kind are compared with it\n"
    "  --codes          what is looked for\n"
    "  --version\n"
    "Exit code: 0 nothing found, 1 something found, 2 a file could not be read (what was found in the others is told).\n";

static struct profile *read_base(struct report *r, const char *path)
{
    size_t n;
    struct profile *p = NULL;
    report_file(r, path);
    uint8_t *data = file_read(path, &n);
    if (data == NULL)
        report_error(r, "%s", strerror(errno));
    else if ((p = file_profile(r, data, n, FILE_GUNZIP_LIMIT)) != NULL && profile_type(p, "goroutine") < 0)
        report_error(r, "no profile of fibers, with which others could be compared");
    else if (p != NULL)
        report_kind(r, "profile of fibers to compare with");
    free(data);
    return p;
}

int main(int argc, char **argv)
{
    static const struct option options[] = { { "json", 0, NULL, 'j' }, { "base", 1, NULL, 'b' }, { "codes", 0, NULL, 'c' }, { "version", 0, NULL, 'v' },
                                             { "help", 0, NULL, 'h' }, { NULL, 0, NULL, 0 } };
    bool json = false;
    const char *base_path = NULL;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;)
        switch (c) {
        case 'j': json = true; break;
        case 'b': base_path = optarg; break;
        case 'c': report_print_rules(stdout); return 0;
        case 'v': puts("weft-doctor " WEFT_VERSION); return 0;
        case 'h': fputs(usage, stdout); return 0;
        default: fputs(usage, stderr); return 2;
        }
    if (optind == argc) {
        fputs(usage, stderr);
        return 2;
    }
    struct report *r = report_new();
    struct profile *base = base_path != NULL ? read_base(r, base_path) : NULL;
    for (int i = optind; i < argc; i++) {
        size_t n;
        report_file(r, argv[i]);
        uint8_t *data = file_read(argv[i], &n);
        if (data != NULL)
            file_look(r, data, n, base, FILE_GUNZIP_LIMIT);
        else
            report_error(r, "%s", strerror(errno));
        free(data);
    }
    report_print(r, stdout, json);
    int code = report_failed(r) ? 2 : report_count(r) > 0 ? 1 : 0;
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fprintf(stderr, "weft-doctor: %s\n", strerror(errno));
        code = 2;
    }
    profile_free(base);
    report_free(r);
    return code;
}
