/* Temporary files (contract: spool.h). */
#include "net/spool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/mem.h"

/* For file systems without O_TMPFILE (overlays and network file systems of some kernels). */
static int open_named(const char *dir)
{
    char path[4096];
    int len = snprintf(path, sizeof path, "%s/ppserver-XXXXXX", dir);
    if (len < 0 || (size_t)len >= sizeof path) {
        return -1;
    }
    int fd = mkostemp(path, O_CLOEXEC);
    if (fd >= 0) {
        (void)unlink(path);
    }
    return fd;
}

struct pp_spool *pp_spool_new(const char *dir)
{
    struct pp_spool *spool = pp_mem_zalloc(sizeof *spool);
    if (spool == NULL) {
        return NULL;
    }
    spool->fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC | O_EXCL, 0600);
    if (spool->fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL)) {
        spool->fd = open_named(dir);
    }
    if (spool->fd < 0) {
        pp_mem_free(spool, sizeof *spool);
        return NULL;
    }
    return spool;
}

void pp_spool_free(struct pp_spool *spool)
{
    (void)close(spool->fd);
    pp_mem_free(spool, sizeof *spool);
}

int pp_spool_append(struct pp_spool *spool, const uint8_t *data, size_t len)
{
    for (size_t put = 0; put < len;) {
        ssize_t n = pwrite(spool->fd, data + put, len - put, (off_t)(spool->len + put));
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return PP_ERR_SYSTEM;
        }
        put += (size_t)n;
    }
    spool->len += len;
    return PP_OK;
}

int pp_spool_read(const struct pp_spool *spool, uint64_t at, uint8_t *to, size_t max, size_t *got)
{
    PP_ASSERT(at < spool->len && max > 0);
    uint64_t left = spool->len - at;
    ssize_t n;
    do {
        n = pread(spool->fd, to, left < max ? (size_t)left : max, (off_t)at);
    } while (n < 0 && errno == EINTR);
    if (n <= 0) {
        return PP_ERR_SYSTEM;
    }
    *got = (size_t)n;
    return PP_OK;
}
