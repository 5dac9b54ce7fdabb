/* Foreign descriptors: what the application's event loop wants to know of beside our connections
 * (contract: loop.h). Level-triggered, by descriptor number. */
#include <errno.h>
#include <string.h>

#include "net/loop_impl.h"

/* What was not taken is dropped: being level-triggered, it is reported again. */
void pp_foreign_reset(struct pp_loop *loop)
{
    for (unsigned i = loop->foreign_next; i < loop->foreign_ready_count; i++) {
        loop->foreign[loop->foreign_ready[i]].ready = 0;
    }
    loop->foreign_next = loop->foreign_ready_count = 0;
}

void pp_foreign_event(struct pp_loop *loop, int fd, uint32_t events)
{
    if ((size_t)fd >= loop->foreign_count) {
        return;
    }
    PP_ASSERT(loop->foreign_ready_count < PP_POLL_EVENTS);
    loop->foreign[fd].ready = events;
    loop->foreign_ready[loop->foreign_ready_count++] = fd;
}

static int foreign_room(struct pp_loop *loop, int fd)
{
    size_t need = (size_t)fd + 1;
    if (need <= loop->foreign_count) {
        return PP_OK;
    }
    size_t count = loop->foreign_count == 0 ? 256 : loop->foreign_count;
    while (count < need) {
        count *= 2;
    }
    struct pp_foreign *grown =
        loop->foreign == NULL ? pp_mem_alloc(count * sizeof *grown)
                              : pp_mem_realloc(loop->foreign, loop->foreign_count * sizeof *grown,
                                               count * sizeof *grown);
    if (grown == NULL) {
        errno = ENOMEM;
        return PP_ERR_NO_MEMORY;
    }
    memset(grown + loop->foreign_count, 0, (count - loop->foreign_count) * sizeof *grown);
    loop->foreign = grown;
    loop->foreign_count = count;
    return PP_OK;
}

int pp_loop_foreign_add(struct pp_loop *loop, int fd, uint32_t events)
{
    PP_LOOP_ENTER(loop);
    if (fd < 0) {
        errno = EBADF;
        return PP_ERR_SYSTEM;
    }
    int rc = foreign_room(loop, fd);
    if (rc == PP_OK) {
        rc = pp_poll_add_foreign(loop->poll_fd, fd, events);
    }
    if (rc == PP_OK) {
        loop->foreign[fd].registered = true;
    }
    return rc;
}

/* The application may close a descriptor that it has registered, and the number come back as one of
 * ours. */
static bool is_foreign(const struct pp_loop *loop, int fd)
{
    return fd >= 0 && (size_t)fd < loop->foreign_count && loop->foreign[fd].registered;
}

void pp_loop_foreign_reused(struct pp_loop *loop, int fd)
{
    if (is_foreign(loop, fd)) {
        loop->foreign[fd] = (struct pp_foreign){0};
    }
}

int pp_loop_foreign_mod(struct pp_loop *loop, int fd, uint32_t events)
{
    PP_LOOP_ENTER(loop);
    if (!is_foreign(loop, fd)) {
        errno = ENOENT;
        return PP_ERR_SYSTEM;
    }
    return pp_poll_mod_foreign(loop->poll_fd, fd, events);
}

int pp_loop_foreign_del(struct pp_loop *loop, int fd)
{
    PP_LOOP_ENTER(loop);
    if (!is_foreign(loop, fd)) {
        errno = ENOENT;
        return PP_ERR_SYSTEM;
    }
    loop->foreign[fd].ready = 0; /* an event of this turn is stale now */
    loop->foreign[fd].registered = false;
    return pp_poll_del(loop->poll_fd, fd);
}

bool pp_loop_take_foreign(struct pp_loop *loop, int *fd, uint32_t *events)
{
    PP_LOOP_ENTER(loop);
    while (loop->foreign_next < loop->foreign_ready_count) {
        int next = loop->foreign_ready[loop->foreign_next++];
        if (loop->foreign[next].ready != 0) {
            *fd = next;
            *events = loop->foreign[next].ready;
            loop->foreign[next].ready = 0;
            return true;
        }
    }
    return false;
}

void pp_foreign_free(struct pp_loop *loop)
{
    if (loop->foreign != NULL) {
        pp_mem_free(loop->foreign, loop->foreign_count * sizeof *loop->foreign);
    }
}
