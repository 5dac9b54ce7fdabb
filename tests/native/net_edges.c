/* Corners that a conversation reaches only by luck: made here by setting up the state itself. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/un.h>
#include <unistd.h>

#include "net/address.h"
#include "net/conn.h"
#include "net_rig.h"

static struct pp_conn *only(struct rig *rig)
{
    struct pp_conn *conn = rig_next_conn(rig->loop, NULL);
    CHECK(conn != NULL && rig_next_conn(rig->loop, conn) == NULL);
    return conn;
}

/* A connection between requests whose last answer does not get out yet. */
static int half_answered(struct rig *rig)
{
    int fd = rig_connect(rig);
    rig_say(rig, fd, GET("/hold"));
    rig_settle(rig);
    only(rig)->writable = false;
    rig_answer(rig, rig->requests, "still to be sent");
    rig_settle(rig);
    CHECK(only(rig)->http1.state == PP_HTTP1_IDLE && only(rig)->out.bytes > 0);
    return fd;
}

static void let_out(struct rig *rig)
{
    only(rig)->writable = true;
    pp_conn_mark_dirty(only(rig));
}

/* What came behind the head is the tunnel's; the fields of the 101 are checked like all others. */
TEST(net_tunnel_behind_a_head)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    static const struct pp_out_field fields[] = {
        {(const uint8_t *)"x-a", (const uint8_t *)"b", 3, 1},
        {(const uint8_t *)"connection", (const uint8_t *)"keep-alive", 10, 10},
        {(const uint8_t *)"transfer-encoding", (const uint8_t *)"chunked", 17, 7},
    };
    static const struct pp_out_field bad = {(const uint8_t *)"x", (const uint8_t *)"a\r\nb", 1, 4};
    rig_start(&rig, &s);
    int fd = rig_connect(&rig);
    rig_say(&rig, fd,
            "GET /hold HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: lines\r\n\r\nbehind");
    rig_settle(&rig);
    struct pp_exchange *ex = rig.requests->ex;
    CHECK(pp_exchange_tunnel(ex, "lines", &bad, 1) < 0);
    CHECK(!pp_exchange_is_raw(ex));
    CHECK_EQ(pp_exchange_tunnel(ex, "lines", fields, 3), PP_OK);
    CHECK(pp_exchange_is_raw(ex));
    CHECK_EQ(pp_exchange_tunnel(ex, "lines", NULL, 0), PP_ERR_APP_FAILED);
    rig_expect(&rig, fd, "",
               "HTTP/1.1 101 Switching Protocols\r\nupgrade: lines\r\nconnection: upgrade\r\n"
               "x-a: b\r\n\r\n",
               "behind");
    rig_expect(&rig, fd, "more", "more", "more");
    CHECK(shutdown(fd, SHUT_WR) == 0);
    rig_settle(&rig);
    char byte;
    CHECK(rig.eof_seen == 1 && rig.closed_seen == 1 && rig.requests == NULL);
    CHECK_EQ(recv(fd, &byte, 1, 0), 0);
    CHECK_EQ(rig.loop->slot->in_flight, 0);
    CHECK(pp_list_empty(&rig.loop->conns) || only(&rig)->holds == 0);
    (void)close(fd);

    fd = rig_connect(&rig); /* one that is reset */
    rig_say(&rig, fd,
            "GET /hold HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: lines\r\n\r\n");
    rig_settle(&rig);
    CHECK_EQ(pp_exchange_tunnel(rig.requests->ex, "lines", NULL, 0), PP_OK);
    struct linger none = {.l_onoff = 1};
    CHECK(setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof none) == 0);
    (void)close(fd);
    rig_settle(&rig);
    CHECK(rig.requests == NULL && rig.loop->slot->in_flight == 0);
    rig_stop(&rig);
}

TEST(net_end_of_stream_while_answering)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    rig_start(&rig, &s);
    int fd = half_answered(&rig);
    CHECK(shutdown(fd, SHUT_WR) == 0);
    rig_settle(&rig);
    if (pp_loop_connections(rig.loop) == 1 && only(&rig)->out.bytes > 0) {
        CHECK_EQ(only(&rig)->state, PP_CONN_CLOSE);
        let_out(&rig);
    }
    rig_expect(&rig, fd, "", "HTTP/1.1 200", "still to be sent");
    CHECK_EQ(pp_loop_connections(rig.loop), 0);
    (void)close(fd);
    rig_stop(&rig);
}

#ifdef PP_TEST_CLOCK
TEST(net_keep_alive_time_while_answering)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    s.keep_alive_ms = 1000;
    rig_start(&rig, &s);
    int fd = half_answered(&rig);
    for (int i = 0; i < 5; i++) {
        rig_clock(rig_now_ms + 1100);
        rig_settle(&rig);
        CHECK_EQ(pp_loop_connections(rig.loop), 1);
    }
    let_out(&rig);
    rig_expect(&rig, fd, "", "HTTP/1.1 200", "still to be sent");
    for (int i = 0; i < 2; i++) {
        rig_clock(rig_now_ms + 1100);
        rig_settle(&rig);
    }
    CHECK_EQ(pp_loop_connections(rig.loop), 0);
    (void)close(fd);
    rig_stop(&rig);
}
#endif

/* Our side is shut and the peer goes on sending; the application is not done either. */
TEST(net_lingers_while_the_application_works)
{
    for (int reset = 0; reset < 2; reset++) {
        struct rig rig;
        struct pp_settings s = rig_settings();
        rig_start(&rig, &s);
        int fd = rig_connect(&rig);
        rig_say(&rig, fd, "POST /hold HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc");
        rig_settle(&rig);
        struct rig_request *req = rig.requests;
        struct pp_response r = {.status = 200, .complete = true, .body_bytes = 2};
        (void)snprintf(req->path, sizeof req->path, "/keep");
        CHECK_EQ(pp_exchange_respond(req->ex, &r, (const uint8_t *)"ok", 0, NULL, NULL), PP_OK);
        unsigned events = 0;
        CHECK(pp_loop_turn(rig.loop, 0) > 0);
        CHECK(pp_loop_take_event(rig.loop, &events) == req->ex && events == PP_EV_CLOSED);
        CHECK_EQ(req->ex->conn->state, PP_CONN_LINGER);
        rig_say(&rig, fd, "more");
        CHECK(pp_loop_turn(rig.loop, 0) >= 0);
        const uint8_t *data;
        size_t len;
        CHECK_EQ(pp_exchange_peek(req->ex, &data, &len), PP_BODY_FAILED);
        CHECK_EQ(pp_exchange_head(req->ex, &data)->path.len, 5);
        if (reset) {
            (void)close(fd); /* with the answer unread: a reset */
            CHECK(pp_loop_turn(rig.loop, 100) >= 0);
            CHECK_EQ(pp_loop_connections(rig.loop), 0);
            CHECK(pp_loop_take_event(rig.loop, &events) == NULL); /* CLOSED comes once */
        }
        rig_finish(&rig, req);
        if (!reset) {
            rig_expect(&rig, fd, "", "HTTP/1.1 200", "ok");
            (void)close(fd);
        }
        rig_settle(&rig);
        CHECK_EQ(pp_loop_connections(rig.loop), 0);
        rig_stop(&rig);
    }
}

/* More than one turn's worth for one connection: others are not kept waiting. */
TEST(net_reading_is_bounded)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    rig_start(&rig, &s);
    int fd = rig_connect(&rig);
    rig_say(&rig, fd, "POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n");
    rig_settle(&rig);
    CHECK_EQ(only(&rig)->state, PP_CONN_LINGER);
    static char piece[900000];
    (void)!send(fd, piece, sizeof piece, MSG_NOSIGNAL);
    uint64_t before = pp_loop_counters(rig.loop)->bytes_in;
    CHECK(pp_loop_turn(rig.loop, 100) >= 0);
    uint64_t once = pp_loop_counters(rig.loop)->bytes_in - before;
    CHECK(once <= (uint64_t)PP_CONN_READS_MAX * PP_SCRATCH_BYTES);
    rig_settle(&rig);
    CHECK(pp_loop_counters(rig.loop)->bytes_in - before >= once);
    (void)close(fd);
    rig_stop(&rig);
}

/* Freed with requests in the application's hands: the loop lets go of them itself. */
TEST(net_freed_with_requests)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    rig_start(&rig, &s);
    int fd = rig_connect(&rig);
    rig_say(&rig, fd, GET("/hold"));
    rig_settle(&rig);
    struct pp_loop *loop = rig.loop;
    struct rig_request *req = rig.requests;
    pp_exchange_set_app(req->ex, NULL);
    pp_loop_free(loop);
    rig.loop = NULL;
    rig_forget(req);
    (void)close(fd);
    rig_stop(&rig);
}

/* ---- addresses in the access log, and other kinds of descriptors to write it to ---- */

static int listen_any6(unsigned *port)
{
    struct sockaddr_in6 addr = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_ANY_INIT};
    socklen_t len = sizeof addr;
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof addr) != 0) {
        (void)(fd >= 0 && close(fd));
        return -1; /* no IPv6 here */
    }
    CHECK(listen(fd, 10) == 0 && getsockname(fd, (struct sockaddr *)&addr, &len) == 0);
    *port = ntohs(addr.sin6_port);
    return fd;
}

TEST(net_access_log_to_a_socket_from_ipv6)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    int ends[2], fd;
    unsigned port = 0;
    char buf[1000], line[200];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
    s.access_log_fd = ends[1];
    rig_start(&rig, &s);
    int listener = listen_any6(&port);
    if (listener >= 0) {
        struct sockaddr_in6 to = {.sin6_family = AF_INET6,
                                  .sin6_addr = IN6ADDR_LOOPBACK_INIT,
                                  .sin6_port = htons((uint16_t)port)},
                            me;
        socklen_t len = sizeof me;
        CHECK_EQ(pp_loop_listen(rig.loop, listener, PP_LISTEN_ALONE, 0), PP_OK);
        fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
        CHECK(connect(fd, (struct sockaddr *)&to, sizeof to) == 0);
        CHECK(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
        CHECK(getsockname(fd, (struct sockaddr *)&me, &len) == 0);
        rig_say(&rig, fd, GET("/hold"));
        rig_settle(&rig);
        /* Behind a wildcard the local address is the connection's own. */
        const struct sockaddr_in6 *local =
            (const struct sockaddr_in6 *)pp_exchange_local(rig.requests->ex);
        CHECK(local->sin6_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&local->sin6_addr));
        CHECK_EQ(ntohs(local->sin6_port), port);
        rig_answer(&rig, rig.requests, "six");
        rig_expect(&rig, fd, "", "HTTP/1.1 200", "six");
        ssize_t n = recv(ends[0], buf, sizeof buf, 0);
        CHECK(n > 0);
        (void)snprintf(line, sizeof line, "::1:%u - \"GET /hold HTTP/1.1\" 200\n",
                       ntohs(me.sin6_port));
        CHECK_BYTES(buf, (size_t)n, line);
        (void)close(fd);
        rig_settle(&rig);
        pp_loop_unlisten(rig.loop);
        (void)close(listener);
    }
    rig_stop(&rig);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

TEST(net_access_log_where_opening_again_fails)
{
    struct pp_accesslog log;
    uint64_t dropped = 0;
    int ends[2];
    char got[100000];
    uint8_t base[] = "GET/path\x1b\x7f";
    union pp_sock_addr peer = {.family = AF_UNIX};
    struct pp_head *head = pp_mem_zalloc(sizeof *head);
    CHECK(head != NULL && pipe2(ends, O_CLOEXEC) == 0);
    head->method = (struct pp_span){0, 3};
    head->target = (struct pp_span){3, 7};
    head->minor = 1;
    CHECK_EQ(pp_accesslog_init(&log, ends[1], "> ", &dropped), PP_OK);
    CHECK(log.write_fd != log.fd);
    (void)close(log.write_fd);
    log.write_fd = log.fd;
    log.may_block = true;
    for (int i = 0; i < 6000; i++) {
        pp_accesslog_line(&log, &peer, head, base, 200);
    }
    pp_accesslog_flush(&log); /* would hang if it waited for room in the pipe */
    CHECK(pp_accesslog_pending(&log) && dropped > 0);
    ssize_t n = read(ends[0], got, sizeof got - 1);
    CHECK(n > 50);
    got[n] = '\0';
    const char first[] = "> unix: - \"GET /path\\x1b\\x7f HTTP/1.1\" 200\n";
    CHECK(strncmp(got, first, sizeof first - 1) == 0);
    pp_accesslog_fini(&log);
    pp_mem_free(head, sizeof *head);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

/* ---- addresses ---- */

TEST(address_text)
{
    static const char *const V4[] = {"0.0.0.0", "127.0.0.1", "255.255.255.255", "10.200.3.45"};
    static const char *const V6[] = {"::", "::1", "2001:db8::1", "::ffff:192.0.2.1",
                                     "2001:db8:1111:2222:3333:4444:5555:6666"};
    union pp_sock_addr addr;
    char text[PP_ADDRESS_TEXT_MAX];
    unsigned port;
    for (size_t i = 0; i < sizeof V4 / sizeof V4[0]; i++) {
        memset(&addr, 0, sizeof addr);
        addr.in.sin_family = AF_INET;
        addr.in.sin_port = htons(65535);
        CHECK_EQ(inet_pton(AF_INET, V4[i], &addr.in.sin_addr), 1);
        CHECK_EQ(pp_address_text(&addr.sa, text, &port), strlen(V4[i]));
        CHECK(strcmp(text, V4[i]) == 0 && port == 65535);
    }
    for (size_t i = 0; i < sizeof V6 / sizeof V6[0]; i++) {
        memset(&addr, 0, sizeof addr);
        addr.in6.sin6_family = AF_INET6;
        addr.in6.sin6_port = htons(1);
        CHECK_EQ(inet_pton(AF_INET6, V6[i], &addr.in6.sin6_addr), 1);
        CHECK_EQ(pp_address_text(&addr.sa, text, &port), strlen(V6[i]));
        CHECK(strcmp(text, V6[i]) == 0 && port == 1);
    }
    addr.family = AF_UNIX;
    CHECK(pp_address_text(&addr.sa, text, &port) == 0 && text[0] == '\0' && port == 0);
    CHECK(pp_address_text(NULL, text, &port) == 0 && text[0] == '\0' && port == 0);
}
