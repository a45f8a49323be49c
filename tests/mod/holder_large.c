/* A module with much thread-local storage: 64 MiB per thread that uses it. */
__thread char mod_large[64 << 20];

char *mod_large_at(long i);
char *mod_large_at(long i) { return &mod_large[i]; }
