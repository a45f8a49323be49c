/* Address space and the memory behind it. Everything is private and anonymous; lengths and addresses are multiples of 4 KiB (or of the
 * system's page where that is larger: OS_PAGE_MAX). Results are 0 or a negative errno, pointers or NULL; errno is left alone. May be called in a
 * stop. */
#ifndef WEFT_OS_VM_H
#define WEFT_OS_VM_H

#include "base/base.h"

#define OS_HUGE_PAGE (2u << 20)

size_t os_page_bytes(void);
/* Address space without memory: nothing may be touched in it, and it is not in core files. align is a power of two. */
void *os_vm_reserve(size_t bytes, size_t align);
/* Makes part of a reservation usable; it reads as zero and gets memory when it is touched. -ENOMEM. */
int os_vm_commit(void *p, size_t bytes);
/* Gives the memory back; the range stays usable. now: it reads as zero at once; otherwise the kernel takes the memory when it needs some, and
 * the old bytes may be read until then. */
int os_vm_release(void *p, size_t bytes, bool now);
/* Memory for a stack: usable, and taken when it is touched. */
void *os_vm_map_stack(size_t bytes);
/* Unmaps, address space and all. */
void os_vm_free(void *p, size_t bytes);
/* Hints: memory touched from now on comes in huge pages; and what is there already is moved to huge pages. */
void os_vm_huge(void *p, size_t bytes);
void os_vm_collapse(void *p, size_t bytes);
/* Names the range in /proc/self/maps, where the kernel can. name stays in place. */
void os_vm_name(void *p, size_t bytes, const char *name);
/* Copies up to 32 KiB for a reader that cannot know whether all of it is mapped: the number of bytes up to the first page that cannot be read. Where
 * the kernel does not let us (some sandboxes and emulators), each page is tried first; what is unmapped in that moment is then a fault. */
size_t os_vm_peek(void *to, const void *from, size_t bytes);
/* Most address space the process may have (RLIMIT_AS); SIZE_MAX: no limit. */
size_t os_vm_limit_bytes(void);

#endif
