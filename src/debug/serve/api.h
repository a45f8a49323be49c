/* What the process is doing, as text and JSON. See api.c. */
#ifndef WEFT_SERVE_API_H
#define WEFT_SERVE_API_H

#include "debug/serve/route.h"

int api_document(struct request *r); /* /debug/api/NAME */
int api_text(struct request *r);     /* /debug/NAME */
int api_heap(struct request *r);     /* /debug/heap: that, or with dump=1 or why=ADDRESS its objects */
int api_flight(struct request *r);   /* /debug/flight */

/* Documents that are kept are freed. */
void api_forget(void);
void api_after_fork(void); /* in the child */

/* Whether who sent this header Accept (NULL: none) would rather have the one type than the other, which he gets if he does not care. RFC 9110, 12.5.1;
 * ranges with a parameter `version` other than 1.0.0 do not count for the former. */
bool accept_prefers(const char *accept, const char *type, const char *otherwise);

#endif
