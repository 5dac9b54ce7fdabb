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
#include "proto/head.h"

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
 * hand in the same one (or a copy) until the result; it is whole only at PP_OK. PP_NO_ROOM: there
 * are more fields than head->field_room; call again with the same bytes and a larger array, which
 * begins with what is in the old one. */
int pp_h1_parse_head(struct pp_h1_parser *p, uint8_t *buf, size_t len,
                     const struct pp_h1_limits *limits, struct pp_head *head) PP_MUST_USE;

#endif
