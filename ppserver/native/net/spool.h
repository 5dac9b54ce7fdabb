/* A temporary file for what is received before anybody wants it.
 *
 * It has no name, so nothing of it is left behind, and it is one for all that a loop keeps: what is
 * kept takes no descriptors. It is made of parts of PP_SPOOL_PART bytes, which are taken as they
 * are needed and given back to the disk. Writing goes to the page cache: it waits for the disk only
 * when the system holds writers back. */
#ifndef PP_NET_SPOOL_H
#define PP_NET_SPOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/assert.h"
#include "base/err.h"
#include "net/sys.h"

#define PP_SPOOL_PART 262144
#define PP_SPOOL_PARTS_MAX (1u << 22) /* 1 TiB */

struct pp_spool_file {
    char *dir;          /* owned */
    size_t dir_bytes;   /* allocated for it */
    int fd;             /* -1: not made yet. The loop's thread makes it. */
    pid_t process;      /* whose file it is: a forked one could read what others put there later */
    uint32_t parts_max; /* how many there may be. Constant. */
    pthread_mutex_t mutex;
    uint32_t parts;      /* how many there are... */
    uint32_t *unused;    /* ...which of them nobody has: owned, room for all... */
    uint32_t unused_cap; /* ...and some more */
    uint32_t unused_count;
};

/* What is kept together: one thread appends to it; once that is over, another one reads. */
struct pp_spool {
    struct pp_spool_file *file; /* borrowed */
    uint64_t len;
    uint32_t *parts; /* owned: where it is, in order */
    uint32_t part_count, part_cap;
};

/* Of at most `size` bytes; made in dir when it is first needed. NULL: no memory. */
struct pp_spool_file *pp_spool_file_new(const char *dir, uint64_t size);
/* Nothing is kept in it any more. */
void pp_spool_file_free(struct pp_spool_file *file);
/* How much may be kept together at most. */
uint64_t pp_spool_file_room(const struct pp_spool_file *file);

/* An empty one. The loop's thread; NULL: no memory, or the file cannot be made. */
struct pp_spool *pp_spool_new(struct pp_spool_file *file);
/* Any thread. In a forked process nothing is given back, as it is not its own. */
void pp_spool_free(struct pp_spool *spool);
/* All of it, or SYSTEM (no room, the disk is full, no memory): then it is as long as before. */
int pp_spool_append(struct pp_spool *spool, const uint8_t *data, size_t len) PP_MUST_USE;
/* At least one byte from `at`, which is before the end; or SYSTEM, as always in a forked process.
 */
int pp_spool_read(const struct pp_spool *spool, uint64_t at, uint8_t *to, size_t max,
                  size_t *got) PP_MUST_USE;

#endif
