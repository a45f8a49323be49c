/* A file's bytes, and what is in it. */
#ifndef WEFT_CMD_FILE_H
#define WEFT_CMD_FILE_H

#include "debug/cmd/report.h"

/* All of a file, whatever it is ("-": standard input). NULL: it cannot be had, errno says why. The caller frees. */
uint8_t *file_read(const char *path, size_t *n);

/* What gzip members one after the other hold, up to the end of the last whole one. *cut: there are bytes behind that, which are none. More than limit
 * bytes: as if it were cut there. Never NULL; *n may be 0. The caller frees. */
uint8_t *file_gunzip(const uint8_t *data, size_t size, size_t limit, size_t *n, bool *cut);
#define FILE_GUNZIP_LIMIT ((size_t)4 << 30)

/* Reads data, a trace or a profile, and reports what is to be found in it. base: a goroutine profile to compare one with, or NULL. */
struct profile;
void file_look(struct report *r, const uint8_t *data, size_t n, const struct profile *base, size_t limit);
/* A profile; NULL, and an error is reported: it is none. */
struct profile *file_profile(struct report *r, const uint8_t *data, size_t n, size_t limit);

#endif
