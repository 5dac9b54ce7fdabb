/* A temporary file for what is received before anybody wants it.
 *
 * It has no name, so nothing of it is left behind. One thread appends to it, its loop's; once that
 * is over, any thread reads. Writing goes to the page cache: it waits for the disk only when the
 * system holds writers back. */
#ifndef PP_NET_SPOOL_H
#define PP_NET_SPOOL_H

#include <stddef.h>
#include <stdint.h>

#include "base/assert.h"
#include "base/err.h"

struct pp_spool {
    int fd;
    uint64_t len;
};

/* An empty one in that directory; NULL: it cannot be made there. */
struct pp_spool *pp_spool_new(const char *dir);
void pp_spool_free(struct pp_spool *spool);
/* All of it, or SYSTEM: then the file is as before. */
int pp_spool_append(struct pp_spool *spool, const uint8_t *data, size_t len) PP_MUST_USE;
/* At least one byte from `at`, which is before the end; or SYSTEM. */
int pp_spool_read(const struct pp_spool *spool, uint64_t at, uint8_t *to, size_t max,
                  size_t *got) PP_MUST_USE;

#endif
