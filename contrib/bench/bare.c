/* bare.c: the least a server can do, as the floor that the other figures are compared with.
 *
 * One thread a worker, one epoll descriptor, HTTP/1.1 keep-alive and pipelining, three fixed
 * answers (/plain, /json, /big) with the Date, Server, Content-Type and Content-Length fields that
 * a real server sends. Requests are recognised by their empty line and their first line alone; a
 * request that announces a body is refused with 501 and the connection closed. No timeouts, no
 * logging, no limits but the buffer: this is a measuring instrument and must never face a network.
 *
 * Usage: bare PORT [WORKERS], the workers forked, each with a socket of its own (SO_REUSEPORT).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum {
    IN_BYTES = 16384,
    OUT_BYTES = 16384,
    BIG_BYTES = 100 * 1024,
    EVENTS = 256,
    HEAD_MAX = 256,
    SMALL = 64
};

struct conn {
    int fd;
    bool closing;     /* Close once everything queued has been sent. */
    bool writing;     /* EPOLLOUT is armed. */
    size_t in_bytes;  /* Received and not yet consumed. */
    size_t out_bytes; /* Queued in out ... */
    size_t out_sent;  /* ... and this much of it is gone. */
    const char *tail; /* A large static body that follows out; borrowed. */
    size_t tail_bytes;
    char in[IN_BYTES];
    char out[OUT_BYTES];
};

/* A whole answer but for what changes once a second, which refresh_answers() renders. */
struct answer {
    const char *request_line;
    const char *status;
    const char *type;
    const char *body;
    size_t body_bytes;
    size_t head_bytes; /* Up to but not with the empty line. */
    size_t text_bytes;
    char text[HEAD_MAX + SMALL]; /* The head, and the body too when it is small. */
};

static char big[BIG_BYTES];
static struct answer answers[] = {
    {.request_line = "GET /plain ",
     .status = "200 OK",
     .type = "text/plain",
     .body = "Hello, world!",
     .body_bytes = 13},
    {.request_line = "GET /json ",
     .status = "200 OK",
     .type = "application/json",
     .body = "{\"message\": \"Hello, world!\"}",
     .body_bytes = 28},
    {.request_line = "GET /big ",
     .status = "200 OK",
     .type = "application/octet-stream",
     .body = big,
     .body_bytes = BIG_BYTES},
    {.request_line = "", .status = "404 Not Found", .type = "text/plain", .body = ""},
};
static time_t answers_at = -1;
static int epoll_fd;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void refresh_answers(void)
{
    time_t now = time(NULL);
    if (now == answers_at)
        return;
    struct tm tm;
    char date[32];
    gmtime_r(&now, &tm);
    strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S GMT", &tm);
    for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
        struct answer *answer = &answers[i];
        answer->text_bytes =
            (size_t)snprintf(answer->text, HEAD_MAX,
                             "HTTP/1.1 %s\r\ndate: %s\r\nserver: ppserver\r\ncontent-type: %s\r\n"
                             "content-length: %zu\r\n\r\n",
                             answer->status, date, answer->type, answer->body_bytes);
        answer->head_bytes = answer->text_bytes - 2;
        if (answer->body_bytes <= SMALL) {
            memcpy(answer->text + answer->text_bytes, answer->body, answer->body_bytes);
            answer->text_bytes += answer->body_bytes;
        }
    }
    answers_at = now;
}

static void drop(struct conn *conn)
{
    close(conn->fd);
    free(conn);
}

static void queue(struct conn *conn, const char *text, size_t text_bytes)
{
    memcpy(conn->out + conn->out_bytes, text, text_bytes);
    conn->out_bytes += text_bytes;
}

static void refuse(struct conn *conn, const char *status)
{
    conn->closing = true;
    conn->out_bytes +=
        (size_t)snprintf(conn->out + conn->out_bytes, HEAD_MAX,
                         "HTTP/1.1 %s\r\ncontent-length: 0\r\nconnection: close\r\n\r\n", status);
}

struct fields {
    bool body;  /* Content-Length or Transfer-Encoding */
    bool close; /* Connection: close */
};

static struct fields scan_fields(const char *head, const char *end)
{
    struct fields found = {false, false};
    const char *line = memchr(head, '\n', (size_t)(end - head));
    for (; line != NULL && end - line > 1; line = memchr(line, '\n', (size_t)(end - line))) {
        line++;
        if ((*line | 0x20) == 't')
            found.body |= strncasecmp(line, "transfer-encoding:", 18) == 0;
        if ((*line | 0x20) != 'c')
            continue;
        found.body |= strncasecmp(line, "content-length:", 15) == 0;
        found.close |= strncasecmp(line, "connection: close", 17) == 0;
    }
    return found;
}

static void respond(struct conn *conn, const char *head, const char *end)
{
    const char *line_end = memchr(head, '\r', (size_t)(end - head));
    if (line_end - head < 14 || memcmp(line_end - 8, "HTTP/1.1", 8) != 0) {
        refuse(conn, "505 HTTP Version Not Supported");
        return;
    }
    struct fields fields = scan_fields(head, end);
    if (fields.body) {
        refuse(conn, "501 Not Implemented");
        return;
    }
    const struct answer *answer = answers;
    while (strncmp(head, answer->request_line, strlen(answer->request_line)) != 0)
        answer++; /* The last one matches everything. */
    if (fields.close) {
        conn->closing = true;
        queue(conn, answer->text, answer->head_bytes);
        queue(conn, "connection: close\r\n", 19);
        queue(conn, answer->text + answer->head_bytes, answer->text_bytes - answer->head_bytes);
    } else {
        queue(conn, answer->text, answer->text_bytes);
    }
    if (answer->body_bytes > SMALL) {
        conn->tail = answer->body;
        conn->tail_bytes = answer->body_bytes;
    }
}

/* Answers every complete request that fits; what is left over moves to the front of the buffer. */
static void consume(struct conn *conn)
{
    size_t at = 0;
    while (!conn->closing && conn->tail == NULL && OUT_BYTES - conn->out_bytes >= 2 * HEAD_MAX) {
        char *head = conn->in + at;
        char *end = memmem(head, conn->in_bytes - at, "\r\n\r\n", 4);
        if (end == NULL) {
            if (at == 0 && conn->in_bytes == IN_BYTES)
                refuse(conn, "431 Request Header Fields Too Large");
            break;
        }
        respond(conn, head, end + 2);
        at = (size_t)(end + 4 - conn->in);
    }
    if (at != 0) {
        memmove(conn->in, conn->in + at, conn->in_bytes - at);
        conn->in_bytes -= at;
    }
}

/* Sends what is queued. False when the connection is gone. */
static bool flush(struct conn *conn)
{
    while (conn->out_sent < conn->out_bytes || conn->tail_bytes > 0) {
        struct iovec iov[2] = {
            {conn->out + conn->out_sent, conn->out_bytes - conn->out_sent},
            {(char *)conn->tail, conn->tail_bytes},
        };
        struct msghdr msg = {.msg_iov = iov, .msg_iovlen = conn->tail_bytes > 0 ? 2 : 1};
        ssize_t sent = sendmsg(conn->fd, &msg, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0) {
            if (errno == EAGAIN)
                return true;
            drop(conn);
            return false;
        }
        size_t from_out = conn->out_bytes - conn->out_sent;
        if ((size_t)sent < from_out)
            from_out = (size_t)sent;
        conn->out_sent += from_out;
        conn->tail += (size_t)sent - from_out;
        conn->tail_bytes -= (size_t)sent - from_out;
    }
    conn->out_sent = conn->out_bytes = 0;
    conn->tail = NULL;
    if (conn->closing) {
        drop(conn);
        return false;
    }
    return true;
}

static void arm(struct conn *conn)
{
    bool pending = conn->out_bytes > 0 || conn->tail_bytes > 0;
    if (pending == conn->writing)
        return;
    struct epoll_event event = {.events = pending ? EPOLLOUT : EPOLLIN, .data.ptr = conn};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_MOD, conn->fd, &event) < 0)
        fail("epoll_ctl");
    conn->writing = pending;
}

static void on_ready(struct conn *conn)
{
    if (!conn->writing) {
        ssize_t got = recv(conn->fd, conn->in + conn->in_bytes, IN_BYTES - conn->in_bytes, 0);
        if (got < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (got <= 0) {
            drop(conn);
            return;
        }
        conn->in_bytes += (size_t)got;
        consume(conn);
    }
    if (!flush(conn))
        return;
    while (conn->in_bytes > 0 && conn->out_bytes == 0 && conn->tail_bytes == 0) {
        consume(conn);
        if (conn->out_bytes == 0)
            break;
        if (!flush(conn))
            return;
    }
    arm(conn);
}

static void on_accept(int listen_fd)
{
    for (;;) {
        int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        struct conn *conn = malloc(sizeof(*conn));
        if (conn == NULL)
            fail("malloc");
        memset(conn, 0, offsetof(struct conn, in));
        conn->fd = fd;
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = conn};
        if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
            fail("epoll_ctl");
    }
}

int main(int argc, char **argv)
{
    if (argc != 2 && argc != 3) {
        fprintf(stderr, "usage: bare PORT [WORKERS]\n");
        return 2;
    }
    unsigned long workers = argc == 3 ? strtoul(argv[2], NULL, 10) : 1;
    for (pid_t parent = getpid(); workers > 1; workers--) {
        if (fork() == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            if (getppid() != parent)
                return 1;
            break;
        }
    }
    signal(SIGPIPE, SIG_IGN);
    memset(big, 'x', sizeof(big));
    int listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)strtoul(argv[1], NULL, 10)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1;
    setsockopt(listen_fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    setsockopt(listen_fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
    if (bind(listen_fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        fail("bind");
    if (listen(listen_fd, 4096) < 0)
        fail("listen");
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listen_fd, &event) < 0)
        fail("epoll");

    for (;;) {
        struct epoll_event events[EVENTS];
        int count = epoll_wait(epoll_fd, events, EVENTS, -1);
        if (count < 0 && errno != EINTR)
            fail("epoll_wait");
        refresh_answers();
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr == NULL)
                on_accept(listen_fd);
            else
                on_ready(events[i].data.ptr);
        }
    }
}
