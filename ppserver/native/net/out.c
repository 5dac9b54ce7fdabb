/* The output queue (contract: out.h). Loop's thread only. */
#include "net/out.h"

#include <string.h>

#include "net/loop_impl.h"

void pp_out_give(struct pp_loop *loop, struct pp_out *out)
{
    if (out->cap == PP_COPY_BYTES_MAX) {
        pp_pool_give(&loop->out_pool, out);
    } else {
        pp_mem_free(out, sizeof *out + out->cap);
    }
}

static void pop(struct pp_loop *loop, struct pp_out_queue *queue)
{
    struct pp_out *out = queue->head;

    queue->head = out->next;
    if (queue->head == NULL) {
        queue->tail = NULL;
    }
    if (out->file != NULL) {
        pp_file_unref(out->file);
        out->file = NULL;
    }
    if (out->owner == NULL) {
        pp_out_give(loop, out);
        return;
    }
    out->next = NULL;
    if (loop->released_tail == NULL) {
        loop->released = out;
    } else {
        loop->released_tail->next = out;
    }
    loop->released_tail = out;
}

void pp_out_drop(struct pp_loop *loop, struct pp_out_queue *queue)
{
    while (queue->head != NULL) {
        pop(loop, queue);
    }
    queue->bytes = 0;
}

static struct pp_out *push(struct pp_loop *loop, struct pp_out_queue *queue, size_t cap)
{
    if (cap < PP_COPY_BYTES_MAX) {
        cap = PP_COPY_BYTES_MAX;
    }
    struct pp_out *out =
        cap == PP_COPY_BYTES_MAX ? pp_pool_take(&loop->out_pool) : pp_mem_alloc(sizeof *out + cap);
    if (out == NULL) {
        return NULL;
    }
    memset(out, 0, sizeof *out);
    out->cap = cap;
    if (queue->tail == NULL) {
        queue->head = out;
    } else {
        queue->tail->next = out;
    }
    queue->tail = out;
    return out;
}

/* Nothing may be copied behind what it ends with. */
static bool full(const struct pp_out *out)
{
    return out->owner != NULL || out->file != NULL;
}

struct pp_out *pp_out_room(struct pp_loop *loop, struct pp_out_queue *queue, size_t need)
{
    struct pp_out *out = queue->tail;
    if (out != NULL && !full(out) && pp_out_left(out) >= need) {
        return out;
    }
    return push(loop, queue, need);
}

void pp_out_commit(struct pp_out_queue *queue, struct pp_out *out, size_t len)
{
    PP_CHECK(len <= pp_out_left(out));
    out->end += len;
    queue->bytes += len;
}

int pp_out_copy(struct pp_loop *loop, struct pp_out_queue *queue, const void *data, size_t len)
{
    const uint8_t *from = data;

    while (len > 0) {
        struct pp_out *out = queue->tail;
        size_t room = out == NULL || full(out) ? 0 : pp_out_left(out);
        if (room == 0) {
            out = push(loop, queue, 0);
            if (out == NULL) {
                return PP_ERR_NO_MEMORY;
            }
            room = out->cap;
        }
        size_t n = len < room ? len : room;
        memcpy(out->data + out->end, from, n);
        out->end += n;
        queue->bytes += n;
        from += n;
        len -= n;
    }
    return PP_OK;
}

int pp_out_bytes_of(struct pp_loop *loop, struct pp_out_queue *queue, const uint8_t *data,
                    size_t len, void *owner, bool *borrowed)
{
    if (owner == NULL || borrowed == NULL || len <= PP_COPY_BYTES_MAX) {
        return pp_out_copy(loop, queue, data, len);
    }
    struct pp_out *out = pp_out_room(loop, queue, 0);
    if (out == NULL) {
        return PP_ERR_NO_MEMORY;
    }
    out->borrowed = data;
    out->borrowed_len = len;
    out->owner = owner;
    queue->bytes += len;
    *borrowed = true;
    return PP_OK;
}

int pp_out_file(struct pp_loop *loop, struct pp_out_queue *queue, struct pp_file *file, uint64_t at,
                uint64_t len)
{
    struct pp_out *out = pp_out_room(loop, queue, 0);
    if (out == NULL) {
        pp_file_unref(file);
        return PP_ERR_NO_MEMORY;
    }
    out->file = file;
    out->file_at = at;
    out->file_len = len;
    queue->bytes += len;
    return PP_OK;
}

static void piece(struct iovec *iov, int *count, const uint8_t *data, size_t len, size_t *room)
{
    len = len < *room ? len : *room;
    if (len > 0) {
        iov[*count].iov_base = (void *)(uintptr_t)data;
        iov[(*count)++].iov_len = len;
        *room -= len;
    }
}

int pp_out_gather(const struct pp_out_queue *queue, struct iovec *iov, size_t room, bool *more)
{
    int count = 0;
    *more = false;
    for (const struct pp_out *out = queue->head;
         out != NULL && count < PP_OUT_IOVS_MAX - 1 && room > 0 && !*more; out = out->next) {
        piece(iov, &count, out->data + out->start, out->end - out->start, &room);
        piece(iov, &count, out->borrowed, out->borrowed_len, &room);
        *more = out->file_len > 0 && room > 0;
    }
    return count;
}

void pp_out_advance(struct pp_loop *loop, struct pp_out_queue *queue, size_t n, bool from_file)
{
    PP_CHECK(n <= queue->bytes);
    queue->bytes -= n;
    n = from_file ? 0 : n;
    while (queue->head != NULL) {
        struct pp_out *out = queue->head;
        size_t copied = out->end - out->start < n ? out->end - out->start : n;
        out->start += copied;
        n -= copied;
        size_t lent = out->borrowed_len < n ? out->borrowed_len : n;
        out->borrowed_len -= lent;
        out->borrowed = out->borrowed == NULL ? NULL : out->borrowed + lent;
        n -= lent;
        if (out->start < out->end || out->borrowed_len > 0 || out->file_len > 0) {
            break;
        }
        pop(loop, queue);
    }
}

void *pp_loop_take_released(struct pp_loop *loop)
{
    PP_LOOP_ENTER(loop);
    struct pp_out *out = loop->released;
    if (out == NULL) {
        return NULL;
    }
    loop->released = out->next;
    if (loop->released == NULL) {
        loop->released_tail = NULL;
    }
    void *owner = out->owner;
    PP_ASSERT(owner != NULL);
    pp_out_give(loop, out);
    return owner;
}
