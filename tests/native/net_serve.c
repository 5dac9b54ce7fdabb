/* Conversations: keep-alive, pipelining, bodies, streaming, half-close, resets. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "net_rig.h"

TEST(net_hello_keep_alive)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    rig_start(&rig, &s);
    int fd = rig_connect(&rig);
    for (int i = 0; i < 5; i++) {
        rig_expect(&rig, fd, GET("/hello"), "HTTP/1.1 200 OK\r\n", "\r\n\r\nHello, world!");
    }
    CHECK_EQ(rig.requests_seen, 5);
    CHECK_EQ(pp_loop_connections(rig.loop), 1);
    CHECK_EQ(pp_loop_counters(rig.loop)->responses[2], 5);
    /* Between requests there is the connection and nothing else. */
    struct pp_conn *conn = rig_next_conn(rig.loop, NULL);
    CHECK(conn != NULL && rig_next_conn(rig.loop, conn) == NULL);
    CHECK_EQ(conn->requests, 5);
    CHECK_EQ(rig.loop->block_pool.used_count, 0);
    CHECK_EQ(rig.loop->out_pool.used_count, 0);
    (void)close(fd);
    rig_settle(&rig);
    CHECK_EQ(pp_loop_connections(rig.loop), 0);
    rig_stop(&rig);
}

TEST(net_connection_close_and_http10)
{
    static const char *const asks[] = {
        "GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET /hello HTTP/1.0\r\n\r\n",
    };
    struct rig rig;
    struct pp_settings s = rig_settings();
    rig_start(&rig, &s);
    for (size_t i = 0; i < sizeof asks / sizeof *asks; i++) {
        char buf[1000];
        bool ended;
        int fd = rig_connect(&rig);
        rig_say(&rig, fd, asks[i]);
        size_t n = rig_read(&rig, fd, buf, sizeof buf - 1, &ended);
        buf[n] = '\0';
        CHECK(ended && strstr(buf, "Hello, world!") != NULL);
        (void)close(fd);
    }
    int fd = rig_connect(&rig);
    rig_expect(&rig, fd, "GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "HTTP/1.1 200 OK",
               "Hello, world!");
    rig_expect(&rig, fd, "GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "HTTP/1.1 200 OK",
               "Hello, world!");
    (void)close(fd);
    rig_stop(&rig);
}

TEST(net_pipelined_64_and_more)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    s.limit_pipeline = 16;
    rig_start(&rig, &s);
    char *ask = malloc(200000), *got = malloc(400000);
    bool ended;
    CHECK(ask != NULL && got != NULL);
    for (int count = 1; count <= 1024; count *= 4) {
        int fd = rig_connect(&rig);
        size_t len = 0;
        for (int i = 0; i < count; i++) {
            len += rig_put(ask + len, 200000 - len, "GET /hello%d HTTP/1.1\r\nHost: a\r\n\r\n", i);
        }
        unsigned before = rig.requests_seen;
        rig_write(&rig, fd, ask, len);
        size_t n = rig_read(&rig, fd, got, 399999, &ended);
        got[n] = '\0';
        CHECK_EQ(rig.requests_seen - before, count);
        CHECK_EQ(rig_count(got, "Hello, world!"), count);
        (void)close(fd);
    }
    free(ask);
    free(got);
    rig_stop(&rig);
}

/* Another connection's request is not kept waiting by a long pipeline. */
TEST(net_pipeline_is_fair)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    s.limit_pipeline = 4;
    rig_start(&rig, &s);
    int many = rig_connect(&rig), one = rig_connect(&rig);
    rig_settle(&rig);
    char ask[4000];
    size_t len = 0;
    for (int i = 0; i < 64; i++) {
        len += rig_put(ask + len, sizeof ask - len, GET("/hello"));
    }
    CHECK(send(many, ask, len, 0) == (ssize_t)len);
    CHECK(send(one, GET("/hello/one"), strlen(GET("/hello/one")), 0) > 0);
    CHECK(rig_turn(&rig, 100) <= 5); /* four of the pipeline and the other one */
    (void)rig_turn(&rig, 0);
    char byte;
    CHECK(recv(one, &byte, 1, 0) == 1);
    rig_settle(&rig);
    CHECK_EQ(rig.requests_seen, 65);
    (void)close(many);
    (void)close(one);
    rig_stop(&rig);
}

static const char two_posts[] = "POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
                                "POST /count HTTP/1.1\r\nHost: a\r\n"
                                "Transfer-Encoding: chunked\r\n\r\n"
                                "3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: v\r\n\r\n" GET("/hello");

TEST(net_cut_at_every_byte)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    s.date_header = false;
    rig_start(&rig, &s);
    char whole[2000], buf[2000];
    bool ended;
    int fd = rig_connect(&rig);
    rig_say(&rig, fd, two_posts);
    size_t whole_len = rig_read(&rig, fd, whole, sizeof whole, &ended);
    (void)close(fd);
    CHECK(whole_len > 150);
    for (size_t cut = 1; cut < sizeof two_posts - 1; cut++) {
        fd = rig_connect(&rig);
        rig_write(&rig, fd, two_posts, cut);
        rig_settle(&rig);
        rig_say(&rig, fd, two_posts + cut);
        size_t n = rig_read(&rig, fd, buf, sizeof buf, &ended);
        CHECK(n == whole_len && memcmp(buf, whole, n) == 0);
        (void)close(fd);
    }
    fd = rig_connect(&rig);
    for (size_t i = 0; i < sizeof two_posts - 1; i++) {
        rig_write(&rig, fd, two_posts + i, 1);
        rig_settle(&rig);
    }
    size_t n = rig_read(&rig, fd, buf, sizeof buf, &ended);
    CHECK(n == whole_len && memcmp(buf, whole, n) == 0);
    (void)close(fd);
    rig_stop(&rig);
}

TEST(net_large_bodies)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    rig_start(&rig, &s);
    for (size_t size = 1000; size <= 4000000; size = size * 3 + 7) {
        char *body = malloc(size), expect[80], head[200];
        uint64_t sum = 0;
        CHECK(body != NULL);
        for (size_t i = 0; i < size; i++) {
            body[i] = (char)test_random();
            sum = sum * 31 + (uint8_t)body[i];
        }
        (void)rig_put(expect, sizeof expect, "\r\n\r\n%zu %llx", size, (unsigned long long)sum);
        (void)rig_put(head, sizeof head,
                      "POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: %zu\r\n\r\n", size);
        int fd = rig_connect(&rig);
        rig_say(&rig, fd, head);
        rig_write(&rig, fd, body, size);
        rig_expect(&rig, fd, "", "HTTP/1.1 200", expect);
        /* And chunked, in chunks of any size. */
        rig_say(&rig, fd, "POST /count HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        for (size_t at = 0; at < size;) {
            size_t len = 1 + test_random_below(size / 10 + 1);
            len = len < size - at ? len : size - at;
            (void)rig_put(head, sizeof head, "%zx\r\n", len);
            rig_say(&rig, fd, head);
            rig_write(&rig, fd, body + at, len);
            rig_say(&rig, fd, "\r\n");
            at += len;
        }
        rig_expect(&rig, fd, "0\r\n\r\n" GET("/hello"), "HTTP/1.1 200", expect);
        rig_expect(&rig, fd, GET("/hello"), "HTTP/1.1 200", "Hello");
        (void)close(fd);
        free(body);
    }
    rig_stop(&rig);
}

TEST(net_echo_streams_both_ways)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    rig_start(&rig, &s);
    int fd = rig_connect(&rig);
    rig_expect(&rig, fd, "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
               "HTTP/1.1 200", "transfer-encoding: chunked");
    rig_expect(&rig, fd, "3\r\none\r\n", "3\r\none\r\n", NULL);
    rig_expect(&rig, fd, "3\r\ntwo\r\n", "3\r\ntwo\r\n", NULL);
    rig_expect(&rig, fd, "0\r\n\r\n", "0\r\n\r\n", NULL);
    rig_expect(&rig, fd, GET("/hello"), "HTTP/1.1 200", "Hello");
    (void)close(fd);
    rig_stop(&rig);
}

TEST(net_body_back_pressure)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    rig_start(&rig, &s);
    rig.hold_body = true;
    int fd = rig_connect(&rig);
    rig_say(&rig, fd, "POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: 12000000\r\n\r\n");
    char *piece = calloc(1, 1000000);
    CHECK(piece != NULL);
    uint64_t sent = 0;
    for (int idle = 0; idle < 10;) {
        ssize_t n = send(fd, piece, 1000000, MSG_NOSIGNAL);
        sent += n > 0 ? (uint64_t)n : 0;
        idle = n > 0 ? 0 : idle + 1;
        rig_settle(&rig);
    }
    uint64_t taken = pp_loop_counters(rig.loop)->bytes_in;
    CHECK(taken < 70000 && sent < 12000000); /* one block, the rest waits with the peer */
    rig.hold_body = false;
    pp_exchange_want(rig.requests->ex);
    while (sent < 12000000) {
        size_t n = sent + 1000000 < 12000000 ? 1000000 : (size_t)(12000000 - sent);
        rig_write(&rig, fd, piece, n);
        sent += n;
    }
    rig_expect(&rig, fd, "", "HTTP/1.1 200", "\r\n\r\n12000000 0");
    CHECK_EQ(rig.loop->body_pool.used_count, 0);
    free(piece);
    (void)close(fd);
    rig_stop(&rig);
}

/* Chunks that come behind a small head need no larger block than those behind any other. */
TEST(net_body_chunks_behind_a_small_head)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    rig_start(&rig, &s);
    int fd = rig_connect(&rig);
    rig_say(&rig, fd, "POST /count HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    rig_settle(&rig);
    CHECK_EQ(rig.loop->small_pool.used_count, 1);
    rig_say(&rig, fd, "5\r\nhello\r\n");
    rig_settle(&rig);
    CHECK_EQ(rig.loop->block_pool.used_count, 1);
    CHECK_EQ(rig.loop->body_pool.used_count, 0);
    rig_expect(&rig, fd, "0\r\n\r\n", "HTTP/1.1 200", "\r\n\r\n5 ");
    (void)close(fd);
    rig_stop(&rig);
}

/* An application that takes a large body byte by byte does not make us move it byte by byte. */
TEST(net_body_taken_in_small_pieces)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    rig_start(&rig, &s);
    rig.hold_body = true;
    int fd = rig_connect(&rig);
    char *body = calloc(1, 300000);
    CHECK(body != NULL);
    rig_say(&rig, fd, "POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n");
    rig_write(&rig, fd, body, 300000);
    rig_settle(&rig);
    struct pp_exchange *ex = rig.requests->ex;
    uint64_t taken = 0, calls = pp_loop_counters(rig.loop)->bytes_in, reads = 0;
    for (;;) {
        const uint8_t *data;
        size_t len;
        enum pp_body_status status = pp_exchange_peek(ex, &data, &len);
        CHECK(status != PP_BODY_FAILED);
        if (len > 0) {
            size_t n = len < 7 ? len : 7;
            pp_exchange_consume(ex, n);
            taken += n;
        } else if (status == PP_BODY_END) {
            break;
        }
        CHECK(pp_loop_turn(rig.loop, 0) >= 0);
        uint64_t now = pp_loop_counters(rig.loop)->bytes_in;
        reads += now != calls;
        calls = now;
    }
    CHECK_EQ(taken, 300000);
    CHECK(reads < 100);
    rig.hold_body = false;
    rig_answer(&rig, rig.requests, "done");
    free(body);
    (void)close(fd);
    rig_stop(&rig);
}

TEST(net_stream_waits_for_the_peer)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    rig_start(&rig, &s);
    int fd = rig_connect_small(&rig, 8192);
    rig_say(&rig, fd, GET("/stream"));
    rig_settle(&rig);
    CHECK_EQ(rig.requests != NULL, 1); /* not everything fits: the application waits */
    struct pp_conn *conn = rig_next_conn(rig.loop, NULL);
    CHECK(pp_exchange_out_full(&conn->http1.ex));
    char *buf = malloc(6000000);
    bool ended;
    CHECK(buf != NULL);
    size_t n = rig_read(&rig, fd, buf, 6000000, &ended);
    CHECK(n > 5000000 && !ended && memcmp(buf + n - 5, "0\r\n\r\n", 5) == 0);
    CHECK(rig.drained_seen > 0);
    CHECK(rig.owners_lent == 25);
    rig_expect(&rig, fd, GET("/hello"), "HTTP/1.1 200", "Hello");
    free(buf);
    (void)close(fd);
    rig_stop(&rig);
}

TEST(net_big_answers_pipelined)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    rig_start(&rig, &s);
    int fd = rig_connect_small(&rig, 8192);
    bool ended;
    char *buf = malloc(5000000);
    CHECK(buf != NULL);
    for (int i = 0; i < 20; i++) {
        rig_say(&rig, fd, GET("/big"));
    }
    rig_settle(&rig);
    /* A peer that does not read gets no further request started. */
    CHECK(rig.requests_seen < 20);
    size_t n = rig_read(&rig, fd, buf, 5000000, &ended);
    CHECK_EQ(rig.requests_seen, 20);
    CHECK(n > 20 * 200000 && n < 20 * 200300 && !ended);
    free(buf);
    (void)close(fd);
    rig_stop(&rig);
}

TEST(net_expect_continue)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    rig_start(&rig, &s);
    int fd = rig_connect(&rig);
    rig_expect(&rig, fd,
               "POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n"
               "Expect: 100-continue\r\n\r\n",
               "HTTP/1.1 100 Continue\r\n\r\n", NULL);
    rig_expect(&rig, fd, "abc", "HTTP/1.1 200", "\r\n\r\n3 ");
    /* The application does not want it: the final answer, no 100, and the connection ends. */
    rig_expect(&rig, fd,
               "POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n"
               "Expect: 100-continue\r\n\r\n",
               "HTTP/1.1 200", "connection: close");
    rig_settle(&rig);
    (void)close(fd);
    rig_stop(&rig);
}

/* The answer reaches a peer that is still sending a body nobody reads. */
TEST(net_early_answer_lingers)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    rig_start(&rig, &s);
    int fd = rig_connect(&rig);
    char buf[2000];
    bool ended;
    char *piece = calloc(1, 100000);
    CHECK(piece != NULL);
    rig_say(&rig, fd, "POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\n\r\n");
    for (int i = 0; i < 5; i++) {
        rig_write(&rig, fd, piece, 100000);
        rig_settle(&rig);
    }
    size_t n = rig_read(&rig, fd, buf, sizeof buf - 1, &ended);
    buf[n] = '\0';
    CHECK(ended && strstr(buf, "no, thanks") != NULL && strstr(buf, "connection: close") != NULL);
    CHECK_EQ(pp_loop_connections(rig.loop), 1); /* lingers until the peer ends */
    (void)close(fd);
    rig_settle(&rig);
    CHECK_EQ(pp_loop_connections(rig.loop), 0);
    free(piece);
    rig_stop(&rig);
}

TEST(net_linger_is_bounded)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    rig_start(&rig, &s);
    int fd = rig_connect(&rig);
    char *piece = calloc(1, 100000);
    CHECK(piece != NULL);
    rig_say(&rig, fd, "POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 12000000\r\n\r\n");
    rig_settle(&rig);
    for (int i = 0; i < 40 && pp_loop_connections(rig.loop) > 0; i++) {
        rig_write(&rig, fd, piece, 100000);
        rig_settle(&rig);
    }
    CHECK_EQ(pp_loop_connections(rig.loop), 0);
    CHECK(pp_loop_counters(rig.loop)->bytes_in < 2 * PP_LINGER_BYTES_MAX);
    free(piece);
    (void)close(fd);
    rig_stop(&rig);
}

TEST(net_half_close_still_answered)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    rig_start(&rig, &s);
    char buf[2000];
    bool ended;
    int fd = rig_connect(&rig);
    rig_say(&rig, fd, GET("/hold") GET("/hello"));
    rig_settle(&rig);
    CHECK(shutdown(fd, SHUT_WR) == 0);
    rig_settle(&rig);
    CHECK_EQ(rig.eof_seen, 1);
    CHECK_EQ(rig.closed_seen, 0);
    struct rig_request *req = rig_held(&rig, "/hold");
    CHECK(req != NULL && req->eof && !pp_exchange_closed(req->ex));
    rig_answer(&rig, req, "late");
    rig_settle(&rig);
    CHECK_EQ(rig.eof_seen, 2); /* the pipelined one hears of it, too */
    size_t n = rig_read(&rig, fd, buf, sizeof buf - 1, &ended);
    buf[n] = '\0';
    CHECK(ended && strstr(buf, "late") != NULL && strstr(buf, "Hello, world!") != NULL);
    CHECK_EQ(pp_loop_connections(rig.loop), 0);
    (void)close(fd);
    rig_stop(&rig);
}

/* A full request and the end of the stream in one go, answered by more than the socket takes. */
TEST(net_half_close_large_answer)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    rig_start(&rig, &s);
    int fd = rig_connect_small(&rig, 8192);
    bool ended;
    char *buf = malloc(6000000);
    CHECK(buf != NULL);
    CHECK(send(fd, GET("/big") GET("/stream"), strlen(GET("/big") GET("/stream")), 0) > 0);
    CHECK(shutdown(fd, SHUT_WR) == 0);
    size_t n = rig_read(&rig, fd, buf, 6000000, &ended);
    CHECK(ended && n > 5200000 && memcmp(buf + n - 5, "0\r\n\r\n", 5) == 0);
    free(buf);
    (void)close(fd);
    rig_stop(&rig);
}

TEST(net_end_of_stream_in_head_and_body)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    rig_start(&rig, &s);
    char buf[100];
    bool ended;
    int fd = rig_connect(&rig);
    rig_say(&rig, fd, "GET /hello HT");
    CHECK(shutdown(fd, SHUT_WR) == 0);
    CHECK_EQ(rig_read(&rig, fd, buf, sizeof buf, &ended), 0);
    CHECK(ended);
    (void)close(fd);
    fd = rig_connect(&rig);
    rig_say(&rig, fd, "POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
    rig_settle(&rig);
    CHECK(rig.requests != NULL && !rig.requests->failed_body);
    CHECK(shutdown(fd, SHUT_WR) == 0);
    CHECK_EQ(rig_read(&rig, fd, buf, sizeof buf, &ended), 0);
    CHECK(ended);
    CHECK_EQ(rig.closed_seen, 1);
    CHECK_EQ(pp_loop_counters(rig.loop)->errors[pp_err_index(PP_ERR_DISCONNECTED)], 1);
    (void)close(fd);
    rig_stop(&rig);
}

static void reset_by_client(int fd)
{
    struct linger hard = {.l_onoff = 1, .l_linger = 0};
    CHECK(setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard) == 0);
    (void)close(fd);
}

TEST(net_resets)
{
    static const char *const asks[] = {
        "",
        "GET /he",
        GET("/hello"),
        GET("/hold"),
        GET("/stream"),
        GET("/big"),
        "POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc",
        "POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc",
        "POST /want HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n",
    };
    struct rig rig;
    struct pp_settings s = rig_settings();
    rig_start(&rig, &s);
    for (size_t i = 0; i < sizeof asks / sizeof *asks; i++) {
        for (int settle = 0; settle < 2; settle++) {
            int fd = rig_connect_small(&rig, 8192);
            rig_say(&rig, fd, asks[i]);
            if (settle) {
                rig_settle(&rig);
            } else {
                (void)rig_turn(&rig, 0);
            }
            reset_by_client(fd);
            rig_settle(&rig);
            CHECK_EQ(pp_loop_connections(rig.loop), 0);
            CHECK_EQ(pp_loop_in_flight(rig.loop), rig.requests != NULL);
            if (rig.requests != NULL) { /* /hold lets go when it is told, if it runs again */
                rig_finish(&rig, rig.requests);
            }
        }
    }
    rig_stop(&rig);
}

/* The connection stays valid after the peer has gone, and what is sent is dropped. */
TEST(net_send_after_disconnect)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    rig_start(&rig, &s);
    int fd = rig_connect(&rig);
    rig_say(&rig, fd, "POST /want HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n");
    rig_settle(&rig);
    struct pp_exchange *ex = rig.requests->ex;
    const uint8_t *base;
    rig.requests->responded = true;
    memcpy(rig.requests->path, "/keep", 6);
    reset_by_client(fd);
    struct rig_request *req = rig.requests;
    unsigned events = 0;
    CHECK(pp_loop_turn(rig.loop, 100) > 0);
    CHECK(pp_loop_take_event(rig.loop, &events) == ex);
    CHECK_EQ(events & PP_EV_CLOSED, PP_EV_CLOSED);
    CHECK(pp_exchange_closed(ex));
    CHECK_EQ(pp_exchange_error(ex), PP_ERR_DISCONNECTED);
    CHECK_EQ(pp_exchange_head(ex, &base)->path.len, 5);
    for (int i = 0; i < 3; i++) {
        struct pp_response r = {.status = 200};
        static uint8_t large[100000];
        bool borrowed = true;
        if (i == 0) {
            CHECK_EQ(pp_exchange_respond(ex, &r, NULL, 0, NULL, NULL), PP_OK);
        }
        CHECK_EQ(pp_exchange_send(ex, large, sizeof large, i < 2, large, &borrowed), PP_OK);
        CHECK(!borrowed && !pp_exchange_out_full(ex));
        CHECK(pp_loop_turn(rig.loop, 0) >= 0);
    }
    rig_finish(&rig, req);
    rig_stop(&rig);
}

TEST(net_application_fails)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    rig_start(&rig, &s);
    char buf[2000];
    bool ended;
    int fd = rig_connect(&rig);
    rig_expect(&rig, fd, GET("/fail"), "HTTP/1.1 500 Internal Server Error\r\n", "close");
    (void)close(fd);
    fd = rig_connect(&rig);
    rig_expect(&rig, fd, GET("/silent"), "HTTP/1.1 500 Internal Server Error\r\n", "close");
    (void)close(fd);
    fd = rig_connect(&rig);
    rig_say(&rig, fd, GET("/failmid"));
    size_t n = rig_read(&rig, fd, buf, sizeof buf - 1, &ended);
    buf[n] = '\0';
    CHECK(ended && strstr(buf, "4\r\npart\r\n") != NULL && strstr(buf, "0\r\n\r\n") == NULL);
    (void)close(fd);
    /* Without framing only a reset tells that something is missing. */
    fd = rig_connect(&rig);
    rig_say(&rig, fd, "GET /failmid HTTP/1.0\r\n\r\n");
    rig_settle(&rig);
    CHECK(rig_is_reset(fd));
    (void)close(fd);
    rig_settle(&rig);
    CHECK_EQ(pp_loop_connections(rig.loop), 0);
    rig_stop(&rig);
}

TEST(net_report_finished)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    s.report_finished = true;
    rig_start(&rig, &s);
    int fd = rig_connect(&rig);
    rig_say(&rig, fd, GET("/hold"));
    rig_settle(&rig);
    struct rig_request *req = rig_held(&rig, "/hold");
    struct pp_response r = {.status = 200, .complete = true, .body_bytes = 2};
    CHECK_EQ(pp_exchange_respond(req->ex, &r, (const uint8_t *)"ok", 0, NULL, NULL), PP_OK);
    rig_settle(&rig);
    CHECK_EQ(rig.finished_seen, 1);
    CHECK_EQ(pp_exchange_status(req->ex), 200);
    rig_finish(&rig, req);
    (void)close(fd);
    rig_stop(&rig);
}

/* The last response is out and the socket closed while the application goes on. */
TEST(net_work_after_the_response)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    rig_start(&rig, &s);
    char buf[1000];
    bool ended;
    int fd = rig_connect(&rig);
    rig_say(&rig, fd, "GET /hold HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    rig_settle(&rig);
    struct rig_request *req = rig_held(&rig, "/hold");
    struct pp_response r = {.status = 200, .complete = true, .body_bytes = 2};
    CHECK_EQ(pp_exchange_respond(req->ex, &r, (const uint8_t *)"ok", 0, NULL, NULL), PP_OK);
    CHECK(rig_read(&rig, fd, buf, sizeof buf, &ended) > 0);
    CHECK(ended);
    if (rig.requests != NULL) {
        rig_finish(&rig, req);
    }
    (void)close(fd);
    rig_stop(&rig);
}

TEST(net_thousand_connections)
{
    enum { COUNT = 1000 };
    struct rlimit old, high;
    CHECK(getrlimit(RLIMIT_NOFILE, &old) == 0);
    high = old;
    high.rlim_cur = old.rlim_max < 2100 ? old.rlim_max : 2100;
    CHECK(high.rlim_cur == 2100 && setrlimit(RLIMIT_NOFILE, &high) == 0);
    struct rig rig;
    struct pp_settings s = rig_settings();
    int fds[COUNT];
    rig_start(&rig, &s);
    for (int i = 0; i < COUNT; i++) {
        fds[i] = rig_connect(&rig);
        (void)rig_turn(&rig, 0);
    }
    rig_settle(&rig);
    CHECK_EQ(pp_loop_connections(rig.loop), COUNT);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < COUNT; i++) {
            CHECK(send(fds[i], GET("/hello"), strlen(GET("/hello")), 0) > 0);
        }
        rig_settle(&rig);
        for (int i = 0; i < COUNT; i++) {
            char buf[500];
            CHECK(recv(fds[i], buf, sizeof buf, 0) > 100);
        }
    }
    CHECK_EQ(rig.requests_seen, 3 * COUNT);
    for (int i = 0; i < COUNT; i++) {
        (void)close(fds[i]);
    }
    rig_settle(&rig);
    CHECK_EQ(pp_loop_connections(rig.loop), 0);
    rig_stop(&rig);
    CHECK(setrlimit(RLIMIT_NOFILE, &old) == 0);
}
