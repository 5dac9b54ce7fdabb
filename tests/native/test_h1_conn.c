/* Units of the connection machine: every state by every event, and what may follow what. */
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"
#include "proto/h1_conn.h"

static const struct pp_h1_limits LIMITS = {8192, 32768, 100, 100};
static struct pp_field head_fields[PP_FIELDS_MAX];
static struct pp_head head = {.fields = head_fields, .field_room = PP_FIELDS_MAX};
static uint8_t buf[4096], out[1024], prefix[18];
static size_t written, prefix_len, suffix_len, consumed, produced;
static const char *suffix;
static bool send_data;

static int read_head(struct pp_h1_conn *c, const char *text)
{
    memcpy(buf, text, strlen(text));
    return pp_h1_conn_head(c, buf, strlen(text), &LIMITS, &head);
}

static int read_body(struct pp_h1_conn *c, const char *text)
{
    memcpy(buf, text, strlen(text));
    return pp_h1_conn_body(c, buf, strlen(text), buf, &consumed, &produced);
}

static int respond(struct pp_h1_conn *c, int status, bool complete)
{
    struct pp_response r = {.status = status, .complete = complete};
    int rc = pp_h1_conn_respond(c, &r, out, sizeof out, &written);
    if (rc == PP_OK) {
        out[written] = '\0';
    }
    return rc;
}

static int frame(struct pp_h1_conn *c, size_t len, bool more)
{
    return pp_h1_conn_frame(c, len, more, prefix, &prefix_len, &send_data, &suffix, &suffix_len);
}

static struct pp_h1_conn start(const char *text)
{
    struct pp_h1_conn c;
    pp_h1_conn_init(&c);
    CHECK_EQ(read_head(&c, text), PP_OK);
    return c;
}

#define GET "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
#define POST5 "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"

/* ---- the tables: each entry is reached through the functions, or stops the program ---- */

static const char *const REQ_NAMES[] = {"HEAD", "BODY", "DONE", "ERROR"};
static const char *const RES_NAMES[] = {"WAIT", "BODY", "DONE"};

/* The table as its reader would draw it; a change has to be made here, too. */
static const uint8_t REQ_EXPECTED[PP_H1_REQ_ERROR + 1][PP_H1_REQ_EV_COUNT] = {
    {PP_H1_REQ_DONE, PP_H1_REQ_BODY, 0xff, PP_H1_REQ_ERROR, 0xff},
    {0xff, 0xff, PP_H1_REQ_DONE, PP_H1_REQ_ERROR, 0xff},
    {0xff, 0xff, 0xff, 0xff, PP_H1_REQ_HEAD},
    {0xff, 0xff, 0xff, 0xff, 0xff},
};
static const uint8_t RES_EXPECTED[PP_H1_RES_DONE + 1][PP_H1_RES_EV_COUNT] = {
    {PP_H1_RES_BODY, PP_H1_RES_DONE, 0xff, 0xff},
    {0xff, 0xff, PP_H1_RES_DONE, 0xff},
    {0xff, 0xff, 0xff, PP_H1_RES_WAIT},
};

static void in_req_state(struct pp_h1_conn *c, int state)
{
    pp_h1_conn_init(c);
    switch ((enum pp_h1_req_state)state) {
    case PP_H1_REQ_HEAD:
        break;
    case PP_H1_REQ_BODY:
        CHECK_EQ(read_head(c, POST5), PP_OK);
        break;
    case PP_H1_REQ_DONE:
        CHECK_EQ(read_head(c, GET), PP_OK);
        CHECK_EQ(respond(c, 200, true), PP_OK);
        break;
    case PP_H1_REQ_ERROR:
        CHECK(read_head(c, "rubbish\r\n") < 0);
        break;
    }
    CHECK_EQ(c->req, state);
}

static void req_event(struct pp_h1_conn *c, int event)
{
    switch ((enum pp_h1_req_event)event) {
    case PP_H1_REQ_EV_HEAD:
        CHECK_EQ(read_head(c, GET), PP_OK);
        break;
    case PP_H1_REQ_EV_HEAD_BODY:
        CHECK_EQ(read_head(c, POST5), PP_OK);
        break;
    case PP_H1_REQ_EV_BODY_END:
        CHECK_EQ(read_body(c, "12345"), PP_OK);
        break;
    case PP_H1_REQ_EV_FAIL:
        if (c->req == PP_H1_REQ_BODY) {
            c->body.kind = PP_H1_BODY_CHUNKED;
            CHECK_EQ(read_body(c, "x"), PP_ERR_BAD_CHUNK);
        } else {
            CHECK(read_head(c, "rubbish\r\n") < 0);
        }
        break;
    case PP_H1_REQ_EV_NEXT:
        pp_h1_conn_next(c);
        break;
    case PP_H1_REQ_EV_COUNT:
        break;
    }
}

static void in_res_state(struct pp_h1_conn *c, int state)
{
    *c = start(GET);
    if (state != PP_H1_RES_WAIT) {
        CHECK_EQ(respond(c, 200, state == PP_H1_RES_DONE), PP_OK);
    }
    CHECK_EQ(c->res, state);
}

static void res_event(struct pp_h1_conn *c, int event)
{
    switch ((enum pp_h1_res_event)event) {
    case PP_H1_RES_EV_START:
        CHECK_EQ(respond(c, 200, false), PP_OK);
        break;
    case PP_H1_RES_EV_WHOLE:
        CHECK_EQ(respond(c, 200, true), PP_OK);
        break;
    case PP_H1_RES_EV_END:
        CHECK_EQ(frame(c, 0, false), PP_OK);
        break;
    case PP_H1_RES_EV_NEXT:
        pp_h1_conn_next(c);
        break;
    case PP_H1_RES_EV_COUNT:
        break;
    }
}

/* What is illegal from us has to end in an assertion: seen from a child. */
static bool aborts(void (*event)(struct pp_h1_conn *, int), struct pp_h1_conn *c, int which)
{
    int status;
    fflush(NULL);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        close(STDERR_FILENO);
        signal(SIGABRT, SIG_DFL);
        event(c, which);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

TEST(conn_every_request_state_by_every_event)
{
    for (int state = 0; state <= PP_H1_REQ_ERROR; state++) {
        for (int event = 0; event < PP_H1_REQ_EV_COUNT; event++) {
            struct pp_h1_conn c;
            CHECK_EQ(pp_h1_req_table[state][event], REQ_EXPECTED[state][event]);
            in_req_state(&c, state);
            if (REQ_EXPECTED[state][event] != PP_H1_ILLEGAL) {
                req_event(&c, event);
                if (c.req != REQ_EXPECTED[state][event]) {
                    test_fail(__FILE__, __LINE__, "%s by event %d", REQ_NAMES[state], event);
                }
            } else if (!aborts(req_event, &c, event)) {
                test_fail(__FILE__, __LINE__, "%s allows event %d", REQ_NAMES[state], event);
            }
        }
    }
}

TEST(conn_every_response_state_by_every_event)
{
    for (int state = 0; state <= PP_H1_RES_DONE; state++) {
        for (int event = 0; event < PP_H1_RES_EV_COUNT; event++) {
            struct pp_h1_conn c;
            CHECK_EQ(pp_h1_res_table[state][event], RES_EXPECTED[state][event]);
            in_res_state(&c, state);
            if (RES_EXPECTED[state][event] != PP_H1_ILLEGAL) {
                res_event(&c, event);
                if (c.res != RES_EXPECTED[state][event]) {
                    test_fail(__FILE__, __LINE__, "%s by event %d", RES_NAMES[state], event);
                }
            } else if (!aborts(res_event, &c, event)) {
                test_fail(__FILE__, __LINE__, "%s allows event %d", RES_NAMES[state], event);
            }
        }
    }
}

/* ---- the rules where both sides meet ---- */

TEST(conn_keep_alive_cycle)
{
    struct pp_h1_conn c = start(GET);
    for (int i = 0; i < 3; i++) {
        CHECK(!pp_h1_conn_reusable(&c));
        CHECK_EQ(respond(&c, 200, true), PP_OK);
        CHECK(pp_h1_conn_reusable(&c));
        pp_h1_conn_next(&c);
        CHECK_EQ(read_head(&c, GET), PP_OK);
    }
}

TEST(conn_unread_body_closes_a_complete_response)
{
    struct pp_h1_conn c = start(POST5);
    CHECK_EQ(respond(&c, 200, true), PP_OK);
    CHECK(strstr((char *)out, "connection: close") != NULL);
    CHECK_EQ(read_body(&c, "12345"), PP_OK);
    CHECK(!pp_h1_conn_reusable(&c)); /* said is said */
}

TEST(conn_body_may_be_read_while_the_response_streams)
{
    struct pp_h1_conn c = start(POST5);
    CHECK_EQ(respond(&c, 200, false), PP_OK);
    CHECK(strstr((char *)out, "connection: close") == NULL);
    CHECK_EQ(read_body(&c, "12345"), PP_OK);
    CHECK_EQ(frame(&c, 0, false), PP_OK);
    CHECK(pp_h1_conn_reusable(&c));
}

TEST(conn_streamed_response_before_the_end_of_the_body_is_not_reusable)
{
    struct pp_h1_conn c = start(POST5);
    CHECK_EQ(respond(&c, 200, false), PP_OK);
    CHECK_EQ(frame(&c, 3, false), PP_OK);
    CHECK(!pp_h1_conn_reusable(&c));
}

TEST(conn_draining_closes)
{
    struct pp_h1_conn c = start(GET);
    c.draining = true;
    CHECK_EQ(respond(&c, 200, false), PP_OK);
    CHECK(strstr((char *)out, "connection: close") != NULL);
    CHECK_EQ(frame(&c, 0, false), PP_OK);
    CHECK(!pp_h1_conn_reusable(&c));
}

TEST(conn_answers_an_error_once_and_closes)
{
    struct pp_h1_conn c;
    pp_h1_conn_init(&c);
    CHECK_EQ(read_head(&c, "GET / HTTP/9.9\r\n\r\n"), PP_ERR_BAD_VERSION);
    CHECK_EQ(respond(&c, 505, true), PP_OK);
    CHECK(strstr((char *)out, "connection: close") != NULL);
    CHECK(!pp_h1_conn_reusable(&c));
}

TEST(conn_declared_body_over_the_limit)
{
    struct pp_h1_conn c;
    pp_h1_conn_init(&c);
    CHECK_EQ(read_head(&c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 101\r\n\r\n"),
             PP_ERR_BODY_TOO_LARGE);
    CHECK_EQ(c.req, PP_H1_REQ_ERROR);
}

TEST(conn_continue)
{
    static const char *EXPECT =
        "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    struct pp_h1_conn c = start(EXPECT);
    CHECK(pp_h1_conn_take_continue(&c));
    CHECK(!pp_h1_conn_take_continue(&c)); /* once */
    c = start(EXPECT);
    CHECK_EQ(read_body(&c, "1"), PP_AGAIN);
    CHECK(!pp_h1_conn_take_continue(&c)); /* the peer did not wait */
    c = start(EXPECT);
    CHECK_EQ(respond(&c, 200, false), PP_OK);
    CHECK(!pp_h1_conn_take_continue(&c)); /* answered already */
    c = start("GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n");
    CHECK(!pp_h1_conn_take_continue(&c)); /* no body to wait with */
    c = start(POST5);
    CHECK(!pp_h1_conn_take_continue(&c));
}

TEST(conn_bad_response_changes_nothing)
{
    struct pp_h1_conn c = start(GET);
    CHECK_EQ(respond(&c, 42, true), PP_ERR_APP_BAD_STATUS);
    CHECK_EQ(c.res, PP_H1_RES_WAIT);
    CHECK(c.keep_alive);
    CHECK_EQ(respond(&c, 500, true), PP_OK);
    CHECK(pp_h1_conn_reusable(&c));
}

/* ---- framing of response bodies ---- */

static struct pp_h1_conn start_response(const char *request, const char *content_length)
{
    struct pp_h1_conn c = start(request);
    struct pp_out_field f = {(const uint8_t *)"content-length", (const uint8_t *)content_length, 14,
                             strlen(content_length)};
    struct pp_response r = {.status = 200, .fields = &f, .field_count = *content_length != '\0'};
    CHECK_EQ(pp_h1_conn_respond(&c, &r, out, sizeof out, &written), PP_OK);
    return c;
}

TEST(conn_frames_chunks)
{
    struct pp_h1_conn c = start_response(GET, "");
    CHECK_EQ(frame(&c, 0, true), PP_OK); /* an empty piece is not the last chunk */
    CHECK(prefix_len == 0 && !send_data && suffix_len == 0);
    CHECK_EQ(frame(&c, 26, true), PP_OK);
    CHECK_BYTES(prefix, prefix_len, "1a\r\n");
    CHECK_BYTES(suffix, suffix_len, "\r\n");
    CHECK(send_data);
    struct pp_h1_conn other = c;
    CHECK_EQ(frame(&c, 0, false), PP_OK);
    CHECK_BYTES(suffix, suffix_len, "0\r\n\r\n");
    CHECK(prefix_len == 0 && !send_data && pp_h1_conn_reusable(&c));
    CHECK_EQ(frame(&other, 1, false), PP_OK);
    CHECK_BYTES(prefix, prefix_len, "1\r\n");
    CHECK_BYTES(suffix, suffix_len, "\r\n0\r\n\r\n");
    CHECK(pp_h1_conn_reusable(&other));
}

TEST(conn_frames_lengths)
{
    struct pp_h1_conn c = start_response(GET, "5");
    CHECK_EQ(frame(&c, 3, true), PP_OK);
    CHECK(send_data && prefix_len == 0 && suffix_len == 0);
    struct pp_h1_conn too_short = c, too_long = c;
    CHECK_EQ(frame(&c, 2, false), PP_OK);
    CHECK(pp_h1_conn_reusable(&c));
    CHECK_EQ(frame(&too_short, 1, false), PP_ERR_APP_BODY_TOO_SHORT);
    CHECK(send_data && !pp_h1_conn_reusable(&too_short));
    CHECK_EQ(frame(&too_long, 3, true), PP_ERR_APP_BODY_TOO_LONG);
    CHECK(!send_data && !pp_h1_conn_reusable(&too_long));
}

TEST(conn_frames_nothing_for_head)
{
    struct pp_h1_conn c = start_response("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", "5");
    CHECK_EQ(frame(&c, 9, true), PP_OK);
    CHECK(!send_data && prefix_len == 0 && suffix_len == 0);
    CHECK_EQ(frame(&c, 0, false), PP_OK);
    CHECK(!send_data && suffix_len == 0 && pp_h1_conn_reusable(&c));
}

TEST(conn_frames_by_closing_for_1_0)
{
    struct pp_h1_conn c = start_response("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "");
    CHECK_EQ(frame(&c, 9, false), PP_OK);
    CHECK(send_data && prefix_len == 0 && suffix_len == 0 && !pp_h1_conn_reusable(&c));
}
