/* Response heads and framing (RFC 9110 section 15, RFC 9112 sections 4-7).
 *
 * One pass over the application's fields checks each and copies it, setting aside those that say
 * how the message is framed, which is decided here and not by the application; then the fields that
 * are ours follow. Nothing is visible to the caller unless all was right. Pure; any thread.
 * Leaves out: the body, the clock (the caller hands in the Date), compression. */
#include "proto/h1_write.h"

#include <string.h>

#include "base/text.h"
#include "proto/h1_class.h"
#include "proto/h1_names.h"
#include "proto/h1_scan.h"

#define FIXED_BYTES 256        /* status line and our own fields */
#define INFORMATIONAL_BYTES 64 /* status line and empty line of a 1xx head */
#define UPGRADE_BYTES 128      /* and of a 101, with its two fields but for the protocol */

struct writer {
    uint8_t *at;         /* borrowed: where the next byte goes */
    const uint8_t *end;  /* of the room for fields */
    bool offers_upgrade; /* the status lets the application name protocols */
    bool close;          /* the application asked for Connection: close */
    bool has_length, has_date, has_server, has_upgrade;
    uint64_t length;
};

static void put(struct writer *w, const void *data, size_t len)
{
    memcpy(w->at, data, len);
    w->at += len;
}
#define PUT(w, text) put((w), (text), sizeof text - 1)

static void put_number(struct writer *w, uint64_t n)
{
    w->at += pp_text_put_decimal(w->at, n);
}

static void put_field(struct writer *w, const struct pp_out_field *f)
{
    PP_CHECK(pp_out_field_bytes(f) <= (size_t)(w->end - w->at));
    put(w, f->name, f->name_len);
    PUT(w, ": ");
    if (f->value_len > 0) {
        put(w, f->value, f->value_len);
    }
    PUT(w, "\r\n");
}

struct phrase {
    const char *text;
    size_t len;
};

static struct phrase phrase_of(int status)
{
    switch (status) {
#define REASON(code, text) \
    case code: \
        return (struct phrase){text, sizeof text - 1};
        REASON(100, "Continue")
        REASON(102, "Processing")
        REASON(103, "Early Hints")
        REASON(200, "OK")
        REASON(201, "Created")
        REASON(202, "Accepted")
        REASON(203, "Non-Authoritative Information")
        REASON(204, "No Content")
        REASON(205, "Reset Content")
        REASON(206, "Partial Content")
        REASON(207, "Multi-Status")
        REASON(208, "Already Reported")
        REASON(226, "IM Used")
        REASON(300, "Multiple Choices")
        REASON(301, "Moved Permanently")
        REASON(302, "Found")
        REASON(303, "See Other")
        REASON(304, "Not Modified")
        REASON(305, "Use Proxy")
        REASON(307, "Temporary Redirect")
        REASON(308, "Permanent Redirect")
        REASON(400, "Bad Request")
        REASON(401, "Unauthorized")
        REASON(402, "Payment Required")
        REASON(403, "Forbidden")
        REASON(404, "Not Found")
        REASON(405, "Method Not Allowed")
        REASON(406, "Not Acceptable")
        REASON(407, "Proxy Authentication Required")
        REASON(408, "Request Timeout")
        REASON(409, "Conflict")
        REASON(410, "Gone")
        REASON(411, "Length Required")
        REASON(412, "Precondition Failed")
        REASON(413, "Content Too Large")
        REASON(414, "URI Too Long")
        REASON(415, "Unsupported Media Type")
        REASON(416, "Range Not Satisfiable")
        REASON(417, "Expectation Failed")
        REASON(418, "I'm a Teapot")
        REASON(421, "Misdirected Request")
        REASON(422, "Unprocessable Content")
        REASON(423, "Locked")
        REASON(424, "Failed Dependency")
        REASON(425, "Too Early")
        REASON(426, "Upgrade Required")
        REASON(428, "Precondition Required")
        REASON(429, "Too Many Requests")
        REASON(431, "Request Header Fields Too Large")
        REASON(451, "Unavailable For Legal Reasons")
        REASON(500, "Internal Server Error")
        REASON(501, "Not Implemented")
        REASON(502, "Bad Gateway")
        REASON(503, "Service Unavailable")
        REASON(504, "Gateway Timeout")
        REASON(505, "HTTP Version Not Supported")
        REASON(506, "Variant Also Negotiates")
        REASON(507, "Insufficient Storage")
        REASON(508, "Loop Detected")
        REASON(511, "Network Authentication Required")
#undef REASON
    default:
        return (struct phrase){"", 0};
    }
}

const char *pp_h1_reason(int status)
{
    return phrase_of(status).text;
}

/* Always HTTP/1.1, also to a 1.0 client: RFC 9110 6.2. */
static void put_status_line(struct writer *w, int status, const uint8_t *reason, size_t reason_len)
{
    uint8_t code[4] = {(uint8_t)('0' + status / 100), (uint8_t)('0' + status / 10 % 10),
                       (uint8_t)('0' + status % 10), ' '};
    PUT(w, "HTTP/1.1 ");
    put(w, code, sizeof code);
    if (reason_len > 0) {
        put(w, reason, reason_len);
    }
    PUT(w, "\r\n");
}

/* Most names and values of responses are too short for the vectors of pp_h1_scan, and longer than
 * a word: so two loads that may overlap see all of them. */
#define WORDS_MIN 8
#define WORDS_MAX 16

/* Eight letters or hyphens, of which most names consist; exact. */
static inline bool letters8(uint64_t x)
{
    uint64_t low = (x | PP_H1_ONES * 0x20) & ~PP_H1_HIGH; /* no sum below reaches the next byte */
    uint64_t letter = (low + PP_H1_ONES * (0x80 - 'a')) & ~(low + PP_H1_ONES * (0x7f - 'z'));
    uint64_t other = ((x ^ PP_H1_ONES * '-') & ~PP_H1_HIGH) + PP_H1_ONES * 0x7f;
    return ((letter | ~other) & ~x & PP_H1_HIGH) == PP_H1_HIGH;
}

/* Eight bytes without control characters; HTAB, too, is left to the scanner. */
static inline bool plain8(uint64_t x)
{
    return (pp_h1_mask_below(x, 0x20) | pp_h1_mask_equal(x, 0x7f)) == 0;
}

static bool name_ok(const uint8_t *name, size_t len)
{
    if (len >= WORDS_MIN && len <= WORDS_MAX && letters8(pp_h1_load8(name)) &&
        letters8(pp_h1_load8(name + len - 8))) {
        return true;
    }
    size_t i = 0;
    while (i < len && pp_h1_is(name[i], PP_H1_TCHAR)) {
        i++;
    }
    return i == len && i > 0;
}

static bool value_ok(const uint8_t *value, size_t len)
{
    if (len >= WORDS_MIN && len < WORDS_MAX && plain8(pp_h1_load8(value)) &&
        plain8(pp_h1_load8(value + len - 8))) {
        return true;
    }
    return pp_h1_scan->value(value, len) == len;
}

static int check_field(const struct pp_out_field *f)
{
    return !name_ok(f->name, f->name_len)      ? PP_ERR_APP_BAD_HEADER_NAME
           : !value_ok(f->value, f->value_len) ? PP_ERR_APP_BAD_HEADER_VALUE
                                               : PP_OK;
}

static int read_length(struct writer *w, const struct pp_out_field *f)
{
    if (w->has_length || !pp_text_decimal(f->value, f->value_len, &w->length)) {
        return PP_ERR_APP_BAD_CONTENT_LENGTH;
    }
    w->has_length = true;
    return PP_OK;
}

/* Whether the list `value` has the element "close". */
static bool has_close(const uint8_t *value, size_t len)
{
    size_t i = 0;
    while (i < len) {
        size_t first = i;
        while (i < len && pp_h1_is(value[i], PP_H1_TCHAR)) {
            i++;
        }
        if (PP_H1_IS_WORD(value + first, i - first, "close")) {
            return true;
        }
        i += i == first;
    }
    return false;
}

/* The same of hop-by-hop fields. What says whom a proxy believes, or which codings are understood,
 * is the application's: it may be one. */
static void take_hop(struct writer *w, const struct pp_out_field *f, bool *copy)
{
    switch (pp_h1_hop_of(f->name, f->name_len)) {
    case PP_H1_HOP_CONNECTION:
        w->close |= has_close(f->value, f->value_len);
        *copy = false;
        break;
    case PP_H1_HOP_UPGRADE:
        /* RFC 9110 15.5.22: 426 must say to what; elsewhere it would offer what we do not do. */
        *copy = w->has_upgrade = w->offers_upgrade;
        break;
    case PP_H1_HOP_KEEP_ALIVE:
    case PP_H1_HOP_PROXY_CONNECTION:
    case PP_H1_HOP_TRANSFER_ENCODING:
        *copy = false;
        break;
    case PP_H1_HOP_NONE:
    case PP_H1_HOP_TE:
    case PP_H1_HOP_TRAILERS:
    case PP_H1_HOP_PROXY_AUTHENTICATE:
    case PP_H1_HOP_PROXY_AUTHORIZATION:
        break;
    }
}

/* Fields of the application that are ours to write: *copy becomes false. */
static int take_field(struct writer *w, const struct pp_out_field *f, bool *copy)
{
#define NAMED(text) PP_H1_IS_WORD(f->name, f->name_len, text)
    *copy = true;
    switch (f->name_len) {
    case 4:
        w->has_date |= NAMED("date");
        break;
    case 6:
        w->has_server |= NAMED("server");
        break;
    case 14:
        if (NAMED("content-length")) {
            *copy = false;
            return read_length(w, f);
        }
        break;
    default:
        take_hop(w, f, copy);
        break;
    }
    return PP_OK;
#undef NAMED
}

static bool has_field(const struct pp_response *r, const struct pp_out_field *wanted)
{
    for (size_t i = 0; i < r->field_count; i++) {
        const struct pp_out_field *f = &r->fields[i];
        size_t n = 0;
        while (f->name_len == wanted->name_len && n < f->name_len &&
               pp_h1_lower[f->name[n]] == pp_h1_lower[wanted->name[n]]) {
            n++;
        }
        if (n == wanted->name_len) {
            return true;
        }
    }
    return false;
}

static int put_app_fields(struct writer *w, const struct pp_response *r)
{
    for (size_t i = 0; i < r->field_count; i++) {
        const struct pp_out_field *f = &r->fields[i];
        bool copy;
        int rc = check_field(f);
        if (rc == PP_OK) {
            rc = take_field(w, f, &copy);
        }
        if (rc != PP_OK) {
            return rc;
        }
        if (copy) {
            put_field(w, f);
        }
    }
    for (size_t i = 0; i < r->extra_count; i++) {
        const struct pp_out_field *f = &r->extra_fields[i];
        bool copy;
        if (has_field(r, f)) {
            continue;
        }
        int rc = check_field(f);
        if (rc == PP_OK) {
            rc = take_field(w, f, &copy);
        }
        if (rc != PP_OK) {
            return rc;
        }
        if (copy) {
            put_field(w, f);
        }
    }
    return PP_OK;
}

/* How the body is delimited (RFC 9112 6.1-6.3), and the field that says so. */
static int put_framing(struct writer *w, const struct pp_response *r, struct pp_h1_framed *framed)
{
    bool no_content = r->status == 204;
    bool describes = r->request_head || r->status == 304; /* length without a body: RFC 9110 8.6 */
    framed->content_length = 0;
    framed->keep_alive = r->keep_alive && !w->close;
    if (no_content || describes) {
        framed->framing = PP_H1_FRAME_NONE;
        if (!no_content && !w->has_length && r->status != 304 && r->complete && r->body_bytes > 0) {
            w->has_length = true;
            w->length = r->body_bytes;
        }
        if (no_content || !w->has_length) {
            return PP_OK;
        }
    } else {
        if (w->has_length && r->complete && w->length != r->body_bytes) {
            return r->body_bytes > w->length ? PP_ERR_APP_BODY_TOO_LONG : PP_ERR_APP_BODY_TOO_SHORT;
        }
        if (w->has_length && r->body_bytes > w->length) {
            return PP_ERR_APP_BODY_TOO_LONG;
        }
        if (!w->has_length && !r->complete) {
            if (r->request_minor == 0) {
                framed->framing = PP_H1_FRAME_CLOSE;
                framed->keep_alive = false;
            } else {
                framed->framing = PP_H1_FRAME_CHUNKED;
                PUT(w, "transfer-encoding: chunked\r\n");
            }
            return PP_OK;
        }
        if (!w->has_length) {
            w->length = r->body_bytes;
        }
        framed->framing = PP_H1_FRAME_LENGTH;
        framed->content_length = w->length;
    }
    PUT(w, "content-length: ");
    put_number(w, w->length);
    PUT(w, "\r\n");
    return PP_OK;
}

size_t pp_h1_write_bound(const struct pp_response *r)
{
    size_t n = FIXED_BYTES + r->reason_len;
    n += r->field_bytes;
    for (size_t i = 0; r->field_bytes == 0 && i < r->field_count; i++) {
        n += pp_out_field_bytes(&r->fields[i]);
    }
    for (size_t i = 0; i < r->extra_count; i++) {
        n += pp_out_field_bytes(&r->extra_fields[i]);
    }
    return n;
}

static void put_our_fields(struct writer *w, const char *date, bool server)
{
    if (date != NULL) {
        PUT(w, "date: ");
        put(w, date, 29);
        PUT(w, "\r\n");
    }
    if (server) {
        PUT(w, "server: ppserver\r\n");
    }
}

static void put_connection(struct writer *w, bool keep_alive, uint8_t request_minor)
{
    if (w->has_upgrade) { /* names it: RFC 9110 7.8 */
        if (keep_alive) {
            PUT(w, "connection: upgrade\r\n");
        } else {
            PUT(w, "connection: close, upgrade\r\n");
        }
    } else if (!keep_alive) {
        PUT(w, "connection: close\r\n");
    } else if (request_minor == 0) {
        PUT(w, "connection: keep-alive\r\n"); /* 1.0 clients close unless told */
    }
}

int pp_h1_write_head(const struct pp_response *r, uint8_t *out, size_t cap, size_t *written,
                     struct pp_h1_framed *framed)
{
    PP_CHECK(cap >= pp_h1_write_bound(r));
    struct writer w = {
        .at = out, .end = out + cap, .offers_upgrade = r->status == 426 && r->request_minor == 1};
    struct pp_h1_framed f;
    if (r->status < 200 || r->status > 999) {
        return PP_ERR_APP_BAD_STATUS;
    }
    if (r->reason == NULL) {
        struct phrase reason = phrase_of(r->status);
        put_status_line(&w, r->status, (const uint8_t *)reason.text, reason.len);
    } else if (pp_h1_scan->value(r->reason, r->reason_len) == r->reason_len) {
        put_status_line(&w, r->status, r->reason, r->reason_len);
    } else {
        return PP_ERR_APP_BAD_REASON;
    }
    int rc = put_app_fields(&w, r);
    if (rc == PP_OK) {
        rc = put_framing(&w, r, &f);
    }
    if (rc != PP_OK) {
        return rc;
    }
    put_our_fields(&w, w.has_date ? NULL : r->date, r->server && !w.has_server);
    put_connection(&w, f.keep_alive, r->request_minor);
    PUT(&w, "\r\n");
    *framed = f;
    *written = (size_t)(w.at - out);
    PP_ASSERT(*written <= cap);
    return PP_OK;
}

int pp_h1_write_informational(int status, const struct pp_out_field *fields, size_t count,
                              uint8_t *out, size_t cap, size_t *written)
{
    struct pp_response r = {.status = status, .fields = fields, .field_count = count};
    PP_CHECK(cap >= pp_h1_write_bound(&r) - FIXED_BYTES + INFORMATIONAL_BYTES);
    struct writer w = {.at = out, .end = out + cap};
    if (status < 100 || status > 199 || status == 101) {
        return PP_ERR_APP_BAD_STATUS;
    }
    struct phrase reason = phrase_of(status);
    put_status_line(&w, status, (const uint8_t *)reason.text, reason.len);
    int rc = put_app_fields(&w, &r); /* a Content-Length is checked and dropped: RFC 9110 8.6 */
    if (rc != PP_OK) {
        return rc;
    }
    PUT(&w, "\r\n");
    *written = (size_t)(w.at - out);
    return PP_OK;
}

int pp_h1_write_upgrade(const char *protocol, const struct pp_out_field *fields, size_t count,
                        uint8_t *out, size_t cap, size_t *written)
{
    struct pp_response r = {.status = 101, .fields = fields, .field_count = count};
    size_t len = strlen(protocol);
    PP_CHECK(cap >= pp_h1_write_bound(&r) - FIXED_BYTES + UPGRADE_BYTES + len);
    struct writer w = {.at = out, .end = out + cap};
    PUT(&w, "HTTP/1.1 101 Switching Protocols\r\nupgrade: ");
    put(&w, protocol, len);
    PUT(&w, "\r\nconnection: upgrade\r\n");
    int rc = put_app_fields(&w, &r);
    if (rc != PP_OK) {
        return rc;
    }
    PUT(&w, "\r\n");
    *written = (size_t)(w.at - out);
    return PP_OK;
}

size_t pp_h1_write_chunk_prefix(uint64_t len, uint8_t *out)
{
    PP_ASSERT(len > 0);
    size_t digits = (67 - (size_t)__builtin_clzll(len)) / 4;
    for (size_t i = digits; i-- > 0; len >>= 4) {
        out[i] = (uint8_t)"0123456789abcdef"[len & 15];
    }
    out[digits] = '\r';
    out[digits + 1] = '\n';
    return digits + 2;
}

size_t pp_h1_write_error(int status, bool head_request, const char *date, bool server, uint8_t *out,
                         size_t cap)
{
    PP_CHECK(status >= 400 && status <= 599);
    PP_CHECK(cap >= FIXED_BYTES + 64);
    struct writer w = {.at = out};
    struct phrase reason = phrase_of(status);
    put_status_line(&w, status, (const uint8_t *)reason.text, reason.len);
    PUT(&w, "content-type: text/plain; charset=utf-8\r\ncontent-length: ");
    put_number(&w, reason.len);
    PUT(&w, "\r\n");
    put_our_fields(&w, date, server);
    PUT(&w, "connection: close\r\n\r\n");
    if (!head_request) {
        put(&w, reason.text, reason.len);
    }
    PP_ASSERT((size_t)(w.at - out) <= cap);
    return (size_t)(w.at - out);
}

static void two_digits(char *out, int n)
{
    out[0] = (char)('0' + n / 10);
    out[1] = (char)('0' + n % 10);
}

void pp_h1_write_date(int64_t unix_seconds, char out[30])
{
    static const char DAYS[] = "ThuFriSatSunMonTueWed"; /* the epoch was a Thursday */
    static const char MONTHS[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    int64_t days = unix_seconds / 86400;
    int rest = (int)(unix_seconds % 86400);
    if (rest < 0) {
        rest += 86400;
        days--;
    }
    /* Years counted from 1 March 0000, so that the leap day is the last of its year. */
    int64_t z = days + 719468;
    int64_t era = (z >= 0 ? z : z - 146096) / 146097;
    int doe = (int)(z - era * 146097);
    int yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    int doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    int shifted = (5 * doy + 2) / 153;
    int day = doy - (153 * shifted + 2) / 5 + 1;
    int month = shifted < 10 ? shifted + 2 : shifted - 10; /* 0 = January */
    int year = (int)(yoe + era * 400) + (month <= 1);
    int weekday = (int)((days % 7 + 7) % 7);
    PP_ASSERT(year >= 0 && year <= 9999);
    memcpy(out, "Thu, 01 Jan 1970 00:00:00 GMT", 30);
    memcpy(out, DAYS + (size_t)3 * (size_t)weekday, 3);
    two_digits(out + 5, day);
    memcpy(out + 8, MONTHS + (size_t)3 * (size_t)month, 3);
    two_digits(out + 12, year / 100);
    two_digits(out + 14, year % 100);
    two_digits(out + 17, rest / 3600);
    two_digits(out + 20, rest / 60 % 60);
    two_digits(out + 23, rest % 60);
}
