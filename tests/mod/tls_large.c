/* Much thread-local storage; see tests/os_loader.c. */
static __thread void *words[512 * 1024];

void **mod_tls(void);

void **mod_tls(void)
{
    return words + 512 * 1024 - 1;
}
