/* Request body framing (RFC 9112 sections 6 and 7): raw bytes in, body bytes out, in place. */
#ifndef PP_PROTO_H1_BODY_H
#define PP_PROTO_H1_BODY_H

#include "proto/h1_parse.h"

enum pp_h1_body_kind { PP_H1_BODY_NONE, PP_H1_BODY_LENGTH, PP_H1_BODY_CHUNKED };

struct pp_h1_body {
    uint64_t remaining; /* of the body (LENGTH) or of the current chunk (CHUNKED) */
    uint64_t total;     /* body bytes given out so far */
    uint64_t limit;     /* 0 = unlimited */
    uint32_t overhead;  /* chunk-size, extension and terminator bytes so far */
    uint32_t trailer_bytes;
    uint16_t line_bytes;
    uint8_t kind;
    uint8_t state;
    uint8_t digits;
    bool done;
};

/* BODY_TOO_LARGE at once when the declared length is over limits->body_bytes. */
int pp_h1_body_init(struct pp_h1_body *b, const struct pp_head *head,
                    const struct pp_h1_limits *limits) PP_MUST_USE;
/* Decodes in[0, in_len) to out, which may equal `in` or lie before it in the same buffer (the
 * output is never longer than the input). *consumed: raw bytes eaten; *produced: bytes at out.
 * PP_OK: the body is complete (bytes behind *consumed belong to the next request). PP_AGAIN: all
 * input was eaten and more is needed. Errors: BAD_CHUNK, BAD_TRAILER, BODY_TOO_LARGE; what was
 * produced until then is valid. Trailers are checked, bounded and dropped. Work is linear in
 * in_len whatever the chunk sizes. */
int pp_h1_body_decode(struct pp_h1_body *b, const uint8_t *in, size_t in_len, uint8_t *out,
                      size_t *consumed, size_t *produced) PP_MUST_USE;

#endif
