/* The rig of net_rig.h. */
#include "net_rig.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "proto/h1_scan.h"

uint64_t rig_now_ms;
static uint8_t big[RIG_BIG_BYTES]; /* what /big and /stream send pieces of */

#ifdef PP_TEST_CLOCK
static uint64_t test_now(void)
{
    return rig_now_ms;
}
static int64_t test_wall(void)
{
    return 784111777000 + (int64_t)rig_now_ms;
}
#endif

void rig_clock(uint64_t now_ms)
{
    rig_now_ms = now_ms;
}

static unsigned fds_open(void)
{
    unsigned count = 0;
    DIR *dir = opendir("/proc/self/fd");
    CHECK(dir != NULL);
    while (readdir(dir) != NULL) {
        count++;
    }
    (void)closedir(dir);
    return count;
}

struct pp_settings rig_settings(void)
{
    return (struct pp_settings){
        .http = {.request_line_bytes = 8192, .head_bytes = 32768, .field_count = 100},
        .limit_pipeline = 64,
        .keep_alive_ms = 75000,
        .request_header_ms = 10000,
        .body_idle_ms = 30000,
        .write_ms = 30000,
        .server_header = true,
        .date_header = true,
        .access_log_fd = -1,
    };
}

static void listen_open(struct rig *rig)
{
    struct sockaddr_in addr = {.sin_family = AF_INET};
    socklen_t len = sizeof addr;
    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    rig->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    CHECK(rig->listen_fd >= 0);
    CHECK(bind(rig->listen_fd, (struct sockaddr *)&addr, sizeof addr) == 0);
    CHECK(listen(rig->listen_fd, 4096) == 0);
    CHECK(getsockname(rig->listen_fd, (struct sockaddr *)&addr, &len) == 0);
    rig->port = ntohs(addr.sin_port);
}

bool rig_try_start(struct rig *rig, const struct pp_settings *settings)
{
    memset(rig, 0, sizeof *rig);
    pp_h1_scan_init();
    for (size_t i = 0; i < sizeof big; i++) {
        big[i] = (uint8_t)('a' + i % 23);
    }
    rig->blocks_before = pp_mem_blocks();
    rig->fds_before = fds_open();
#ifdef PP_TEST_CLOCK
    rig_now_ms = 1000000;
    pp_loop_test_clock = test_now;
    pp_loop_test_wall_ms = test_wall;
#endif
    rig->listen_fd = -1;
    rig->loop = pp_loop_new(settings);
    if (rig->loop == NULL) {
        return false;
    }
    listen_open(rig);
    return pp_loop_listen(rig->loop, rig->listen_fd, PP_LISTEN_ALONE, 0) == PP_OK;
}

void rig_start(struct rig *rig, const struct pp_settings *settings)
{
    CHECK(rig_try_start(rig, settings));
}

static void owners_collect(struct rig *rig)
{
    void *owner;
    while ((owner = pp_loop_take_released(rig->loop)) != NULL) {
        CHECK(owner == (void *)big);
        rig->owners_back++;
    }
}

struct pp_conn *rig_next_conn(struct pp_loop *loop, struct pp_conn *conn)
{
    struct pp_list *n = conn == NULL ? loop->conns.next : conn->all.next;
    return n == &loop->conns ? NULL : PP_CONTAINER(n, struct pp_conn, all);
}

size_t rig_raw_peek(struct pp_exchange *ex, const uint8_t **data)
{
    size_t len;
    (void)pp_exchange_peek(ex, data, &len);
    return len;
}

void rig_stop(struct rig *rig)
{
    if (rig->loop != NULL) {
        pp_loop_unlisten(rig->loop);
        pp_loop_abort(rig->loop);
        while (rig->requests != NULL) {
            rig_finish(rig, rig->requests);
        }
        (void)!pp_loop_turn(rig->loop, 0);
        owners_collect(rig);
        CHECK_EQ(rig->owners_lent, rig->owners_back);
        CHECK_EQ(pp_loop_connections(rig->loop), 0);
        CHECK_EQ(pp_loop_in_flight(rig->loop), 0);
        const struct pp_counters *c = pp_loop_counters(rig->loop);
        CHECK_EQ(c->accepted + c->handed_in, c->closed + c->handed_out);
        pp_loop_free(rig->loop);
    }
    if (rig->listen_fd >= 0) {
        (void)close(rig->listen_fd);
    }
    if (!rig->beside_another) {
        CHECK_EQ(pp_mem_blocks(), rig->blocks_before);
        CHECK_EQ(fds_open(), rig->fds_before);
    }
}

/* ---- the application ---- */

void rig_finish(struct rig *rig, struct rig_request *req)
{
    struct rig_request **at = &rig->requests;
    while (*at != req) {
        CHECK(*at != NULL);
        at = &(*at)->next;
    }
    *at = req->next;
    pp_exchange_set_app(req->ex, NULL);
    pp_exchange_finish(req->ex);
    free(req);
}

void rig_forget(struct rig_request *req)
{
    free(req);
}

static int respond(struct rig_request *req, int status, bool complete, const void *body, size_t len)
{
    struct pp_response r = {
        .status = status, .complete = complete, .body_bytes = complete ? len : 0};
    req->responded = true;
    return pp_exchange_respond(req->ex, &r, body, complete ? 0 : len, NULL, NULL);
}

void rig_answer(struct rig *rig, struct rig_request *req, const char *body)
{
    (void)!respond(req, 200, true, body, strlen(body));
    rig_finish(rig, req);
}

struct rig_request *rig_held(struct rig *rig, const char *path)
{
    for (struct rig_request *req = rig->requests; req != NULL; req = req->next) {
        if (strcmp(req->path, path) == 0) {
            return req;
        }
    }
    return NULL;
}

/* What is there of the body, received into `own` if it is left to be (pp_loop_take_bodies). */
static enum pp_body_status body_next(struct rig *rig, struct pp_exchange *ex, const uint8_t **data,
                                     size_t *len)
{
    static uint8_t own[PP_BODY_BLOCK_BYTES + PP_BODY_TAKE_MAX];
    enum pp_body_status status = pp_exchange_peek(ex, data, len);
    size_t ahead = pp_exchange_ahead(ex), room = *len + ahead;
    if (status == PP_BODY_FAILED || ahead == 0) {
        return status;
    }
    CHECK(rig->loop->take_bodies && ahead <= PP_BODY_TAKE_MAX && room <= sizeof own);
    status = pp_exchange_take(ex, own, room, len);
    CHECK(*len <= room);
    rig->bytes_taken += *len;
    *data = own;
    return status;
}

/* Takes what is there of the body; true when nothing more is to be waited for. */
static bool body_take(struct rig *rig, struct rig_request *req, bool echo)
{
    for (;;) {
        const uint8_t *data;
        size_t len;
        uint64_t taken = rig->bytes_taken;
        enum pp_body_status status = body_next(rig, req->ex, &data, &len);
        if (status == PP_BODY_FAILED) {
            req->failed_body = true;
            req->body_error = pp_exchange_error(req->ex);
            return true;
        }
        for (size_t i = 0; i < len; i++) {
            req->body_sum = req->body_sum * 31 + data[i];
        }
        req->body_bytes += len;
        if (echo && len > 0) {
            (void)!pp_exchange_send(req->ex, data, len, true, NULL, NULL);
        }
        if (rig->bytes_taken == taken) {
            pp_exchange_consume(req->ex, len);
        }
        if (status == PP_BODY_END) {
            return true;
        }
        if (len == 0) {
            pp_exchange_want(req->ex);
            return false;
        }
    }
}

static void stream_on(struct rig *rig, struct rig_request *req)
{
    while (req->to_send > 0 && !pp_exchange_out_full(req->ex)) {
        size_t len = req->to_send < sizeof big ? (size_t)req->to_send : sizeof big;
        bool borrowed = false;
        int rc = pp_exchange_send(req->ex, big, len, true, big, &borrowed);
        rig->owners_lent += borrowed;
        if (rc != PP_OK || pp_exchange_closed(req->ex)) {
            rig_finish(rig, req);
            return;
        }
        req->to_send -= len;
    }
    if (req->to_send == 0) {
        (void)!pp_exchange_send(req->ex, NULL, 0, false, NULL, NULL);
        rig_finish(rig, req);
    }
}

static void run(struct rig *rig, struct rig_request *req)
{
    char text[80];
    const char *p = req->path;

    if (req->closed) {
        rig_finish(rig, req);
    } else if (strncmp(p, "/hello", 6) == 0) {
        rig_answer(rig, req, "Hello, world!");
    } else if (strcmp(p, "/count") == 0) {
        if (!rig->hold_body && body_take(rig, req, false)) {
            (void)snprintf(text, sizeof text, "%llu %llx", (unsigned long long)req->body_bytes,
                           (unsigned long long)req->body_sum);
            if (!req->failed_body) {
                (void)!respond(req, 200, true, text, strlen(text));
            }
            rig_finish(rig, req); /* a failed body without an answer: its own status */
        }
    } else if (strcmp(p, "/echo") == 0) {
        if (!req->responded) {
            (void)!respond(req, 200, false, NULL, 0);
        }
        if (body_take(rig, req, true)) {
            if (!req->failed_body) {
                (void)!pp_exchange_send(req->ex, NULL, 0, false, NULL, NULL);
            }
            rig_finish(rig, req);
        }
    } else if (strcmp(p, "/early") == 0) {
        rig_answer(rig, req, "no, thanks");
    } else if (strcmp(p, "/big") == 0) {
        bool borrowed = false;
        struct pp_response r = {.status = 200, .complete = true, .body_bytes = sizeof big};
        (void)!pp_exchange_respond(req->ex, &r, big, 0, big, &borrowed);
        rig->owners_lent += borrowed;
        rig_finish(rig, req);
    } else if (strcmp(p, "/stream") == 0) {
        if (!req->responded) {
            (void)!respond(req, 200, false, NULL, 0);
            req->to_send = 5000000;
        }
        stream_on(rig, req);
    } else if (strcmp(p, "/fail") == 0) {
        pp_exchange_fail(req->ex, 500);
        rig_finish(rig, req);
    } else if (strcmp(p, "/silent") == 0) {
        rig_finish(rig, req);
    } else if (strcmp(p, "/failmid") == 0) {
        (void)!respond(req, 200, false, "part", 4);
        pp_exchange_fail(req->ex, 500);
        rig_finish(rig, req);
    } else if (strcmp(p, "/want") == 0) {
        if (!req->wanted) { /* once: to ask again without taking would go round for ever */
            req->wanted = true;
            pp_exchange_want(req->ex);
        }
    } /* "/hold...": waits for the test */
}

/* Answers what it gets: "big" with a borrowed buffer, all else with itself. */
static void run_raw(struct rig *rig, struct rig_request *req)
{
    const uint8_t *data;
    bool borrowed = false;

    if (req->closed) {
        rig_finish(rig, req);
        return;
    }
    if (rig->hold_body) {
        return;
    }
    size_t len = rig_raw_peek(req->ex, &data);
    if (len == 3 && memcmp(data, "big", 3) == 0) {
        (void)!pp_exchange_send(req->ex, big, sizeof big, true, big, &borrowed);
        rig->owners_lent += borrowed;
    } else if (len == 4 && memcmp(data, "file", 4) == 0) {
        uint64_t size;
        struct pp_file *file = pp_file_open(rig->file, &size);
        CHECK(file != NULL);
        (void)!pp_exchange_send(req->ex, (const uint8_t *)"<", 1, true, NULL, NULL);
        (void)!pp_exchange_send_file(req->ex, file, rig->file_at, rig->file_len);
        (void)!pp_exchange_send(req->ex, (const uint8_t *)">", 1, true, NULL, NULL);
    } else {
        (void)!pp_exchange_send(req->ex, data, len, true, NULL, NULL);
    }
    pp_exchange_consume(req->ex, len);
    req->body_bytes += len;
    if (req->eof || (rig->close_raw && len > 0)) {
        pp_raw_close(req->ex);
    }
}

static void event(struct rig *rig, struct pp_exchange *ex, unsigned events)
{
    struct rig_request *req = pp_exchange_app(ex);
    bool raw = pp_exchange_is_raw(ex);
    rig->closed_seen += (events & PP_EV_CLOSED) != 0;
    rig->eof_seen += (events & PP_EV_EOF) != 0;
    rig->drained_seen += (events & PP_EV_DRAINED) != 0;
    rig->body_seen += (events & PP_EV_BODY) != 0;
    rig->finished_seen += (events & PP_EV_FINISHED) != 0;
    rig->idle_seen += (events & PP_EV_IDLE) != 0;
    if (events & PP_EV_REQUEST) {
        const uint8_t *base = (const uint8_t *)"raw";
        static const struct pp_head none = {.path = {.len = 3}};
        const struct pp_head *head = raw ? &none : pp_exchange_head(ex, &base);
        CHECK(req == NULL);
        req = calloc(1, sizeof *req);
        CHECK(req != NULL);
        rig->requests_seen++;
        req->ex = ex;
        size_t n = head->path.len < sizeof req->path ? head->path.len : sizeof req->path - 1;
        memcpy(req->path, base + head->path.off, n);
        req->next = rig->requests;
        rig->requests = req;
        pp_exchange_set_app(ex, req);
    }
    CHECK(req != NULL && req->ex == ex);
    CHECK((events & PP_EV_CLOSED) == 0 || pp_exchange_closed(ex));
    req->closed = req->closed || (events & PP_EV_CLOSED) != 0;
    req->eof = req->eof || (events & PP_EV_EOF) != 0;
    if (raw) {
        run_raw(rig, req);
    } else {
        run(rig, req);
    }
}

int rig_turn(struct rig *rig, int timeout_ms)
{
    struct pp_exchange *ex;
    unsigned events;
    int taken = 0, count = pp_loop_turn(rig->loop, timeout_ms);
    CHECK(count >= 0);
    while ((ex = pp_loop_take_event(rig->loop, &events)) != NULL) {
        event(rig, ex, events);
        taken++;
    }
    owners_collect(rig);
    CHECK(count >= 0);
    return taken;
}

void rig_settle(struct rig *rig)
{
    int quiet = 0;
    while (quiet < 3) {
        const struct pp_counters *c = pp_loop_counters(rig->loop);
        uint64_t before = c->accepted + c->closed + c->bytes_in + c->bytes_out;
        int taken = rig_turn(rig, 0);
        uint64_t after = c->accepted + c->closed + c->bytes_in + c->bytes_out;
        quiet = taken > 0 || after != before || pp_loop_pending(rig->loop) ? 0 : quiet + 1;
    }
}

/* ---- clients ---- */

int rig_connect_small(struct rig *rig, int rcvbuf)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons((uint16_t)rig->port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int on = 1;
    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(fd >= 0);
    CHECK(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0);
    if (rcvbuf > 0) {
        CHECK(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &rcvbuf, sizeof rcvbuf) == 0);
    }
    CHECK(connect(fd, (struct sockaddr *)&addr, sizeof addr) == 0);
    CHECK(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
    return fd;
}

int rig_connect(struct rig *rig)
{
    return rig_connect_small(rig, 0);
}

void rig_write(struct rig *rig, int fd, const void *data, size_t len)
{
    const char *from = data;
    int idle = 0;
    while (len > 0) {
        ssize_t n = send(fd, from, len, MSG_NOSIGNAL);
        if (n > 0) {
            from += n;
            len -= (size_t)n;
            idle = 0;
            continue;
        }
        if (errno == EPIPE || errno == ECONNRESET) {
            return; /* the server has refused: what it said is read by the caller */
        }
        CHECK(errno == EAGAIN);
        rig_settle(rig);
        struct pollfd room = {.fd = fd, .events = POLLOUT};
        (void)poll(&room, 1, idle > 0 ? 10 : 0);
        if (++idle > 50) {
            return; /* the server does not take it */
        }
    }
}

void rig_say(struct rig *rig, int fd, const char *text)
{
    rig_write(rig, fd, text, strlen(text));
}

size_t rig_read(struct rig *rig, int fd, char *buf, size_t cap, bool *ended)
{
    size_t len = 0;
    int idle = 0;
    *ended = false;
    while (len < cap && idle < 3) {
        ssize_t n;
        rig_settle(rig);
        n = recv(fd, buf + len, cap - len, 0);
        if (n > 0) {
            len += (size_t)n;
            idle = 0;
        } else if (n == 0 || errno == ECONNRESET) {
            *ended = true;
            break;
        } else {
            CHECK(errno == EAGAIN);
            /* The kernel may still be moving bytes (window updates): look once more. */
            struct pollfd more = {.fd = fd, .events = POLLIN};
            idle = poll(&more, 1, 2) > 0 ? 0 : idle + 1;
        }
    }
    return len;
}

void rig_expect(struct rig *rig, int fd, const char *text, const char *start, const char *part)
{
    char buf[70000];
    bool ended;
    rig_say(rig, fd, text);
    size_t n = rig_read(rig, fd, buf, sizeof buf - 1, &ended);
    buf[n] = '\0';
    if (strncmp(buf, start, strlen(start)) != 0 || (part != NULL && strstr(buf, part) == NULL)) {
        test_fail(__FILE__, __LINE__, "asked \"%s\": got \"%s\", not \"%s...%s\"", text, buf, start,
                  part == NULL ? "" : part);
    }
}

bool rig_is_reset(int fd)
{
    char byte;
    for (;;) {
        ssize_t n = recv(fd, &byte, 1, 0);
        if (n <= 0) {
            return n < 0 && errno == ECONNRESET;
        }
    }
}

unsigned rig_count(const char *text, const char *part)
{
    unsigned count = 0;
    for (const char *at = text; (at = strstr(at, part)) != NULL; at += strlen(part)) {
        count++;
    }
    return count;
}

size_t rig_put(char *at, size_t room, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int len = vsnprintf(at, room, format, args);
    va_end(args);
    CHECK(len >= 0 && (size_t)len < room);
    return (size_t)len;
}
