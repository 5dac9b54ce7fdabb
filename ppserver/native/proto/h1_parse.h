/* HTTP/1.1 request head: bytes to spans (RFC 9112 sections 2-6), resumable at any byte.
 *
 * Pure: no allocation, no I/O, no clock. Field names are lower-cased in place, so a caller sees
 * only lower-case names. Spans are offsets into the caller's buffer, which may be moved between
 * calls (the parser keeps no pointers). Strictness: DESIGN section 5. */
#ifndef PP_PROTO_H1_PARSE_H
#define PP_PROTO_H1_PARSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/assert.h"
#include "base/err.h"
#include "base/limits.h"
#include "proto/h1_names.h"

struct pp_span {
    uint32_t off, len;
};

enum pp_method {
    PP_METHOD_OTHER = 0, /* any other token: see the span */
    PP_METHOD_GET,
    PP_METHOD_HEAD,
    PP_METHOD_POST,
    PP_METHOD_PUT,
    PP_METHOD_DELETE,
    PP_METHOD_OPTIONS,
    PP_METHOD_PATCH,
    PP_METHOD_CONNECT,
    PP_METHOD_TRACE,
    PP_METHOD_COUNT
};

enum pp_target_form {
    PP_TARGET_ORIGIN,
    PP_TARGET_ABSOLUTE,
    PP_TARGET_AUTHORITY,
    PP_TARGET_ASTERISK
};

struct pp_h1_field {
    uint32_t name_off, value_off, value_len;
    uint16_t name_len; /* a longer name is refused with HEAD_TOO_LARGE */
    uint16_t name_id;  /* enum pp_h1_name, PP_H1_NAME_OTHER when not a known one */
};

struct pp_h1_head {
    uint32_t head_bytes; /* everything up to and including the empty line, leading CRLFs too */
    struct pp_span method;
    struct pp_span target;    /* as sent */
    struct pp_span path;      /* origin-form path, still percent-encoded; "*" for asterisk-form;
                                 for absolute-form its path part (len 0 stands for "/") */
    struct pp_span query;     /* without "?"; len 0 when there is none */
    struct pp_span authority; /* absolute- and authority-form: it replaces Host; else len 0 */
    uint64_t content_length;  /* valid with has_content_length */
    uint16_t field_count;
    uint8_t method_id;   /* enum pp_method */
    uint8_t target_form; /* enum pp_target_form */
    uint8_t minor;       /* HTTP/1.minor: 0 or 1 */
    bool keep_alive;     /* version and Connection say the connection may go on */
    bool chunked;        /* Transfer-Encoding: chunked */
    bool has_content_length;
    bool expect_continue; /* Expect: 100-continue on 1.1 */
    bool upgrade;         /* Upgrade present and named by Connection */
    bool scheme_https;    /* absolute-form with https: */
    bool path_encoded;    /* the path has a "%" */
    struct pp_h1_field fields[PP_FIELDS_MAX];
};

struct pp_h1_limits {
    uint32_t request_line_bytes; /* without CRLF; beyond: URI_TOO_LONG */
    uint32_t head_bytes;         /* whole head; beyond: HEAD_TOO_LARGE */
    uint32_t field_count;        /* <= PP_FIELDS_MAX; beyond: TOO_MANY_FIELDS */
    uint64_t body_bytes;         /* 0 = unlimited; beyond: BODY_TOO_LARGE */
};

struct pp_h1_parser {
    uint32_t pos;        /* bytes looked at so far */
    uint32_t line_start; /* start of the line being read */
    uint8_t state;
    uint8_t empty_lines;
    uint32_t private_[4];
};

void pp_h1_parser_init(struct pp_h1_parser *p);
/* Looks at buf[0, len), of which earlier calls saw a prefix. PP_OK: head is filled and valid until
 * buf changes. PP_AGAIN: more bytes are needed. Otherwise an error of the table; the parser must
 * then be initialised anew. Fields gather in `head` from call to call:
 * hand in the same one (or a copy) until the result; it is whole only at PP_OK. */
int pp_h1_parse_head(struct pp_h1_parser *p, uint8_t *buf, size_t len,
                     const struct pp_h1_limits *limits, struct pp_h1_head *head) PP_MUST_USE;

#endif
