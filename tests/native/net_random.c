/* Random peers against the loop: any order of pieces, ends, resets, pauses and time. What has to
 * hold is in the assertions of the code under test and in rig_stop: nothing lost, nothing left
 * over. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "net_rig.h"

#define HEAD(method, path) method " " path " HTTP/1.1\r\nHost: a\r\n"
#define PLAIN_GET(path) HEAD("GET", path) "\r\n"

enum { PEERS = 12, STEPS = 1500 };

static const char *const scripts[] = {
    PLAIN_GET("/hello") GET("/hello") GET("/hello"),
    PLAIN_GET("/hold") GET("/hello"),
    PLAIN_GET("/big") GET("/big"),
    PLAIN_GET("/stream") GET("/hello"),
    PLAIN_GET("/fail"),
    PLAIN_GET("/failmid"),
    PLAIN_GET("/silent"),
    HEAD("GET", "/hello") "Connection: close\r\n\r\n",
    "GET /hello HTTP/1.0\r\n\r\n",
    "GET /stream HTTP/1.0\r\n\r\n",
    HEAD("HEAD", "/big") "\r\n" PLAIN_GET("/hello"),
    HEAD("POST", "/count") "Content-Length: 12\r\n\r\nhello, world" PLAIN_GET("/hello"),
    HEAD("POST",
         "/count") "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" PLAIN_GET("/hello"),
    HEAD("POST", "/count") "Transfer-Encoding: chunked\r\n\r\nnonsense",
    HEAD("POST", "/count") "Content-Length: 5000\r\nExpect: 100-continue\r\n\r\nab",
    HEAD("POST", "/echo") "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3\r\nyou\r\n0\r\n\r\n",
    HEAD("POST", "/early") "Content-Length: 12\r\n\r\nhello, world" PLAIN_GET("/hello"),
    HEAD("POST", "/want") "Content-Length: 3\r\n\r\na",
    HEAD("POST", "/count") "Content-Length: 5001\r\n\r\n",
    "\r\n" PLAIN_GET("/hello"),
    "BROKEN\r\n\r\n" PLAIN_GET("/hello"),
    "GET /hello HTTP/1.1\r\n\r\n",
};

struct peer {
    int fd; /* -1 = none */
    const char *script;
    size_t at;
};

static void peer_end(struct peer *peer, bool reset)
{
    if (reset) {
        struct linger hard = {.l_onoff = 1, .l_linger = 0};
        CHECK(setsockopt(peer->fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard) == 0);
    }
    (void)close(peer->fd);
    peer->fd = -1;
}

static void peer_send(struct peer *peer, bool all)
{
    size_t left = strlen(peer->script + peer->at);
    if (left == 0) {
        peer->script = scripts[test_random_below(sizeof scripts / sizeof *scripts)];
        peer->at = 0;
        left = strlen(peer->script);
    }
    size_t len = all ? left : 1 + (size_t)test_random_below(left);
    ssize_t n = send(peer->fd, peer->script + peer->at, len, MSG_NOSIGNAL);
    CHECK(n > 0 || errno == EAGAIN || errno == EPIPE || errno == ECONNRESET);
    peer->at += n > 0 ? (size_t)n : 0;
}

static void peer_step(struct rig *rig, struct peer *peer)
{
    static char buf[300000];
    uint64_t dice = test_random_below(100);

    if (peer->fd < 0) {
        peer->fd = rig_connect_small(rig, test_random_below(2) == 0 ? 4096 : 0);
        peer->script = "";
        peer->at = 0;
    } else if (dice < 40) {
        peer_send(peer, dice < 15);
    } else if (dice < 80) {
        ssize_t n = recv(peer->fd, buf, 1 + (size_t)test_random_below(sizeof buf), 0);
        if (n == 0 || (n < 0 && errno != EAGAIN)) {
            peer_end(peer, false);
        }
    } else if (dice < 84) {
        (void)shutdown(peer->fd, SHUT_WR);
    } else if (dice < 88) {
        peer_end(peer, dice < 86);
    }
}

static void application_step(struct rig *rig)
{
    struct rig_request *req = rig->requests;
    for (uint64_t skip = test_random_below(4); req != NULL && skip > 0; skip--) {
        req = req->next;
    }
    if (req == NULL || strcmp(req->path, "/stream") == 0) {
        return;
    }
    switch (test_random_below(6)) {
    case 0:
        rig_answer(rig, req, "at last");
        break;
    case 1:
        pp_exchange_fail(req->ex, 503);
        rig_finish(rig, req);
        break;
    case 2:
        rig_finish(rig, req);
        break;
    case 3:
        pp_exchange_want(req->ex);
        break;
    default:
        break;
    }
}

static void walk(const struct pp_settings *settings, bool drain, bool starve)
{
    struct rig rig;
    struct peer peers[PEERS];
    rig_start(&rig, settings);
    for (int i = 0; i < PEERS; i++) {
        peers[i].fd = -1;
    }
    if (starve) { /* each block is an allocation, and many of them fail */
        rig.loop->conn_pool.free_max = rig.loop->block_pool.free_max = 0;
        rig.loop->body_pool.free_max = rig.loop->out_pool.free_max = 0;
    }
    for (int step = 0; step < STEPS; step++) {
        uint64_t dice = test_random_below(100);
        if (starve && test_random_below(20) == 0) {
            pp_mem_fail_at(1 + test_random_below(10));
        }
        if (dice < 60) {
            peer_step(&rig, &peers[test_random_below(PEERS)]);
        } else if (dice < 90) {
            (void)rig_turn(&rig, 0);
        } else if (dice < 96) {
            application_step(&rig);
        } else if (dice < 98) {
            pp_loop_flush(rig.loop);
        } else {
            rig_clock(rig_now_ms + test_random_below(dice == 98 ? 100 : 12000));
        }
        if (step == STEPS / 2) {
            rig.hold_body = !rig.hold_body;
        }
        if (drain && step == STEPS * 9 / 10) {
            pp_loop_drain(rig.loop);
            break;
        }
    }
    pp_mem_fail_at(0);
    for (int i = 0; i < PEERS; i++) {
        if (peers[i].fd >= 0) {
            peer_end(&peers[i], false);
        }
    }
    if (drain) {
        for (int i = 0; i < 3 && !pp_loop_drained(rig.loop); i++) {
            rig_settle(&rig);
            while (rig.requests != NULL) {
                rig_finish(&rig, rig.requests);
            }
            rig_clock(rig_now_ms + 100000);
        }
        rig_settle(&rig);
        CHECK(pp_loop_drained(rig.loop));
    }
    rig_stop(&rig);
}

TEST(net_random_walk)
{
    for (int round = 0; round < 8; round++) {
        struct pp_settings s = rig_settings();
        s.http.body_bytes = 5000;
        s.limit_pipeline = 1 + (uint32_t)test_random_below(4);
        s.limit_concurrency = round % 3 == 2 ? 3 : 0;
        s.report_finished = round % 2 == 1;
        walk(&s, round % 2 == 0, round >= 6);
    }
}
