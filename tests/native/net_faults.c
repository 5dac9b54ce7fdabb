/* Memory, descriptors and log readers that fail: one connection suffers, never the loop. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "net_rig.h"

#ifdef PP_FAILURE_INJECTION

/* A bit of everything that allocates. Nothing is expected of the answers but that the rig lives. */
static void converse(struct rig *rig)
{
    static const char *const asks[] = {
        GET("/hello") GET("/hello"),
        "POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: 40000\r\n\r\n",
        GET("/big"),
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n",
        GET("/stream"),
        GET("/fail"),
        "BAD\r\n\r\n",
    };
    char *buf = malloc(6000000);
    bool ended;
    CHECK(buf != NULL);
    memset(buf, 'x', 40000);
    for (size_t i = 0; i < sizeof asks / sizeof *asks; i++) {
        int fd = rig_connect_small(rig, i == 5 ? 8192 : 0);
        rig_say(rig, fd, asks[i]);
        rig_settle(rig);
        if (i == 1) {
            rig_write(rig, fd, buf, 40000);
        } else if (i == 4) {
            rig_say(rig, fd, "abc");
        }
        if (i != 5) {
            (void)rig_read(rig, fd, buf, 6000000, &ended);
        }
        (void)close(fd);
        rig_settle(rig);
    }
    /* A head that needs a larger block. */
    int fd = rig_connect(rig), n = rig_put(buf, 6000000, "GET /hello HTTP/1.1\r\nHost: a\r\nX: ");
    memset(buf + n, 'v', 30000);
    (void)rig_put(buf + n + 30000, 6000000 - (size_t)(n + 30000), "\r\n\r\n");
    rig_say(rig, fd, buf);
    (void)rig_read(rig, fd, buf, 6000000, &ended);
    (void)close(fd);
    rig_settle(rig);
    /* One that comes in pieces. */
    fd = rig_connect(rig);
    rig_say(rig, fd, "GET /hello HTTP/1.1\r\n");
    rig_settle(rig);
    rig_say(rig, fd, "Host: a\r\n\r\n");
    (void)rig_read(rig, fd, buf, 6000000, &ended);
    (void)close(fd);
    rig_settle(rig);
    free(buf);
}

TEST(net_every_allocation_fails)
{
    unsigned failures = 0;
    for (uint64_t nth = 1;; nth++) {
        struct rig rig;
        struct pp_settings s = rig_settings();
        s.extra_fields = &(struct pp_out_field){.name = (const uint8_t *)"x",
                                                .name_len = 1,
                                                .value = (const uint8_t *)"y",
                                                .value_len = 1};
        s.extra_count = 1;
        s.access_log_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
        s.access_log_prefix = "";
        pp_mem_fail_at(nth);
        if (rig_try_start(&rig, &s)) {
            /* Nothing is kept in the pools: each block is an allocation. */
            rig.loop->conn_pool.free_max = rig.loop->block_pool.free_max = 0;
            rig.loop->body_pool.free_max = rig.loop->out_pool.free_max = 0;
            converse(&rig);
        } else {
            failures++;
        }
        /* Beyond the last allocation: the failure is still waiting for one. */
        bool hit = true;
        for (uint64_t i = 0; i < nth && hit; i++) {
            void *probe = pp_mem_alloc(1);
            hit = probe != NULL;
            pp_mem_free(probe, 1);
        }
        pp_mem_fail_at(0);
        if (rig.loop != NULL) {
            /* The loop is as good as new. */
            int fd = rig_connect(&rig);
            if (!pp_list_empty(&rig.loop->listeners)) {
                rig_expect(&rig, fd, GET("/hello"), "HTTP/1.1 200", "Hello");
            }
            (void)close(fd);
        }
        rig_stop(&rig);
        (void)close(s.access_log_fd);
        if (!hit) {
            CHECK(nth > 40 && failures >= 3);
            break;
        }
    }
}

#endif

/* Out of descriptors: accepting pauses without spinning, nothing else stops, and goes on later. */
TEST(net_descriptors_run_out)
{
    enum { COUNT = 40 };
    struct rig rig;
    struct pp_settings s = rig_settings();
    struct rlimit old, low;
    int fds[COUNT], first;
    rig_start(&rig, &s);
    first = rig_connect(&rig);
    rig_expect(&rig, first, GET("/hello"), "HTTP/1.1 200", NULL);
    for (int i = 0; i < COUNT; i++) {
        fds[i] = rig_connect(&rig); /* all in the kernel's queue */
    }
    CHECK(getrlimit(RLIMIT_NOFILE, &old) == 0);
    low = old;
    low.rlim_cur = (rlim_t)fds[COUNT - 1] + 1 + 10;
    CHECK(setrlimit(RLIMIT_NOFILE, &low) == 0);
    rig_settle(&rig);
    const struct pp_counters *c = pp_loop_counters(rig.loop);
    CHECK_EQ(pp_loop_connections(rig.loop), 11);
    CHECK_EQ(c->accept_errors, 1);
    CHECK_EQ(c->accept_pauses, 1);
    CHECK(pp_loop_wait_ms(rig.loop) > 0 && pp_loop_wait_ms(rig.loop) <= PP_ACCEPT_PAUSE_MS);
    rig_expect(&rig, first, GET("/hello"), "HTTP/1.1 200", NULL); /* the others are served */
#ifdef PP_TEST_CLOCK
    CHECK_EQ(c->accept_errors, 1); /* no spinning */
    /* A pause that brought nothing: the longest-waiting peers are told. */
    rig_clock(rig_now_ms + PP_ACCEPT_PAUSE_MS + 1);
    rig_settle(&rig);
    CHECK(c->accept_errors == 2);
    CHECK(c->errors[pp_err_index(PP_ERR_NO_DESCRIPTORS)] > 0);
    char byte;
    CHECK(recv(fds[10], &byte, 1, 0) == 0);
    CHECK(recv(fds[COUNT - 1], &byte, 1, 0) < 0 && errno == EAGAIN);
    for (int i = 0; i < COUNT / 2; i++) {
        (void)close(fds[i]);
    }
    rig_settle(&rig);
    rig_clock(rig_now_ms + PP_ACCEPT_PAUSE_MS + 1);
    rig_settle(&rig);
    rig_expect(&rig, fds[COUNT - 1], GET("/hello"), "HTTP/1.1 200", NULL);
    rig_clock(rig_now_ms + PP_ACCEPT_PAUSE_MS + 1);
    rig_settle(&rig);
    int fresh = rig_connect(&rig);
    rig_expect(&rig, fresh, GET("/hello"), "HTTP/1.1 200", NULL);
    (void)close(fresh);
#endif
    for (int i = COUNT / 2; i < COUNT; i++) {
        (void)close(fds[i]);
    }
    (void)close(first);
    CHECK(setrlimit(RLIMIT_NOFILE, &old) == 0);
    rig_stop(&rig);
}

TEST(net_listener_closed_under_us)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    rig_start(&rig, &s);
    int fd = rig_connect(&rig);
    rig_expect(&rig, fd, GET("/hello"), "HTTP/1.1 200", NULL);
    CHECK(shutdown(rig.listen_fd, SHUT_RDWR) == 0); /* accept gives EINVAL from now on */
    rig_settle(&rig);
    CHECK_EQ(pp_loop_counters(rig.loop)->errors[pp_err_index(PP_ERR_SYSTEM)], 1);
    rig_expect(&rig, fd, GET("/hello"), "HTTP/1.1 200", NULL);
    CHECK_EQ(pp_loop_counters(rig.loop)->accept_errors, 1);
    (void)close(fd);
    rig_stop(&rig);
}

/* ---- the access log ---- */

static size_t pipe_read(int fd, char *buf, size_t cap)
{
    size_t len = 0;
    ssize_t n;
    while (len < cap && (n = read(fd, buf + len, cap - len)) > 0) {
        len += (size_t)n;
    }
    return len;
}

TEST(net_access_log_lines)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    int ends[2];
    char buf[4000], line[300];
    CHECK(pipe2(ends, O_CLOEXEC) == 0);
    CHECK(fcntl(ends[0], F_SETFL, O_NONBLOCK) == 0);
    s.access_log_fd = ends[1];
    s.access_log_prefix = "INFO:     ";
    rig_start(&rig, &s);
    int fd = rig_connect(&rig);
    struct sockaddr_in me;
    socklen_t len = sizeof me;
    CHECK(getsockname(fd, (struct sockaddr *)&me, &len) == 0);
    rig_expect(&rig, fd, GET("/hello?a=1&b=\"c\\") "GET /fail HTTP/1.0\r\n\r\n", "HTTP/1.1 200",
               "HTTP/1.1 500");
    size_t n = pipe_read(ends[0], buf, sizeof buf - 1);
    buf[n] = '\0';
    (void)rig_put(line, sizeof line,
                  "INFO:     127.0.0.1:%u - \"GET /hello?a=1&b=\\x22c\\x5c HTTP/1.1\" 200\n"
                  "INFO:     127.0.0.1:%u - \"GET /fail HTTP/1.0\" 500\n",
                  ntohs(me.sin_port), ntohs(me.sin_port));
    CHECK_BYTES(buf, n, line);
    CHECK(!(fcntl(ends[1], F_GETFL) & O_NONBLOCK)); /* others share it: its flags are not ours */
    (void)close(fd);
    rig_stop(&rig);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

TEST(net_access_log_never_waits)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    int ends[2];
    CHECK(pipe2(ends, O_CLOEXEC) == 0);
    CHECK(fcntl(ends[1], F_SETPIPE_SZ, 4096) > 0);
    CHECK(fcntl(ends[0], F_SETFL, O_NONBLOCK) == 0);
    s.access_log_fd = ends[1];
    rig_start(&rig, &s);
    int fd = rig_connect(&rig);
    char *ask = malloc(8000), *got = malloc(400000);
    CHECK(ask != NULL && got != NULL);
    memset(ask, 'q', 7000);
    memcpy(ask, "GET /hello", 10);
    (void)rig_put(ask + 7000, 8000 - 7000, " HTTP/1.1\r\nHost: a\r\n\r\n");
    for (int i = 0; i < 30; i++) {
        rig_expect(&rig, fd, ask, "HTTP/1.1 200", "Hello");
    }
    uint64_t dropped = pp_loop_counters(rig.loop)->log_lines_dropped;
    CHECK(dropped > 0 && dropped < 30);
    /* What was kept comes whole, line by line, when the reader wakes up. */
    size_t n = 0;
    for (int i = 0; i < 100; i++) {
        n += pipe_read(ends[0], got + n, 399999 - n);
        (void)rig_turn(&rig, 0);
    }
    got[n] = '\0';
    CHECK_EQ(rig_count(got, "\n"), 30 - dropped);
    CHECK_EQ(rig_count(got, "127.0.0.1:"), 30 - dropped);
    /* A reader that has gone (SIGPIPE is ignored, as CPython does). */
    CHECK(signal(SIGPIPE, SIG_IGN) != SIG_ERR);
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    CHECK(dup3(null, ends[0], O_CLOEXEC) == ends[0] && close(null) == 0);
    rig_expect(&rig, fd, ask, "HTTP/1.1 200", "Hello");
    rig_expect(&rig, fd, ask, "HTTP/1.1 200", "Hello");
    CHECK(pp_loop_counters(rig.loop)->log_lines_dropped > dropped);
    (void)close(fd);
    free(ask);
    free(got);
    rig_stop(&rig);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

/* Two contexts, one pipe, a reader that is slow: every line comes whole, however long it is. */
TEST(net_access_log_lines_of_two_on_one_pipe)
{
    enum { LINES = 300, TARGET = 6000 };
    struct pp_accesslog logs[2];
    uint64_t dropped = 0;
    int ends[2];
    size_t n = 0, seen = 0, cap = (size_t)2 * LINES * PIPE_BUF;
    uint8_t *base = malloc(TARGET + 3);
    char *got = malloc(cap + 1);
    union pp_sock_addr peer = {.family = AF_UNIX};
    struct pp_head *head = pp_mem_zalloc(sizeof *head);
    CHECK(head != NULL && base != NULL && got != NULL && pipe2(ends, O_CLOEXEC) == 0);
    CHECK(fcntl(ends[0], F_SETFL, O_NONBLOCK) == 0);
    CHECK(fcntl(ends[1], F_SETPIPE_SZ, 8192) > 0);
    memcpy(base, "GET", 3);
    head->method = (struct pp_span){0, 3};
    head->minor = 1;
    for (int who = 0; who < 2; who++) {
        CHECK_EQ(pp_accesslog_init(&logs[who], ends[1], "> ", &dropped), PP_OK);
    }
    for (int i = 0; i < LINES || pp_accesslog_pending(&logs[0]) || pp_accesslog_pending(&logs[1]);
         i++) {
        for (int who = 0; who < 2; who++) {
            memset(base + 3, 'A' + who, TARGET);
            head->target = (struct pp_span){3, i % 50 == 0 ? TARGET : 60 + (unsigned)i % 7};
            if (i < LINES) {
                pp_accesslog_line(&logs[who], &peer, head, base, 200);
            }
            pp_accesslog_flush(&logs[who]);
        }
        size_t most = cap - n < 1500 ? cap - n : 1500;
        ssize_t rc = read(ends[0], got + n, most);
        n += rc > 0 ? (size_t)rc : 0;
    }
    for (ssize_t rc = 1; rc > 0; n += rc > 0 ? (size_t)rc : 0) {
        rc = read(ends[0], got + n, cap - n);
    }
    got[n] = '\0';
    for (char *line = got, *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
        static const char begin[] = "> unix: - \"GET ", tail[] = " HTTP/1.1\" 200";
        size_t len = (size_t)(end - line);
        CHECK(len > sizeof begin + sizeof tail && len < PIPE_BUF);
        CHECK(strncmp(line, begin, sizeof begin - 1) == 0);
        CHECK(strncmp(end - (sizeof tail - 1), tail, sizeof tail - 1) == 0);
        line[len] = '\0';
        CHECK(strchr(line, line[sizeof begin - 1] == 'A' ? 'B' : 'A') == NULL);
        CHECK(len < 200 || strstr(line, "... HTTP") != NULL);
        seen++;
    }
    CHECK_EQ(seen + dropped, 2 * LINES);
    CHECK(got[n - 1] == '\0' || n == 0); /* the last newline of all */
    for (int who = 0; who < 2; who++) {
        pp_accesslog_fini(&logs[who]);
    }
    pp_mem_free(head, sizeof *head);
    free(base);
    free(got);
    (void)close(ends[0]);
    (void)close(ends[1]);
}
