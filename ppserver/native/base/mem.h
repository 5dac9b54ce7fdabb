/* The only malloc and free of the native layers: counted, and failing on request in test builds. */
#ifndef PP_BASE_MEM_H
#define PP_BASE_MEM_H

#include <stddef.h>
#include <stdint.h>

#include "base/assert.h"

/* NULL when memory is out (or a failure was injected). Sizes are never 0. */
void *pp_mem_alloc(size_t bytes) PP_MUST_USE;
void *pp_mem_zalloc(size_t bytes) PP_MUST_USE;
/* `old` stays valid when NULL is returned. old_bytes is what it was allocated with. */
void *pp_mem_realloc(void *old, size_t old_bytes, size_t bytes) PP_MUST_USE;
void pp_mem_free(void *ptr, size_t bytes); /* NULL is allowed */

/* Bytes and blocks allocated now in this process, by all threads. Exact while none of them is
 * allocating; a sum over moving parts otherwise. */
uint64_t pp_mem_bytes(void);
uint64_t pp_mem_blocks(void);

/* Test builds (PP_FAILURE_INJECTION): the nth allocation from now fails (1 = the next); 0 = off. */
void pp_mem_fail_at(uint64_t nth);

/* A free list of equal blocks, owned by one loop; not thread-safe. */
struct pp_pool {
    void *free_list;
    size_t block_bytes;
    uint32_t free_count;
    uint32_t free_max; /* blocks above this go back to the system */
    uint32_t used_count;
};
void pp_pool_init(struct pp_pool *pool, size_t block_bytes, uint32_t free_max);
void pp_pool_fini(struct pp_pool *pool);
void *pp_pool_take(struct pp_pool *pool) PP_MUST_USE; /* contents undefined; NULL = no memory */
void pp_pool_give(struct pp_pool *pool, void *block);

#endif
