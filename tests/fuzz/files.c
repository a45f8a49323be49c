/* Any bytes, as a file given to weft-doctor: decompressed, decoded, looked at, told as text and as JSON. The first byte says whether what follows is compared
 * with itself, as a profile of fibers. tools/fuzz.sh has libFuzzer make the bytes; replay.c a few thousand in the normal tests. */
#include "debug/cmd/file.h"
#include "debug/cmd/profile.h"
#include <stdlib.h>

#define LIMIT ((size_t)4 << 20) /* what a few bytes may unpack to */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static FILE *nowhere;
    if (nowhere == NULL && (nowhere = fopen("/dev/null", "w")) == NULL)
        abort();
    if (n == 0)
        return 0;
    struct report *r = report_new();
    struct profile *base = NULL;
    report_file(r, "fuzz");
    if (data[0] & 1)
        base = file_profile(r, data + 1, n - 1, LIMIT);
    report_file(r, "fuzz");
    file_look(r, data + 1, n - 1, base, LIMIT);
    report_print(r, nowhere, false);
    report_print(r, nowhere, true);
    profile_free(base);
    report_free(r);
    return 0;
}
