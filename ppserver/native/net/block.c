/* Input blocks (contract: block.h). */
#include "net/block.h"

#include "net/loop_impl.h"

static uint16_t fields_of(size_t cap)
{
    return cap == PP_SMALL_BLOCK_BYTES ? PP_SMALL_BLOCK_FIELDS : PP_FIELDS_MAX;
}

size_t pp_block_bytes(size_t cap)
{
    return sizeof(struct pp_block) + cap + fields_of(cap) * sizeof(struct pp_field);
}

static struct pp_pool *pool_of(struct pp_loop *loop, size_t cap)
{
    return cap == PP_SMALL_BLOCK_BYTES  ? &loop->small_pool
           : cap == PP_BLOCK_BYTES      ? &loop->block_pool
           : cap == PP_BODY_BLOCK_BYTES ? &loop->body_pool
                                        : NULL;
}

struct pp_block *pp_block_new(struct pp_loop *loop, size_t cap)
{
    cap = (cap + 7) & ~(size_t)7;
    struct pp_pool *pool = pool_of(loop, cap);
    struct pp_block *block = pool != NULL ? pp_pool_take(pool) : pp_mem_alloc(pp_block_bytes(cap));
    if (block != NULL) {
        block->cap = cap;
        block->head.fields = (struct pp_field *)(void *)(block->data + cap);
        block->head.field_room = fields_of(cap);
        block->head.field_count = 0;
    }
    return block;
}

void pp_block_give(struct pp_loop *loop, struct pp_block *block)
{
    struct pp_pool *pool = pool_of(loop, block->cap);
    if (pool != NULL) {
        pp_pool_give(pool, block);
    } else {
        pp_mem_free(block, pp_block_bytes(block->cap));
    }
}
