/* What a loop that was kept from its work owes its peers: requests that arrived in time. */
#include <stdio.h>
#include <unistd.h>

#include "net/conn_impl.h"
#include "net_rig.h"

#define GET(path) "GET " path " HTTP/1.1\r\nHost: a\r\n\r\n"

#ifdef PP_TEST_CLOCK
static struct pp_conn *only(struct rig *rig)
{
    struct pp_conn *conn = pp_loop_next_conn(rig->loop, NULL);
    CHECK(conn != NULL && pp_loop_next_conn(rig->loop, conn) == NULL);
    return conn;
}

/* No event comes for it any more: as if others had filled the turn, or a signal had cut it short.
 */
static void unseen(struct pp_conn *conn)
{
    CHECK_EQ(pp_poll_del(conn->loop->epoll_fd, conn->fd), PP_OK);
}

static void say_unseen(int fd, const char *text)
{
    CHECK_EQ(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

TEST(net_stall_with_more_than_one_turn_of_events)
{
    enum { COUNT = PP_EPOLL_EVENTS + 100 };
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
                pp_conn_on_event(only(&rig), EPOLLRDHUP);
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
            pp_conn_on_event(only(&rig), EPOLLRDHUP);
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
    pp_conn_raw_idle(rig.requests->conn, 5000);
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
#endif
