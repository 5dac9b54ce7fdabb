/* What the floors of the benchmark (bare.c, bare_uring.c) share: buffers, answers, and a parser
 * that knows a request by its empty line and its first line alone. */
#ifndef PP_BENCH_BARE_H
#define PP_BENCH_BARE_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/prctl.h>
#include <sys/socket.h>
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
    bool writing;     /* EPOLLOUT is armed, or a send is on its way. */
    bool receiving;   /* A receive is in the ring ... */
    bool cancelled;   /* ... and is being taken back. */
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

/* The listening socket of one of the workers, which are forked here. */
static int serve(int argc, char **argv)
{
    if (argc != 2 && argc != 3) {
        fprintf(stderr, "usage: %s PORT [WORKERS]\n", argv[0]);
        exit(2);
    }
    unsigned long workers = argc == 3 ? strtoul(argv[2], NULL, 10) : 1;
    for (pid_t parent = getpid(); workers > 1; workers--) {
        if (fork() == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            if (getppid() != parent)
                exit(1);
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
    return listen_fd;
}

static struct conn *conn_new(int fd)
{
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    struct conn *conn = malloc(sizeof(*conn));
    if (conn == NULL)
        fail("malloc");
    memset(conn, 0, offsetof(struct conn, in));
    conn->fd = fd;
    return conn;
}

#endif
