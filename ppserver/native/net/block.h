/* Input blocks: where what a peer says is received and, for HTTP/1.1, decoded; pooled in three
 * sizes. Behind the data is room for the fields of a head. */
#ifndef PP_NET_BLOCK_H
#define PP_NET_BLOCK_H

#include "net/forwarded.h"
#include "proto/head.h"

struct pp_loop;

struct pp_block {
    size_t cap;                    /* of data */
    struct pp_forwarded forwarded; /* of the request, where settings.trusted is */
    struct pp_head head;           /* its fields are behind data[cap) */
    uint8_t data[] __attribute__((aligned(8)));
};

/* With at least `cap` bytes of data. NULL: no memory. */
struct pp_block *pp_block_new(struct pp_loop *loop, size_t cap);
void pp_block_give(struct pp_loop *loop, struct pp_block *block);
/* The allocated size of a pooled block with so much data. */
size_t pp_block_bytes(size_t cap);

#endif
