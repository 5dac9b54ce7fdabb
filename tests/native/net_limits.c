/* Error answers, limits, and every time-out under a clock that only the test moves. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "net_rig.h"

static uint64_t errors(const struct rig *rig, int code)
{
    return pp_loop_counters(rig->loop)->errors[pp_err_index(code)];
}

TEST(net_error_answers)
{
    static const struct {
        const char *ask, *start;
        int code;
    } cases[] = {
        {"NONSENSE\r\n\r\n", "HTTP/1.1 400 ", 0},
        {"GET / HTTP/2.0\r\nHost: a\r\n\r\n", "HTTP/1.1 505 ", PP_ERR_BAD_VERSION},
        {"GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 400 ", PP_ERR_BAD_HOST},
        {"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "HTTP/1.1 ", 0},
        {"GET / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n", "HTTP/1.1 417 ", PP_ERR_BAD_EXPECT},
        {"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", "HTTP/1.1 501 ", PP_ERR_BAD_METHOD},
        {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n", "HTTP/1.1 413 ",
         PP_ERR_BODY_TOO_LARGE},
    };
    struct rig rig;
    struct pp_settings s = rig_settings();
    s.http.body_bytes = 1000;
    rig_start(&rig, &s);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int fd = rig_connect(&rig);
        uint64_t before = cases[i].code == 0 ? 0 : errors(&rig, cases[i].code);
        rig_expect(&rig, fd, cases[i].ask, cases[i].start, "connection: close\r\n");
        CHECK(cases[i].code == 0 || errors(&rig, cases[i].code) == before + 1);
        (void)close(fd);
        rig_settle(&rig);
        CHECK_EQ(pp_loop_connections(rig.loop), 0);
    }
    CHECK_EQ(rig.requests_seen, 0);
    rig_stop(&rig);
}

/* What follows a refused request is never looked at, and what preceded it is answered first. */
TEST(net_nothing_behind_an_error)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    char buf[3000];
    bool ended;
    rig_start(&rig, &s);
    int fd = rig_connect(&rig);
    rig_say(&rig, fd, GET("/hello") "BAD\r\n\r\n" GET("/hello"));
    size_t n = rig_read(&rig, fd, buf, sizeof buf - 1, &ended);
    buf[n] = '\0';
    CHECK(ended);
    CHECK_EQ(rig.requests_seen, 1);
    CHECK_EQ(rig_count(buf, "HTTP/1.1 200"), 1);
    CHECK_EQ(rig_count(buf, "HTTP/1.1 400"), 1);
    CHECK_EQ(rig_count(buf, "HTTP/1.1 "), 2);
    (void)close(fd);
    rig_stop(&rig);
}

TEST(net_head_limits)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    rig_start(&rig, &s);
    char *ask = malloc(200000);
    CHECK(ask != NULL);
    /* The largest head that is allowed grows the block; one byte more is refused. */
    for (int extra = 0; extra < 2; extra++) {
        size_t n = rig_put(ask, 200000, "GET /hello HTTP/1.1\r\nHost: a\r\n");
        size_t total = s.http.head_bytes + (size_t)extra;
        for (int field = 0; n < total - 4; field++) {
            size_t left = total - 2 - n, len = left < 8000 ? left : 4000;
            size_t name = rig_put(ask + n, 200000 - n, "X%d: ", field);
            memset(ask + n + name, 'v', len - name - 2);
            memcpy(ask + n + len - 2, "\r\n", 2);
            n += len;
        }
        memcpy(ask + n, "\r\n", 3);
        n += 2;
        CHECK_EQ(n, total);
        int fd = rig_connect(&rig);
        rig_expect(&rig, fd, ask, extra == 0 ? "HTTP/1.1 200 " : "HTTP/1.1 431 ", NULL);
        if (extra == 0) { /* and the connection goes on */
            rig_expect(&rig, fd, GET("/hello"), "HTTP/1.1 200 ", NULL);
        }
        (void)close(fd);
    }
    size_t n = rig_put(ask, 200000, "GET /");
    memset(ask + n, 'x', 100000);
    ask[n + 100000] = '\0';
    int fd = rig_connect(&rig);
    rig_expect(&rig, fd, ask, "HTTP/1.1 414 ", NULL);
    (void)close(fd);
    n = rig_put(ask, 200000, "GET /hello HTTP/1.1\r\nHost: a\r\n");
    for (int field = 0; field < 100; field++) {
        n += rig_put(ask + n, 200000 - n, "X%d: y\r\n", field);
    }
    (void)rig_put(ask + n, 200000 - n, "\r\n");
    fd = rig_connect(&rig);
    rig_expect(&rig, fd, ask, "HTTP/1.1 431 ", NULL);
    (void)close(fd);
    CHECK_EQ(errors(&rig, PP_ERR_TOO_MANY_FIELDS), 1);
    CHECK_EQ(errors(&rig, PP_ERR_URI_TOO_LONG), 1);
    CHECK_EQ(errors(&rig, PP_ERR_HEAD_TOO_LARGE), 1);
    free(ask);
    rig_stop(&rig);
}

/* Peers that take their time over a head cost little more than what they have sent of it. */
TEST(net_slow_heads_are_small)
{
    enum { PEERS = 100 };
    static const char part[] = "GET /hello HTTP/1.1\r\nHost: a\r\nUser-Agent: slow\r\n";
    struct rig rig;
    struct pp_settings s = rig_settings();
    int fds[PEERS];
    char text[PP_HEAD_ASIDE_BYTES + 2], whole[100];
    rig_start(&rig, &s);
    for (int i = 0; i < PEERS; i++) {
        fds[i] = rig_connect(&rig);
    }
    rig_expect(&rig, fds[0], GET("/hello"), "HTTP/1.1 200 ",
               NULL); /* the pools have a block each */
    uint64_t before = pp_mem_bytes();
    for (int i = 0; i < PEERS; i++) {
        /* One of them behind a request that is answered. */
        rig_say(&rig, fds[i], i == 1 ? GET("/hello") : "");
        rig_say(&rig, fds[i], part);
        rig_settle(&rig);
    }
    CHECK(pp_mem_bytes() - before <= PEERS * sizeof part);
    for (int i = 0; i < PEERS; i++) {
        if (i == 1) {
            bool ended;
            CHECK(rig_read(&rig, fds[i], text, sizeof text, &ended) > 0 && !ended);
        }
        rig_expect(&rig, fds[i], i == 2 ? "\n" : "\r\n", i == 2 ? "HTTP/1.1 400 " : "HTTP/1.1 200 ",
                   NULL);
        (void)close(fds[i]);
    }
    /* Byte by byte; a head that grows beyond what is set aside; one that nobody ends. */
    int fd = rig_connect(&rig);
    size_t n = rig_put(whole, sizeof whole, "\r\n%s\r\n", part);
    for (size_t i = 0; i < n - 1; i++) {
        rig_write(&rig, fd, whole + i, 1);
        rig_settle(&rig);
    }
    rig_expect(&rig, fd, "\n", "HTTP/1.1 200 ", NULL);
    rig_say(&rig, fd, part);
    rig_settle(&rig);
    rig_say(&rig, fd, "x: ");
    memset(text, 'v', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    rig_say(&rig, fd, text);
    rig_settle(&rig);
    rig_expect(&rig, fd, "\r\n\r\n", "HTTP/1.1 200 ", NULL);
    rig_say(&rig, fd, part);
    rig_settle(&rig);
    (void)close(fd);
    rig_settle(&rig);
    fd = rig_connect(&rig);
    rig_say(&rig, fd, part);
    rig_settle(&rig);
    (void)close(fd);
    rig_stop(&rig); /* which looks for what is lost */
}

/* A head as large as allowed with a body behind it, and the limit at its highest. */
TEST(net_large_head_with_body)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    s.http.head_bytes = PP_HEAD_BYTES_MAX;
    rig_start(&rig, &s);
    static const size_t sizes[] = {16384, 65536, 300000, PP_HEAD_BYTES_MAX};
    char *ask = malloc(PP_HEAD_BYTES_MAX + 1000), *body = calloc(1, 300000);
    CHECK(ask != NULL && body != NULL);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t n = rig_put(ask, PP_HEAD_BYTES_MAX,
                           "POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\nX: ");
        memset(ask + n, 'v', sizes[i] - n - 4);
        memcpy(ask + sizes[i] - 4, "\r\n\r\n", 4);
        int fd = rig_connect(&rig);
        rig_write(&rig, fd, ask, sizes[i]);
        rig_write(&rig, fd, body, 300000);
        rig_expect(&rig, fd, "", "HTTP/1.1 200 ", "\r\n\r\n300000 0");
        (void)close(fd);
    }
    free(ask);
    free(body);
    rig_stop(&rig);
}

TEST(net_body_limit_chunked)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    s.http.body_bytes = 1000;
    rig_start(&rig, &s);
    int fd = rig_connect(&rig);
    rig_expect(&rig, fd,
               "POST /count HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n", "",
               NULL);
    char data[1001] = {0};
    memset(data, 'x', 1000);
    rig_say(&rig, fd, data);
    rig_expect(&rig, fd, "\r\n1\r\nx\r\n0\r\n\r\n", "HTTP/1.1 413 ", "connection: close");
    CHECK_EQ(errors(&rig, PP_ERR_BODY_TOO_LARGE), 1);
    (void)close(fd);
    /* A response that has started can only be cut. */
    fd = rig_connect(&rig);
    bool ended;
    char buf[3000];
    rig_say(&rig, fd, "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n");
    size_t n = rig_read(&rig, fd, buf, sizeof buf - 1, &ended);
    buf[n] = '\0';
    CHECK(ended && strstr(buf, "\r\n0\r\n\r\n") == NULL);
    CHECK_EQ(errors(&rig, PP_ERR_BAD_CHUNK), 1);
    (void)close(fd);
    rig_settle(&rig);
    CHECK_EQ(pp_loop_connections(rig.loop), 0);
    rig_stop(&rig);
}

TEST(net_limit_concurrency)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    s.limit_concurrency = 2;
    rig_start(&rig, &s);
    int a = rig_connect(&rig), b = rig_connect(&rig), c = rig_connect(&rig);
    rig_say(&rig, a, GET("/hold1"));
    rig_settle(&rig);
    rig_say(&rig, b, GET("/hold2"));
    rig_settle(&rig);
    CHECK_EQ(pp_loop_in_flight(rig.loop), 2);
    rig_expect(&rig, c, GET("/hello"), "HTTP/1.1 503 ", "close");
    CHECK_EQ(errors(&rig, PP_ERR_OVERLOADED), 1);
    rig_answer(&rig, rig_held(&rig, "/hold1"), "one");
    rig_expect(&rig, a, "", "HTTP/1.1 200", "one");
    rig_expect(&rig, a, GET("/hello"), "HTTP/1.1 200", "Hello");
    rig_answer(&rig, rig_held(&rig, "/hold2"), "two");
    (void)close(a);
    (void)close(b);
    (void)close(c);
    rig_stop(&rig);
}

#ifdef PP_TEST_CLOCK

static void later(struct rig *rig, uint64_t ms)
{
    rig_clock(rig_now_ms + ms);
    rig_settle(rig);
}

TEST(net_header_timeout)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    char buf[500];
    bool ended;
    rig_start(&rig, &s);
    int silent = rig_connect(&rig), slow = rig_connect(&rig), slow2 = rig_connect(&rig);
    rig_expect(&rig, slow2, GET("/hello"), "HTTP/1.1 200", NULL);
    rig_settle(&rig);
    later(&rig, 5000);
    rig_say(&rig, slow, "GET / HT");
    rig_say(&rig, slow2, "GET /");
    rig_settle(&rig);
    later(&rig, 4900);
    CHECK_EQ(pp_loop_connections(rig.loop), 3);
    rig_say(&rig, slow, "TP/1.1\r\n"); /* bytes do not move the deadline */
    rig_settle(&rig);
    later(&rig, 300);
    CHECK_EQ(rig_read(&rig, silent, buf, sizeof buf, &ended), 0); /* closed without a word */
    CHECK(ended);
    rig_expect(&rig, slow, "", "HTTP/1.1 408 ", "close");
    CHECK_EQ(errors(&rig, PP_ERR_HEADER_TIMEOUT), 2);
    later(&rig, 4700); /* the second request's head has its own time, since its first byte */
    CHECK_EQ(errors(&rig, PP_ERR_HEADER_TIMEOUT), 2);
    later(&rig, 300);
    rig_expect(&rig, slow2, "", "HTTP/1.1 408 ", "close");
    (void)close(silent);
    (void)close(slow);
    (void)close(slow2);
    rig_stop(&rig);
}

TEST(net_keep_alive_timeout)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    char buf[500];
    bool ended;
    rig_start(&rig, &s);
    int fd = rig_connect(&rig);
    rig_expect(&rig, fd, GET("/hello"), "HTTP/1.1 200", NULL);
    later(&rig, 70000);
    rig_expect(&rig, fd, GET("/hello"), "HTTP/1.1 200", NULL); /* moves the deadline */
    later(&rig, 74000);
    CHECK_EQ(pp_loop_connections(rig.loop), 1);
    later(&rig, 1200);
    CHECK_EQ(rig_read(&rig, fd, buf, sizeof buf, &ended), 0);
    CHECK(ended);
    CHECK_EQ(errors(&rig, PP_ERR_IDLE_TIMEOUT), 1);
    CHECK_EQ(errors(&rig, PP_ERR_HEADER_TIMEOUT), 0);
    (void)close(fd);
    rig_stop(&rig);
}

TEST(net_no_timeouts)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    s.keep_alive_ms = s.request_header_ms = s.body_idle_ms = s.write_ms = 0;
    rig_start(&rig, &s);
    int fd = rig_connect(&rig), slow = rig_connect(&rig);
    rig_expect(&rig, fd, GET("/hello"), "HTTP/1.1 200", NULL);
    rig_say(&rig, slow, "GET /");
    rig_settle(&rig);
    CHECK_EQ(pp_loop_wait_ms(rig.loop), -1);
    later(&rig, 100000000);
    CHECK_EQ(pp_loop_connections(rig.loop), 2);
    (void)close(fd);
    (void)close(slow);
    rig_stop(&rig);
}

/* A peer that ends its side before the response begins may wait for it: it gets a grace, which ends
 * when it is over also if the response has begun meanwhile. After that it has left. */
TEST(net_disconnect_grace)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    char buf[500];
    bool ended;
    s.disconnect_grace_ms = 1000;
    rig_start(&rig, &s);
    int fd = rig_connect(&rig);
    rig_say(&rig, fd, "GET /hold HTTP/1.1\r\nHost: a\r\n\r\nGET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK(shutdown(fd, SHUT_WR) == 0);
    rig_settle(&rig);
    CHECK_EQ(rig.eof_seen, 0);
    later(&rig, 800);
    CHECK_EQ(rig.eof_seen, 0);
    later(&rig, 400);
    CHECK_EQ(rig.eof_seen, 1);
    rig_answer(&rig, rig_held(&rig, "/hold"), "still answered");
    rig_settle(&rig);
    CHECK_EQ(rig.eof_seen, 1); /* the next one has a grace of its own */
    later(&rig, 1200);
    CHECK_EQ(rig.eof_seen, 2);
    pp_exchange_abandon(rig_held(&rig, "/hold")->ex);
    rig_settle(&rig);
    CHECK_EQ(errors(&rig, PP_ERR_DISCONNECTED), 1);
    buf[rig_read(&rig, fd, buf, sizeof buf - 1, &ended)] = '\0';
    CHECK(ended && rig_count(buf, "HTTP/1.1 ") == 1 && strstr(buf, "still answered") != NULL);
    CHECK_EQ(pp_loop_connections(rig.loop), 0);
    (void)close(fd);
    rig_stop(&rig);
}

TEST(net_body_idle_timeout)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    char buf[500];
    bool ended;
    rig_start(&rig, &s);
    int fd = rig_connect(&rig);
    rig_say(&rig, fd, "POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
    rig_settle(&rig);
    later(&rig, 29000);
    rig_say(&rig, fd, "d");
    rig_settle(&rig);
    later(&rig, 29000);
    CHECK_EQ(rig.requests_seen, 1);
    CHECK(rig.requests != NULL);
    later(&rig, 1200);
    rig_expect(&rig, fd, "", "HTTP/1.1 408 ", "close");
    CHECK_EQ(errors(&rig, PP_ERR_BODY_TIMEOUT), 1);
    (void)close(fd);
    /* While the application does not ask, the peer is not late. */
    rig.hold_body = true;
    fd = rig_connect(&rig);
    rig_say(&rig, fd, "POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
    rig_settle(&rig);
    later(&rig, 200000);
    CHECK(rig_held(&rig, "/count") != NULL);
    rig.hold_body = false;
    pp_exchange_want(rig_held(&rig, "/count")->ex);
    rig_expect(&rig, fd, "defghij", "HTTP/1.1 200 ", "\r\n\r\n10 ");
    (void)close(fd);
    /* After the start of the response it is cut. */
    fd = rig_connect(&rig);
    rig_expect(&rig, fd, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc",
               "HTTP/1.1 200 ", "abc");
    later(&rig, 31000);
    (void)rig_read(&rig, fd, buf, sizeof buf, &ended);
    CHECK(ended && rig.requests == NULL);
    (void)close(fd);
    rig_stop(&rig);
}

TEST(net_write_timeout)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    rig_start(&rig, &s);
    int fd = rig_connect_small(&rig, 8192);
    rig_say(&rig, fd, GET("/stream"));
    rig_settle(&rig);
    char *buf = malloc(1000000);
    CHECK(buf != NULL);
    for (int i = 0; i < 5; i++) { /* a little is taken each time: slow, but not stalled */
        later(&rig, 29000);
        struct pollfd more = {.fd = fd, .events = POLLIN};
        CHECK(poll(&more, 1, 1000) == 1);
        CHECK(recv(fd, buf, 1000000, 0) > 0);
        (void)poll(&more, 1, 1000);
    }
    CHECK(rig.requests != NULL && !rig.requests->closed);
    later(&rig, 31000);
    later(&rig, 31000);
    CHECK_EQ(errors(&rig, PP_ERR_WRITE_TIMEOUT), 1);
    CHECK_EQ(rig.closed_seen, 1);
    CHECK(rig.requests == NULL);
    CHECK(rig_is_reset(fd));
    CHECK_EQ(pp_loop_connections(rig.loop), 0);
    free(buf);
    (void)close(fd);
    rig_stop(&rig);
}

TEST(net_linger_timeout)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    rig_start(&rig, &s);
    int fd = rig_connect(&rig);
    rig_expect(&rig, fd, "POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\n\r\n",
               "HTTP/1.1 200 ", "close");
    CHECK_EQ(pp_loop_connections(rig.loop), 1);
    later(&rig, PP_LINGER_MS + 100);
    later(&rig, PP_LINGER_MS + 100); /* once more if our end was not yet acknowledged */
    CHECK_EQ(pp_loop_connections(rig.loop), 0);
    (void)close(fd);
    rig_stop(&rig);
}

/* A keep-alive time shorter than a slow reader's download does not cut the download. */
TEST(net_idle_time_waits_for_output)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    s.keep_alive_ms = 1000;
    rig_start(&rig, &s);
    bool ended;
    int fd = rig_connect_small(&rig, 4096);
    char *buf = malloc(5000000);
    CHECK(buf != NULL);
    for (int i = 0; i < 16; i++) {
        rig_say(&rig, fd, GET("/big"));
    }
    rig_settle(&rig);
    for (int i = 0; i < 10; i++) {
        later(&rig, 2000);
    }
    size_t n = rig_read(&rig, fd, buf, 5000000, &ended);
    CHECK(n > 16 * 200000 && !ended);
    free(buf);
    (void)close(fd);
    rig_stop(&rig);
}

TEST(net_date_follows_the_clock)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    rig_start(&rig, &s);
    int fd = rig_connect(&rig);
    rig_expect(&rig, fd, GET("/hello"), "HTTP/1.1 200", "date: Sun, 06 Nov 1994 09:06:17 GMT");
    later(&rig, 999);
    rig_expect(&rig, fd, GET("/hello"), "HTTP/1.1 200", "date: Sun, 06 Nov 1994 09:06:17 GMT");
    later(&rig, 1);
    rig_expect(&rig, fd, GET("/hello"), "HTTP/1.1 200", "date: Sun, 06 Nov 1994 09:06:18 GMT");
    (void)close(fd);
    rig_stop(&rig);
}

#endif
