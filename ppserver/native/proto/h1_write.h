/* Response heads and framing (RFC 9110 section 15, RFC 9112 sections 4-7): checked, then written.
 */
#ifndef PP_PROTO_H1_WRITE_H
#define PP_PROTO_H1_WRITE_H

#include "proto/h1_parse.h"

struct pp_h1_out_field {
    const uint8_t *name, *value; /* borrowed for the call */
    size_t name_len, value_len;
};
/* Bytes that a field takes in a head. */
static inline size_t pp_h1_field_bytes(const struct pp_h1_out_field *f)
{
    return f->name_len + f->value_len + 4;
}

/* How the body of a response is delimited. */
enum pp_h1_framing {
    PP_H1_FRAME_NONE,   /* no body bytes may follow: HEAD, 1xx, 204, 304 (data is dropped) */
    PP_H1_FRAME_LENGTH, /* Content-Length, from the application or single-shot */
    PP_H1_FRAME_CHUNKED,
    PP_H1_FRAME_CLOSE /* HTTP/1.0 peer without length: the end of the connection */
};

struct pp_h1_response {
    int status;            /* 200..999 (1xx only through pp_h1_write_informational) */
    const uint8_t *reason; /* NULL: the registry's phrase, "" for an unknown status */
    size_t reason_len;
    const struct pp_h1_out_field *fields; /* the application's */
    size_t field_count;
    size_t field_bytes; /* the sum of their pp_h1_field_bytes, if it is known already, or 0 */
    const struct pp_h1_out_field
        *extra_fields; /* --header: added if the application has not set it */
    size_t extra_count;
    bool complete;       /* single shot */
    uint64_t body_bytes; /* of the whole body; else of the first piece, 0 if there is none yet */
    /* what the request and the connection say */
    bool request_head; /* the method was HEAD */
    uint8_t request_minor;
    bool keep_alive;  /* in: may be kept; see *keep_alive below */
    const char *date; /* 29 bytes "Sun, 06 Nov 1994 08:49:37 GMT", or NULL for no Date */
    bool server;      /* with "server: ppserver" */
};

struct pp_h1_framed {
    enum pp_h1_framing framing;
    uint64_t content_length; /* with PP_H1_FRAME_LENGTH */
    bool keep_alive;         /* false: Connection: close was written, close after the response */
};

/* An upper bound of the bytes pp_h1_write_head needs for this response. */
size_t pp_h1_write_bound(const struct pp_h1_response *r);
/* Checks and writes the whole head into out[0, cap) (cap >= bound). *written is set on PP_OK only.
 * Application fields named connection (other than "close", which is honoured), keep-alive,
 * transfer-encoding, upgrade (but for a 426) and proxy-connection are hop-by-hop and dropped;
 * "date" and "server" of the application win over ours. Content-Length of the application: digits
 * only, once; with HEAD and 304 kept as is; with 204 and 1xx dropped. complete && content-length !=
 * body_bytes (and not request_head/304) is APP_BODY_TOO_LONG or APP_BODY_TOO_SHORT, and a first
 * piece longer than it APP_BODY_TOO_LONG. Errors are APP_*. */
int pp_h1_write_head(const struct pp_h1_response *r, uint8_t *out, size_t cap, size_t *written,
                     struct pp_h1_framed *framed) PP_MUST_USE;
/* "HTTP/1.1 103 Early Hints" and the like: status 100..199 except 101. cap is at least 64 and, for
 * each field, the lengths of name and value and 4. */
int pp_h1_write_informational(int status, const struct pp_h1_out_field *fields, size_t count,
                              uint8_t *out, size_t cap, size_t *written) PP_MUST_USE;
/* "1a2b\r\n"; out has room for 18 bytes. Returns the length. len > 0. */
size_t pp_h1_write_chunk_prefix(uint64_t len, uint8_t *out);
/* A complete minimal error answer with Connection: close, text/plain body, e.g. for 400. */
size_t pp_h1_write_error(int status, bool head_request, const char *date, bool server, uint8_t *out,
                         size_t cap);
const char *pp_h1_reason(int status); /* registry phrase or "" */
/* IMF-fixdate (RFC 9110 5.6.7) of unix seconds into out[29] plus NUL. */
void pp_h1_write_date(int64_t unix_seconds, char out[30]);

#endif
