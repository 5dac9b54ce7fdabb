/* Every fixed limit of the server. What a user may set has its default in ppserver/config.py. */
#ifndef PP_BASE_LIMITS_H
#define PP_BASE_LIMITS_H

#include <assert.h>
#include <stdint.h>

#define PP_FIELDS_MAX 256    /* header fields a head can hold; --limit-request-fields <= this */
#define PP_BLOCK_BYTES 16384 /* data bytes of a pooled input block */
#define PP_BODY_BLOCK_BYTES 65536   /* a request body that does not fit grows its block to this */
#define PP_HEAD_BYTES_MAX 1048576   /* --limit-request-head <= this */
#define PP_CHUNK_EXT_BYTES_MAX 1024 /* extensions of one chunk (RFC 9112 7.1.1) */
#define PP_CHUNK_OVERHEAD_MAX \
    65536 /* chunk-size and extension bytes a body may carry beyond data */
#define PP_TRAILER_BYTES_MAX 8192
#define PP_CHUNK_SIZE_DIGITS_MAX 16
#define PP_LEADING_CRLF_MAX 2       /* empty lines skipped before a request line (RFC 9112 2.2) */
#define PP_OUT_HIGH_BYTES 65536     /* send() waits above this many queued bytes */
#define PP_OUT_LOW_BYTES 16384      /* and goes on below this */
#define PP_COPY_BYTES_MAX 16384     /* response pieces up to this are copied, larger are borrowed */
#define PP_LINGER_BYTES_MAX 1048576 /* read and dropped after an early close */
#define PP_LINGER_MS 2000
#define PP_DRAIN_IDLE_MS 200 /* a request may be under way to an idle connection that drains */
#define PP_EPOLL_EVENTS 256
#define PP_ACCEPT_BATCH 64
#define PP_BATCH_REQUESTS 256 /* application events handed over per loop turn */

static_assert(PP_OUT_LOW_BYTES < PP_OUT_HIGH_BYTES, "low water below high water");
static_assert(PP_FIELDS_MAX <= UINT16_MAX, "field counts are 16 bit");

#endif
