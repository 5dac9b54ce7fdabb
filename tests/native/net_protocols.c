/* Other protocols on the transport: one of lines, which knows nothing of HTTP, and tunnels, which
 * begin as a request. */
#include "net/http1.h"
#include "net_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- a protocol of lines ----
 *
 * Each line of a peer is an exchange: its body is the line, its response is sent as it is given,
 * with an end of line behind. "quit" ends the connection. Its private part is in memory of its own,
 * as that of a protocol with many exchanges would be. */

#define LINE_TAG 0x4000u /* the number that the test gives it */
#define LINE_MAX 256

struct lines {
    struct pp_exchange ex;
    char text[LINE_MAX];
    size_t len;  /* received */
    size_t line; /* of the first, with its end; 0: it is not whole */
    bool answered;
};

static struct lines *slots[8];
static unsigned begun, ended;

static struct lines **slot_of(const struct pp_conn *conn)
{
    for (size_t i = 0; i < sizeof slots / sizeof *slots; i++) {
        if (slots[i] != NULL && slots[i]->ex.conn == conn) {
            return &slots[i];
        }
    }
    return NULL;
}

static struct lines *lines_of(const struct pp_conn *conn)
{
    struct lines **slot = slot_of(conn);
    CHECK(slot != NULL);
    return *slot;
}

static void next_line(struct pp_conn *conn)
{
    struct lines *lines = lines_of(conn);
    const char *end = memchr(lines->text, '\n', lines->len);
    if (lines->ex.held || conn->state != PP_CONN_OPEN) {
        return;
    }
    if (end == NULL && lines->len == sizeof lines->text) {
        pp_conn_kill(conn, PP_ERR_HEAD_TOO_LARGE, true);
    } else if (end != NULL) {
        lines->line = (size_t)(end - lines->text) + 1;
        lines->answered = false;
        conn->requests++;
        pp_exchange_opened(&lines->ex);
        pp_exchange_raise(&lines->ex, PP_EV_REQUEST);
    }
}

static void lines_ready(struct pp_conn *conn)
{
    struct lines *lines = lines_of(conn);
    while (conn->readable && lines->len < sizeof lines->text) {
        size_t got = 0;
        int rc = pp_conn_receive(conn, (uint8_t *)lines->text + lines->len,
                                 sizeof lines->text - lines->len, &got);
        if (rc == PP_AGAIN) {
            break;
        }
        if (rc != PP_OK) {
            pp_conn_kill(conn, PP_ERR_DISCONNECTED, false);
            return;
        }
        lines->len += got;
    }
    next_line(conn);
}

static void lines_flushed(struct pp_conn *conn)
{
    pp_exchange_flushed(&lines_of(conn)->ex, conn->out.bytes);
}

static void lines_late(struct pp_conn *conn)
{
    if (!pp_conn_look(conn)) {
        pp_conn_kill(conn, PP_ERR_IDLE_TIMEOUT, false);
    }
}

static void lines_free(struct pp_conn *conn)
{
    struct lines **slot = slot_of(conn);
    free(*slot);
    *slot = NULL;
    ended++;
}

static void lines_gone(struct pp_conn *conn, int code)
{
    struct lines *lines = lines_of(conn);
    pp_exchange_gone(&lines->ex, code, false);
    if (!lines->ex.held && conn->state == PP_CONN_DEAD) {
        lines_free(conn);
    }
}

static void lines_drain(struct pp_conn *conn)
{
    if (!lines_of(conn)->ex.held) {
        pp_conn_last(conn);
    }
}

static bool lines_busy(const struct pp_conn *conn)
{
    return !lines_of(conn)->answered;
}

static bool lines_may_leave(const struct pp_conn *conn)
{
    (void)conn;
    return false;
}

static struct pp_exchange *lines_next(struct pp_conn *conn, struct pp_exchange *ex)
{
    struct lines *lines = lines_of(conn);
    return ex == NULL && lines->ex.held ? &lines->ex : NULL;
}

static enum pp_body_status line_peek(struct pp_exchange *ex, const uint8_t **data, size_t *len)
{
    const struct lines *lines = lines_of(ex->conn);
    *data = (const uint8_t *)lines->text;
    *len = lines->line;
    return ex->closed ? PP_BODY_FAILED : PP_BODY_END;
}

static void line_consume(struct pp_exchange *ex, size_t len)
{
    struct lines *lines = lines_of(ex->conn);
    CHECK(len == lines->line);
    memmove(lines->text, lines->text + len, lines->len - len);
    lines->len -= len;
    lines->line = 0;
}

static int line_respond(struct pp_exchange *ex, struct pp_response *r, const uint8_t *data,
                        size_t len, void *owner, bool *borrowed)
{
    (void)len;
    int rc = pp_conn_bytes_of(ex->conn, data, (size_t)r->body_bytes, owner, borrowed);
    if (rc == PP_OK) {
        rc = pp_conn_copy(ex->conn, "\n", 1);
    }
    lines_of(ex->conn)->answered = true;
    pp_conn_mark_dirty(ex->conn);
    return rc;
}

static enum pp_progress line_progress(const struct pp_exchange *ex)
{
    return lines_of(ex->conn)->answered ? PP_RESPONSE_DONE : PP_RESPONSE_NONE;
}

static bool line_out_full(const struct pp_exchange *ex)
{
    return ex->conn->out.bytes > PP_OUT_HIGH_BYTES;
}

static void line_finish(struct pp_exchange *ex)
{
    struct pp_conn *conn = ex->conn;
    struct lines *lines = lines_of(conn);
    bool quit = lines->line == 5 && memcmp(lines->text, "quit\n", 5) == 0;
    if (lines->line > 0) {
        line_consume(ex, lines->line);
    }
    pp_exchange_released(ex);
    if (conn->state == PP_CONN_DEAD) {
        lines_free(conn);
        pp_conn_let_go(conn);
    } else if (conn->state == PP_CONN_OPEN && (quit || conn->draining)) {
        pp_conn_last(conn);
    } else {
        pp_conn_resume_later(conn);
    }
}

static const struct pp_exchange_ops line_ops = {
    .peek = line_peek,
    .consume = line_consume,
    .respond = line_respond,
    .progress = line_progress,
    .out_full = line_out_full,
    .finish = line_finish,
};

static void lines_begin(struct pp_conn *conn, const uint8_t *carry, size_t len)
{
    size_t at = 0;
    while (slots[at] != NULL) {
        at++;
    }
    CHECK(at < sizeof slots / sizeof *slots && len <= LINE_MAX);
    struct lines *lines = slots[at] = calloc(1, sizeof *lines);
    CHECK(lines != NULL);
    begun++;
    pp_exchange_init(&lines->ex, &line_ops, conn);
    if (len > 0) {
        memcpy(lines->text, carry, len);
        lines->len = len;
    }
    lines->answered = true;
    pp_conn_read_due(conn, 5000);
    lines_ready(conn);
}

static const struct pp_proto lines_proto = {
    .name = "lines",
    .begin = lines_begin,
    .ready = lines_ready,
    .resume = lines_ready,
    .flushed = lines_flushed,
    .late = lines_late,
    .gone = lines_gone,
    .drain = lines_drain,
    .busy = lines_busy,
    .may_leave = lines_may_leave,
    .next = lines_next,
};

/* The rig's listener for HTTP, and one for lines. */
static int lines_listen(struct rig *rig, unsigned *port)
{
    struct sockaddr_in addr = {.sin_family = AF_INET};
    socklen_t len = sizeof addr;
    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&addr, sizeof addr) == 0 && listen(fd, 16) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)&addr, &len) == 0);
    *port = ntohs(addr.sin_port);
    rig->loop->protos[PP_TAG_PROTO(LINE_TAG)] = &lines_proto;
    CHECK_EQ(pp_loop_listen(rig->loop, fd, PP_LISTEN_ALONE, LINE_TAG | 7), PP_OK);
    begun = ended = 0;
    return fd;
}

static int lines_connect(struct rig *rig, unsigned port)
{
    unsigned http = rig->port;
    rig->port = port;
    int fd = rig_connect(rig);
    rig->port = http;
    return fd;
}

/* Answers all that is there with "<line>" between brackets; how many there were. */
static unsigned lines_serve(struct rig *rig)
{
    unsigned count = 0;
    struct pp_exchange *ex;
    unsigned events;
    for (int quiet = 0; quiet < 3; quiet++) {
        CHECK(pp_loop_turn(rig->loop, 5) >= 0);
        while ((ex = pp_loop_take_event(rig->loop, &events)) != NULL) {
            const uint8_t *data;
            size_t len;
            char text[LINE_MAX + 2];
            CHECK(events & PP_EV_REQUEST);
            CHECK_EQ(pp_exchange_tag(ex), 7);
            CHECK(pp_loop_next_exchange(rig->loop, NULL) != NULL);
            CHECK_EQ(pp_exchange_peek(ex, &data, &len), PP_BODY_END);
            struct pp_response r = {.body_bytes = rig_put(text, sizeof text, "[%.*s]", (int)len - 1,
                                                          (const char *)data)};
            CHECK_EQ(pp_exchange_respond(ex, &r, (const uint8_t *)text, 0, NULL, NULL), PP_OK);
            pp_exchange_finish(ex);
            count++;
            quiet = -1;
        }
    }
    return count;
}

static void lines_expect(int fd, const char *text)
{
    char buf[512];
    size_t len = strlen(text), got = 0;
    while (got < len) {
        ssize_t n = recv(fd, buf + got, sizeof buf - got, 0);
        CHECK(n > 0);
        got += (size_t)n;
    }
    CHECK(got == len && memcmp(buf, text, len) == 0);
}

TEST(net_lines_are_exchanges)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    unsigned port;
    rig_start(&rig, &s);
    int listener = lines_listen(&rig, &port), fd = lines_connect(&rig, port);
    CHECK_EQ(send(fd, "one\ntwo\nthr", 11, MSG_NOSIGNAL), 11);
    CHECK_EQ(lines_serve(&rig), 2);
    lines_expect(fd, "[one]\n[two]\n");
    CHECK_EQ(send(fd, "ee\nquit\n", 8, MSG_NOSIGNAL), 8);
    CHECK_EQ(lines_serve(&rig), 2);
    lines_expect(fd, "[three]\n[quit]\n");
    char byte;
    CHECK_EQ(recv(fd, &byte, 1, 0), 0); /* it has ended in order */
    (void)close(fd);

    int http = rig_connect(&rig); /* HTTP beside it is as ever */
    rig_expect(&rig, http, GET("/hello"), "HTTP/1.1 200", "Hello, world!");
    (void)close(http);
    fd = lines_connect(&rig, port); /* one that leaves in the middle of a line */
    CHECK_EQ(send(fd, "half", 4, MSG_NOSIGNAL), 4);
    CHECK_EQ(lines_serve(&rig), 0);
    (void)close(fd);
    rig_settle(&rig);
    CHECK_EQ(begun, 2);
    CHECK_EQ(ended, 2);
    pp_loop_unlisten(rig.loop);
    (void)close(listener);
    rig_stop(&rig);
}

#ifdef PP_TEST_CLOCK
TEST(net_lines_have_deadlines_and_drain)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    unsigned port;
    rig_start(&rig, &s);
    int listener = lines_listen(&rig, &port), fd = lines_connect(&rig, port);
    CHECK_EQ(lines_serve(&rig), 0);
    rig_clock(rig_now_ms + 6000);
    CHECK_EQ(lines_serve(&rig), 0);
    char byte;
    CHECK_EQ(recv(fd, &byte, 1, 0), 0);
    (void)close(fd);

    fd = lines_connect(&rig, port);
    CHECK_EQ(send(fd, "last\n", 5, MSG_NOSIGNAL), 5);
    CHECK(pp_loop_turn(rig.loop, 100) > 0);
    pp_loop_drain(rig.loop);
    CHECK_EQ(lines_serve(&rig), 1);
    lines_expect(fd, "[last]\n");
    CHECK_EQ(recv(fd, &byte, 1, 0), 0);
    (void)close(fd);
    rig_settle(&rig);
    CHECK(pp_loop_drained(rig.loop));
    pp_loop_unlisten(rig.loop);
    (void)close(listener);
    rig_stop(&rig);
}
#endif

/* The protocol changes on an open connection. */
TEST(net_a_connection_becomes_another)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    unsigned port;
    rig_start(&rig, &s);
    int listener = lines_listen(&rig, &port), fd = lines_connect(&rig, port);
    /* A first line decides, as that of the PROXY protocol does, and what came with it is carried
     * over. */
    static const char text[] = "PROXY whatever\nGET /hello HTTP/1.1\r\nHost: a\r\n\r\n";
    CHECK_EQ(send(fd, text, sizeof text - 1, MSG_NOSIGNAL), (ssize_t)sizeof text - 1);
    while (rig_next_conn(rig.loop, NULL) == NULL ||
           lines_of(rig_next_conn(rig.loop, NULL))->line == 0) {
        CHECK(pp_loop_turn(rig.loop, 100) >= 0);
    }
    struct pp_conn *conn = rig_next_conn(rig.loop, NULL);
    unsigned events;
    struct pp_exchange *ex = pp_loop_take_event(rig.loop, &events);
    struct lines lines = *lines_of(conn);
    CHECK(ex != NULL);
    pp_exchange_released(ex);
    lines_free(conn);
    pp_conn_become(conn, &pp_http1_proto, (const uint8_t *)lines.text + lines.line,
                   lines.len - lines.line);
    rig_expect(&rig, fd, "", "HTTP/1.1 200", "Hello, world!");
    rig_expect(&rig, fd, GET("/hello"), "HTTP/1.1 200", "Hello, world!"); /* and goes on so */
    (void)close(fd);
    rig_settle(&rig);
    pp_loop_unlisten(rig.loop);
    (void)close(listener);
    rig_stop(&rig);
}

/* ---- tunnels ---- */

#define UPGRADE \
    "GET /hold HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: echo\r\n\r\n"

static struct pp_exchange *asked(struct rig *rig, int fd, const char *text)
{
    rig_say(rig, fd, text);
    rig_settle(rig);
    struct rig_request *req = rig_held(rig, "/hold");
    CHECK(req != NULL);
    return req->ex;
}

static int tunnel(struct pp_exchange *ex)
{
    const struct pp_out_field field = {.name = (const uint8_t *)"x-more",
                                       .name_len = 6,
                                       .value = (const uint8_t *)"yes",
                                       .value_len = 3};
    return pp_exchange_tunnel(ex, "echo", &field, 1);
}

/* Sends back what is there, in capitals. */
static size_t tunnel_echo(struct pp_exchange *ex)
{
    const uint8_t *data;
    size_t len;
    uint8_t back[64];
    (void)pp_exchange_peek(ex, &data, &len);
    CHECK(len <= sizeof back);
    for (size_t i = 0; i < len; i++) {
        back[i] = data[i] >= 'a' && data[i] <= 'z' ? (uint8_t)(data[i] - 32) : data[i];
    }
    CHECK_EQ(pp_exchange_send(ex, back, len, true, NULL, NULL), PP_OK);
    pp_exchange_consume(ex, len);
    return len;
}

TEST(net_tunnel_carries_what_came_behind_its_head)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    rig_start(&rig, &s);
    int fd = rig_connect(&rig);
    struct pp_exchange *ex = asked(&rig, fd, UPGRADE "first bytes");
    CHECK_EQ(tunnel(ex), PP_OK);
    CHECK_EQ(pp_exchange_status(ex), 101);
    CHECK_EQ(tunnel(ex), PP_ERR_APP_FAILED); /* only once */
    unsigned events;
    CHECK(pp_loop_take_event(rig.loop, &events) == ex && (events & PP_EV_BODY));
    CHECK_EQ(tunnel_echo(ex), 11);
    char buf[600];
    bool end;
    rig.hold_body = true; /* the rig's own application keeps out of it */
    size_t n = rig_read(&rig, fd, buf, sizeof buf - 1, &end);
    buf[n] = '\0';
    static const char head[] = "HTTP/1.1 101 Switching Protocols\r\nupgrade: echo\r\n"
                               "connection: upgrade\r\nx-more: yes\r\n\r\nFIRST BYTES";
    CHECK(!end && strcmp(buf, head) == 0);
    /* Both ways, as often as one likes; no time-out of HTTP ends it. */
    for (int i = 0; i < 3; i++) {
        rig_clock(rig_now_ms + 200000);
        rig_say(&rig, fd, "again");
        rig_settle(&rig);
        CHECK_EQ(tunnel_echo(ex), 5);
        n = rig_read(&rig, fd, buf, sizeof buf, &end);
        CHECK(!end && n == 5 && memcmp(buf, "AGAIN", 5) == 0);
    }
    CHECK_EQ(rig.loop->block_pool.used_count, 0); /* an idle one has no block */
    CHECK(!pp_conn_may_leave(ex->conn));
    /* The peer ends its side: that is told, and what we say still reaches it. */
    unsigned told = rig.eof_seen;
    CHECK(shutdown(fd, SHUT_WR) == 0);
    rig_settle(&rig);
    CHECK_EQ(rig.eof_seen, told + 1);
    const uint8_t *data;
    CHECK_EQ(pp_exchange_peek(ex, &data, &n), PP_BODY_END);
    CHECK_EQ(pp_exchange_send(ex, (const uint8_t *)"bye", 3, true, NULL, NULL), PP_OK);
    rig_finish(&rig, rig_held(&rig, "/hold"));
    n = rig_read(&rig, fd, buf, sizeof buf, &end);
    CHECK(end && n == 3 && memcmp(buf, "bye", 3) == 0);
    (void)close(fd);
    rig_settle(&rig);
    CHECK_EQ(pp_loop_connections(rig.loop), 0);
    rig_stop(&rig);
}

TEST(net_tunnel_only_where_asked_for)
{
    static const char *const others[] = {
        GET("/hold"),
        "GET /hold HTTP/1.1\r\nHost: a\r\nUpgrade: echo\r\n\r\n", /* Connection names it not */
        "GET /hold HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n",
        "POST /hold HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n"
        "Content-Length: 5\r\n\r\nab", /* its body is still to come */
    };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        struct rig rig;
        struct pp_settings s = rig_settings();
        rig_start(&rig, &s);
        int fd = rig_connect(&rig);
        struct pp_exchange *ex = asked(&rig, fd, others[i]);
        CHECK_EQ(tunnel(ex), PP_ERR_APP_FAILED);
        rig_answer(&rig, rig_held(&rig, "/hold"), "plain"); /* nothing was spoilt */
        rig_expect(&rig, fd, "", "HTTP/1.1 200", "plain");
        (void)close(fd);
        rig_settle(&rig);
        rig_stop(&rig);
    }
}

/* What ends under a tunnel, and when the application hears of it. */
TEST(net_tunnel_ends)
{
    enum { RESET, DRAIN, BEFORE, AFTER_EOF, WAYS };
    for (int way = 0; way < WAYS; way++) {
#ifndef PP_TEST_CLOCK
        if (way == DRAIN) {
            continue;
        }
#endif
        struct rig rig;
        struct pp_settings s = rig_settings();
        rig_start(&rig, &s);
        int fd = rig_connect(&rig);
        struct pp_exchange *ex = asked(&rig, fd, UPGRADE);
        rig.hold_body = true;
        if (way == BEFORE) { /* the peer is gone before the tunnel is there */
            struct linger now = {.l_onoff = 1};
            CHECK(setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now) == 0);
            (void)close(fd);
            CHECK(pp_loop_turn(rig.loop, 100) > 0);
            CHECK(pp_exchange_closed(ex));
            CHECK_EQ(tunnel(ex), PP_OK);
            CHECK_EQ(pp_exchange_send(ex, (const uint8_t *)"x", 1, true, NULL, NULL), PP_OK);
        } else if (way == AFTER_EOF) { /* its side has ended before */
            CHECK(shutdown(fd, SHUT_WR) == 0);
            rig_settle(&rig);
            CHECK_EQ(tunnel(ex), PP_OK);
            rig_settle(&rig);
            const uint8_t *data;
            size_t len;
            CHECK_EQ(pp_exchange_peek(ex, &data, &len), PP_BODY_END);
        } else {
            CHECK_EQ(tunnel(ex), PP_OK);
            rig_settle(&rig);
        }
        if (way == RESET) {
            struct linger now = {.l_onoff = 1};
            CHECK(setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now) == 0);
            (void)close(fd);
            CHECK(pp_loop_turn(rig.loop, 100) > 0);
            unsigned events;
            CHECK(pp_loop_take_event(rig.loop, &events) == ex && (events & PP_EV_CLOSED));
            CHECK_EQ(pp_exchange_error(ex), PP_ERR_DISCONNECTED);
        }
        if (way == DRAIN) {
            pp_loop_drain(rig.loop);
            rig_clock(rig_now_ms + PP_DRAIN_IDLE_MS + 100);
            CHECK(pp_loop_turn(rig.loop, 0) >= 0);
            CHECK(pp_raw_ours(ex));
            rig_settle(&rig); /* CLOSED comes, and the rig's application lets go */
        }
        CHECK((rig_held(&rig, "/hold") == NULL) == (way == DRAIN));
        if (way != DRAIN) {
            rig_finish(&rig, rig_held(&rig, "/hold"));
        }
        rig_settle(&rig);
        if (way == DRAIN || way == AFTER_EOF) {
            (void)close(fd);
            rig_settle(&rig);
        }
        CHECK_EQ(pp_loop_connections(rig.loop), 0);
        rig_stop(&rig);
    }
}
