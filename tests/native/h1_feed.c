/* Test driver of the HTTP/1.1 machine: one growing buffer, bodies decoded in place behind heads,
 * exactly sized so that sanitizers see a read past the end.
 *
 * Each step gets a fresh copy of what has arrived, flush against the end of its allocation, so
 * also stale pointers into a moved buffer would show. One thread. Leaves out: output, which the C
 * units check. */
#include "h1_feed.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct pp_h1_limits feed_limits = {
    .request_line_bytes = 8192, .head_bytes = 32768, .field_count = 100, .body_bytes = 0};

enum outcome { WAITS, GOES_ON, ENDS };

struct feed {
    struct pp_h1_conn conn;
    struct pp_head *head;
    const struct pp_h1_limits *limits;
    struct feed_log *log;
    uint8_t *buf;      /* owned; arrived bytes of this request and behind */
    size_t len;        /* of buf */
    size_t at;         /* raw bytes of buf already eaten as head or body */
    size_t body_start; /* decoded body: buf[body_start, body_end) */
    size_t body_end;
};

static void *must(void *ptr)
{
    if (ptr == NULL) {
        abort();
    }
    return ptr;
}

void feed_log_fini(struct feed_log *log)
{
    free(log->text);
    *log = (struct feed_log){0};
}

static void say_raw(struct feed_log *log, const char *text, size_t len)
{
    if (log->cap - log->len <= len) {
        log->cap = (log->cap + len) * 2 + 256;
        log->text = must(realloc(log->text, log->cap));
    }
    memcpy(log->text + log->len, text, len);
    log->len += len;
    log->text[log->len] = '\0';
}

__attribute__((format(printf, 2, 3))) static void say(struct feed_log *log, const char *format, ...)
{
    char line[256];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    say_raw(log, line, (size_t)n < sizeof line ? (size_t)n : sizeof line - 1);
}

static void say_bytes(struct feed_log *log, const uint8_t *data, size_t len)
{
    static const char HEX[] = "0123456789abcdef";
    for (size_t i = 0; i < len; i++) {
        uint8_t c = data[i];
        char hex[4] = {'\\', 'x', HEX[c >> 4], HEX[c & 15]};
        if (c == '\r' || c == '\n' || c == '\t') {
            say_raw(log, c == '\r' ? "\\r" : c == '\n' ? "\\n" : "\\t", 2);
        } else if (c == '"' || c == '\\') {
            say_raw(log, c == '"' ? "\\\"" : "\\\\", 2);
        } else if (c >= 0x20 && c < 0x7f) {
            say_raw(log, (const char *)data + i, 1);
        } else {
            say_raw(log, hex, 4);
        }
    }
}

static void say_span(struct feed *f, const char *before, struct pp_span span, const char *after)
{
    say(f->log, "%s", before);
    say_bytes(f->log, f->buf + span.off, span.len);
    say(f->log, "%s", after);
}

static void say_head(struct feed *f)
{
    static const char *const FORMS[] = {"origin", "absolute", "authority", "asterisk"};
    const struct pp_head *h = f->head;
    say_span(f, "request ", h->method, " ");
    say_span(f, "", h->target, "");
    say(f->log, " HTTP/1.%d\n", h->minor);
    say(f->log, "target %s%s", FORMS[h->target_form], h->path_encoded ? " encoded" : "");
    if (h->authority.len > 0) {
        say_span(f, " authority=", h->authority, h->scheme_https ? " https" : "");
    }
    say_span(f, " path=", h->path, "");
    say_span(f, " query=", h->query, "\n");
    for (unsigned i = 0; i < h->field_count; i++) {
        const struct pp_field *field = &h->fields[i];
        say_span(f, "field ", (struct pp_span){field->name_off, field->name_len}, ": ");
        say_span(f, "", (struct pp_span){field->value_off, field->value_len}, "\n");
        if (field->name_id != pp_h1_name_find(f->buf + field->name_off, field->name_len)) {
            abort();
        }
    }
    say(f->log, "flags");
    if (h->keep_alive) {
        say(f->log, " keep-alive");
    }
    if (h->chunked) {
        say(f->log, " chunked");
    }
    if (h->has_content_length) {
        say(f->log, " length=%llu", (unsigned long long)h->content_length);
    }
    if (h->expect_continue) {
        say(f->log, " expect");
    }
    if (h->upgrade) {
        say(f->log, " upgrade");
    }
    say(f->log, "\n");
}

static void say_body(struct feed *f)
{
    say(f->log, "body \"");
    say_bytes(f->log, f->buf + f->body_start, f->body_end - f->body_start);
    say(f->log, "\"\n");
}

static enum outcome say_error(struct feed *f, int rc)
{
    say(f->log, "error %s %d\n", pp_err_name(rc), pp_err_status(rc));
    return ENDS;
}

/* The response is written at the end of the request; only what it does to the connection counts. */
static enum outcome answer(struct feed *f)
{
    uint8_t out[512];
    size_t written;
    struct pp_response r = {.status = 200, .complete = true};
    int rc = pp_h1_conn_respond(&f->conn, &r, out, sizeof out, &written);
    if (rc != PP_OK) {
        return say_error(f, rc);
    }
    size_t rest = f->len - f->at;
    memmove(f->buf, f->buf + f->at, rest);
    f->len = rest;
    f->at = 0;
    if (!pp_h1_conn_reusable(&f->conn)) {
        /* How much has arrived by now depends on the cuts; feed_run says the rest. */
        return ENDS;
    }
    say(f->log, "next\n");
    pp_h1_conn_next(&f->conn);
    return GOES_ON;
}

static enum outcome step_head(struct feed *f)
{
    int rc = pp_h1_conn_head(&f->conn, f->buf, f->len, f->limits, f->head);
    if (rc == PP_AGAIN) {
        return WAITS;
    }
    if (rc != PP_OK) {
        return say_error(f, rc);
    }
    say_head(f);
    f->at = f->body_start = f->body_end = f->head->head_bytes;
    if (f->conn.req == PP_H1_REQ_DONE) {
        return answer(f);
    }
    if (pp_h1_conn_take_continue(&f->conn)) {
        say(f->log, "continue\n");
    }
    return GOES_ON;
}

static enum outcome step_body(struct feed *f)
{
    size_t consumed, produced;
    int rc = pp_h1_conn_body(&f->conn, f->buf + f->at, f->len - f->at, f->buf + f->body_end,
                             &consumed, &produced);
    if (consumed > f->len - f->at || produced > consumed) {
        abort();
    }
    f->at += consumed;
    f->body_end += produced;
    if (rc == PP_AGAIN) {
        return WAITS;
    }
    say_body(f);
    return rc == PP_OK ? answer(f) : say_error(f, rc);
}

static enum outcome arrive(struct feed *f, const uint8_t *data, size_t len)
{
    uint8_t *grown = must(malloc(f->len + len));
    if (f->len > 0) {
        memcpy(grown, f->buf, f->len);
    }
    memcpy(grown + f->len, data, len);
    free(f->buf);
    f->buf = grown;
    f->len += len;
    for (;;) {
        enum outcome outcome = f->conn.req == PP_H1_REQ_HEAD ? step_head(f) : step_body(f);
        if (outcome != GOES_ON) {
            return outcome;
        }
        if (f->len == f->at && f->conn.req == PP_H1_REQ_HEAD) {
            return WAITS;
        }
    }
}

void feed_run(const uint8_t *data, size_t len, const struct pp_h1_limits *limits, feed_cut *cut,
              void *arg, struct feed_log *log)
{
    struct feed f = {.limits = limits,
                     .log = log,
                     .head =
                         must(malloc(sizeof *f.head + PP_FIELDS_MAX * sizeof(struct pp_field)))};
    f.head->fields = (struct pp_field *)(void *)(f.head + 1);
    f.head->field_room = PP_FIELDS_MAX;
    enum outcome outcome = WAITS;
    size_t done = 0;
    log->len = 0;
    say(log, "%s", "");
    pp_h1_conn_init(&f.conn);
    while (done < len && outcome == WAITS) {
        size_t n = cut(arg, done, len);
        n = n == 0 || n > len - done ? len - done : n;
        outcome = arrive(&f, data + done, n);
        done += n;
    }
    if (outcome == WAITS && f.conn.req == PP_H1_REQ_BODY) {
        say_body(&f);
        say(log, "incomplete body\n");
    } else if (outcome == WAITS && f.len > 0) {
        say(log, "incomplete head\n");
    } else if (outcome == ENDS && f.conn.req == PP_H1_REQ_DONE) {
        say(log, "close \"");
        say_bytes(log, f.buf, f.len);
        say_bytes(log, data + done, len - done);
        say(log, "\"\n");
    }
    free(f.buf);
    free(f.head);
}

size_t feed_whole(void *arg, size_t done, size_t total)
{
    (void)arg;
    return total - done;
}

size_t feed_bytes(void *arg, size_t done, size_t total)
{
    (void)arg;
    (void)done;
    (void)total;
    return 1;
}

size_t feed_once(void *arg, size_t done, size_t total)
{
    size_t at = *(const size_t *)arg;
    return done < at ? at - done : total - done;
}
