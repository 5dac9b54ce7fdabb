/* Request body framing (RFC 9112 sections 6 and 7): Content-Length and chunked, decoded in place.
 *
 *   SIZE_FIRST -> SIZE -> [EXT] -> SIZE_LF -> DATA -> DATA_CR -> DATA_LF -> SIZE_FIRST
 *                                    | size 0
 *                                    '-> TRAILER -> [TRAILER_NAME -> TRAILER_VALUE -> TRAILER_LF]
 * -> END_LF
 *
 * Chunk data is moved down over the framing around it, whole pieces at a time, so each input byte
 * is touched once or twice however small the chunks are. Extensions are bounded per chunk and,
 * beyond an allowance that each chunk earns by what it carries, over the whole body. Trailers are
 * checked, bounded and dropped. Any thread, no state but the caller's. */
#include "proto/h1_body.h"

#include <string.h>

#include "base/text.h"
#include "proto/h1_class.h"
#include "proto/h1_scan.h"

enum state {
    SIZE_FIRST, /* the first digit */
    SIZE,
    EXT,
    SIZE_LF,
    DATA,
    DATA_CR,
    DATA_LF,
    TRAILER, /* at the start of a trailer line or of the last, empty one */
    TRAILER_NAME,
    TRAILER_VALUE,
    TRAILER_LF,
    END_LF
};

/* Framing bytes that a chunk may have for free: size digits, CRLFs and a short extension, and more
 * the more it carries. What goes beyond adds up to PP_CHUNK_OVERHEAD_MAX. */
#define FREE_BYTES 32

int pp_h1_body_init(struct pp_h1_body *b, const struct pp_head *head,
                    const struct pp_h1_limits *limits)
{
    *b = (struct pp_h1_body){.limit = limits->body_bytes, .kind = PP_H1_BODY_NONE, .done = true};
    if (head->chunked) {
        b->kind = PP_H1_BODY_CHUNKED;
        b->state = SIZE_FIRST;
        b->done = false;
    } else if (head->has_content_length && head->content_length > 0) {
        b->kind = PP_H1_BODY_LENGTH;
        b->remaining = head->content_length;
        b->done = false;
        if (b->limit != 0 && b->remaining > b->limit) {
            return PP_ERR_BODY_TOO_LARGE;
        }
    }
    return PP_OK;
}

/* Moves up to `len` bytes of the body or chunk; returns how many. */
static size_t take_data(struct pp_h1_body *b, const uint8_t *in, size_t len, uint8_t *out)
{
    size_t n = len < b->remaining ? len : (size_t)b->remaining;
    if (out != in && n > 0) {
        memmove(out, in, n);
    }
    b->remaining -= n;
    b->total += n;
    return n;
}

static int decode_length(struct pp_h1_body *b, const uint8_t *in, size_t in_len, uint8_t *out,
                         size_t *consumed, size_t *produced)
{
    *consumed = *produced = take_data(b, in, in_len, out);
    b->done = b->remaining == 0;
    return b->done ? PP_OK : PP_AGAIN;
}

/* The chunk-size line is complete. */
static int begin_chunk(struct pp_h1_body *b)
{
    uint64_t framing = (uint64_t)b->line_bytes + 2; /* the CRLF behind the data, too */
    uint64_t size = b->remaining;
    uint64_t earned = size > UINT32_MAX / 2 ? UINT32_MAX : FREE_BYTES + 2 * size;
    if (framing > earned) {
        b->overhead += (uint32_t)(framing - earned);
    } else {
        uint64_t spare = earned - framing;
        b->overhead = b->overhead > spare ? b->overhead - (uint32_t)spare : 0;
    }
    if (b->overhead > PP_CHUNK_OVERHEAD_MAX) {
        return PP_ERR_BAD_CHUNK;
    }
    uint64_t most = b->limit != 0 ? b->limit : (uint64_t)INT64_MAX;
    if (size > most - b->total) {
        return PP_ERR_BODY_TOO_LARGE;
    }
    b->state = size == 0 ? TRAILER : DATA;
    b->line_bytes = 0;
    b->digits = 0;
    return PP_OK;
}

/* One byte of chunk framing (not DATA). */
static int frame_byte(struct pp_h1_body *b, uint8_t c)
{
    int digit;
    switch ((enum state)b->state) {
    case SIZE_FIRST:
        b->remaining = 0;
        b->state = SIZE;
        PP_FALLTHROUGH;
    case SIZE:
        b->line_bytes++;
        digit = pp_text_hex_value(c);
        if (PP_LIKELY(digit >= 0)) {
            if (b->digits++ >= PP_CHUNK_SIZE_DIGITS_MAX) {
                return PP_ERR_BAD_CHUNK;
            }
            b->remaining = b->remaining << 4 | (unsigned)digit;
            return PP_OK;
        }
        if (b->digits == 0 || (c != '\r' && c != ';')) {
            return PP_ERR_BAD_CHUNK;
        }
        b->state = c == '\r' ? SIZE_LF : EXT;
        return PP_OK;
    case EXT:
        if (c != '\r' && !pp_h1_is(c, PP_H1_VALUE)) {
            return PP_ERR_BAD_CHUNK;
        }
        if (b->line_bytes++ - b->digits > PP_CHUNK_EXT_BYTES_MAX) {
            return PP_ERR_BAD_CHUNK;
        }
        if (c == '\r') {
            b->state = SIZE_LF;
        }
        return PP_OK;
    case SIZE_LF:
        b->line_bytes++;
        return c == '\n' ? begin_chunk(b) : PP_ERR_BAD_CHUNK;
    case DATA_CR:
        b->state = DATA_LF;
        return c == '\r' ? PP_OK : PP_ERR_BAD_CHUNK;
    case DATA_LF:
        b->state = SIZE_FIRST;
        return c == '\n' ? PP_OK : PP_ERR_BAD_CHUNK;
    case DATA:
    case TRAILER:
    case TRAILER_NAME:
    case TRAILER_VALUE:
    case TRAILER_LF:
    case END_LF:
        break;
    }
    PP_ASSERT(false);
    return PP_ERR_BAD_CHUNK;
}

/* One byte of the trailer section (RFC 9112 7.1.2); its rules are those of header fields. */
static int trailer_byte(struct pp_h1_body *b, uint8_t c)
{
    if (++b->trailer_bytes > PP_TRAILER_BYTES_MAX) {
        return PP_ERR_BAD_TRAILER;
    }
    switch ((enum state)b->state) {
    case TRAILER:
        if (c == '\r') {
            b->state = END_LF;
            return PP_OK;
        }
        b->state = TRAILER_NAME;
        return pp_h1_is(c, PP_H1_TCHAR) ? PP_OK : PP_ERR_BAD_TRAILER;
    case TRAILER_NAME:
        if (c == ':') {
            b->state = TRAILER_VALUE;
            return PP_OK;
        }
        return pp_h1_is(c, PP_H1_TCHAR) ? PP_OK : PP_ERR_BAD_TRAILER;
    case TRAILER_VALUE:
        if (c == '\r') {
            b->state = TRAILER_LF;
            return PP_OK;
        }
        return pp_h1_is(c, PP_H1_VALUE) ? PP_OK : PP_ERR_BAD_TRAILER;
    case TRAILER_LF:
        b->state = TRAILER;
        return c == '\n' ? PP_OK : PP_ERR_BAD_TRAILER;
    case END_LF:
        b->done = c == '\n';
        return b->done ? PP_OK : PP_ERR_BAD_TRAILER;
    case SIZE_FIRST:
    case SIZE:
    case EXT:
    case SIZE_LF:
    case DATA:
    case DATA_CR:
    case DATA_LF:
        break;
    }
    PP_ASSERT(false);
    return PP_ERR_BAD_TRAILER;
}

static int decode_chunked(struct pp_h1_body *b, const uint8_t *in, size_t in_len, uint8_t *out,
                          size_t *consumed, size_t *produced)
{
    size_t i = 0, o = 0;
    int rc = PP_OK;
    while (i < in_len && !b->done) {
        if (b->state == DATA) {
            size_t n = take_data(b, in + i, in_len - i, out + o);
            i += n;
            o += n;
            if (b->remaining == 0) {
                b->state = DATA_CR;
            }
            continue;
        }
        rc = b->state < TRAILER ? frame_byte(b, in[i]) : trailer_byte(b, in[i]);
        if (rc != PP_OK) {
            break;
        }
        i++;
    }
    *consumed = i;
    *produced = o;
    return rc != PP_OK ? rc : b->done ? PP_OK : PP_AGAIN;
}

int pp_h1_body_decode(struct pp_h1_body *b, const uint8_t *in, size_t in_len, uint8_t *out,
                      size_t *consumed, size_t *produced)
{
    *consumed = *produced = 0;
    if (b->done) {
        return PP_OK;
    }
    return b->kind == PP_H1_BODY_LENGTH ? decode_length(b, in, in_len, out, consumed, produced)
                                        : decode_chunked(b, in, in_len, out, consumed, produced);
}
