/* Every fixed limit of the server. What a user may set has its default in ppserver/config/. */
#ifndef PP_BASE_LIMITS_H
#define PP_BASE_LIMITS_H

#include <assert.h>
#include <stdint.h>

#define PP_FIELDS_MAX 256    /* header fields a head can hold; --limit-request-fields <= this */
#define PP_BLOCK_BYTES 16384 /* data bytes of a pooled input block... */
#define PP_SMALL_BLOCK_BYTES 1280 /* ...of one for a request that fits into it, and... */
#define PP_SMALL_BLOCK_FIELDS 32  /* ...the header fields that such a request may have */
#define PP_HEAD_ASIDE_BYTES 2048  /* of a head that is waited for are kept without a block */
#define PP_BODY_BLOCK_BYTES 65536 /* a request body that does not fit grows its block to this */
#define PP_BODY_TAKE_MIN 16384    /* smaller bodies are received ahead of the application */
/* The most that it is given of a larger one at once; with a block before it still below the size
 * from which malloc asks the kernel each time. */
#define PP_BODY_TAKE_MAX 98304
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
#define PP_HEAD_WAIT_MS 100  /* a response head waits so long for the first piece of its body */
#define PP_DRAIN_IDLE_MS 200 /* a request may be under way to an idle connection that drains */
#define PP_POLL_EVENTS 256   /* taken from the kernel per turn */
#define PP_ACCEPT_BATCH 64
#define PP_BATCH_REQUESTS 256 /* application events handed over per loop turn */
#ifndef PP_BATCH_US           /* contrib/bench counts under callgrind, which is slow */
#define PP_BATCH_US 1000      /* time for them, looked at between two of them */
#endif
#define PP_DOORS_MAX 4096          /* contexts that can hand connections to each other */
#define PP_DRAIN_ACCEPTS_MAX 16384 /* taken from a listener's queue that cannot be counted */
#define PP_DRAIN_DOOR_MS 50        /* a connection may be under way to a context that drains */
#define PP_LOAD_WINDOW_US 50000    /* over which the busy share of a context is taken */
#define PP_LOAD_STALL_US 10000     /* not back from the application for so long: stuck */
#define PP_LOAD_STALL_WEIGHT 1     /* each further millisecond, in idle connections */
#define PP_LOAD_SUSPENDED 8        /* a request that waits, in idle connections */
#define PP_BALANCE_STORM \
    128                   /* so many accepts in two windows make a difference of one negligible */
#define PP_BALANCE_MS 100 /* between two looks at the others' load */
#define PP_BALANCE_PATIENCE 3 /* looks in a row that find another one under far less pressure */
#define PP_BALANCE_BUSY 700   /* thousandths; less busy contexts keep what they have */
#define PP_BALANCE_GAP 250    /* thousandths below that: idle enough to take a last one */
#define PP_BALANCE_STUCK_US 100000 /* nobody is relieved by one that is stuck so long */
#define PP_BALANCE_RETRY_MS 5000   /* between two looks whether a context can take some again */
#define PP_BALANCE_LOOKS 4096      /* connections looked at */
#define PP_BALANCE_MOVES_MAX 64    /* connections given away at once */
#define PP_BALANCE_COUNT_GAP 32    /* and that many more are no reason to give any away */
#define PP_TRY_MAX 16              /* receives right after accept: memory of how they went */
#define PP_SHARED_BYTES_MAX (UINT64_C(1) << 36) /* of one array of ppserver.shared */

static_assert(PP_OUT_LOW_BYTES < PP_OUT_HIGH_BYTES, "low water below high water");
static_assert(PP_FIELDS_MAX <= UINT16_MAX, "field counts are 16 bit");

#endif
