/* Feeds bytes to an HTTP/1.1 machine the way a connection does, and writes down what comes out. */
#ifndef PP_TESTS_NATIVE_H1_FEED_H
#define PP_TESTS_NATIVE_H1_FEED_H

#include <stddef.h>
#include <stdint.h>

#include "proto/h1_conn.h"

struct feed_log {
    char *text; /* owned; NUL-terminated once something was written */
    size_t len, cap;
};
void feed_log_fini(struct feed_log *log);

/* Where the input is cut: the length of the next piece at `done` of `total` bytes (> 0). */
typedef size_t feed_cut(void *arg, size_t done, size_t total);
size_t feed_whole(void *arg, size_t done, size_t total);
size_t feed_bytes(void *arg, size_t done, size_t total);
size_t feed_once(void *arg, size_t done, size_t total); /* one cut at *(size_t *)arg */

extern const struct pp_h1_limits feed_limits; /* the defaults of the command line */

/* Serves data[0, len) with empty responses until the input or the connection ends. The log does not
 * depend on the cuts, or the machine is wrong:
 *   request METHOD TARGET HTTP/1.x     then, when not origin-form: target FORM ...
 *   field NAME: VALUE                  one for each
 *   flags ...                          what the fields mean together
 *   continue                           100 Continue would be sent
 *   body "BYTES"                       decoded, once for each body
 *   next | close "REST"                what follows the response
 *   error NAME STATUS | incomplete head | incomplete body
 * Bytes outside 0x20..0x7E, quotes and backslashes are written as \r, \n, \t, \", \\ or \xNN. */
void feed_run(const uint8_t *data, size_t len, const struct pp_h1_limits *limits, feed_cut *cut,
              void *arg, struct feed_log *log);

#endif
