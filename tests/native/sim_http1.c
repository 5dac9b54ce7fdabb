/* HTTP/1.1 against a simulated kernel (sim_kernel.h), by seed: clients that cut, pipeline, stall,
 * half-close, reset and read slowly, an application that answers late, and a clock that jumps past
 * deadlines while bytes arrive.
 *
 * After each seed: a client that keeps to the rules has got exactly its answers, in order; it was
 * not closed while it had something to say; the others are gone once their time is over; nothing
 * leaks. One seed alone: PP_SIM_SEED=N test_sim seeds.
 *
 * That this finds something is tested, too: `test_sim fault` is the same with a kernel that says
 * "nothing has arrived" when a deadline asks (pp_conn_look), which is what the server did before it
 * asked: deadlines closed connections whose request was in the socket. It must fail. */
#include <stdio.h>
#include <stdlib.h>

#include "net/conn.h"
#include "net/http1.h"
#include "proto/h1_scan.h"
#include "sim_kernel.h"

#define SEEDS 3000
#define REQUESTS 6
#define HEADER_MS 5000
#define KEEP_ALIVE_MS 7000
#define BODY_MS 6000

enum manner { WAITS, HALF_CLOSES, STALLS, RESETS };

struct client {
    enum manner manner;
    unsigned requests, answers;
    size_t len, sent, stop; /* of text; where a bad one stops */
    size_t ends[REQUESTS];  /* of each request in text */
    size_t got;             /* of answer */
    bool connected, over;
    char text[REQUESTS * 4096], answer[40000];
};
struct held {
    struct pp_exchange *ex; /* NULL: none */
    size_t answer, body;
    bool body_done, eof;
};

static struct client clients[SIM_CONNS];
static struct held held[SIM_CONNS];
static struct pp_loop *loop;
static uint64_t seed, state, jump_us;
static unsigned progress;

static uint64_t below(uint64_t n) /* SplitMix64 */
{
    uint64_t z = state += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return (z ^ (z >> 31)) % n;
}

static void seed_print(void)
{
    if (seed != 0) {
        (void)fprintf(stderr, "PP_SIM_SEED=%llu\n", (unsigned long long)seed);
    }
}

/* ---- clients ---- */

static size_t answer_bytes(size_t i, unsigned n)
{
    return (i * 7919 + n * 3571 + (size_t)seed * 31) % 30000;
}

static void client_init(size_t i)
{
    struct client *c = &clients[i];
    memset(c, 0, sizeof *c);
    c->manner = below(3) == 0 ? (enum manner)below(4) : WAITS;
    c->requests = 1 + (unsigned)below(REQUESTS);
    for (unsigned n = 0; n < c->requests; n++) {
        size_t body = below(2) == 0 ? 0 : below(3000);
        int len = snprintf(c->text + c->len, 400, "POST /%zu HTTP/1.1\r\nHost: a\r\n%s%zu\r\n\r\n",
                           answer_bytes(i, n), "Content-Length: ", body);
        c->len += (size_t)len;
        memset(c->text + c->len, 'b', body);
        c->len += body;
        c->ends[n] = c->len;
    }
    c->stop = c->manner == STALLS || c->manner == RESETS ? below(c->len) : c->len;
    sim.conns[i].in_cap = 300 + below(9000);
    sim.conns[i].out_cap = 200 + below(20000);
}

static void send_some(size_t i, size_t most, bool beyond)
{
    struct client *c = &clients[i];
    size_t left = c->stop - c->sent, n = left < most ? left : most;
    n = sim_client_send(&sim.conns[i], c->text + c->sent, n, beyond);
    c->sent += n;
    progress += n > 0;
}

/* Whole answers, each the one that is due. */
static void answers_check(size_t i)
{
    struct client *c = &clients[i];
    for (;;) {
        c->answer[c->got] = '\0';
        char *end = strstr(c->answer, "\r\n\r\n");
        if (end == NULL) {
            return;
        }
        const char *field = strcasestr(c->answer, "content-length: ");
        CHECK(field != NULL && field < end);
        size_t body = strtoul(field + 16, NULL, 10);
        size_t whole = (size_t)(end + 4 - c->answer) + body;
        if (c->got < whole) {
            return;
        }
        if (strncmp(c->answer, "HTTP/1.1 200 ", 13) == 0) {
            CHECK(c->answers < c->requests && c->sent >= c->ends[c->answers]);
            CHECK_EQ(body, answer_bytes(i, c->answers));
            c->answers++;
        } else {
            CHECK(c->manner == STALLS || c->manner == RESETS);
            CHECK(strncmp(c->answer, "HTTP/1.1 408 ", 13) == 0);
        }
        c->got -= whole;
        memmove(c->answer, c->answer + whole, c->got);
    }
}

static void client_act(size_t i)
{
    struct client *c = &clients[i];
    struct sim_conn *conn = &sim.conns[i];
    if (!c->connected) {
        c->connected = conn->waits = true;
        progress++;
        return;
    }
    if (below(2) == 0) {
        size_t room = sizeof c->answer - 1 - c->got;
        size_t n = sim_client_recv(conn, c->answer + c->got, 1 + below(room));
        c->got += n;
        progress += n > 0;
        answers_check(i);
        return;
    }
    if (c->sent < c->stop) {
        send_some(i, 1 + below(below(2) == 0 ? 40 : 6000), false);
    } else if (!c->over && c->manner != WAITS && c->manner != STALLS) {
        c->over = true;
        progress++;
        if (c->manner == RESETS) {
            sim_client_reset(conn);
        } else {
            sim_client_shut(conn);
        }
    }
}

/* While the loop was on its way into the kernel and back: time, and what came meanwhile. */
static void meanwhile(void)
{
    if (jump_us == 0) {
        return;
    }
    sim.now_us += jump_us;
    jump_us = 0;
    for (size_t i = 0; i < SIM_CONNS; i++) {
        const struct client *c = &clients[i];
        for (unsigned n = 0; c->connected && c->manner != STALLS && n < c->requests; n++) {
            if (c->ends[n] > c->sent) { /* the rest of a request, or the whole next one */
                send_some(i, c->ends[n] - c->sent, true);
                break;
            }
        }
    }
}

/* ---- the application ---- */

static void app_work(struct held *h)
{
    static uint8_t text[30000];
    const uint8_t *data;
    size_t len;
    enum pp_body_status status = PP_BODY_END;
    while (!h->body_done) {
        status = pp_exchange_peek(h->ex, &data, &len);
        pp_exchange_consume(h->ex, status == PP_BODY_FAILED ? 0 : len);
        h->body_done = status != PP_BODY_MORE;
        if (!h->body_done && len == 0) {
            pp_exchange_want(h->ex);
            return;
        }
    }
    if (status != PP_BODY_FAILED && !pp_exchange_closed(h->ex)) {
        struct pp_response r = {.status = 200, .complete = true, .body_bytes = h->answer};
        CHECK_EQ(pp_exchange_respond(h->ex, &r, text, 0, NULL, NULL), PP_OK);
    }
    pp_exchange_set_app(h->ex, NULL);
    pp_exchange_finish(h->ex);
    h->ex = NULL;
    progress++;
}

static void turn(bool lazy)
{
    struct pp_exchange *ex;
    unsigned events;
    CHECK(pp_loop_turn(loop, jump_us != 0 ? 1 : 0) >= 0); /* time passes in a wait */
    while ((ex = pp_loop_take_event(loop, &events)) != NULL) {
        struct held *h = pp_exchange_app(ex);
        progress++;
        if (events & PP_EV_REQUEST) {
            const uint8_t *base;
            const struct pp_head *head = pp_exchange_head(ex, &base);
            CHECK(h == NULL);
            for (h = held; h->ex != NULL; h++) {
                CHECK(h < held + SIM_CONNS - 1);
            }
            *h = (struct held){.ex = ex};
            h->answer = strtoul((const char *)base + head->path.off + 1, NULL, 10);
            pp_exchange_set_app(ex, h);
        }
        CHECK(h != NULL && h->ex == ex);
        CHECK(!(events & PP_EV_EOF) || !h->eof); /* told once */
        h->eof |= (events & PP_EV_EOF) != 0;
        if (!lazy || (events & PP_EV_CLOSED)) {
            app_work(h);
        }
    }
    for (struct held *h = held; h < held + SIM_CONNS; h++) {
        if (h->ex != NULL && (!lazy || below(4) == 0)) {
            app_work(h);
        }
    }
}

/* ---- one seed ---- */

/* Nobody waits: without time passing, what can be said is said. */
static void settle(void)
{
    for (int quiet = 0, rounds = 0; quiet < 40; rounds++) {
        progress = 0;
        for (size_t i = 0; i < SIM_CONNS; i++) {
            client_act(i);
        }
        turn(false);
        quiet = progress > 0 || pp_loop_pending(loop) ? 0 : quiet + 1;
        CHECK(rounds < 200000);
    }
}

static void later(uint64_t ms)
{
    sim.now_us += ms * 1000;
    settle();
}

static void run_seed(bool deaf)
{
    struct pp_settings settings = {
        .http = {.request_line_bytes = 8192, .head_bytes = 32768, .field_count = 100},
        .limit_pipeline = 1 + (uint32_t)below(8),
        .keep_alive_ms = KEEP_ALIVE_MS,
        .request_header_ms = HEADER_MS,
        .body_idle_ms = BODY_MS,
        .access_log_fd = -1,
    };
    uint64_t blocks = pp_mem_blocks();
    sim_reset();
    sim.idle = meanwhile;
    sim.deaf = deaf;
    memset(held, 0, sizeof held);
    for (size_t i = 0; i < SIM_CONNS; i++) {
        client_init(i);
    }
    loop = pp_loop_new(&settings);
    CHECK(loop != NULL);
    CHECK_EQ(pp_loop_listen(loop, SIM_LISTENER, PP_LISTEN_ALONE, 0), PP_OK);
    for (uint64_t steps = 20 + below(300); steps > 0; steps--) {
        client_act(below(SIM_CONNS));
        jump_us = below(60) == 0 ? (1 + below(9)) * 1000000 : 0;
        turn(true);
    }
    settle();
    for (size_t i = 0; i < SIM_CONNS; i++) {
        const struct client *c = &clients[i];
        if (c->manner == WAITS || c->manner == HALF_CLOSES) {
            CHECK_EQ(c->sent, c->len); /* it was not closed before */
            CHECK_EQ(c->answers, c->requests);
        }
    }
    /* The longest deadline, a tick, and what an error answer lingers. */
    later(KEEP_ALIVE_MS + 128);
    later(PP_LINGER_MS + 128);
    CHECK_EQ(pp_loop_connections(loop), 0);
    CHECK_EQ(pp_loop_in_flight(loop), 0);
    CHECK_EQ(loop->conn_pool.used_count, 0);
    CHECK_EQ(loop->out_pool.used_count, 0);
    CHECK_EQ(loop->block_pool.used_count + loop->small_pool.used_count, 0);
    pp_loop_free(loop);
    CHECK_EQ(sim.open_count, 0);
    CHECK_EQ(pp_mem_blocks(), blocks);
}

static void run_seeds(bool deaf)
{
    const char *one = getenv("PP_SIM_SEED");
    uint64_t first = one != NULL ? strtoull(one, NULL, 10) : 1;
    pp_h1_scan_init();
    (void)atexit(seed_print); /* of a failure */
    for (seed = first; seed < first + (one != NULL ? 1 : SEEDS); seed++) {
        state = seed << 32;
        run_seed(deaf);
    }
    seed = 0;
}

TEST(seeds)
{
    run_seeds(false);
}

TEST(fault)
{
    run_seeds(true);
}
