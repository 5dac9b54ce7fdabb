/* The only malloc and free of the native layers.
 *
 * Counts bytes and blocks of the whole process: each thread in a stripe of its own cache lines, so
 * that contexts do not fetch a line from each other for every allocation; a reader adds the stripes
 * up. The additions are relaxed atomics, since more threads than stripes share some, and since they
 * are statistics: no thread draws conclusions about another's memory from them. A block freed by
 * another thread than it was allocated by makes single stripes wrap; the sum does not mind.
 * In test builds one chosen allocation fails. The pools belong to one loop each and are not locked.
 * Leaves out: arenas and growing buffers; request data lives in pooled input blocks. */
#include "base/mem.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define STRIPES 64
#define STRIPE_BYTES 128 /* two cache lines: some processors fetch them in pairs */

struct stripe {
    _Alignas(STRIPE_BYTES) _Atomic uint64_t bytes;
    _Atomic uint64_t blocks;
};

static struct stripe stripes[STRIPES];
static _Atomic unsigned stripes_given;          /* written once by each thread */
static _Thread_local struct stripe *stripe_own; /* NULL until the thread's first allocation */

#if defined(PP_FAILURE_INJECTION) && PP_FAILURE_INJECTION
static _Atomic uint64_t fail_countdown;

static bool should_fail(void)
{
    uint64_t left = atomic_load_explicit(&fail_countdown, memory_order_relaxed);
    while (left != 0) {
        if (atomic_compare_exchange_weak_explicit(&fail_countdown, &left, left - 1,
                                                  memory_order_relaxed, memory_order_relaxed)) {
            return left == 1;
        }
    }
    return false;
}

void pp_mem_fail_at(uint64_t nth)
{
    atomic_store_explicit(&fail_countdown, nth, memory_order_relaxed);
}
#else
static bool should_fail(void)
{
    return false;
}

void pp_mem_fail_at(uint64_t nth)
{
    (void)nth;
}
#endif

static void count(uint64_t bytes, uint64_t blocks)
{
    struct stripe *own = stripe_own;
    if (PP_UNLIKELY(own == NULL)) {
        unsigned given = atomic_fetch_add_explicit(&stripes_given, 1, memory_order_relaxed);
        own = stripe_own = &stripes[given % STRIPES];
    }
    atomic_fetch_add_explicit(&own->bytes, bytes, memory_order_relaxed);
    atomic_fetch_add_explicit(&own->blocks, blocks, memory_order_relaxed);
}

void *pp_mem_alloc(size_t bytes)
{
    PP_ASSERT(bytes != 0);
    if (should_fail()) {
        return NULL;
    }
    void *ptr = malloc(bytes);
    if (PP_LIKELY(ptr != NULL)) {
        count(bytes, 1);
    }
    return ptr;
}

void *pp_mem_zalloc(size_t bytes)
{
    PP_ASSERT(bytes != 0);
    if (should_fail()) {
        return NULL;
    }
    void *ptr = calloc(1, bytes);
    if (PP_LIKELY(ptr != NULL)) {
        count(bytes, 1);
    }
    return ptr;
}

void *pp_mem_realloc(void *old, size_t old_bytes, size_t bytes)
{
    PP_ASSERT(bytes != 0);
    PP_ASSERT((old == NULL) == (old_bytes == 0));
    if (should_fail()) {
        return NULL;
    }
    void *ptr = realloc(old, bytes);
    if (PP_LIKELY(ptr != NULL)) {
        count((uint64_t)bytes - (uint64_t)old_bytes, old == NULL); /* wraps on purpose */
    }
    return ptr;
}

void pp_mem_free(void *ptr, size_t bytes)
{
    if (ptr == NULL) {
        return;
    }
    count(0 - (uint64_t)bytes, 0 - (uint64_t)1);
    free(ptr);
}

uint64_t pp_mem_bytes(void)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < STRIPES; i++) {
        sum += atomic_load_explicit(&stripes[i].bytes, memory_order_relaxed);
    }
    return sum;
}

uint64_t pp_mem_blocks(void)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < STRIPES; i++) {
        sum += atomic_load_explicit(&stripes[i].blocks, memory_order_relaxed);
    }
    return sum;
}

/* ---- pools ---- */

void pp_pool_init(struct pp_pool *pool, size_t block_bytes, uint32_t free_max)
{
    PP_ASSERT(block_bytes >= sizeof(void *));
    *pool = (struct pp_pool){.block_bytes = block_bytes, .free_max = free_max};
}

void pp_pool_fini(struct pp_pool *pool)
{
    PP_ASSERT(pool->used_count == 0);
    while (pool->free_list != NULL) {
        void *block = pool->free_list;
        memcpy(&pool->free_list, block, sizeof(void *));
        pp_mem_free(block, pool->block_bytes);
    }
    pool->free_count = 0;
}

void *pp_pool_take(struct pp_pool *pool)
{
    void *block = pool->free_list;
    if (block != NULL) {
        memcpy(&pool->free_list, block, sizeof(void *));
        pool->free_count--;
    } else {
        block = pp_mem_alloc(pool->block_bytes);
        if (block == NULL) {
            return NULL;
        }
    }
    pool->used_count++;
    return block;
}

void pp_pool_give(struct pp_pool *pool, void *block)
{
    PP_ASSERT(block != NULL);
    PP_ASSERT(pool->used_count > 0);
    pool->used_count--;
    if (pool->free_count >= pool->free_max) {
        pp_mem_free(block, pool->block_bytes);
        return;
    }
    memcpy(block, &pool->free_list, sizeof(void *));
    pool->free_list = block;
    pool->free_count++;
}
