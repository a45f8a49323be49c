/* weft/prof.h - labels of fibers and profiles that `go tool pprof` opens.
 *
 * Contracts: Go's packages runtime/pprof and runtime (SetCPUProfileRate). */
#ifndef WEFT_PROF_H
#define WEFT_PROF_H

#include <weft/base.h>

WEFT_BEGIN_DECLS

/* ---- labels ------------------------------------------------------------------------------------ */

/* Two texts that say what a fiber is working for, such as "tenant" and "acme". Samples that profiles take of it, and its part of a trace, carry
 * them. A fiber starts with those of the fiber that made it, at no cost but a count. Of two with the same key the later one counts. */
typedef struct weft_label { const char *key, *value; } weft_label;
#define WEFT_LABELS_MAX 32 /* of a fiber at a time */

/* The calling fiber (or thread of the host) has these labels and no others; n 0: none. The texts are copied. (Go: SetGoroutineLabels)
 * 0, -EINVAL (a text is NULL, a key empty, or there are more than WEFT_LABELS_MAX), -ENOMEM (it has those it had), -ESRCH (runtime not running). */
WEFT_API int weft_set_labels(const weft_label *labels, size_t n);

/* Runs fn(arg) with these labels beside those that the caller has, which it has again afterwards, whatever fn does to them. They also end if the
 * fiber does in fn (weft_exit). If fn is left by longjmp or an exception they stay, until the fiber calls this again or ends. (Go: Do)
 * fn has run: 0. It has not: -EINVAL (as above; fn NULL; together more than WEFT_LABELS_MAX), -ENOMEM, -ESRCH. */
WEFT_API int weft_with_labels(const weft_label *labels, size_t n, weft_fn *fn, void *arg) WEFT_MUST_CHECK;

/* The caller's label of that key; NULL: none (or the runtime does not run). Good until its labels change. (Go: Label) */
WEFT_API const char *weft_label_get(const char *key);

WEFT_END_DECLS
#endif
