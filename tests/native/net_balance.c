/* Even load: two loops of one thread on one board, connections that go through doors, and the rules
 * by which they go. The clock is the test's. */
#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "net_rig.h"

#define HELLO "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"

/* So often the next calls of recvmsg() fail, in place of the C library's. */
static int receive_fails, receive_errno;

ssize_t recvmsg(int fd, struct msghdr *msg, int flags)
{
    if (receive_fails > 0) {
        receive_fails--;
        errno = receive_errno;
        return -1;
    }
    return syscall(SYS_recvmsg, fd, msg, flags);
}

/* Two contexts, a and b; only a listens. */
struct pair {
    struct pp_board *board;
    int doors[2][2]; /* [slot]{reading, writing} */
    struct rig a, b;
};

static void join(struct pair *p, struct rig *rig, unsigned slot, bool local)
{
    int writers[2] = {p->doors[0][1], p->doors[1][1]};
    CHECK_EQ(pp_loop_join(rig->loop, p->board, slot, p->doors[slot][0], writers, 2, local), PP_OK);
}

static void pair_start(struct pair *p, bool local)
{
    struct pp_settings s = rig_settings();
    memset(p, 0, sizeof *p);
    CHECK_EQ(pp_board_new(2, &p->board), PP_OK);
    for (int i = 0; i < 2; i++) {
        CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, p->doors[i]) == 0);
    }
    s.slot = pp_board_slot(p->board, 0);
    rig_start(&p->a, &s);
    s.slot = pp_board_slot(p->board, 1);
    rig_start(&p->b, &s);
    p->b.beside_another = true;
    join(p, &p->a, 0, local);
    join(p, &p->b, 1, local);
}

static void pair_stop(struct pair *p)
{
    CHECK_EQ(pp_board_slot(p->board, 0)->promised, 0);
    CHECK_EQ(pp_board_slot(p->board, 1)->promised, 0);
    rig_stop(&p->b);
    rig_stop(&p->a);
    CHECK_EQ(pp_board_slot(p->board, 0)->life, PP_SLOT_EMPTY);
    for (int i = 0; i < 2; i++) {
        (void)close(p->doors[i][0]);
        (void)close(p->doors[i][1]);
    }
    pp_board_free(p->board);
}

static void pair_settle(struct pair *p)
{
    for (int i = 0; i < 4; i++) {
        rig_settle(&p->a);
        rig_settle(&p->b);
    }
}

static void ask(struct pair *p, int client)
{
    char buf[512];
    CHECK(write(client, HELLO, strlen(HELLO)) == (ssize_t)strlen(HELLO));
    pair_settle(p);
    ssize_t got = recv(client, buf, sizeof buf - 1, MSG_DONTWAIT);
    CHECK(got > 0);
    buf[got] = 0;
    CHECK(strncmp(buf, "HTTP/1.1 200 ", 13) == 0);
}

static void spread(bool local)
{
    struct pair p;
    int clients[20];
    pair_start(&p, local);
    for (int i = 0; i < 20; i++) {
        clients[i] = rig_connect(&p.a);
        pair_settle(&p);
    }
    CHECK_EQ(pp_loop_connections(p.a.loop), 10);
    CHECK_EQ(pp_loop_connections(p.b.loop), 10);
    CHECK_EQ(pp_loop_counters(p.a.loop)->accepted, 20);
    CHECK_EQ(pp_loop_counters(p.a.loop)->handed_out, 10);
    CHECK_EQ(pp_loop_counters(p.b.loop)->handed_in, 10);
    for (int i = 0; i < 20; i++) {
        ask(&p, clients[i]);
    }
    CHECK_EQ(p.a.requests_seen, 10);
    CHECK_EQ(p.b.requests_seen, 10);
    for (int i = 0; i < 20; i++) {
        (void)close(clients[i]);
    }
    pair_settle(&p);
    pair_stop(&p);
}

TEST(balance_spreads_by_number)
{
    spread(true);
}

/* A context without descriptors is passed over, and what is under way to it goes on elsewhere. */
TEST(balance_passes_over_who_has_no_descriptor)
{
    enum { COUNT = 6 };
    struct pair p;
    struct rlimit old, low;
    int clients[COUNT + 4], ended = 0, served = 0;
    char buf[512];
    pair_start(&p, false);
    for (int i = 0; i < COUNT; i++) {
        clients[i] = rig_connect(&p.a);
        CHECK(write(clients[i], HELLO, strlen(HELLO)) == (ssize_t)strlen(HELLO));
        rig_settle(&p.a); /* b does not look */
    }
    CHECK_EQ(pp_loop_connections(p.a.loop), COUNT / 2);
    CHECK_EQ(pp_board_slot(p.board, 1)->promised, COUNT / 2);
    int next = dup(p.a.listen_fd);
    (void)close(next);
    CHECK(getrlimit(RLIMIT_NOFILE, &old) == 0);
    low = old;
    low.rlim_cur = (rlim_t)next; /* every number below is in use */
    CHECK(setrlimit(RLIMIT_NOFILE, &low) == 0);
    rig_settle(&p.b);
    CHECK(setrlimit(RLIMIT_NOFILE, &old) == 0);
    const struct pp_slot *slot = pp_board_slot(p.board, 1);
    CHECK_EQ(slot->blocked, PP_SLOT_NO_DESCRIPTORS);
    CHECK_EQ(pp_loop_counters(p.b.loop)->errors[pp_err_index(PP_ERR_NO_DESCRIPTORS)], 1);
    CHECK_EQ(pp_loop_counters(p.b.loop)->handed_out, COUNT / 2 - 1);
    CHECK_EQ(slot->promised, 0);
    rig_settle(&p.a);
    CHECK_EQ(pp_loop_connections(p.a.loop), COUNT - 1);
    for (int i = 0; i < COUNT; i++) {
        ssize_t n = recv(clients[i], buf, sizeof buf, MSG_DONTWAIT);
        served += n > 0;
        ended += n == 0 || (n < 0 && errno == ECONNRESET);
    }
    CHECK_EQ(served, COUNT - 1);
    CHECK_EQ(ended, 1);
    clients[COUNT] = rig_connect(&p.a); /* nobody is sent there */
    rig_settle(&p.a);
    CHECK_EQ(slot->promised, 0);
#ifdef PP_TEST_CLOCK
    rig_clock(rig_now_ms + PP_ACCEPT_PAUSE_MS + 1);
    pair_settle(&p);
    CHECK_EQ(slot->blocked, PP_SLOT_FREE);
    clients[COUNT + 1] = rig_connect(&p.a);
    pair_settle(&p);
    CHECK_EQ(pp_loop_connections(p.b.loop), 1);
    ask(&p, clients[COUNT + 1]);
    (void)close(clients[COUNT + 1]);
#endif
    for (int i = 0; i <= COUNT; i++) {
        (void)close(clients[i]);
    }
    pair_settle(&p);
    pair_stop(&p);
}

TEST(balance_passes_over_who_has_no_inbox)
{
    struct pair p;
    int clients[6];
    pair_start(&p, false);
    CHECK_EQ(shutdown(p.doors[1][1], SHUT_RDWR), 0);
    rig_settle(&p.b);
    CHECK_EQ(pp_board_slot(p.board, 1)->blocked, PP_SLOT_NO_INBOX);
    pp_balance_block(p.b.loop, PP_SLOT_NO_DESCRIPTORS); /* its accepts fail as well, and recover */
#ifdef PP_TEST_CLOCK
    rig_clock(rig_now_ms + PP_BALANCE_RETRY_MS + 1);
#endif
    pair_settle(&p);
    CHECK_EQ(pp_board_slot(p.board, 1)->blocked, PP_SLOT_NO_INBOX);
    for (int i = 0; i < 6; i++) {
        clients[i] = rig_connect(&p.a);
        rig_settle(&p.a);
    }
    CHECK_EQ(pp_loop_connections(p.a.loop), 6);
    for (int i = 0; i < 6; i++) {
        ask(&p, clients[i]);
        (void)close(clients[i]);
    }
    pair_settle(&p);
    pair_stop(&p);
}

#ifdef PP_TEST_CLOCK

/* An inbox that cannot be read once, for want of the kernel's memory: nobody is sent there until it
 * is tried again, and what waits in it is served then. */
TEST(balance_reads_an_inbox_again_that_failed)
{
    static const int errors[] = {ENOMEM, ENOBUFS, EIO};
    for (size_t k = 0; k < sizeof errors / sizeof *errors; k++) {
        struct pair p;
        int clients[4];
        pair_start(&p, false);
        const struct pp_slot *slot = pp_board_slot(p.board, 1);
        for (int i = 0; i < 2; i++) {
            clients[i] = rig_connect(&p.a);
            CHECK(write(clients[i], HELLO, strlen(HELLO)) == (ssize_t)strlen(HELLO));
            rig_settle(&p.a);
        }
        CHECK_EQ(slot->promised, 1);
        receive_fails = 2; /* the second time when it is tried again */
        receive_errno = errors[k];
        rig_settle(&p.b);
        CHECK_EQ(receive_fails, 1);
        CHECK_EQ(slot->blocked, PP_SLOT_NO_INBOX);
        CHECK_EQ(pp_loop_counters(p.b.loop)->errors[pp_err_index(PP_ERR_SYSTEM)], 1);
        clients[2] = rig_connect(&p.a);
        rig_settle(&p.a);
        CHECK_EQ(pp_loop_connections(p.a.loop), 2);
        rig_clock(rig_now_ms + PP_ACCEPT_PAUSE_MS + 1);
        rig_settle(&p.b);
        CHECK_EQ(receive_fails, 0);
        CHECK_EQ(slot->blocked, PP_SLOT_NO_INBOX);
        CHECK_EQ(slot->promised, 1);
        rig_clock(rig_now_ms + PP_BALANCE_RETRY_MS + 1);
        pair_settle(&p);
        CHECK_EQ(slot->blocked, PP_SLOT_FREE);
        CHECK_EQ(slot->promised, 0);
        CHECK_EQ(pp_loop_connections(p.b.loop), 1);
        clients[3] = rig_connect(&p.a); /* it is the least loaded now */
        pair_settle(&p);
        CHECK_EQ(pp_loop_connections(p.b.loop), 2);
        for (int i = 0; i < 2; i++) {
            char buf[512];
            ssize_t got = recv(clients[i], buf, sizeof buf, MSG_DONTWAIT);
            CHECK(got > 12 && memcmp(buf, "HTTP/1.1 200", 12) == 0);
        }
        for (int i = 2; i < 4; i++) {
            ask(&p, clients[i]);
        }
        for (int i = 0; i < 4; i++) {
            (void)close(clients[i]);
        }
        pair_settle(&p);
        pair_stop(&p);
    }
}

#endif

TEST(balance_spreads_by_passing)
{
    spread(false);
}

/* All in one accept batch: promises count before they are kept. */
TEST(balance_counts_promises)
{
    struct pair p;
    int clients[40];
    pair_start(&p, true);
    for (int i = 0; i < 40; i++) {
        clients[i] = rig_connect(&p.a);
    }
    (void)rig_turn(&p.a, 0);
    CHECK_EQ(pp_loop_connections(p.a.loop), 20);
    CHECK_EQ(pp_board_slot(p.board, 1)->promised, 20);
    pair_settle(&p);
    CHECK_EQ(pp_loop_connections(p.b.loop), 20);
    for (int i = 0; i < 40; i++) {
        (void)close(clients[i]);
    }
    pair_settle(&p);
    pair_stop(&p);
}

TEST(balance_score)
{
    static struct pp_slot slot;
    memset(&slot, 0, sizeof slot);
    uint64_t now = 10 * PP_LOAD_WINDOW_US;
    slot.heartbeat_us = now;
    CHECK_EQ(pp_balance_score(&slot, now), 0);
    slot.connections = 3;
    slot.promised = 2;
    CHECK_EQ(pp_balance_score(&slot, now), 8 * 5);
    slot.suspended = 2; /* requests that wait count more than connections */
    CHECK_EQ(pp_balance_score(&slot, now), 8 * (5 + 2 * PP_LOAD_SUSPENDED));
    slot.busy_permille = 1000; /* busy all the time: less than a connection */
    slot.busy_since_us = now - 1;
    CHECK_EQ(pp_balance_score(&slot, now), 8 * (5 + 2 * PP_LOAD_SUSPENDED) + 4);
    slot.busy_since_us = 0; /* it waits, and has for a whole window: the share is of the past */
    CHECK_EQ(pp_slot_busy(&slot, now + PP_LOAD_WINDOW_US), 0);
    CHECK_EQ(pp_slot_busy(&slot, now), 1000);
    slot.busy_permille = 0;
    slot.busy_since_us = now; /* inside the application: worse with every millisecond */
    slot.connections = slot.promised = slot.suspended = 0;
    CHECK_EQ(pp_balance_score(&slot, now + PP_LOAD_STALL_US), 0);
    uint64_t some = pp_balance_score(&slot, now + 2 * PP_LOAD_STALL_US);
    CHECK(some >= 8 * 10);
    CHECK(pp_balance_score(&slot, now + 100 * PP_LOAD_STALL_US) > 50 * some);
}

TEST(balance_leaves_the_stuck_and_the_closed_alone)
{
    struct pair p;
    int clients[4];
    struct pp_slot *other;
    pair_start(&p, true);
    other = pp_board_slot(p.board, 1);
    other->busy_since_us = 1; /* since ever */
    for (int i = 0; i < 2; i++) {
        clients[i] = rig_connect(&p.a);
        rig_settle(&p.a);
    }
    CHECK_EQ(pp_loop_counters(p.a.loop)->handed_out, 0);
    other->busy_since_us = 0;
    pp_loop_drain(p.b.loop);
    CHECK_EQ(other->life, PP_SLOT_CLOSED);
    for (int i = 2; i < 4; i++) {
        clients[i] = rig_connect(&p.a);
        rig_settle(&p.a);
    }
    CHECK_EQ(pp_loop_counters(p.a.loop)->handed_out, 0);
    CHECK_EQ(pp_loop_connections(p.a.loop), 4);
    for (int i = 0; i < 4; i++) {
        (void)close(clients[i]);
    }
    pair_settle(&p);
    pair_stop(&p);
}

/* A door that takes no more: the acceptor keeps the connection. */
TEST(balance_keeps_what_no_door_takes)
{
    struct pair p;
    char junk[4096];
    int client;
    pair_start(&p, false);
    memset(junk, 0, sizeof junk);
    while (send(p.doors[1][1], junk, sizeof junk, MSG_DONTWAIT) > 0) {}
    CHECK(errno == EAGAIN);
    client = rig_connect(&p.a);
    rig_settle(&p.a);
    int more = rig_connect(&p.a);
    rig_settle(&p.a);
    CHECK_EQ(pp_loop_connections(p.a.loop), 2);
    CHECK_EQ(pp_loop_counters(p.a.loop)->handed_out, 0);
    while (recv(p.doors[1][0], junk, sizeof junk, MSG_DONTWAIT) > 0) {}
    (void)close(client);
    (void)close(more);
    pair_settle(&p);
    pair_stop(&p);
}

/* What a process that died had left in a door means nothing to the next one. */
TEST(balance_forgets_numbers_of_dead_processes)
{
    struct pair p;
    int status, clients[2];
    pair_start(&p, true);
    clients[0] = rig_connect(&p.a);
    rig_settle(&p.a);
    clients[1] = rig_connect(&p.a);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        p.a.loop->balance.pid = p.a.loop->slot->pid = pp_board_slot(p.board, 1)->pid = getpid();
        /* The loop's epoll descriptor is shared, but the turn only accepts and hands over. */
        (void)!pp_loop_turn(p.a.loop, 0);
        _exit(pp_loop_counters(p.a.loop)->handed_out == 1 ? 0 : 1);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK_EQ(pp_board_slot(p.board, 1)->promised, 1);
    pair_settle(&p);
    CHECK_EQ(pp_loop_connections(p.b.loop), 0);
    (void)close(clients[0]);
    (void)close(clients[1]);
    pair_settle(&p);
    p.a.loop->slot->pid = getpid();
    p.a.loop->slot->counters.handed_out--; /* the child's, in the shared slot */
    p.a.loop->slot->counters.accepted--;
    pair_stop(&p);
}

/* Handed over before the end was known, arrived after it: still served, then told to close. */
TEST(balance_serves_who_comes_late)
{
    struct pair p;
    char buf[512];
    int clients[2];
    pair_start(&p, true);
    for (int i = 0; i < 2; i++) {
        clients[i] = rig_connect(&p.a);
        rig_settle(&p.a); /* the second one lies in the door now */
    }
    CHECK(write(clients[1], HELLO, strlen(HELLO)) == (ssize_t)strlen(HELLO));
    pp_loop_drain(p.b.loop);
    CHECK(!pp_loop_drained(p.b.loop));
    (void)rig_turn(&p.b, 0);
    rig_settle(&p.b);
    ssize_t got = recv(clients[1], buf, sizeof buf - 1, MSG_DONTWAIT);
    CHECK(got > 0);
    buf[got] = 0;
    CHECK(strstr(buf, "200 OK") != NULL && strstr(buf, "onnection: close") != NULL);
    (void)close(clients[1]);
    rig_settle(&p.b);
    CHECK(!pp_loop_drained(p.b.loop)); /* others may still be on their way */
#ifdef PP_TEST_CLOCK
    rig_clock(rig_now_ms + PP_DRAIN_DOOR_MS);
    rig_settle(&p.b);
    CHECK(pp_loop_drained(p.b.loop));
#endif
    (void)close(clients[0]);
    pair_settle(&p);
    pair_stop(&p);
}

#ifdef PP_TEST_CLOCK
/* a is busy all the time with 8 connections, b idle: half of those that bring load move. */
static void relieve(bool local)
{
    struct pair p;
    int clients[9];
    pair_start(&p, local);
    pp_board_slot(p.board, 1)->life = PP_SLOT_CLOSED; /* a has to take all */
    for (int i = 0; i < 9; i++) {
        clients[i] = rig_connect(&p.a);
        rig_settle(&p.a);
    }
    pp_board_slot(p.board, 1)->life = PP_SLOT_OPEN;
    CHECK_EQ(pp_loop_connections(p.a.loop), 9);
    for (int look = 0; look < PP_BALANCE_PATIENCE; look++) {
        CHECK_EQ(pp_loop_connections(p.b.loop), 0); /* not before it has lasted */
        rig_clock(rig_now_ms + 1);
        for (int i = 0; i < 8; i++) { /* the ninth brings no load */
            ask(&p, clients[i]);
        }
        /* Time passes while the loop of a does not wait, so it was busy; that of b waits. */
        pp_loop_rest(p.b.loop);
        rig_clock(rig_now_ms + 1000);
        (void)rig_turn(&p.a, 0);
        CHECK(pp_board_slot(p.board, 0)->busy_permille > 900);
        pair_settle(&p);
    }
    CHECK_EQ(pp_loop_connections(p.b.loop), 4);
    CHECK_EQ(pp_loop_connections(p.a.loop), 5);
    /* They work where they are now, and so do the others. */
    for (int i = 0; i < 9; i++) {
        ask(&p, clients[i]);
    }
    CHECK_EQ(p.a.requests_seen + p.b.requests_seen, 8 * PP_BALANCE_PATIENCE + 9);
    CHECK_EQ(p.b.requests_seen, 4);
    /* A connection that changed its context keeps the deadline of an idle one. */
    rig_clock(rig_now_ms + 74000);
    pair_settle(&p);
    CHECK_EQ(pp_loop_connections(p.b.loop), 4);
    rig_clock(rig_now_ms + 2000);
    pair_settle(&p);
    CHECK_EQ(pp_loop_connections(p.b.loop), 0);
    for (int i = 0; i < 9; i++) {
        (void)close(clients[i]);
    }
    pair_settle(&p);
    pair_stop(&p);
}

TEST(balance_relieves_by_number)
{
    relieve(true);
}

TEST(balance_relieves_by_passing)
{
    relieve(false);
}

/* The same, but the application keeps something with all but one of a's connections. */
TEST(balance_leaves_what_has_to_stay)
{
    struct pair p;
    int clients[9];
    pair_start(&p, true);
    pp_board_slot(p.board, 1)->life = PP_SLOT_CLOSED;
    for (int i = 0; i < 9; i++) {
        clients[i] = rig_connect(&p.a);
        rig_settle(&p.a);
    }
    struct pp_conn *first = rig_next_conn(p.a.loop, NULL), *conn = first;
    while ((conn = rig_next_conn(p.a.loop, conn)) != NULL) {
        pp_conn_stay(conn);
    }
    pp_board_slot(p.board, 1)->life = PP_SLOT_OPEN;
    for (int look = 0; look < 2 * PP_BALANCE_PATIENCE; look++) {
        rig_clock(rig_now_ms + 1);
        for (int i = 0; i < 9; i++) {
            ask(&p, clients[i]);
        }
        pp_loop_rest(p.b.loop);
        rig_clock(rig_now_ms + 1000);
        (void)rig_turn(&p.a, 0);
        pair_settle(&p);
    }
    CHECK(pp_loop_connections(p.b.loop) <= 1);
    CHECK(pp_loop_connections(p.a.loop) >= 8);
    for (int i = 0; i < 9; i++) {
        (void)close(clients[i]);
    }
    pair_settle(&p);
    pair_stop(&p);
}

/* Numbers that differ a lot become alike, also when nobody asks anything. */
TEST(balance_evens_out)
{
    struct pair p;
    int clients[100];
    pair_start(&p, true);
    pp_board_slot(p.board, 1)->life = PP_SLOT_CLOSED;
    for (int i = 0; i < 100; i++) {
        clients[i] = rig_connect(&p.a);
        pair_settle(&p);
        ask(&p, clients[i]);
    }
    pp_board_slot(p.board, 1)->life = PP_SLOT_OPEN;
    for (int i = 0; i < 10; i++) {
        rig_clock(rig_now_ms + 1000);
        pp_loop_rest(p.a.loop);
        pp_loop_rest(p.b.loop);
        (void)rig_turn(&p.a, 0);
        (void)rig_turn(&p.b, 0);
        pp_loop_rest(p.b.loop);
    }
    CHECK_EQ(pp_loop_connections(p.a.loop), 50);
    CHECK_EQ(pp_loop_connections(p.b.loop), 50);
    for (int i = 0; i < 100; i++) {
        ask(&p, clients[i]);
        (void)close(clients[i]);
    }
    pair_settle(&p);
    pair_stop(&p);
}

/* Equally busy contexts leave each other alone. */
TEST(balance_rests_among_equals)
{
    struct pair p;
    int clients[8];
    pair_start(&p, true);
    for (int i = 0; i < 8; i++) {
        clients[i] = rig_connect(&p.a);
        pair_settle(&p);
        ask(&p, clients[i]);
    }
    uint64_t before = pp_loop_counters(p.a.loop)->handed_out;
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < 8; i++) {
            ask(&p, clients[i]);
        }
        rig_clock(rig_now_ms + 200);
        (void)rig_turn(&p.a, 0);
        (void)rig_turn(&p.b, 0);
    }
    CHECK_EQ(pp_loop_counters(p.a.loop)->handed_out, before);
    CHECK_EQ(pp_loop_counters(p.b.loop)->handed_out, 0);
    for (int i = 0; i < 8; i++) {
        (void)close(clients[i]);
    }
    pair_settle(&p);
    pair_stop(&p);
}
#endif

/* Receives right after accept stop when clients do not send at once, and come back when they do. */
TEST(balance_tries_as_often_as_it_pays)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    rig_start(&rig, &s);
    for (int i = 0; i < 200; i++) { /* silent ones */
        int client = rig_connect(&rig);
        rig_settle(&rig);
        (void)close(client);
        rig_settle(&rig);
    }
    const struct pp_counters *c = pp_loop_counters(rig.loop);
    uint64_t tried = c->tried;
    CHECK(tried >= PP_TRY_MAX && tried < 60);
    for (int i = 0; i < 400; i++) { /* eager ones: their bytes are there when they are accepted */
        int client = rig_connect(&rig);
        CHECK(write(client, HELLO, strlen(HELLO)) == (ssize_t)strlen(HELLO));
        rig_settle(&rig);
        (void)close(client);
        rig_settle(&rig);
    }
    CHECK(c->tried - tried > 350);
    CHECK_EQ(rig.requests_seen, 400);
    rig_stop(&rig);
}

TEST(board_is_mapped_again_by_its_descriptor)
{
    struct pp_board *board, *again, *none;
    CHECK_EQ(pp_board_new(3, &board), PP_OK);
    CHECK_EQ(pp_board_attach(pp_board_fd(board), &again), PP_OK);
    CHECK_EQ(pp_board_slots(again), 3);
    pp_board_slot(board, 2)->connections = 7;
    CHECK_EQ(pp_board_slot(again, 2)->connections, 7);
    CHECK(ftruncate(pp_board_fd(board), 10) != 0); /* nobody can cut it off under a reader */
    int other = open("/dev/null", O_RDONLY | O_CLOEXEC);
    CHECK(other >= 0);
    CHECK_EQ(pp_board_attach(other, &none), PP_ERR_SYSTEM);
    (void)close(other);
    pp_board_free(board);
    CHECK_EQ(pp_board_slot(again, 2)->connections, 7);
    pp_board_free(again);
}
