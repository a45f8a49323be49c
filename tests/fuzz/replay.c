/* replay SEED ROUNDS FILE...: gives each file to the fuzz target as it is, and ROUNDS times with damage drawn from SEED: bytes and numbers changed, pieces cut
 * out, doubled, or taken from another of the files. On a crash the last line says which round to look for. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

struct file { uint8_t *data; size_t n; };

static uint64_t state;

static uint64_t draw(uint64_t below)
{
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return below == 0 ? 0 : state % below;
}

static struct file load(const char *path)
{
    struct file f = { malloc(1), 1 };
    FILE *in = fopen(path, "rb");
    if (in == NULL) {
        perror(path);
        exit(2);
    }
    f.data[0] = 1; /* see files.c */
    for (int c; (c = getc(in)) != EOF;) {
        if ((f.n & (f.n - 1)) == 0)
            f.data = realloc(f.data, 2 * f.n);
        f.data[f.n++] = (uint8_t)c;
    }
    fclose(in);
    return f;
}

static void damage(struct file *f, size_t room, const struct file *other)
{
    size_t at = 1 + draw(f->n - 1), n = 1 + draw(draw(4) == 0 ? f->n - at : 16);
    n = n > f->n - at ? f->n - at : n;
    switch (draw(6)) {
    case 0: f->data[at] ^= (uint8_t)(1u << draw(8)); break;
    case 1: f->data[at] = (uint8_t)draw(256); break;
    case 2: memset(f->data + at, draw(2) ? 0xff : 0, n); break;
    case 3: /* out */
        memmove(f->data + at, f->data + at + n, f->n - at - n);
        f->n -= n;
        break;
    case 4: /* doubled */
        n = n > room - f->n ? room - f->n : n;
        memmove(f->data + at + n, f->data + at, f->n - at);
        f->n += n;
        break;
    default: /* of another */
        n = n > other->n - 1 ? other->n - 1 : n;
        memcpy(f->data + at, other->data + 1 + draw(other->n - n), n);
    }
}

int main(int argc, char **argv)
{
    if (argc < 4)
        return fprintf(stderr, "usage: replay SEED ROUNDS FILE...\n"), 2;
    int nfiles = argc - 3, rounds = atoi(argv[2]);
    struct file *files = calloc((size_t)nfiles, sizeof *files);
    for (int i = 0; i < nfiles; i++)
        files[i] = load(argv[i + 3]);
    state = strtoull(argv[1], NULL, 0) * 0x9e3779b97f4a7c15ull + 1;
    for (int i = 0; i < nfiles; i++) {
        LLVMFuzzerTestOneInput(files[i].data, files[i].n);
        for (int k = 0; k < rounds; k++) {
            size_t room = 2 * files[i].n + 64;
            struct file f = { malloc(room), files[i].n };
            memcpy(f.data, files[i].data, f.n);
            for (uint64_t times = 1 + draw(8); times > 0 && f.n > 2; times--)
                damage(&f, room, &files[draw((uint64_t)nfiles)]);
            printf("\r%s, round %d", argv[i + 3], k);
            fflush(stdout);
            uint8_t *exact = malloc(f.n); /* so that a byte too far is seen */
            memcpy(exact, f.data, f.n);
            LLVMFuzzerTestOneInput(exact, f.n);
            free(exact);
            free(f.data);
        }
    }
    for (int i = 0; i < nfiles; i++)
        free(files[i].data);
    free(files);
    printf("\n%d files, %d rounds each\n", nfiles, rounds);
    return 0;
}
