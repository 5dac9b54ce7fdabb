/* HTTP/1.1 request head (RFC 9112 sections 2-6): one pass over the bytes, spans out.
 *
 * The parser is a switch over the place it is at; every place can be left when the input ends and
 * entered again with more, and no byte is classified twice, so the work is linear however the input
 * is cut. Fields land in the caller's head as they are read (which is why the same head, or a copy
 * of it, comes with every call); when the empty line is there, what they mean together is decided:
 * Host, framing, Connection, Expect, Upgrade.
 *
 *   START -> METHOD -> TARGET -> VERSION -> LINE_LF -> FIELD -> NAME -> SPACE -> VALUE -> VALUE_LF
 *     ^ empty lines                                      |  ^--------------------------------'
 *                                                        '-> END_LF -> done
 *
 * Limits are windows: a stretch of input that ends the window without ending the element is too
 * long, whatever lies behind it; so the verdict never depends on how much was read at once.
 * Any thread, no state but the caller's. Leaves out: percent-decoding, bodies, what the
 * application sees. */
#include "proto/h1_parse.h"

#include <string.h>

#include "base/text.h"
#include "proto/h1_class.h"
#include "proto/h1_host.h"
#include "proto/h1_scan.h"

#define METHOD_BYTES_MAX 32
#define VERSION_BYTES 8 /* "HTTP/1.1" */

enum state {
    START,
    START_LF, /* a CR of an empty line before the request line */
    METHOD,
    TARGET,
    TARGET_LF, /* CR right after the target: HTTP/0.9 */
    VERSION,
    LINE_LF,
    FIELD, /* at the start of a field line or of the empty line */
    NAME,
    SPACE,
    VALUE,
    VALUE_LF,
    END_LF
};

/* Names for the parser's private words. */
#define NAME_START private_[0]
#define NAME_LEN private_[1]
#define VALUE_START private_[2]

void pp_h1_parser_init(struct pp_h1_parser *p)
{
    *p = (struct pp_h1_parser){.state = START};
}

/* ---- scans: short stretches are looked at here, long ones go to the SIMD variants ---- */

static inline size_t target_end(const uint8_t *buf, size_t pos, size_t end)
{
#if PP_H1_HAVE_WORDS
    for (int i = 0; i < 2 && end - pos >= 8; i++, pos += 8) {
        uint64_t x = pp_h1_load8(buf + pos);
        uint64_t bad = pp_h1_mask_below(x, 0x21) | pp_h1_mask_equal(x, '#') |
                       pp_h1_mask_equal(x, 0x7f) | (x & PP_H1_HIGH);
        if (bad != 0) {
            return pos + (unsigned)__builtin_ctzll(bad) / 8;
        }
    }
#endif
    return pos + pp_h1_scan->target(buf + pos, end - pos);
}

static inline size_t value_end(const uint8_t *buf, size_t pos, size_t end)
{
#if PP_H1_HAVE_WORDS
    for (int i = 0; i < 2 && end - pos >= 8; i++, pos += 8) {
        uint64_t x = pp_h1_load8(buf + pos);
        uint64_t bad = pp_h1_mask_below(x, 0x20) | pp_h1_mask_equal(x, 0x7f);
        if (bad != 0) {
            pos += (unsigned)__builtin_ctzll(bad) / 8;
            if (PP_LIKELY(buf[pos] != '\t')) {
                return pos;
            }
            break;
        }
    }
#endif
    return pos + pp_h1_scan->value(buf + pos, end - pos);
}

/* Lower-cases tchars in place from pos on; the index of the first other byte. */
static inline size_t name_end(uint8_t *buf, size_t pos, size_t end)
{
    uint8_t c;
    while (pos < end && (c = pp_h1_lower[buf[pos]]) != 0) {
        buf[pos++] = c;
    }
    return pos;
}

static inline bool is_space(uint8_t c)
{
    return c == ' ' || c == '\t';
}

/* ---- request line ---- */

static uint8_t method_of(const uint8_t *m, size_t len)
{
#define IS(text) (memcmp(m, text, sizeof text - 1) == 0)
    switch (len) {
    case 3:
        return IS("GET") ? PP_METHOD_GET : IS("PUT") ? PP_METHOD_PUT : PP_METHOD_OTHER;
    case 4:
        return IS("POST") ? PP_METHOD_POST : IS("HEAD") ? PP_METHOD_HEAD : PP_METHOD_OTHER;
    case 5:
        return IS("PATCH") ? PP_METHOD_PATCH : IS("TRACE") ? PP_METHOD_TRACE : PP_METHOD_OTHER;
    case 6:
        return IS("DELETE") ? PP_METHOD_DELETE : PP_METHOD_OTHER;
    case 7:
        return IS("OPTIONS")   ? PP_METHOD_OPTIONS
               : IS("CONNECT") ? PP_METHOD_CONNECT
                               : PP_METHOD_OTHER;
    default:
        return PP_METHOD_OTHER;
    }
#undef IS
}

/* Splits buf[off, end) into path and query; notes whether the path has escapes. */
static void split_path(const uint8_t *buf, uint32_t off, uint32_t end, struct pp_head *head)
{
    uint32_t i = off;
    bool encoded = false;
    while (i < end && buf[i] != '?') {
        encoded |= buf[i] == '%';
        i++;
    }
    head->path = (struct pp_span){off, i - off};
    head->path_encoded = encoded;
    if (i < end) {
        head->query = (struct pp_span){i + 1, end - i - 1};
    }
}

/* absolute-form (RFC 9112 3.2.2): http and https only, userinfo refused (RFC 9110 4.2.4). */
static int absolute_form(const uint8_t *buf, uint32_t off, uint32_t end, struct pp_head *head)
{
    uint32_t len = end - off, authority;
    if (len > 7 && PP_H1_IS_WORD(buf + off, 7, "http://")) {
        authority = off + 7;
    } else if (len > 8 && PP_H1_IS_WORD(buf + off, 8, "https://")) {
        authority = off + 8;
        head->scheme_https = true;
    } else {
        return PP_ERR_BAD_TARGET;
    }
    uint32_t i = authority;
    while (i < end && buf[i] != '/' && buf[i] != '?') {
        i++;
    }
    if (!pp_h1_host_valid(buf + authority, i - authority, PP_H1_HOST_NEEDED)) {
        return PP_ERR_BAD_TARGET;
    }
    head->target_form = PP_TARGET_ABSOLUTE;
    head->authority = (struct pp_span){authority, i - authority};
    split_path(buf, i, end, head);
    return PP_OK;
}

/* The four forms of RFC 9112 3.2, told apart by method and first byte. The target is not empty. */
static int target_form(const uint8_t *buf, struct pp_head *head)
{
    uint32_t off = head->target.off, end = off + head->target.len;
    head->path = head->query = head->authority = (struct pp_span){off, 0};
    head->scheme_https = head->path_encoded = false;
    if (PP_UNLIKELY(head->method_id == PP_METHOD_CONNECT)) {
        head->target_form = PP_TARGET_AUTHORITY;
        head->authority = head->target;
        return pp_h1_host_valid(buf + off, end - off, PP_H1_HOST_PORT_NEEDED) ? PP_OK
                                                                              : PP_ERR_BAD_TARGET;
    }
    if (PP_LIKELY(buf[off] == '/')) {
        head->target_form = PP_TARGET_ORIGIN;
        split_path(buf, off, end, head);
        return PP_OK;
    }
    if (buf[off] == '*' && end - off == 1) {
        head->target_form = PP_TARGET_ASTERISK;
        head->path = head->target;
        return head->method_id == PP_METHOD_OPTIONS ? PP_OK : PP_ERR_BAD_TARGET;
    }
    return absolute_form(buf, off, end, head);
}

/* Whether the first bytes of a version are right, so that rubbish is not waited on. */
static bool version_may_become(const uint8_t *v, size_t len)
{
    static const char PATTERN[] = "HTTP/0.0";
    for (size_t i = 0; i < len; i++) {
        bool digit = v[i] >= '0' && v[i] <= '9';
        if (PATTERN[i] == '0' ? !digit : v[i] != (uint8_t)PATTERN[i]) {
            return false;
        }
    }
    return true;
}

/* "HTTP/1.1": PP_OK and *minor; another well-formed version is 505, anything else is malformed. */
static int version_of(const uint8_t *v, uint8_t *minor)
{
    if (memcmp(v, "HTTP/", 5) != 0 || v[5] < '0' || v[5] > '9' || v[6] != '.' || v[7] < '0' ||
        v[7] > '9') {
        return PP_ERR_BAD_REQUEST_LINE;
    }
    if (v[5] != '1' || v[7] > '1') {
        return PP_ERR_BAD_VERSION;
    }
    *minor = v[7] - '0';
    return PP_OK;
}

/* ---- what the fields mean together ---- */

struct meaning {
    const struct pp_field *host;
    unsigned hosts, lengths, codings;
    bool close, keep_alive, names_upgrade, has_upgrade;
};

/* Connection options (RFC 9110 7.6.1): a list of tokens, empty elements ignored. */
static int connection_options(const uint8_t *value, size_t len, struct meaning *m)
{
    size_t i = 0;
    while (i < len) {
        while (i < len && (is_space(value[i]) || value[i] == ',')) {
            i++;
        }
        size_t first = i;
        while (i < len && pp_h1_is(value[i], PP_H1_TCHAR)) {
            i++;
        }
        const uint8_t *option = value + first;
        size_t option_len = i - first;
        if (PP_H1_IS_WORD(option, option_len, "close")) {
            m->close = true;
        } else if (PP_H1_IS_WORD(option, option_len, "keep-alive")) {
            m->keep_alive = true;
        } else if (PP_H1_IS_WORD(option, option_len, "upgrade")) {
            m->names_upgrade = true;
        }
        while (i < len && is_space(value[i])) {
            i++;
        }
        if (i < len && value[i] != ',') {
            return PP_ERR_BAD_HEADER;
        }
    }
    return PP_OK;
}

/* One coding, "chunked". A final coding that is not chunked leaves the length unknown, which RFC
 * 9112 6.3 makes a 400; stacked codings are refused the same way, for no client needs them and
 * parsers disagree about them. */
static int transfer_coding(const uint8_t *value, size_t len)
{
    if (PP_H1_IS_WORD(value, len, "chunked")) {
        return PP_OK;
    }
    size_t i = 0;
    while (i < len && pp_h1_is(value[i], PP_H1_TCHAR)) {
        i++;
    }
    return i == len && len > 0 ? PP_ERR_UNKNOWN_TRANSFER_CODING : PP_ERR_BAD_TRANSFER_CODING;
}

static int read_field(const uint8_t *buf, const struct pp_field *f, struct pp_head *head,
                      struct meaning *m)
{
    const uint8_t *value = buf + f->value_off;
    size_t len = f->value_len;
    switch (f->name_id) {
    case PP_H1_NAME_HOST:
        m->host = f;
        m->hosts++;
        return PP_OK;
    case PP_H1_NAME_CONTENT_LENGTH:
        head->has_content_length = true;
        return m->lengths++ == 0 && pp_text_decimal(value, len, &head->content_length)
                   ? PP_OK
                   : PP_ERR_BAD_CONTENT_LENGTH; /* RFC 9110 8.6: digits only */
    case PP_H1_NAME_TRANSFER_ENCODING:
        head->chunked = true;
        return m->codings++ > 0 ? PP_ERR_BAD_TRANSFER_CODING : transfer_coding(value, len);
    case PP_H1_NAME_CONNECTION:
        return connection_options(value, len, m);
    case PP_H1_NAME_EXPECT:
        /* RFC 9110 10.1.1: from a 1.0 client the expectation is ignored. */
        if (!PP_H1_IS_WORD(value, len, "100-continue")) {
            return PP_ERR_BAD_EXPECT;
        }
        head->expect_continue = head->minor == 1;
        return PP_OK;
    case PP_H1_NAME_UPGRADE:
        m->has_upgrade = true;
        return PP_OK;
    default:
        return PP_OK;
    }
}

/* RFC 9112 3.2: exactly one valid Host on 1.1. An empty one is right only where the target does not
 * need it; origin-form does, because http URIs without a host are invalid (RFC 9110 4.2.1). */
static int check_host(const uint8_t *buf, const struct pp_head *head, const struct meaning *m)
{
    if (m->hosts == 0) {
        return head->minor == 0 ? PP_OK : PP_ERR_BAD_HOST;
    }
    enum pp_h1_host_rule rule = head->target_form == PP_TARGET_ORIGIN && head->minor == 1
                                    ? PP_H1_HOST_NEEDED
                                    : PP_H1_HOST_MAY_BE_EMPTY;
    return m->hosts == 1 && pp_h1_host_valid(buf + m->host->value_off, m->host->value_len, rule)
               ? PP_OK
               : PP_ERR_BAD_HOST;
}

static int finish(const uint8_t *buf, struct pp_head *head)
{
    struct meaning m = {0};
    head->content_length = 0;
    head->has_content_length = head->chunked = head->expect_continue = false;
    for (unsigned i = 0; i < head->field_count; i++) {
        if (head->fields[i].name_id == PP_H1_NAME_OTHER) {
            continue;
        }
        int rc = read_field(buf, &head->fields[i], head, &m);
        if (PP_UNLIKELY(rc != PP_OK)) {
            return rc;
        }
    }
    int rc = check_host(buf, head, &m);
    if (PP_UNLIKELY(rc != PP_OK)) {
        return rc;
    }
    /* RFC 9112 6.1: a coding from a 1.0 client, or beside a length, is what smuggling is made of.
     */
    if (PP_UNLIKELY(head->chunked && (head->minor == 0 || head->has_content_length))) {
        return PP_ERR_BAD_TRANSFER_CODING;
    }
    head->keep_alive = !m.close && (head->minor == 1 || m.keep_alive);
    /* RFC 9110 7.8: Upgrade from a 1.0 client is ignored. */
    head->upgrade = m.has_upgrade && m.names_upgrade && head->minor == 1;
    return PP_OK;
}

/* ---- the pass ---- */

static void add_field(struct pp_h1_parser *p, const uint8_t *buf, uint32_t value_end_,
                      struct pp_head *head)
{
    uint32_t start = p->VALUE_START, end = value_end_;
    while (end > start && is_space(buf[end - 1])) {
        end--;
    }
    head->fields[head->field_count++] = (struct pp_field){
        .name_off = p->NAME_START,
        .value_off = start,
        .value_len = end - start,
        .name_len = (uint16_t)p->NAME_LEN,
        /* Only now: loads right behind the stores of lower-casing would stall. */
        .name_id = pp_h1_name_find(buf + p->NAME_START, p->NAME_LEN),
    };
}

/* What a byte that ends a method or target where a space was due is called. */
static int line_error(uint8_t c, int error)
{
    return c == '\r' || c == '\n' ? PP_ERR_BAD_REQUEST_LINE : error;
}

/* RFC 9112 2.2: a server ignores at least one empty line before the request line. */
static int empty_lines(struct pp_h1_parser *p, const uint8_t *buf, size_t end)
{
    for (; p->pos < end; p->pos++) {
        uint8_t c = buf[p->pos];
        if (p->state == START_LF) {
            if (c != '\n') {
                return PP_ERR_BAD_REQUEST_LINE;
            }
            p->state = START;
        } else if (c == '\r' && p->empty_lines < PP_LEADING_CRLF_MAX) {
            p->empty_lines++;
            p->state = START_LF;
        } else {
            p->line_start = p->pos;
            p->state = METHOD;
            return PP_OK;
        }
    }
    return PP_AGAIN;
}

/* Reads buf[p->pos, end) in the request line; leaves p->state at FIELD when it is complete. */
static int request_line(struct pp_h1_parser *p, const uint8_t *buf, size_t end,
                        struct pp_head *head)
{
    size_t pos = p->pos;
    int rc = PP_AGAIN;
    switch ((enum state)p->state) {
    case METHOD:
        while (pos < end && pp_h1_is(buf[pos], PP_H1_TCHAR)) {
            if (pos - p->line_start >= METHOD_BYTES_MAX) {
                return PP_ERR_BAD_METHOD;
            }
            pos++;
        }
        if (pos == end) {
            break;
        }
        if (buf[pos] != ' ' || pos == p->line_start) {
            return line_error(buf[pos], PP_ERR_BAD_METHOD);
        }
        head->method = (struct pp_span){p->line_start, (uint32_t)pos - p->line_start};
        head->method_id = method_of(buf + p->line_start, head->method.len);
        pos++;
        head->target = (struct pp_span){(uint32_t)pos, 0};
        p->state = TARGET;
        PP_FALLTHROUGH;
    case TARGET:
        pos = target_end(buf, pos, end);
        if (pos == end) {
            break;
        }
        head->target.len = (uint32_t)pos - head->target.off;
        if (buf[pos] == '\r' && head->target.len > 0) {
            pos++;
            p->state = TARGET_LF;
            goto target_lf;
        }
        if (buf[pos] != ' ' || head->target.len == 0) {
            return line_error(buf[pos], PP_ERR_BAD_TARGET);
        }
        rc = target_form(buf, head);
        if (PP_UNLIKELY(rc != PP_OK)) {
            return rc;
        }
        rc = PP_AGAIN;
        pos++;
        p->VALUE_START = (uint32_t)pos;
        p->state = VERSION;
        PP_FALLTHROUGH;
    case VERSION:
        /* Looked at as a whole: eight bytes are not worth a state each. */
        if (end - p->VALUE_START <= VERSION_BYTES) {
            if (!version_may_become(buf + p->VALUE_START, end - p->VALUE_START)) {
                return PP_ERR_BAD_REQUEST_LINE;
            }
            pos = end;
            break;
        }
        pos = p->VALUE_START + VERSION_BYTES;
        rc = version_of(buf + p->VALUE_START, &head->minor);
        if (rc == PP_ERR_BAD_REQUEST_LINE || buf[pos] != '\r') {
            return PP_ERR_BAD_REQUEST_LINE;
        }
        if (rc != PP_OK) {
            return rc;
        }
        rc = PP_AGAIN;
        pos++;
        p->state = LINE_LF;
        PP_FALLTHROUGH;
    case LINE_LF:
        if (pos == end) {
            break;
        }
        if (buf[pos] != '\n') {
            return PP_ERR_BAD_REQUEST_LINE;
        }
        pos++;
        head->field_count = 0;
        p->line_start = (uint32_t)pos;
        p->state = FIELD;
        rc = PP_OK;
        break;
    case TARGET_LF:
    target_lf:
        if (pos < end) {
            return buf[pos] == '\n' ? PP_ERR_BAD_VERSION : PP_ERR_BAD_REQUEST_LINE;
        }
        break;
    case START:
    case START_LF:
    case FIELD:
    case NAME:
    case SPACE:
    case VALUE:
    case VALUE_LF:
    case END_LF:
        PP_ASSERT(false);
        return PP_OK;
    }
    p->pos = (uint32_t)pos;
    return rc;
}

/* Reads buf[p->pos, end) behind the request line, to the end of the empty line. */
static int field_lines(struct pp_h1_parser *p, uint8_t *buf, size_t end,
                       const struct pp_h1_limits *limits, struct pp_head *head)
{
    size_t pos = p->pos;
    switch ((enum state)p->state) {
    case FIELD:
    field:
        if (pos == end) {
            break;
        }
        if (buf[pos] == '\r') {
            pos++;
            p->state = END_LF;
            goto end_lf;
        }
        if (head->field_count >= limits->field_count) {
            return PP_ERR_TOO_MANY_FIELDS;
        }
        if (PP_UNLIKELY(head->field_count >= head->field_room)) {
            p->pos = (uint32_t)pos;
            return PP_NO_ROOM;
        }
        p->NAME_START = (uint32_t)pos;
        p->state = NAME;
        PP_FALLTHROUGH;
    case NAME:
        pos = name_end(buf, pos, end);
        if (PP_UNLIKELY(pos - p->NAME_START > UINT16_MAX)) {
            return PP_ERR_HEAD_TOO_LARGE;
        }
        if (pos == end) {
            break;
        }
        /* No space before the colon, no folding: RFC 9112 5.1 and 5.2. */
        if (buf[pos] != ':' || pos == p->NAME_START) {
            return PP_ERR_BAD_HEADER;
        }
        p->NAME_LEN = (uint32_t)pos - p->NAME_START;
        pos++;
        p->state = SPACE;
        PP_FALLTHROUGH;
    case SPACE:
        while (pos < end && is_space(buf[pos])) {
            pos++;
        }
        if (pos == end) {
            break;
        }
        p->VALUE_START = (uint32_t)pos;
        p->state = VALUE;
        PP_FALLTHROUGH;
    case VALUE:
        pos = value_end(buf, pos, end);
        if (pos == end) {
            break;
        }
        if (buf[pos] != '\r') {
            return PP_ERR_BAD_HEADER;
        }
        pos++;
        p->state = VALUE_LF;
        PP_FALLTHROUGH;
    case VALUE_LF:
        if (pos == end) {
            break;
        }
        if (buf[pos] != '\n') {
            return PP_ERR_BAD_HEADER;
        }
        add_field(p, buf, (uint32_t)pos - 1, head);
        pos++;
        p->line_start = (uint32_t)pos;
        p->state = FIELD;
        goto field;
    case END_LF:
    end_lf:
        if (pos == end) {
            break;
        }
        if (buf[pos] != '\n') {
            return PP_ERR_BAD_HEADER;
        }
        pos++;
        p->pos = (uint32_t)pos;
        head->head_bytes = (uint32_t)pos;
        return finish(buf, head);
    case START:
    case START_LF:
    case METHOD:
    case TARGET:
    case TARGET_LF:
    case VERSION:
    case LINE_LF:
        PP_ASSERT(false);
        break;
    }
    p->pos = (uint32_t)pos;
    return PP_AGAIN;
}

int pp_h1_parse_head(struct pp_h1_parser *p, uint8_t *buf, size_t len,
                     const struct pp_h1_limits *limits, struct pp_head *head)
{
    PP_ASSERT(p->pos <= len);
    PP_CHECK(limits->field_count <= PP_FIELDS_MAX);
    PP_ASSERT(limits->head_bytes <= PP_HEAD_BYTES_MAX);
    size_t head_end = len < limits->head_bytes ? len : limits->head_bytes;
    int rc = p->state < METHOD ? empty_lines(p, buf, head_end) : PP_OK;
    if (rc == PP_OK && p->state < FIELD) {
        size_t line_end = (size_t)p->line_start + limits->request_line_bytes + 2;
        rc = request_line(p, buf, head_end < line_end ? head_end : line_end, head);
        if (rc == PP_AGAIN && line_end <= head_end) {
            return PP_ERR_URI_TOO_LONG;
        }
    }
    if (rc == PP_OK) {
        rc = field_lines(p, buf, head_end, limits, head);
    }
    return rc == PP_AGAIN && head_end == limits->head_bytes ? PP_ERR_HEAD_TOO_LARGE : rc;
}
