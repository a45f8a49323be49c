/* W14: profiles are served to everybody.
 *
 * Nobody looks for it here: the endpoint, a library on top of this one, refuses such an address, and says so by weft_doctor_note
 * (src/debug/serve/serve.c). This is what goes with its sentence. */
#include "debug/doctor.h"

const struct detector w14_public = {
    .code = WEFT_W14,
    .title = "profiles were to be served to everybody",
    .cure = "Listen at 127.0.0.1 or a unix socket; or set a token of at least 16 bytes (weft_serve_opts.token), or TLS with certificates of clients.",
};
