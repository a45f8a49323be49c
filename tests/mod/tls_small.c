/* A little thread-local storage; see tests/os_loader.c. */
static __thread void *words[2];

void **mod_tls(void);

void **mod_tls(void)
{
    return words;
}
