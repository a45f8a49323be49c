/* What tests/prog/profiled.c tells of itself, in a file that both have mapped. */
#ifndef WEFT_PROFILED_H
#define WEFT_PROFILED_H

#include <stdint.h>

struct note {
    uint64_t bytes;   /* that the file has at least */
    uint64_t pending; /* being written */
    int64_t cpu_ns;   /* CPU time of the process when the piece before the last one was handed to the writer: the samples up to then
                         are in the last one, which was made afterwards */
};

#endif
