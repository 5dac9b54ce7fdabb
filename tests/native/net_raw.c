/* Raw connections: bytes both ways, their ends, back-pressure and the end of the loop. */
#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "net_rig.h"

#define TAG 7

static void raw_start(struct rig *rig, const struct pp_settings *s)
{
    rig_start(rig, s);
    pp_loop_unlisten(rig->loop);
    CHECK_EQ(pp_loop_listen(rig->loop, rig->listen_fd, PP_LISTEN_ALONE, PP_TAG_RAW | TAG), PP_OK);
}

TEST(net_raw_echo)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    char buf[64];
    bool ended;
    raw_start(&rig, &s);
    int fd = rig_connect(&rig);
    rig_settle(&rig);
    struct rig_request *req = rig_held(&rig, "raw");
    CHECK(req != NULL); /* it is the application's before it has said a word */
    CHECK_EQ(pp_exchange_tag(req->ex), TAG);
    CHECK_EQ(pp_loop_in_flight(rig.loop), 1);
    for (int i = 0; i < 3; i++) {
        rig_say(&rig, fd, "one\r\ntwo");
        CHECK_EQ(rig_read(&rig, fd, buf, sizeof buf, &ended), 8);
        CHECK(memcmp(buf, "one\r\ntwo", 8) == 0 && !ended);
    }
    CHECK_EQ(rig.finished_seen, 3);
    CHECK_EQ(pp_raw_out_bytes(req->ex), 0);
    (void)close(fd);
    rig_settle(&rig);
    CHECK_EQ(rig.eof_seen, 1);
    CHECK_EQ(rig.closed_seen, 1);
    CHECK_EQ(pp_loop_connections(rig.loop), 0);
    rig_stop(&rig);
}

/* What a peer has said before it resets the connection is heard, also when both come at once. */
TEST(net_raw_reset_at_once)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    struct linger none = {.l_onoff = 1};
    unsigned events = 0;
    const uint8_t *data;
    raw_start(&rig, &s);
    int fd = rig_connect(&rig);
    CHECK_EQ(send(fd, "last words", 10, 0), 10);
    CHECK(pp_loop_turn(rig.loop, 1000) > 0); /* accepted and read, not yet taken */
    CHECK(setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof none) == 0);
    (void)close(fd);
    while (pp_loop_connections(rig.loop) > 0) {
        CHECK(pp_loop_turn(rig.loop, 1000) >= 0);
    }
    struct pp_exchange *ex = pp_loop_take_event(rig.loop, &events);
    CHECK(ex != NULL);
    CHECK_EQ(events, PP_EV_REQUEST | PP_EV_BODY | PP_EV_CLOSED);
    CHECK_EQ(rig_raw_peek(ex, &data), 10);
    CHECK(memcmp(data, "last words", 10) == 0);
    pp_exchange_consume(ex, 10);
    pp_exchange_finish(ex);
    CHECK_EQ(pp_loop_in_flight(rig.loop), 0);
    rig_stop(&rig);
}

/* The peer has said all it has to say: it still gets its answer, and then the end. */
TEST(net_raw_half_closed)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    char buf[64];
    bool ended = false;
    raw_start(&rig, &s);
    int fd = rig_connect(&rig);
    CHECK_EQ(send(fd, "last", 4, 0), 4);
    CHECK_EQ(shutdown(fd, SHUT_WR), 0);
    CHECK_EQ(rig_read(&rig, fd, buf, sizeof buf, &ended), 4);
    CHECK(ended);
    (void)close(fd);
    rig_settle(&rig);
    CHECK_EQ(rig.closed_seen, 1);
    rig_stop(&rig);
}

/* We close first: what was queued arrives, also when the peer has sent more than we read. */
TEST(net_raw_closed_by_us)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    static char buf[200000];
    bool ended = false;
    raw_start(&rig, &s);
    rig.close_raw = true;
    int fd = rig_connect(&rig);
    rig_say(&rig, fd, "big");
    while (rig.owners_lent == 0) {
        (void)rig_turn(&rig, 10);
    }
    rig_say(&rig, fd, "and more");
    size_t got = 0;
    while (!ended) {
        got += rig_read(&rig, fd, buf, sizeof buf, &ended);
    }
    CHECK_EQ(got, RIG_BIG_BYTES);
    CHECK_EQ(rig.owners_lent, 1);
    CHECK_EQ(rig.finished_seen, 0); /* CLOSED says it */
    (void)close(fd);
    rig_settle(&rig);
    CHECK_EQ(rig.closed_seen, 1);
    CHECK_EQ(pp_loop_connections(rig.loop), 0);
    rig_stop(&rig);
}

/* Reset by the peer before and after the application has heard of it. */
TEST(net_raw_reset)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    struct linger none = {.l_onoff = 1};
    raw_start(&rig, &s);
    for (int i = 0; i < 2; i++) {
        int fd = rig_connect(&rig);
        if (i == 1) {
            rig_settle(&rig);
            CHECK(rig_held(&rig, "raw") != NULL);
        }
        CHECK(setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof none) == 0);
        (void)close(fd);
        rig_settle(&rig);
        CHECK(rig_held(&rig, "raw") == NULL);
        CHECK_EQ(pp_loop_connections(rig.loop), 0);
        CHECK_EQ(pp_loop_in_flight(rig.loop), 0);
    }
    rig_stop(&rig);
}

/* Input that is not consumed, and answers that are not read, stop the input: memory is bounded. */
TEST(net_raw_back_pressure)
{
    enum { LOTS = 8 << 20 };
    struct rig rig;
    struct pp_settings s = rig_settings();
    static char buf[65536];
    bool ended;
    raw_start(&rig, &s);
    rig.hold_body = true;
    int fd = rig_connect(&rig);
    memset(buf, 'x', sizeof buf);
    size_t put = 0, back = 0;
    for (int quiet = 0; quiet < 20;) {
        ssize_t n = send(fd, buf, sizeof buf, MSG_DONTWAIT);
        quiet = n > 0 ? 0 : quiet + 1;
        put += n > 0 ? (size_t)n : 0;
        (void)rig_turn(&rig, 1);
        CHECK(put < LOTS);
    }
    const uint8_t *data;
    struct rig_request *req = rig_held(&rig, "raw");
    CHECK_EQ(rig_raw_peek(req->ex, &data), PP_BLOCK_BYTES);
    rig.hold_body = false;
    pp_exchange_consume(req->ex, 0); /* nothing: it stays full */
    (void)rig_turn(&rig, 0);
    CHECK_EQ(rig_raw_peek(req->ex, &data), PP_BLOCK_BYTES);
    CHECK_EQ(pp_exchange_send(req->ex, data, PP_BLOCK_BYTES, true, NULL, NULL), PP_OK);
    pp_exchange_consume(req->ex, PP_BLOCK_BYTES);
    /* Its own input comes back; not reading it holds the rest. */
    while (back < put) {
        size_t n = rig_read(&rig, fd, buf, sizeof buf, &ended);
        CHECK(n > 0 && !ended);
        CHECK(pp_raw_out_bytes(req->ex) <= PP_OUT_HIGH_BYTES + PP_BLOCK_BYTES);
        back += n;
    }
    CHECK_EQ(back, put);
    (void)close(fd);
    rig_settle(&rig);
    rig_stop(&rig);
}

/* Attempts: one more recv right after the answer instead of waiting for readiness. */
TEST(net_raw_attempts)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    char buf[64];
    bool ended;
    raw_start(&rig, &s);
    int fd = rig_connect(&rig);
    rig_settle(&rig);
    struct rig_request *req = rig_held(&rig, "raw");
    pp_raw_attempts(req->ex, 3, 3);
    rig_say(&rig, fd, "ask");
    CHECK_EQ(rig_read(&rig, fd, buf, sizeof buf, &ended), 3);
    rig_settle(&rig); /* the attempts end: this returns */
    rig_say(&rig, fd, "ask");
    CHECK_EQ(rig_read(&rig, fd, buf, sizeof buf, &ended), 3);
    (void)close(fd);
    rig_settle(&rig);
    rig_stop(&rig);
}

#ifdef PP_TEST_CLOCK
/* A limit on the rate of output: in portions, by the clock, and the same for files. */
TEST(net_raw_rate)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    static char buf[20000];
    bool ended;
    raw_start(&rig, &s);
    int fd = rig_connect(&rig);
    rig_settle(&rig);
    pp_raw_rate(rig_held(&rig, "raw")->ex, 10000);
    memset(buf, 'x', 5000);
    rig_write(&rig, fd, buf, 5000);
    size_t got = rig_read(&rig, fd, buf, sizeof buf, &ended);
    CHECK_EQ(got, 2501);
    rig_clock(rig_now_ms + 200);
    CHECK_EQ(rig_read(&rig, fd, buf, sizeof buf, &ended), 2000);
    CHECK_EQ(rig.finished_seen, 0);
    rig_clock(rig_now_ms + 10000);
    CHECK_EQ(rig_read(&rig, fd, buf, sizeof buf, &ended), 499);
    CHECK_EQ(rig.finished_seen, 1);
    memset(buf, 'x', 5000);
    rig_write(&rig, fd, buf, 5000);
    CHECK_EQ(rig_read(&rig, fd, buf, sizeof buf, &ended), 2002); /* unused time does not add up */
    (void)close(fd);
    rig_settle(&rig);
    rig_stop(&rig);
}
#endif

#ifdef PP_TEST_CLOCK
/* Silence is told, again and again; what comes, and what has been sent, begins it anew. */
TEST(net_raw_idle)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    static char buf[20000];
    bool ended;
    raw_start(&rig, &s);
    int fd = rig_connect(&rig);
    rig_settle(&rig);
    struct pp_exchange *ex = rig_held(&rig, "raw")->ex;
    pp_raw_idle(ex, 3000);
    rig_clock(rig_now_ms + 2500);
    rig_say(&rig, fd, "hello");
    CHECK_EQ(rig_read(&rig, fd, buf, sizeof buf, &ended), 5);
    rig_clock(rig_now_ms + 2500);
    rig_settle(&rig);
    CHECK_EQ(rig.idle_seen, 0);
    rig_clock(rig_now_ms + 600);
    rig_settle(&rig);
    CHECK_EQ(rig.idle_seen, 1);
    rig_clock(rig_now_ms + 3100);
    rig_settle(&rig);
    CHECK_EQ(rig.idle_seen, 2);
    /* While something waits to be sent it is not idle, however long that takes. */
    pp_raw_rate(ex, 1000);
    memset(buf, 'x', 8000);
    rig_write(&rig, fd, buf, 8000);
    size_t got = 0;
    for (int i = 0; i < 7; i++) {
        got += rig_read(&rig, fd, buf, sizeof buf, &ended);
        rig_clock(rig_now_ms + 1000);
    }
    CHECK(got < 8000 && got > 1000);
    rig_settle(&rig);
    CHECK_EQ(rig.idle_seen, 2);
    (void)close(fd);
    rig_settle(&rig);
    rig_stop(&rig);
}
#endif

/* Draining: a quiet connection ends after a moment, one that talks goes on meanwhile. */
TEST(net_raw_drained)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    char buf[64];
    bool ended = false;
    raw_start(&rig, &s);
    int fd = rig_connect(&rig);
    rig_say(&rig, fd, "hello");
    CHECK_EQ(rig_read(&rig, fd, buf, sizeof buf, &ended), 5);
    pp_loop_drain(rig.loop);
    CHECK(!pp_loop_drained(rig.loop));
#ifdef PP_TEST_CLOCK
    rig_clock(rig_now_ms + PP_DRAIN_IDLE_MS - 1);
    rig_say(&rig, fd, "again");
    CHECK_EQ(rig_read(&rig, fd, buf, sizeof buf, &ended), 5);
    rig_clock(rig_now_ms + PP_DRAIN_IDLE_MS / 2);
    rig_settle(&rig);
    CHECK(rig_held(&rig, "raw") != NULL);
    rig_clock(rig_now_ms + PP_DRAIN_IDLE_MS);
    rig_settle(&rig);
    CHECK(rig_held(&rig, "raw") == NULL);
    CHECK_EQ(rig_read(&rig, fd, buf, sizeof buf, &ended), 0);
    CHECK(ended);
    (void)close(fd);
    rig_settle(&rig);
    CHECK(pp_loop_drained(rig.loop));
    rig_stop(&rig);
#else
    (void)close(fd);
    rig_settle(&rig);
    rig_stop(&rig);
#endif
}

/* The end of the loop while connections stand, one with output that nobody reads. */
TEST(net_raw_aborted)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    raw_start(&rig, &s);
    int idle = rig_connect(&rig), full = rig_connect_small(&rig, 4096);
    rig_settle(&rig);
    for (unsigned i = 0; i < 40 && rig.owners_lent == i; i++) {
        rig_say(&rig, full, "big");
        for (int turns = 0; turns < 5 && rig.owners_lent == i; turns++) {
            (void)rig_turn(&rig, 10); /* until its output is above high water */
        }
    }
    CHECK(rig.owners_lent > 0);
    CHECK_EQ(pp_loop_connections(rig.loop), 2);
    pp_loop_abort(rig.loop);
    CHECK_EQ(pp_loop_connections(rig.loop), 0);
    rig_settle(&rig);
    CHECK_EQ(rig.closed_seen, 2);
    (void)close(idle);
    (void)close(full);
    rig_stop(&rig);
}

/* ---- files ---- */

enum { FILE_BYTES = 3000000 };
static char file_path[64];

static uint8_t file_byte(uint64_t at)
{
    return (uint8_t)(at * 7 + at / 251);
}

static void file_make(void)
{
    static uint8_t data[FILE_BYTES];
    (void)snprintf(file_path, sizeof file_path, "/tmp/net_raw.XXXXXX");
    int fd = mkstemp(file_path);
    CHECK(fd >= 0);
    for (size_t i = 0; i < sizeof data; i++) {
        data[i] = file_byte(i);
    }
    CHECK(write(fd, data, sizeof data) == FILE_BYTES);
    (void)close(fd);
}

/* Asks for a part of the file, and checks it. */
static void file_expect(struct rig *rig, int fd, uint64_t at, uint64_t len)
{
    static uint8_t buf[FILE_BYTES + 2];
    size_t got = 0;
    bool ended = false;
    rig->file = file_path;
    rig->file_at = at;
    rig->file_len = len;
    rig_say(rig, fd, "file");
    while (got < len + 2 && !ended) {
        got += rig_read(rig, fd, (char *)buf + got, sizeof buf - got, &ended);
    }
    CHECK_EQ(got, len + 2);
    CHECK(buf[0] == '<' && buf[len + 1] == '>');
    for (uint64_t i = 0; i < len; i++) {
        CHECK(buf[i + 1] == file_byte(at + i));
    }
}

TEST(net_raw_file)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    file_make();
    raw_start(&rig, &s);
    int fd = rig_connect(&rig);
    file_expect(&rig, fd, 0, FILE_BYTES);
    file_expect(&rig, fd, 1, 1);
    file_expect(&rig, fd, FILE_BYTES - 1, 1);
    file_expect(&rig, fd, 4095, 300000);
    file_expect(&rig, fd, 0, 0);
    (void)close(fd);
    rig_settle(&rig);
    CHECK_EQ(rig.loop->filer.thread_count, 0); /* all of it was in memory */
    rig_stop(&rig);
    (void)unlink(file_path);
}

/* It has become shorter since it was opened: what is missing cannot be made up. */
TEST(net_raw_file_that_shrinks)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    static char buf[70000];
    bool ended = false;
    size_t got = 0;
    file_make();
    CHECK(truncate(file_path, 1000) == 0);
    raw_start(&rig, &s);
    rig.file = file_path;
    rig.file_len = FILE_BYTES;
    int fd = rig_connect(&rig);
    rig_say(&rig, fd, "file");
    while (!ended) {
        got += rig_read(&rig, fd, buf, sizeof buf, &ended);
    }
    CHECK(got <= 1001);
    (void)close(fd);
    rig_settle(&rig);
    CHECK_EQ(rig.closed_seen, 1);
    rig_stop(&rig);
    (void)unlink(file_path);
}

TEST(net_file_open)
{
    uint64_t size;
    CHECK(pp_file_open("/tmp", &size) == NULL);
    CHECK_EQ(errno, EISDIR);
    CHECK(pp_file_open("/dev/null", &size) == NULL);
    CHECK_EQ(errno, EINVAL);
    CHECK(pp_file_open("/no/such/file", &size) == NULL);
    CHECK_EQ(errno, ENOENT);
}

#ifdef PP_FAILURE_INJECTION
static sem_t may_read, met;
static unsigned asked;

static bool all_cold(uint64_t at, size_t len)
{
    (void)at;
    (void)len;
    asked++;
    return true;
}

static void wait_to_read(void)
{
    while (sem_wait(&may_read) != 0) {}
}

/* A disk that takes its time: others are answered meanwhile. */
TEST(net_raw_cold_file)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    char buf[64];
    bool ended;
    file_make();
    raw_start(&rig, &s);
    asked = 0;
    pp_file_test_cold = all_cold;
    int fd = rig_connect(&rig), other = rig_connect(&rig);
    file_expect(&rig, fd, 5, 1000000);
    CHECK(asked >= 4);
    CHECK(rig.loop->filer.thread_count > 0);

    CHECK(sem_init(&may_read, 0, 0) == 0);
    pp_file_test_read = wait_to_read;
    rig_say(&rig, fd, "file");
    for (int i = 0; i < 3; i++) {
        rig_say(&rig, other, "hello");
        CHECK_EQ(rig_read(&rig, other, buf, sizeof buf, &ended), 5);
    }
    for (int i = 0; i < 64; i++) {
        CHECK(sem_post(&may_read) == 0);
    }
    for (uint64_t got = 0; got < rig.file_len + 2;) {
        got += rig_read(&rig, fd, buf, sizeof buf, &ended);
    }
    (void)close(fd);
    (void)close(other);
    rig_settle(&rig);
    pp_file_test_cold = NULL;
    pp_file_test_read = NULL;
    rig_stop(&rig);
    (void)sem_destroy(&may_read);
    (void)unlink(file_path);
}

static void meet(void)
{
    struct timespec until;
    CHECK(clock_gettime(CLOCK_REALTIME, &until) == 0);
    until.tv_sec += 60;
    (void)sem_post(&met);
    while (sem_timedwait(&may_read, &until) != 0 && errno == EINTR) {}
}

/* Two pieces at once while one thread is idle: it is signalled for the first, and does not run yet
 * when the second comes, which gets a thread of its own. Either waits for the other. */
TEST(net_raw_two_cold_files_while_one_thread_is_idle)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    uint64_t size;
    file_make();
    raw_start(&rig, &s);
    struct pp_file *file = pp_file_open(file_path, &size);
    CHECK(file != NULL);
    CHECK(sem_init(&may_read, 0, 0) == 0 && sem_init(&met, 0, 0) == 0);
    struct pp_filer *filer = &rig.loop->filer;
    CHECK(pp_filer_read(rig.loop, NULL, file, 0, 1) != NULL);
    for (bool idle = false; !idle;) {
        (void)pthread_mutex_lock(&filer->mutex);
        idle = filer->idle == 1;
        (void)pthread_mutex_unlock(&filer->mutex);
    }
    pp_file_test_read = meet;
    CHECK(pp_filer_read(rig.loop, NULL, file, 0, 1) != NULL);
    CHECK(pp_filer_read(rig.loop, NULL, file, 0, 1) != NULL);
    CHECK_EQ(filer->thread_count, 2);
    CHECK(sem_wait(&met) == 0 && sem_wait(&met) == 0);
    CHECK(sem_post(&may_read) == 0 && sem_post(&may_read) == 0);
    pp_file_unref(file);
    rig_stop(&rig);
    pp_file_test_read = NULL;
    (void)sem_destroy(&may_read);
    (void)sem_destroy(&met);
    (void)unlink(file_path);
}

/* The peer goes, or the loop ends, while a chunk is being read. */
TEST(net_raw_gone_while_reading)
{
    struct pp_settings s = rig_settings();
    file_make();
    for (int how = 0; how < 2; how++) {
        struct rig rig;
        struct linger none = {.l_onoff = 1};
        raw_start(&rig, &s);
        CHECK(sem_init(&may_read, 0, 0) == 0);
        pp_file_test_cold = all_cold;
        pp_file_test_read = wait_to_read;
        rig.file = file_path;
        rig.file_len = FILE_BYTES;
        int fd = rig_connect(&rig);
        rig_say(&rig, fd, "file");
        while (rig.loop->filer.thread_count == 0) {
            (void)rig_turn(&rig, 10);
        }
        CHECK(setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof none) == 0);
        (void)close(fd);
        if (how == 0) {
            while (rig.closed_seen == 0) {
                (void)rig_turn(&rig, 10);
            }
            CHECK_EQ(pp_loop_connections(rig.loop), 0);
        }
        for (int i = 0; i < 64; i++) {
            CHECK(sem_post(&may_read) == 0);
        }
        rig_stop(&rig);
        pp_file_test_cold = NULL;
        pp_file_test_read = NULL;
        (void)sem_destroy(&may_read);
    }
    (void)unlink(file_path);
}
#endif
