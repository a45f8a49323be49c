/* The numbers of traces, and how they are read, as the library has them; without its checks, which end a program by a fatal line of the library's. */
#undef WEFT_CHECKS
#include "trace/format.c"
