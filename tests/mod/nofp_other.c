/* The same functions with other frames: what is loaded where the first module was. */
#define NOFP_OTHER 1
#include "nofp.c"
