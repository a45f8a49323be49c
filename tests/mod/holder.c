/* A module with pointers of its own: in .data, .bss and thread-local storage, initialised and not. */
#include <stddef.h>

#define N 64
void *mod_data[N] = { (void *)1 };
void *mod_bss[N];
__thread void *mod_tls[N];
__thread void *mod_tls_data[N] = { (void *)1 };

void **mod_slots(int where);
void **mod_slots(int where)
{
    return where == 0 ? mod_data : where == 1 ? mod_bss : where == 2 ? mod_tls : mod_tls_data;
}
