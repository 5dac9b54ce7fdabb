/* What a loop that was kept from its work owes its peers: requests that arrived in time. */
#include <stdio.h>
#include <unistd.h>

#include "net/conn.h"
#include "net_rig.h"

#ifdef PP_TEST_CLOCK
static struct pp_conn *only(struct rig *rig)
{
    struct pp_conn *conn = rig_next_conn(rig->loop, NULL);
    CHECK(conn != NULL && rig_next_conn(rig->loop, conn) == NULL);
    return conn;
}

/* No event comes for it any more: as if others had filled the turn, or a signal had cut it short.
 */
static void unseen(struct pp_conn *conn)
{
    CHECK_EQ(pp_poll_del(conn->loop->poll_fd, conn->fd), PP_OK);
}

static void say_unseen(int fd, const char *text)
{
    CHECK_EQ(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

TEST(net_stall_with_more_than_one_turn_of_events)
{
    enum { COUNT = PP_POLL_EVENTS + 100 };
    static int fds[COUNT];
    struct rig rig;
    struct pp_settings s = rig_settings();
    rig_start(&rig, &s);
    for (int fresh = 0; fresh < 2; fresh++) {
        for (int i = 0; i < COUNT; i++) {
            fds[i] = rig_connect(&rig);
            if (!fresh) {
                rig_expect(&rig, fds[i], GET("/hello"), "HTTP/1.1 200", NULL);
            }
        }
        rig_settle(&rig);
        CHECK_EQ(pp_loop_connections(rig.loop), COUNT);
        for (int i = 0; i < COUNT; i++) {
            say_unseen(fds[i], GET("/hello"));
        }
        rig_clock(rig_now_ms + (fresh ? s.request_header_ms : s.keep_alive_ms) + 100);
        for (int i = 0; i < COUNT; i++) {
            rig_expect(&rig, fds[i], "", "HTTP/1.1 200", NULL);
            (void)close(fds[i]);
        }
        rig_settle(&rig);
        CHECK_EQ(pp_loop_connections(rig.loop), 0);
    }
    rig_stop(&rig);
}

TEST(net_stall_within_a_head)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    rig_start(&rig, &s);
    for (int whole = 0; whole < 2; whole++) {
        for (int begun = 0; begun < 2; begun++) {
            int fd = rig_connect(&rig);
            if (begun) {
                rig_say(&rig, fd, "GET /hello HTTP/1.1\r\n");
            }
            rig_settle(&rig);
            unseen(only(&rig));
            say_unseen(fd, begun ? "Host: a\r\n" : "GET /hello HTTP/1.1\r\nHost: a\r\n");
            if (whole) {
                say_unseen(fd, "\r\n");
            }
            rig_clock(rig_now_ms + s.request_header_ms + 100);
            rig_expect(&rig, fd, "", whole ? "HTTP/1.1 200" : "HTTP/1.1 408", NULL);
            (void)close(fd);
            if (pp_loop_connections(rig.loop) > 0) { /* it hears of nothing, or lingers */
                pp_conn_on_event(only(&rig), PP_POLL_PEER_SHUT);
            }
            rig_settle(&rig);
            CHECK_EQ(pp_loop_connections(rig.loop), 0);
        }
    }
    rig_stop(&rig);
}

TEST(net_stall_within_a_body)
{
    for (int take = 0; take < 2; take++) {
        struct rig rig;
        struct pp_settings s = rig_settings();
        char answer[80];
        rig_start(&rig, &s);
        if (take) {
            pp_loop_take_bodies(rig.loop);
        }
        int fd = rig_connect(&rig);
        unsigned total = take ? PP_BODY_TAKE_MIN : 100;
        (void)snprintf(answer, sizeof answer,
                       "POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: %u\r\n\r\n", total);
        rig_say(&rig, fd, answer);
        rig_settle(&rig);
        unseen(only(&rig));
        say_unseen(fd, "abc");
        rig_clock(rig_now_ms + s.body_idle_ms + 100);
        rig_settle(&rig);
        CHECK_EQ(rig.requests->body_bytes, 3);
        CHECK(!rig.requests->failed_body);
        rig_clock(rig_now_ms + s.body_idle_ms + 100); /* and then nothing: late */
        rig_expect(&rig, fd, "", "HTTP/1.1 408", NULL);
        (void)close(fd);
        if (pp_loop_connections(rig.loop) > 0) {
            pp_conn_on_event(only(&rig), PP_POLL_PEER_SHUT);
        }
        rig_settle(&rig);
        rig_stop(&rig);
    }
}

TEST(net_stall_of_a_raw_connection)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    char buf[64];
    bool ended;
    rig_start(&rig, &s);
    pp_loop_unlisten(rig.loop);
    CHECK_EQ(pp_loop_listen(rig.loop, rig.listen_fd, PP_LISTEN_ALONE, PP_TAG_RAW), PP_OK);
    int fd = rig_connect(&rig);
    rig_settle(&rig);
    pp_raw_idle(rig.requests->ex, 5000);
    unseen(only(&rig));
    say_unseen(fd, "there");
    rig_clock(rig_now_ms + 5100);
    rig_settle(&rig);
    CHECK_EQ(rig.idle_seen, 0);
    CHECK_EQ(rig_read(&rig, fd, buf, sizeof buf, &ended), 5);
    rig_clock(rig_now_ms + 5100);
    rig_settle(&rig);
    CHECK_EQ(rig.idle_seen, 1);
    (void)close(fd);
    rig_stop(&rig);
}

/* ---- handlers that take their time ---- */

static struct pp_exchange *next_request(struct rig *rig)
{
    unsigned events;
    struct pp_exchange *ex = pp_loop_take_event(rig->loop, &events);
    CHECK(ex == NULL || events == PP_EV_REQUEST);
    return ex;
}

static void answer(struct pp_exchange *ex)
{
    struct pp_response r = {.status = 200, .complete = true, .body_bytes = 2};
    CHECK_EQ(pp_exchange_respond(ex, &r, (const uint8_t *)"ok", 0, NULL, NULL), PP_OK);
    pp_exchange_finish(ex);
}

TEST(net_no_answer_waits_for_the_handlers_behind_it)
{
    enum { COUNT = 3 };
    int fds[COUNT];
    char buf[1000];
    bool ended;
    struct rig rig;
    struct pp_settings s = rig_settings();
    rig_start(&rig, &s);
    for (int i = 0; i < COUNT; i++) {
        fds[i] = rig_connect(&rig);
        rig_expect(&rig, fds[i], GET("/hello"), "HTTP/1.1 200", NULL);
    }
    for (int i = 0; i < COUNT; i++) {
        say_unseen(fds[i], GET("/hello"));
    }
    CHECK(pp_loop_turn(rig.loop, 1000) > 0);
    for (int i = 0; i < COUNT; i++) {
        CHECK_EQ(pp_loop_pending(rig.loop), true);
        CHECK_EQ(rig.loop->ready_count, (uint32_t)(COUNT - i));
        struct pp_exchange *ex = next_request(&rig);
        CHECK(ex != NULL);
        rig_clock(rig_now_ms + 30);
        answer(ex);
        CHECK(next_request(&rig) == NULL); /* what is left has to wait for the flush */
        CHECK(pp_loop_turn(rig.loop, 0) >= 0);
        CHECK(recv(fds[i], buf, sizeof buf, MSG_DONTWAIT) > 0);
    }
    /* Quick ones come together. */
    for (int i = 0; i < COUNT; i++) {
        say_unseen(fds[i], GET("/hello"));
    }
    CHECK(pp_loop_turn(rig.loop, 1000) > 0);
    for (int i = 0; i < COUNT; i++) {
        struct pp_exchange *ex = next_request(&rig);
        CHECK(ex != NULL);
        answer(ex);
    }
    CHECK(next_request(&rig) == NULL);
    for (int i = 0; i < COUNT; i++) {
        CHECK(rig_read(&rig, fds[i], buf, sizeof buf, &ended) > 0 && !ended);
        (void)close(fds[i]);
    }
    rig_stop(&rig);
}

TEST(net_keep_alive_counts_from_the_answer)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    s.keep_alive_ms = 2000;
    rig_start(&rig, &s);
    int fd = rig_connect(&rig);
    rig_say(&rig, fd, GET("/hold"));
    rig_settle(&rig);
    rig_clock(rig_now_ms + 10000); /* in one stretch: no turn meanwhile */
    rig_answer(&rig, rig.requests, "late");
    rig_expect(&rig, fd, "", "HTTP/1.1 200", "late");
    rig_clock(rig_now_ms + 1900);
    rig_settle(&rig);
    CHECK_EQ(pp_loop_connections(rig.loop), 1);
    rig_clock(rig_now_ms + 200);
    rig_settle(&rig);
    CHECK_EQ(pp_loop_connections(rig.loop), 0);
    (void)close(fd);
    rig_stop(&rig);
}

TEST(net_body_time_counts_from_when_it_is_asked_for)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    rig_start(&rig, &s);
    int fd = rig_connect(&rig);
    rig_say(&rig, fd, "POST /hold HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n");
    rig_settle(&rig);
    rig_clock(rig_now_ms + s.body_idle_ms + 1000);
    pp_exchange_want(rig.requests->ex);
    rig_settle(&rig);
    CHECK_EQ(pp_exchange_error(rig.requests->ex), PP_OK);
    rig_clock(rig_now_ms + s.body_idle_ms + 100);
    rig_settle(&rig);
    CHECK_EQ(pp_exchange_error(rig.requests->ex), PP_ERR_BODY_TIMEOUT);
    (void)close(fd);
    rig_stop(&rig);
}

TEST(net_grace_of_draining_counts_from_now)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    rig_start(&rig, &s);
    int fd = rig_connect(&rig);
    rig_expect(&rig, fd, GET("/hello"), "HTTP/1.1 200", NULL);
    rig_clock(rig_now_ms + 5000); /* nothing happened */
    int fresh = rig_connect(&rig);
    pp_loop_drain(rig.loop);
    rig_clock(rig_now_ms + PP_DRAIN_IDLE_MS - 100);
    rig_settle(&rig);
    CHECK_EQ(pp_loop_connections(rig.loop), 2);
    rig_expect(&rig, fd, GET("/hello"), "HTTP/1.1 200", "connection: close");
    rig_clock(rig_now_ms + PP_LINGER_MS / 2 - PP_DRAIN_IDLE_MS);
    rig_expect(&rig, fresh, GET("/hello"), "HTTP/1.1 200", "connection: close");
    (void)close(fd);
    (void)close(fresh);
    rig_stop(&rig);
}
#endif
