/* Temporary files (contract: spool.h). */
#include "net/spool.h"
#include "net/sys.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

/* ---- the file ---- */

struct pp_spool_file *pp_spool_file_new(const char *dir, uint64_t size)
{
    uint64_t parts = size / PP_SPOOL_PART;
    size_t bytes = strlen(dir) + 1;
    struct pp_spool_file *file = pp_mem_zalloc(sizeof *file);
    char *copy = pp_mem_alloc(bytes);
    if (file == NULL || copy == NULL) {
        pp_mem_free(file, sizeof *file);
        pp_mem_free(copy, bytes);
        return NULL;
    }
    memcpy(copy, dir, bytes);
    file->dir = copy;
    file->dir_bytes = bytes;
    file->fd = -1;
    file->parts_max = parts < PP_SPOOL_PARTS_MAX ? (uint32_t)parts : PP_SPOOL_PARTS_MAX;
    (void)pp_sys_pthread_mutex_init(&file->mutex, NULL);
    return file;
}

void pp_spool_file_free(struct pp_spool_file *file)
{
    PP_ASSERT(file->unused_count == file->parts);
    if (file->fd >= 0) {
        (void)pp_sys_close(file->fd);
    }
    (void)pp_sys_pthread_mutex_destroy(&file->mutex);
    pp_mem_free(file->unused, file->unused_cap * sizeof *file->unused);
    pp_mem_free(file->dir, file->dir_bytes);
    pp_mem_free(file, sizeof *file);
}

uint64_t pp_spool_file_room(const struct pp_spool_file *file)
{
    return (uint64_t)file->parts_max * PP_SPOOL_PART;
}

/* For file systems without O_TMPFILE (overlays and network file systems of some kernels). */
static int open_named(const char *dir)
{
    char path[4096];
    int len = snprintf(path, sizeof path, "%s/ppserver-XXXXXX", dir);
    if (len < 0 || (size_t)len >= sizeof path) {
        return -1;
    }
    int fd = pp_sys_mkostemp(path, O_CLOEXEC);
    if (fd >= 0) {
        (void)pp_sys_unlink(path);
    }
    return fd;
}

static int open_nameless(const char *dir)
{
    int fd = pp_sys_open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC | O_EXCL, 0600);
    return fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL) ? open_named(dir)
                                                                                 : fd;
}

/* Twice the room of a list, and 16 at first; false: no memory. */
static bool grow(uint32_t **list, uint32_t *cap)
{
    uint32_t grown = *cap == 0 ? 16 : *cap * 2;
    uint32_t *moved = pp_mem_realloc(*list, *cap * sizeof **list, grown * sizeof **list);
    if (moved == NULL) {
        return false;
    }
    *list = moved;
    *cap = grown;
    return true;
}

static bool take_part(struct pp_spool_file *file, uint32_t *part)
{
    bool taken = true;
    (void)pp_sys_pthread_mutex_lock(&file->mutex);
    if (file->unused_count > 0) {
        *part = file->unused[--file->unused_count];
    } else if (file->parts < file->parts_max &&
               /* Giving back must not fail, so there is always room for all of them. */
               (file->parts < file->unused_cap || grow(&file->unused, &file->unused_cap))) {
        *part = file->parts++;
    } else {
        taken = false;
    }
    (void)pp_sys_pthread_mutex_unlock(&file->mutex);
    return taken;
}

static void give_parts(struct pp_spool_file *file, const uint32_t *parts, uint32_t count)
{
    for (uint32_t i = 0, run; i < count; i += run) {
        for (run = 1; i + run < count && parts[i + run] == parts[i] + run; run++) {}
        /* Where this is not possible the disk keeps them until they are used again. */
        (void)pp_sys_fallocate(file->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                               (off_t)parts[i] * PP_SPOOL_PART, (off_t)run * PP_SPOOL_PART);
    }
    (void)pp_sys_pthread_mutex_lock(&file->mutex);
    for (uint32_t i = count; i-- > 0;) { /* the next to take them gets them in order */
        file->unused[file->unused_count++] = parts[i];
    }
    PP_CHECK(file->unused_count <= file->parts);
    (void)pp_sys_pthread_mutex_unlock(&file->mutex);
}

/* ---- what is kept in it ---- */

struct pp_spool *pp_spool_new(struct pp_spool_file *file)
{
    if (file->fd < 0) {
        if ((file->fd = open_nameless(file->dir)) < 0) {
            return NULL;
        }
        file->process = pp_sys_getpid();
    }
    struct pp_spool *spool = pp_mem_zalloc(sizeof *spool);
    if (spool != NULL) {
        spool->file = file;
    }
    return spool;
}

void pp_spool_free(struct pp_spool *spool)
{
    if (spool->part_count > 0 && spool->file->process == pp_sys_getpid()) {
        give_parts(spool->file, spool->parts, spool->part_count);
    }
    pp_mem_free(spool->parts, spool->part_cap * sizeof *spool->parts);
    pp_mem_free(spool, sizeof *spool);
}

/* Where byte `at` is in the file, and how many follow it there in the same part. */
static off_t place_of(const struct pp_spool *spool, uint64_t at, size_t *room)
{
    uint64_t part = spool->parts[at / PP_SPOOL_PART], within = at % PP_SPOOL_PART;
    *room = (size_t)(PP_SPOOL_PART - within);
    return (off_t)(part * PP_SPOOL_PART + within);
}

/* Appends to a part that has room for it. */
static bool put(struct pp_spool *spool, const uint8_t *data, size_t len, off_t place)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = pp_sys_pwrite(spool->file->fd, data + done, len - done, place + (off_t)done);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return false;
        }
        done += (size_t)n;
    }
    return true;
}

int pp_spool_append(struct pp_spool *spool, const uint8_t *data, size_t len)
{
    uint64_t before = spool->len;
    while (len > 0) {
        size_t room;
        if (spool->len == (uint64_t)spool->part_count * PP_SPOOL_PART) {
            if ((spool->part_count == spool->part_cap && !grow(&spool->parts, &spool->part_cap)) ||
                !take_part(spool->file, &spool->parts[spool->part_count])) {
                break;
            }
            spool->part_count++;
        }
        off_t place = place_of(spool, spool->len, &room);
        size_t n = len < room ? len : room;
        if (!put(spool, data, n, place)) {
            break;
        }
        spool->len += n;
        data += n;
        len -= n;
    }
    if (len > 0) {
        spool->len = before;
        return PP_ERR_SYSTEM;
    }
    return PP_OK;
}

int pp_spool_read(const struct pp_spool *spool, uint64_t at, uint8_t *to, size_t max, size_t *got)
{
    PP_ASSERT(at < spool->len && max > 0);
    uint64_t left = spool->len - at;
    size_t room;
    off_t place = place_of(spool, at, &room);
    size_t len = max < room ? max : room;
    ssize_t n;
    if (spool->file->process != pp_sys_getpid()) {
        return PP_ERR_SYSTEM;
    }
    do {
        n = pp_sys_pread(spool->file->fd, to, left < len ? (size_t)left : len, place);
    } while (n < 0 && errno == EINTR);
    if (n <= 0) {
        return PP_ERR_SYSTEM;
    }
    *got = (size_t)n;
    return PP_OK;
}
