/* System calls on sockets (contract: sock.h). Stateless; any thread, one socket per thread. */
#include "net/sock.h"
#include "net/sys.h"

#include <errno.h>
#include <string.h>

int pp_sock_recv(int fd, uint8_t *buf, size_t len, size_t *got)
{
    PP_ASSERT(len > 0);
    for (;;) {
        ssize_t n = pp_sys_recv(fd, buf, len, 0);
        if (n >= 0) {
            *got = (size_t)n;
            return PP_OK;
        }
        if (errno == EAGAIN || errno == EWOULDBLOCK) {
            return PP_AGAIN;
        }
        if (errno != EINTR) {
            return PP_ERR_DISCONNECTED;
        }
    }
}

int pp_sock_send(int fd, const struct iovec *iov, int count, bool more, size_t *put)
{
    int flags = MSG_NOSIGNAL | (more ? MSG_MORE : 0);
    PP_ASSERT(count > 0);
    for (;;) {
        ssize_t n;
        if (count == 1) {
            n = pp_sys_send(fd, iov->iov_base, iov->iov_len, flags);
        } else {
            struct msghdr msg = {.msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)count};
            n = pp_sys_sendmsg(fd, &msg, flags);
        }
        if (n > 0) {
            *put = (size_t)n;
            return PP_OK;
        }
        if (n == 0 || errno == EAGAIN || errno == EWOULDBLOCK) {
            return PP_AGAIN;
        }
        if (errno != EINTR) {
            return PP_ERR_DISCONNECTED;
        }
    }
}

int pp_sock_sendfile(int fd, int file, uint64_t at, size_t len, size_t *put)
{
    for (;;) {
        off_t offset = (off_t)at;
        ssize_t n = pp_sys_sendfile(fd, file, &offset, len);
        if (n > 0) {
            *put = (size_t)n;
            return PP_OK;
        }
        if (n == 0) {
            return PP_ERR_APP_BODY_TOO_SHORT;
        }
        if (errno == EAGAIN || errno == EWOULDBLOCK) {
            return PP_AGAIN;
        }
        if (errno != EINTR) { /* EIO: of the file; it cannot be told from here what else */
            return errno == EIO ? PP_ERR_APP_BODY_TOO_SHORT : PP_ERR_DISCONNECTED;
        }
    }
}

uint32_t pp_sock_unsent(int fd)
{
    int bytes = 0;
    return pp_sys_ioctl(fd, SIOCOUTQ, &bytes) == 0 && bytes > 0 ? (uint32_t)bytes : 0;
}

uint32_t pp_sock_queued(int fd)
{
    struct tcp_info info;
    socklen_t len = sizeof info;
    return pp_sys_getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0 ? info.tcpi_unacked
                                                                          : UINT32_MAX;
}

bool pp_sock_waiting(int fd)
{
    int bytes = 0;
    return pp_sys_ioctl(fd, SIOCINQ, &bytes) == 0 && bytes > 0;
}

void pp_sock_shut_write(int fd)
{
    (void)pp_sys_shutdown(
        fd, SHUT_WR); /* ENOTCONN when the peer was faster: the close follows anyway */
}

void pp_sock_end(int fd, bool reset)
{
    struct sockaddr none = {.sa_family = AF_UNSPEC};

    /* TCP answers the first with a reset, Unix sockets with an error. */
    if (!reset || pp_sys_connect(fd, &none, sizeof none) < 0) {
        (void)pp_sys_shutdown(fd, SHUT_RDWR); /* ENOTCONN when the peer was faster */
    }
    pp_sock_close(fd);
}

void pp_sock_close(int fd)
{
    (void)pp_sys_close(fd); /* Linux has released the descriptor also when it reports EINTR */
}

static void addr_copy(union pp_sock_addr *to, const struct sockaddr_storage *from, socklen_t len)
{
    memset(to, 0, sizeof *to);
    if (from->ss_family == AF_INET && len >= sizeof to->in) {
        memcpy(&to->in, from, sizeof to->in);
    } else if (from->ss_family == AF_INET6 && len >= sizeof to->in6) {
        memcpy(&to->in6, from, sizeof to->in6);
    } else {
        to->family = AF_UNIX;
    }
}

int pp_sock_accept(int listen_fd, int *fd, union pp_sock_addr *peer, bool *gone)
{
    struct sockaddr_storage from;
    socklen_t len = sizeof from;

    from.ss_family = AF_UNIX;
    *gone = false;
    int got =
        pp_sys_accept4(listen_fd, (struct sockaddr *)&from, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (got >= 0) {
        addr_copy(peer, &from, len);
        *fd = got;
        return PP_OK;
    }
    switch (errno) {
    case EAGAIN:
        return PP_AGAIN;
    case EMFILE:
    case ENFILE:
        return PP_ERR_NO_DESCRIPTORS;
    case ENOBUFS:
    case ENOMEM:
        return PP_ERR_NO_MEMORY;
    case EBADF:
    case EINVAL:
    case ENOTSOCK:
    case EOPNOTSUPP:
    case EFAULT:
        return PP_ERR_SYSTEM;
    default: /* accept(2): errors already pending on the new connection, firewalls, signals */
        *gone = true;
        return PP_AGAIN;
    }
}

int pp_sock_pass(int fd, const void *msg, size_t len, int pass)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec iov = {.iov_base = (void *)(uintptr_t)msg, .iov_len = len};
    struct msghdr hdr = {.msg_iov = &iov, .msg_iovlen = 1};

    if (pass >= 0) {
        memset(&control, 0, sizeof control);
        hdr.msg_control = control.space;
        hdr.msg_controllen = sizeof control.space;
        struct cmsghdr *cmsg = CMSG_FIRSTHDR(&hdr);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(cmsg), &pass, sizeof pass);
    }
    ssize_t put;
    do {
        put = pp_sys_sendmsg(fd, &hdr, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (put < 0 && errno == EINTR);
    if (put == (ssize_t)len) {
        return PP_OK;
    }
    return put < 0 && errno == EAGAIN ? PP_AGAIN : PP_ERR_SYSTEM;
}

int pp_sock_passed(int fd, void *msg, size_t len, size_t *got, int *passed)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec iov = {.iov_base = msg, .iov_len = len};
    struct msghdr hdr = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.space,
                         .msg_controllen = sizeof control.space};

    *passed = -1;
    ssize_t n;
    do {
        n = pp_sys_recvmsg(fd, &hdr, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        return errno == EAGAIN ? PP_AGAIN : PP_ERR_SYSTEM;
    }
    if (n == 0) {
        return PP_ERR_DISCONNECTED;
    }
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&hdr); c != NULL; c = CMSG_NXTHDR(&hdr, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
            c->cmsg_len == CMSG_LEN(sizeof(int))) {
            memcpy(passed, CMSG_DATA(c), sizeof *passed);
        }
    }
    *got = (size_t)n;
    return *passed < 0 && (hdr.msg_flags & MSG_CTRUNC) ? PP_ERR_NO_DESCRIPTORS : PP_OK;
}

/* Probes begin after half of the time; three of them fill the other half. TCP_USER_TIMEOUT is for
 * data that is not acknowledged, which stops the probes. It also counts against a peer that is
 * there and does not read, so it must not be shorter than what such a peer is allowed elsewhere. */
static void keep_alive(int fd, uint32_t silent_ms, uint32_t stalled_ms)
{
    enum { PROBES = 3, SECONDS_MAX = 32767 };
    uint32_t seconds = (silent_ms + 999) / 1000;
    int on = 1, probes = PROBES;
    int idle = seconds < 2 ? 1 : seconds / 2 < SECONDS_MAX ? (int)(seconds / 2) : SECONDS_MAX;
    int each = seconds < 2 * PROBES ? 1 : (int)((seconds - seconds / 2) / PROBES);
    unsigned patience = silent_ms > stalled_ms ? silent_ms : stalled_ms;

    /* All but the first fail on Unix sockets, where a peer that is gone cannot be silent. */
    (void)pp_sys_setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    (void)pp_sys_setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    (void)pp_sys_setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &each, sizeof each);
    (void)pp_sys_setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
    if (stalled_ms > 0) {
        (void)pp_sys_setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &patience, sizeof patience);
    }
}

int pp_sock_prepare_listen(int fd, uint32_t silent_ms, uint32_t stalled_ms)
{
    int on = 1, type = 0;
    socklen_t len = sizeof type;
    int flags = pp_sys_fcntl(fd, F_GETFL);

    if (flags < 0 || pp_sys_getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0) {
        return PP_ERR_SYSTEM;
    }
    if (type != SOCK_STREAM) {
        errno = EPROTOTYPE;
        return PP_ERR_SYSTEM;
    }
    if (!(flags & O_NONBLOCK) && pp_sys_fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) {
        return PP_ERR_SYSTEM;
    }
    (void)pp_sys_setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on,
                            sizeof on); /* fails on Unix sockets */
    if (silent_ms > 0) {
        keep_alive(fd, silent_ms, stalled_ms);
    }
    return PP_OK;
}

void pp_sock_local(int fd, union pp_sock_addr *addr)
{
    struct sockaddr_storage here;
    socklen_t len = sizeof here;

    here.ss_family = AF_UNIX;
    if (pp_sys_getsockname(fd, (struct sockaddr *)&here, &len) == 0) {
        addr_copy(addr, &here, len);
    } else {
        memset(addr, 0, sizeof *addr);
    }
}

int pp_sock_peer(int fd, union pp_sock_addr *addr)
{
    struct sockaddr_storage there;
    socklen_t len = sizeof there;

    there.ss_family = AF_UNIX;
    if (pp_sys_getpeername(fd, (struct sockaddr *)&there, &len) != 0) {
        return PP_ERR_SYSTEM;
    }
    addr_copy(addr, &there, len);
    return PP_OK;
}

size_t pp_sock_local_path(int fd, char *buf, size_t cap)
{
    struct sockaddr_un here;
    socklen_t len = sizeof here;

    if (pp_sys_getsockname(fd, (struct sockaddr *)&here, &len) != 0 || here.sun_family != AF_UNIX ||
        len <= offsetof(struct sockaddr_un, sun_path) || here.sun_path[0] == '\0') {
        return 0;
    }
    /* The kernel's length may count the terminator, and a path may fill the field without one. */
    size_t room = len - offsetof(struct sockaddr_un, sun_path);
    room = room < sizeof here.sun_path ? room : sizeof here.sun_path;
    size_t path_len = strnlen(here.sun_path, room);
    if (path_len > cap) {
        return 0;
    }
    memcpy(buf, here.sun_path, path_len);
    return path_len;
}

bool pp_sock_wildcard(const union pp_sock_addr *addr)
{
    switch (addr->family) {
    case AF_INET:
        return addr->in.sin_addr.s_addr == htonl(INADDR_ANY);
    case AF_INET6:
        return IN6_IS_ADDR_UNSPECIFIED(&addr->in6.sin6_addr);
    case AF_UNIX:
        return false;
    default:
        return true;
    }
}
