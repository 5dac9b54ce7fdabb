/* The loop around the connections: foreign descriptors, other threads, draining, addresses. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/un.h>
#include <unistd.h>

#include "net/conn.h"
#include "net_rig.h"

/* ---- foreign descriptors ---- */

TEST(net_foreign_level_triggered)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    int a[2], b[2], fd;
    uint32_t events;
    rig_start(&rig, &s);
    CHECK(pipe2(a, O_CLOEXEC) == 0 && pipe2(b, O_CLOEXEC) == 0);
    CHECK_EQ(pp_loop_foreign_add(rig.loop, a[0], PP_POLL_READ), PP_OK);
    CHECK_EQ(pp_loop_foreign_add(rig.loop, b[0], PP_POLL_READ), PP_OK);
    CHECK_EQ(pp_loop_foreign_add(rig.loop, b[0], PP_POLL_READ), PP_ERR_SYSTEM);
    CHECK_EQ(errno, EEXIST);
    CHECK_EQ(pp_loop_turn(rig.loop, 0), 0);
    CHECK(write(a[1], "x", 1) == 1);
    for (int i = 0; i < 3; i++) { /* until it is read, also when it was not taken */
        CHECK_EQ(pp_loop_turn(rig.loop, 0), 1);
        if (i > 0) {
            CHECK(pp_loop_take_foreign(rig.loop, &fd, &events));
            CHECK(fd == a[0] && events == PP_POLL_READ);
            CHECK(!pp_loop_take_foreign(rig.loop, &fd, &events));
        }
    }
    /* Removed after it was reported: it must not be handed out any more. */
    CHECK(write(b[1], "x", 1) == 1);
    CHECK_EQ(pp_loop_turn(rig.loop, 0), 2);
    CHECK(pp_loop_take_foreign(rig.loop, &fd, &events));
    int other = fd == a[0] ? b[0] : a[0];
    CHECK_EQ(pp_loop_foreign_del(rig.loop, other), PP_OK);
    CHECK(!pp_loop_take_foreign(rig.loop, &fd, &events));
    /* Also when the number is in use again by then. */
    CHECK_EQ(pp_loop_foreign_add(rig.loop, other, PP_POLL_READ), PP_OK);
    CHECK_EQ(pp_loop_turn(rig.loop, 0), 2);
    CHECK_EQ(pp_loop_foreign_del(rig.loop, a[0]), PP_OK);
    CHECK_EQ(pp_loop_foreign_del(rig.loop, b[0]), PP_OK);
    CHECK_EQ(pp_loop_foreign_add(rig.loop, b[0], PP_POLL_READ), PP_OK);
    CHECK(!pp_loop_take_foreign(rig.loop, &fd, &events));
    CHECK_EQ(pp_loop_foreign_mod(rig.loop, b[0], 0), PP_OK);
    CHECK_EQ(pp_loop_turn(rig.loop, 0), 0);
    CHECK_EQ(pp_loop_foreign_mod(rig.loop, a[0], PP_POLL_READ), PP_ERR_SYSTEM);
    CHECK_EQ(pp_loop_foreign_del(rig.loop, 100000), PP_ERR_SYSTEM);
    CHECK_EQ(pp_loop_foreign_add(rig.loop, -1, PP_POLL_READ), PP_ERR_SYSTEM);
    for (int i = 0; i < 2; i++) {
        (void)close(a[i]);
        (void)close(b[i]);
    }
    CHECK_EQ(pp_loop_turn(rig.loop, 0), 0);
    rig_stop(&rig);
}

/* More than a turn reports: each gets its turn, connections too. */
TEST(net_foreign_by_the_thousand)
{
    enum { COUNT = 3000 };
    struct rig rig;
    struct pp_settings s = rig_settings();
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    struct rlimit high = limit;
    high.rlim_cur = limit.rlim_max < COUNT + 200 ? limit.rlim_max : COUNT + 200;
    CHECK(setrlimit(RLIMIT_NOFILE, &high) == 0);
    int count = (int)high.rlim_cur - 200 < COUNT ? (int)high.rlim_cur - 200 : COUNT;
    rig_start(&rig, &s);
    int ends[2], *fds = malloc(COUNT * sizeof *fds);
    unsigned *seen = calloc(COUNT + 400, sizeof *seen);
    CHECK(fds != NULL && seen != NULL && pipe2(ends, O_CLOEXEC) == 0);
    CHECK(write(ends[1], "x", 1) == 1);
    for (int i = 0; i < count; i++) {
        fds[i] = fcntl(ends[0], F_DUPFD_CLOEXEC, 0);
        CHECK(fds[i] >= 0);
        CHECK_EQ(pp_loop_foreign_add(rig.loop, fds[i], PP_POLL_READ), PP_OK);
    }
    int client = rig_connect(&rig), turns = 0;
    CHECK(send(client, GET("/hello"), strlen(GET("/hello")), 0) > 0);
    for (; turns < 2 * (count / PP_POLL_EVENTS + 1); turns++) {
        int fd;
        uint32_t events;
        (void)rig_turn(&rig, 0);
        while (pp_loop_take_foreign(rig.loop, &fd, &events)) {
            seen[fd]++;
        }
    }
    for (int i = 0; i < count; i++) {
        CHECK(seen[fds[i]] > 0);
        CHECK_EQ(pp_loop_foreign_del(rig.loop, fds[i]), PP_OK);
        (void)close(fds[i]);
    }
    CHECK_EQ(rig.requests_seen, 1);
    (void)close(ends[0]);
    (void)close(ends[1]);
    (void)close(client);
    free(fds);
    free(seen);
    rig_stop(&rig);
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

/* ---- other threads ---- */

enum { THREADS = 4, POSTS = 2000 };
struct post {
    struct pp_msg msg;
    int thread, number;
};
static struct pp_loop *target;

static void *poster(void *arg)
{
    struct post *posts = arg;
    for (int i = 0; i < POSTS; i++) {
        pp_loop_post(target, &posts[i].msg);
        if (i % 100 == 0) {
            pp_loop_wake(target);
            (void)pp_loop_connections(target);
            (void)__atomic_load_n(&pp_loop_counters(target)->turns, __ATOMIC_RELAXED);
        }
    }
    return NULL;
}

TEST(net_mailbox_from_threads)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    pthread_t threads[THREADS];
    int next[THREADS] = {0}, total = 0;
    struct post *posts = calloc(THREADS * POSTS, sizeof *posts);
    CHECK(posts != NULL);
    rig_start(&rig, &s);
    target = rig.loop;
    for (int t = 0; t < THREADS; t++) {
        for (int i = 0; i < POSTS; i++) {
            posts[t * POSTS + i].thread = t;
            posts[t * POSTS + i].number = i;
        }
        CHECK(pthread_create(&threads[t], NULL, poster, &posts[t * POSTS]) == 0);
    }
    while (total < THREADS * POSTS) {
        struct pp_msg *msg;
        CHECK(pp_loop_turn(rig.loop, 10000) >= 0); /* would hang on a lost wake-up */
        while ((msg = pp_loop_take_msg(rig.loop)) != NULL) {
            struct post *post = PP_CONTAINER(msg, struct post, msg);
            CHECK_EQ(post->number, next[post->thread]); /* in the order posted */
            next[post->thread]++;
            total++;
        }
    }
    for (int t = 0; t < THREADS; t++) {
        CHECK(pthread_join(threads[t], NULL) == 0);
    }
    CHECK(pp_loop_take_msg(rig.loop) == NULL);
    free(posts);
    rig_stop(&rig);
}

TEST(net_wake)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    rig_start(&rig, &s);
    for (int i = 0; i < 3; i++) {
        pp_loop_wake(rig.loop);
        pp_loop_wake(rig.loop);
        CHECK_EQ(pp_loop_turn(rig.loop, 60000), 0); /* returns at once */
    }
    rig_stop(&rig);
}

static void *serve_on(void *arg)
{
    struct rig *rig = arg;
    pp_loop_adopt(rig->loop);
    rig_settle(rig);
    return NULL;
}

TEST(net_ownership_moves)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    pthread_t thread;
    rig_start(&rig, &s);
    int fd = rig_connect(&rig);
    CHECK(send(fd, GET("/hello"), strlen(GET("/hello")), 0) > 0);
    CHECK(pthread_create(&thread, NULL, serve_on, &rig) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    pp_loop_adopt(rig.loop);
    rig_expect(&rig, fd, "", "HTTP/1.1 200", "Hello");
    (void)close(fd);
    rig_stop(&rig);
}

/* ---- the end ---- */

TEST(net_drain)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    char buf[500];
    bool ended;
    rig_start(&rig, &s);
    int idle = rig_connect(&rig), busy = rig_connect(&rig), sent = rig_connect(&rig);
    int fresh = rig_connect(&rig), late = rig_connect(&rig);
    rig_expect(&rig, late, GET("/hello"), "HTTP/1.1 200", NULL);
    rig_expect(&rig, idle, GET("/hello"), "HTTP/1.1 200", NULL);
    rig_expect(&rig, sent, GET("/hello"), "HTTP/1.1 200", NULL);
    rig_say(&rig, busy, GET("/hold"));
    rig_settle(&rig);
    CHECK(send(sent, GET("/hello"), strlen(GET("/hello")), 0) > 0); /* not seen yet */
    int queued = rig_connect(&rig);                                 /* not accepted yet */
    CHECK(send(queued, GET("/hello"), strlen(GET("/hello")), 0) > 0);
    pp_loop_drain(rig.loop);
    pp_loop_drain(rig.loop);
    rig_expect(&rig, sent, "", "HTTP/1.1 200", "connection: close");
    rig_expect(&rig, late, GET("/hello"), "HTTP/1.1 200", "connection: close"); /* was under way */
    rig_expect(&rig, queued, "", "HTTP/1.1 200", "connection: close");
    rig_expect(&rig, fresh, GET("/hello"), "HTTP/1.1 200", "connection: close");
    CHECK_EQ(rig_read(&rig, idle, buf, sizeof buf, &ended), 0);
    CHECK(!ended);
    rig_clock(rig_now_ms + PP_DRAIN_IDLE_MS + 100);
    CHECK_EQ(rig_read(&rig, idle, buf, sizeof buf, &ended), 0);
    CHECK(ended);
    CHECK(!pp_loop_drained(rig.loop));
    rig_answer(&rig, rig_held(&rig, "/hold"), "done");
    rig_expect(&rig, busy, "", "HTTP/1.1 200", "connection: close");
    (void)close(idle);
    (void)close(busy);
    (void)close(sent);
    (void)close(queued);
    (void)close(fresh);
    (void)close(late);
    rig_settle(&rig);
    CHECK(pp_loop_drained(rig.loop));
    rig_stop(&rig);
}

TEST(net_drain_waits_for_output)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    bool ended;
    char *buf = malloc(6000000);
    CHECK(buf != NULL);
    rig_start(&rig, &s);
    int a = rig_connect_small(&rig, 4096), b = rig_connect_small(&rig, 4096);
    for (int i = 0; i < 16; i++) {
        rig_say(&rig, a, GET("/big"));
    }
    rig_say(&rig, b, GET("/stream"));
    rig_settle(&rig);
    pp_loop_drain(rig.loop);
    size_t n = rig_read(&rig, b, buf, 6000000, &ended);
    CHECK(n > 5000000 && memcmp(buf + n - 5, "0\r\n\r\n", 5) == 0);
    CHECK(!ended); /* its head promised to go on, so a request may be under way */
    n = rig_read(&rig, a, buf, 6000000, &ended);
    rig_clock(rig_now_ms + PP_DRAIN_IDLE_MS + 100);
    rig_settle(&rig);
    CHECK_EQ(rig_read(&rig, b, buf, 1000, &ended), 0);
    CHECK(ended);
    (void)rig_read(&rig, a, buf, 1000, &ended);
    CHECK(ended && n >= 200000 && n % 200000 < 200000 / 2); /* whole answers only */
    (void)close(a);
    (void)close(b);
    rig_settle(&rig);
    CHECK(pp_loop_drained(rig.loop));
    free(buf);
    rig_stop(&rig);
}

TEST(net_abort)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    rig_start(&rig, &s);
    int idle = rig_connect(&rig), busy = rig_connect(&rig), full = rig_connect_small(&rig, 4096);
    rig_expect(&rig, idle, GET("/hello"), "HTTP/1.1 200", NULL);
    rig_say(&rig, busy, GET("/hold"));
    rig_say(&rig, full, GET("/stream"));
    rig_settle(&rig);
    CHECK_EQ(pp_loop_in_flight(rig.loop), 2);
    pp_loop_abort(rig.loop);
    CHECK_EQ(pp_loop_connections(rig.loop), 0);
    rig_settle(&rig);
    CHECK_EQ(rig.closed_seen, 2);
    CHECK_EQ(pp_loop_in_flight(rig.loop), 0);
    CHECK(rig_is_reset(full));
    CHECK(!rig_is_reset(idle));
    (void)close(idle);
    (void)close(busy);
    (void)close(full);
    rig_stop(&rig);
}

/* A descriptor that was closed while it was registered, whose number a connection has got. */
TEST(net_foreign_number_that_is_a_connection_now)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    int ends[2], number;
    uint32_t events;
    rig_start(&rig, &s);
    int fd = rig_connect(&rig); /* its other end is not accepted yet */
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    CHECK_EQ(pp_loop_foreign_add(rig.loop, ends[0], PP_POLL_READ), PP_OK);
    (void)close(ends[0]);
    rig_settle(&rig);
    rig_expect(&rig, fd, GET("/hello"), "HTTP/1.1 200", NULL);
    CHECK_EQ(rig_next_conn(rig.loop, NULL)->fd, ends[0]);
    CHECK(pp_loop_foreign_mod(rig.loop, ends[0], PP_POLL_WRITE) != PP_OK);
    CHECK(pp_loop_foreign_del(rig.loop, ends[0]) != PP_OK);
    rig_expect(&rig, fd, GET("/hello"), "HTTP/1.1 200", NULL);
    CHECK(!pp_loop_take_foreign(rig.loop, &number, &events));
    (void)close(fd);
    (void)close(ends[1]);
    rig_stop(&rig);
}

/* Those that wait when draining begins are counted; those that come later are not waited for. */
TEST(net_queue_of_a_listener_is_counted)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    int fds[5];
    rig_start(&rig, &s);
    CHECK_EQ(pp_sock_queued(rig.listen_fd), 0);
    for (int i = 0; i < 5; i++) {
        fds[i] = rig_connect(&rig);
    }
    CHECK_EQ(pp_sock_queued(rig.listen_fd), 5);
    pp_loop_drain(rig.loop);
    CHECK_EQ(pp_loop_connections(rig.loop), 5);
    for (int i = 0; i < 5; i++) {
        (void)close(fds[i]);
    }
    rig_stop(&rig);
}

/* ---- addresses, pointers, details ---- */

TEST(net_user_pointer_is_handed_back)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    int user = 0;
    rig_start(&rig, &s);
    int fd = rig_connect(&rig);
    rig_expect(&rig, fd, GET("/hello"), "HTTP/1.1 200", NULL);
    struct pp_conn *conn = rig_next_conn(rig.loop, NULL);
    CHECK(conn->user == NULL);
    conn->user = &user;
    rig_expect(&rig, fd, GET("/hello"), "HTTP/1.1 200", NULL);
    CHECK(conn->user == &user);
    CHECK(pp_loop_take_dead_user(rig.loop) == NULL);
    (void)close(fd);
    rig_settle(&rig);
    CHECK(pp_loop_turn(rig.loop, 0) > 0);
    CHECK(pp_loop_take_dead_user(rig.loop) == &user);
    CHECK(pp_loop_take_dead_user(rig.loop) == NULL);
    CHECK(rig_next_conn(rig.loop, NULL) == NULL);
    rig_stop(&rig);
}

/* Two wait to be handed back when the pointer of the first is taken: the second is handed back. */
TEST(net_user_pointer_that_was_taken_is_no_end)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    int user = 0, fds[2];
    rig_start(&rig, &s);
    for (int i = 0; i < 2; i++) {
        fds[i] = rig_connect(&rig);
        rig_expect(&rig, fds[i], GET("/hello"), "HTTP/1.1 200", NULL);
    }
    struct pp_conn *first = rig_next_conn(rig.loop, NULL);
    first->user = &user;
    rig_next_conn(rig.loop, first)->user = &user;
    (void)close(fds[0]);
    (void)close(fds[1]);
    rig_settle(&rig);
    CHECK(pp_loop_turn(rig.loop, 0) > 0);
    first->user = NULL;
    CHECK(pp_loop_take_dead_user(rig.loop) == &user);
    CHECK(pp_loop_take_dead_user(rig.loop) == NULL);
    CHECK(rig_next_conn(rig.loop, NULL) == NULL);
    rig_stop(&rig);
}

TEST(net_addresses_and_options)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    rig_start(&rig, &s);
    int fd = rig_connect(&rig), on = 0;
    struct sockaddr_in me;
    socklen_t len = sizeof me;
    rig_say(&rig, fd, GET("/hold"));
    rig_settle(&rig);
    struct pp_exchange *ex = rig.requests->ex;
    const struct pp_conn *conn = ex->conn;
    CHECK(getsockname(fd, (struct sockaddr *)&me, &len) == 0);
    const struct sockaddr_in *peer = (const struct sockaddr_in *)pp_exchange_peer(ex);
    const struct sockaddr_in *local = (const struct sockaddr_in *)pp_exchange_local(ex);
    CHECK(peer->sin_family == AF_INET && peer->sin_port == me.sin_port);
    CHECK(local->sin_family == AF_INET && ntohs(local->sin_port) == rig.port);
    CHECK(local->sin_addr.s_addr == htonl(INADDR_LOOPBACK));
    len = sizeof on;
    CHECK(getsockopt(conn->fd, IPPROTO_TCP, TCP_NODELAY, &on, &len) == 0 && on != 0);
    CHECK((fcntl(conn->fd, F_GETFL) & O_NONBLOCK) && (fcntl(conn->fd, F_GETFD) & FD_CLOEXEC));
    (void)close(fd);
    rig_stop(&rig);
}

TEST(net_unix_socket)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    rig_start(&rig, &s);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    (void)snprintf(addr.sun_path + 1, sizeof addr.sun_path - 1, "pp-test-%d", (int)getpid());
    CHECK(listener >= 0 && bind(listener, (struct sockaddr *)&addr, sizeof addr) == 0);
    CHECK(listen(listener, 10) == 0);
    CHECK_EQ(pp_loop_listen(rig.loop, listener, PP_LISTEN_SHARED, 0), PP_OK);
    for (int i = 0; i < 2; i++) {
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        CHECK(connect(fd, (struct sockaddr *)&addr, sizeof addr) == 0);
        rig_expect(&rig, fd, GET("/hello") GET("/hold"), "HTTP/1.1 200", "Hello");
        CHECK_EQ(pp_exchange_peer(rig.requests->ex)->sa_family, AF_UNIX);
        CHECK_EQ(pp_exchange_local(rig.requests->ex)->sa_family, AF_UNIX);
        rig_answer(&rig, rig.requests, "held");
        rig_expect(&rig, fd, "", "HTTP/1.1 200", "held");
        if (i == 0) {
            rig_say(&rig, fd, GET("/hold"));
            rig_settle(&rig);
        }
        (void)close(fd);
        rig_settle(&rig);
        CHECK_EQ(pp_loop_connections(rig.loop), 0);
    }
    CHECK_EQ(rig.closed_seen, 1);
    CHECK_EQ(pp_loop_listen(rig.loop, -1, PP_LISTEN_ALONE, 0), PP_ERR_SYSTEM);
    pp_loop_unlisten(rig.loop);
    (void)close(listener);
    rig_stop(&rig);
}

TEST(net_informational)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    static const struct pp_out_field link[] = {{.name = (const uint8_t *)"link",
                                                .name_len = 4,
                                                .value = (const uint8_t *)"</a>",
                                                .value_len = 4}};
    rig_start(&rig, &s);
    int fd = rig_connect(&rig);
    rig_say(&rig, fd, GET("/hold"));
    rig_settle(&rig);
    CHECK_EQ(pp_exchange_informational(rig.requests->ex, 103, link, 1), PP_OK);
    rig_expect(&rig, fd, "", "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n", NULL);
    rig_answer(&rig, rig.requests, "late");
    rig_expect(&rig, fd, "", "HTTP/1.1 200", "late");
    CHECK_EQ(pp_loop_counters(rig.loop)->responses[1], 1);
    (void)close(fd);
    rig_stop(&rig);
}

/* A response that the machine refuses leaves no trace; the next one is sent. */
TEST(net_refused_response)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    rig_start(&rig, &s);
    int fd = rig_connect(&rig);
    rig_say(&rig, fd, GET("/hold"));
    rig_settle(&rig);
    struct pp_exchange *ex = rig.requests->ex;
    struct pp_response bad = {.status = 42};
    CHECK_EQ(pp_exchange_respond(ex, &bad, NULL, 0, NULL, NULL), PP_ERR_APP_BAD_STATUS);
    CHECK(pp_exchange_progress(ex) == PP_RESPONSE_NONE);
    pp_exchange_fail(ex, 500);
    CHECK(pp_exchange_progress(ex) == PP_RESPONSE_DONE);
    CHECK_EQ(pp_exchange_status(ex), 500);
    struct pp_response good = {.status = 200};
    CHECK(pp_exchange_respond(ex, &good, NULL, 0, NULL, NULL) < 0);
    rig_finish(&rig, rig.requests);
    rig_expect(&rig, fd, "", "HTTP/1.1 500", "close");
    (void)close(fd);
    /* Too long and too short for the declared length. */
    static const struct pp_out_field length[] = {{.name = (const uint8_t *)"content-length",
                                                  .name_len = 14,
                                                  .value = (const uint8_t *)"5",
                                                  .value_len = 1}};
    for (int more = 0; more < 2; more++) {
        char buf[500];
        bool ended;
        fd = rig_connect(&rig);
        rig_say(&rig, fd, GET("/hold"));
        rig_settle(&rig);
        ex = rig.requests->ex;
        struct pp_response r = {.status = 200, .fields = length, .field_count = 1};
        CHECK_EQ(pp_exchange_respond(ex, &r, (const uint8_t *)"abc", 3, NULL, NULL), PP_OK);
        CHECK_EQ(pp_exchange_send(ex, (const uint8_t *)"defg", more ? 4 : 1, false, NULL, NULL),
                 more ? PP_ERR_APP_BODY_TOO_LONG : PP_ERR_APP_BODY_TOO_SHORT);
        rig_finish(&rig, rig.requests);
        size_t n = rig_read(&rig, fd, buf, sizeof buf - 1, &ended);
        buf[n] = '\0';
        CHECK(ended && strstr(buf, more ? "\r\n\r\nabc" : "\r\n\r\nabcd") != NULL);
        (void)close(fd);
    }
    rig_stop(&rig);
}

/* Every state with every step: what the tables must say whatever else they say. */
static void all_reached(const uint8_t *table, int states, int steps)
{
    bool reached[16] = {true}; /* where they begin */
    CHECK(states <= 16);
    for (int round = 0; round < states; round++) {
        for (int at = 0; at < states * steps; at++) {
            CHECK(table[at] <= states);
            if (reached[at / steps] && table[at] != states) {
                reached[table[at]] = true;
            }
        }
    }
    for (int state = 0; state < states; state++) {
        CHECK(reached[state]);
    }
}

TEST(net_state_table)
{
    all_reached(&pp_conn_next[0][0], PP_CONN_NO, PP_CONN_STEPS);
    for (int state = 0; state < PP_CONN_NO; state++) {
        const uint8_t *row = pp_conn_next[state];
        bool dead = state == PP_CONN_DEAD, ending = dead || state == PP_CONN_LINGER;
        CHECK_EQ(row[PP_CONN_ON_GONE], dead ? PP_CONN_NO : PP_CONN_DEAD);
        CHECK_EQ(row[PP_CONN_ON_LAST], ending ? PP_CONN_NO : PP_CONN_CLOSE);
        CHECK_EQ(row[PP_CONN_ON_SHUT], ending ? PP_CONN_NO : PP_CONN_LINGER);
        for (int step = 0; step < PP_CONN_STEPS; step++) {
            CHECK(row[step] != PP_CONN_OPEN); /* nothing leads back */
        }
    }
    all_reached(&pp_http1_next[0][0], PP_HTTP1_NO, PP_HTTP1_STEPS);
    for (int state = 0; state < PP_HTTP1_NO; state++) {
        const uint8_t *row = pp_http1_next[state];
        CHECK_EQ(row[PP_HTTP1_ON_OVER], PP_HTTP1_OVER);
        CHECK_EQ(row[PP_HTTP1_ON_REQUEST], state == PP_HTTP1_HEAD ? PP_HTTP1_SERVE : PP_HTTP1_NO);
        CHECK_EQ(row[PP_HTTP1_ON_REUSE], state == PP_HTTP1_SERVE ? PP_HTTP1_IDLE : PP_HTTP1_NO);
        CHECK_EQ(row[PP_HTTP1_ON_BYTES] == PP_HTTP1_HEAD,
                 state == PP_HTTP1_IDLE || state == PP_HTTP1_HEAD);
    }
}
