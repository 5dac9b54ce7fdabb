/* The access log (contract: accesslog.h). Loop's thread only.
 *
 * Never blocking without touching the flags of a descriptor that other processes share (a terminal,
 * the pipe to a log collector): a pipe or a terminal is opened a second time through /proc, which
 * gives a description of its own that may be non-blocking; a socket is written with MSG_DONTWAIT;
 * a regular file does not block. Where the second opening is refused, poll() and pieces of PIPE_BUF
 * bytes do the same, more slowly.
 *
 * Other contexts write to the same pipe or socket. The kernel takes a piece of PIPE_BUF bytes whole
 * or not at all, so pieces end with a line; to a pipe no line is longer, and the target is cut. */
#include "net/accesslog.h"
#include "net/sys.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "net/address.h"

#define LINE_END_MAX 32 /* what stands behind a target */

int pp_accesslog_init(struct pp_accesslog *log, int fd, const char *prefix, uint64_t *dropped)
{
    struct stat st;
    char path[40];

    memset(log, 0, sizeof *log);
    log->fd = log->write_fd = fd;
    log->piece_max = log->line_max = SIZE_MAX;
    log->dropped = dropped;
    if (fd < 0) {
        return PP_OK;
    }
    log->prefix_len = prefix == NULL ? 0 : strlen(prefix);
    log->prefix = pp_mem_alloc(log->prefix_len + 1);
    if (log->prefix == NULL) {
        log->fd = log->write_fd = -1;
        return PP_ERR_NO_MEMORY;
    }
    memcpy(log->prefix, prefix == NULL ? "" : prefix, log->prefix_len + 1);
    if (pp_sys_fstat(fd, &st) < 0 || S_ISREG(st.st_mode)) {
        return PP_OK;
    }
    if (S_ISSOCK(st.st_mode) || S_ISFIFO(st.st_mode)) {
        log->piece_max = PIPE_BUF;
    }
    if (S_ISFIFO(st.st_mode)) {
        log->line_max = PIPE_BUF;
    }
    if (S_ISSOCK(st.st_mode)) {
        log->is_socket = true;
        return PP_OK;
    }
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int again = pp_sys_open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY | O_APPEND);
    if (again >= 0) {
        log->write_fd = again;
    } else {
        log->may_block = true;
    }
    return PP_OK;
}

void pp_accesslog_fini(struct pp_accesslog *log)
{
    pp_accesslog_flush(log);
    if (log->write_fd != log->fd) {
        (void)pp_sys_close(log->write_fd);
    }
    pp_mem_free(log->buf, PP_ACCESSLOG_BYTES);
    pp_mem_free(log->prefix, log->prefix_len + 1);
    log->buf = log->prefix = NULL;
    log->used = 0;
    log->fd = log->write_fd = -1;
}

/* As many characters as there is room for; what is left out shows. */
static size_t put_escaped(char *out, const uint8_t *text, size_t len, size_t room)
{
    static const char hex[] = "0123456789abcdef";
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        uint8_t b = text[i];
        if (PP_UNLIKELY(n + 4 > room)) {
            memcpy(out + n, "...", 3);
            return n + 3;
        }
        if (PP_LIKELY(b >= 0x20 && b < 0x7f && b != '"' && b != '\\')) {
            out[n++] = (char)b;
        } else {
            out[n++] = '\\';
            out[n++] = 'x';
            out[n++] = hex[b >> 4];
            out[n++] = hex[b & 15];
        }
    }
    return n;
}

static size_t put_number(char *out, unsigned value)
{
    return pp_text_put_decimal((uint8_t *)out, value);
}

static size_t put_addr(char *out, const union pp_sock_addr *addr)
{
    unsigned port;
    size_t n = pp_address_text(&addr->sa, out, &port);
    if (n == 0) {
        memcpy(out, "unix:", 5);
        return 5;
    }
    out[n++] = ':';
    return n + put_number(out + n, port);
}

/* For the target, behind n bytes and before what follows it. */
static size_t target_room(const struct pp_accesslog *log, size_t n)
{
    size_t others = n + LINE_END_MAX;
    return log->line_max < others ? 4 : log->line_max - others;
}

void pp_accesslog_line(struct pp_accesslog *log, const union pp_sock_addr *peer,
                       const struct pp_head *head, const uint8_t *base, int status)
{
    if (log->fd < 0) {
        return;
    }
    if (log->buf == NULL) {
        log->buf = pp_mem_alloc(PP_ACCESSLOG_BYTES);
    }
    size_t method_len = head->method.len < 64 ? head->method.len : 64;
    size_t target_len =
        head->target.len < PP_ACCESSLOG_TARGET_MAX ? head->target.len : PP_ACCESSLOG_TARGET_MAX;
    size_t need = log->prefix_len + INET6_ADDRSTRLEN + 4 * (method_len + target_len) + 64;
    if (log->buf != NULL && log->used + need > PP_ACCESSLOG_BYTES) {
        pp_accesslog_flush(log);
    }
    if (log->buf == NULL || log->used + need > PP_ACCESSLOG_BYTES) {
        __atomic_fetch_add(log->dropped, 1, __ATOMIC_RELAXED);
        return;
    }
    char *out = log->buf + log->used;
    size_t n = log->prefix_len;
    memcpy(out, log->prefix, n);
    n += put_addr(out + n, peer);
    memcpy(out + n, " - \"", 4);
    n += 4;
    n += put_escaped(out + n, base + head->method.off, method_len, SIZE_MAX);
    out[n++] = ' ';
    n += put_escaped(out + n, base + head->target.off, target_len, target_room(log, n));
    memcpy(out + n, " HTTP/1.", 8);
    n += 8;
    out[n++] = (char)('0' + head->minor);
    out[n++] = '"';
    out[n++] = ' ';
    n += put_number(out + n, (unsigned)status);
    out[n++] = '\n';
    log->used += n;
    PP_ASSERT(n <= need);
}

/* One write that does not wait. Returns as write(2). */
static ssize_t write_some(struct pp_accesslog *log, const char *data, size_t len)
{
    if (log->is_socket) {
        return pp_sys_send(log->write_fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    if (log->may_block) {
        struct pollfd p = {.fd = log->write_fd, .events = POLLOUT};
        if (pp_sys_poll(&p, 1, 0) <= 0 || !(p.revents & POLLOUT)) {
            errno = p.revents & (POLLERR | POLLNVAL) ? EPIPE : EAGAIN;
            return -1;
        }
        len = len < PIPE_BUF ? len : PIPE_BUF;
    }
    return pp_sys_write(log->write_fd, data, len);
}

/* How much of what is left goes into one write: whole lines, as many as a piece takes. */
static size_t piece(const struct pp_accesslog *log, const char *data, size_t len)
{
    if (len <= log->piece_max) {
        return len;
    }
    const char *end = memrchr(data, '\n', log->piece_max);
    if (end == NULL) {
        end = memchr(data, '\n', len);
    }
    return end == NULL ? len : (size_t)(end - data) + 1;
}

void pp_accesslog_flush(struct pp_accesslog *log)
{
    size_t done = 0;
    while (done < log->used) {
        const char *rest = log->buf + done;
        ssize_t n = write_some(log, rest, piece(log, rest, log->used - done));
        if (n > 0) {
            done += (size_t)n;
            continue;
        }
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK) {
            /* The reader is gone or the disk is full: the rest is lost, and counted by line. */
            for (size_t i = done; i < log->used; i++) {
                if (log->buf[i] == '\n') {
                    __atomic_fetch_add(log->dropped, 1, __ATOMIC_RELAXED);
                }
            }
            done = log->used;
        }
        break;
    }
    if (done > 0 && done < log->used) {
        memmove(log->buf, log->buf + done, log->used - done);
    }
    log->used -= done;
}
