/* Access lines, collected in a bounded buffer and written once per turn, never waiting:
 *
 *   PREFIXclient:port - "GET /path?query HTTP/1.1" 200
 *
 * Lines of several processes come whole: no write that a pipe or socket could split has a part of a
 * line, and to a pipe, where longer lines could be torn, targets are cut so that they show it
 * ("..."). Lines that do not fit because the reader of the log is slow are dropped and counted. */
#ifndef PP_NET_ACCESSLOG_H
#define PP_NET_ACCESSLOG_H

#include "net/loop.h"
#include "net/sock.h"

#define PP_ACCESSLOG_BYTES 65536
#define PP_ACCESSLOG_TARGET_MAX 8192 /* bytes of a target that are logged, before escaping */

struct pp_accesslog {
    int fd;       /* -1 = off; borrowed */
    int write_fd; /* fd, or an own non-blocking description of the same pipe (owned) */
    bool is_socket, may_block;
    size_t piece_max, line_max; /* of one write, which ends with a line; of a line */
    char *buf;                  /* owned; NULL until the first line */
    size_t used;
    char *prefix; /* owned */
    size_t prefix_len;
    uint64_t *dropped; /* borrowed counter */
};

int pp_accesslog_init(struct pp_accesslog *log, int fd, const char *prefix,
                      uint64_t *dropped) PP_MUST_USE; /* PP_OK or NO_MEMORY */
void pp_accesslog_fini(struct pp_accesslog *log);     /* writes what can be written */
void pp_accesslog_line(struct pp_accesslog *log, const union pp_sock_addr *peer,
                       const struct pp_head *head, const uint8_t *base, int status);
void pp_accesslog_flush(struct pp_accesslog *log);
static inline bool pp_accesslog_on(const struct pp_accesslog *log)
{
    return log->fd >= 0;
}
static inline bool pp_accesslog_pending(const struct pp_accesslog *log)
{
    return log->used != 0;
}

#endif
