/* Copies of this library in one process: linked into a program and into a module that it loads, say. */
#ifndef WEFT_OS_COPIES_H
#define WEFT_OS_COPIES_H

#include <stdbool.h>

/* This copy runs from now on. False: another one does. */
bool copies_enter(void);
void copies_leave(void);

#endif
