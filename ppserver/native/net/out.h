/* The output queue of a connection: a chain of pieces, each with copied bytes and behind them at
 * most one range that is borrowed from the application, or one of a file.
 *
 * Nothing here writes to a socket, and nothing knows a protocol: who flushes asks for what is first
 * (pp_out_gather) and tells how much of it is gone (pp_out_advance). A piece whose borrowed range
 * is written carries its owner to pp_loop_take_released, so that letting go of memory never needs
 * memory. */
#ifndef PP_NET_OUT_H
#define PP_NET_OUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "net/file.h"
#include "net/sys.h"

#define PP_OUT_IOVS_MAX 32

struct pp_loop;

struct pp_out {
    struct pp_out *next;
    void *owner;             /* the application's, of the borrowed range */
    const uint8_t *borrowed; /* what is left of it */
    size_t borrowed_len;
    struct pp_file *file;       /* counted, or NULL */
    uint64_t file_at, file_len; /* what is left of it */
    size_t cap;
    size_t start, end; /* copied bytes not yet written */
    uint8_t data[];
};

struct pp_out_queue {
    struct pp_out *head, *tail; /* owned */
    uint64_t bytes;             /* not yet written */
};

/* The last piece, with `need` contiguous bytes free behind its copied ones; NULL: no memory. What
 * is written there counts by pp_out_commit. */
struct pp_out *pp_out_room(struct pp_loop *loop, struct pp_out_queue *queue, size_t need);
static inline uint8_t *pp_out_at(struct pp_out *out)
{
    return out->data + out->end;
}
static inline size_t pp_out_left(const struct pp_out *out)
{
    return out->cap - out->end;
}
void pp_out_commit(struct pp_out_queue *queue, struct pp_out *out, size_t len);

/* All three: PP_OK or NO_MEMORY, with a part of it queued. */
int pp_out_copy(struct pp_loop *loop, struct pp_out_queue *queue, const void *data,
                size_t len) PP_MUST_USE;
/* Borrowed when they are many and have an owner, else copied. */
int pp_out_bytes_of(struct pp_loop *loop, struct pp_out_queue *queue, const uint8_t *data,
                    size_t len, void *owner, bool *borrowed) PP_MUST_USE;
/* A range of a file; takes the reference over in any case. */
int pp_out_file(struct pp_loop *loop, struct pp_out_queue *queue, struct pp_file *file, uint64_t at,
                uint64_t len) PP_MUST_USE;

/* What is first and in memory, up to a file and up to `room` bytes: the number of pieces in iov,
 * which has PP_OUT_IOVS_MAX; 0: a file is first. *more: a file follows. */
int pp_out_gather(const struct pp_out_queue *queue, struct iovec *iov, size_t room, bool *more);
/* n bytes are written; from_file: of a file's range, which has been moved on already. */
void pp_out_advance(struct pp_loop *loop, struct pp_out_queue *queue, size_t n, bool from_file);
void pp_out_drop(struct pp_loop *loop, struct pp_out_queue *queue);

void pp_out_give(struct pp_loop *loop, struct pp_out *out); /* back to its pool */

#endif
