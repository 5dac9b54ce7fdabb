/* Response heads and framing (RFC 9110 section 15, RFC 9112 sections 4-7): checked, then written.
 */
#ifndef PP_PROTO_H1_WRITE_H
#define PP_PROTO_H1_WRITE_H

#include "proto/h1_parse.h"

/* How the body of a response is delimited. */
enum pp_h1_framing {
    PP_H1_FRAME_NONE,   /* no body bytes may follow: HEAD, 1xx, 204, 304 (data is dropped) */
    PP_H1_FRAME_LENGTH, /* Content-Length, from the application or single-shot */
    PP_H1_FRAME_CHUNKED,
    PP_H1_FRAME_CLOSE /* HTTP/1.0 peer without length: the end of the connection */
};

struct pp_h1_framed {
    enum pp_h1_framing framing;
    uint64_t content_length; /* with PP_H1_FRAME_LENGTH */
    bool keep_alive;         /* false: Connection: close was written, close after the response */
};

/* An upper bound of the bytes pp_h1_write_head needs for this response. */
size_t pp_h1_write_bound(const struct pp_response *r);
/* Checks and writes the whole head into out[0, cap) (cap >= bound). *written is set on PP_OK only.
 * Application fields named connection (other than "close", which is honoured), keep-alive,
 * transfer-encoding, upgrade (but for a 426) and proxy-connection are hop-by-hop and dropped;
 * "date" and "server" of the application win over ours. Content-Length of the application: digits
 * only, once; with HEAD and 304 kept as is; with 204 and 1xx dropped. complete && content-length !=
 * body_bytes (and not request_head/304) is APP_BODY_TOO_LONG or APP_BODY_TOO_SHORT, and a first
 * piece longer than it APP_BODY_TOO_LONG. Errors are APP_*. */
int pp_h1_write_head(const struct pp_response *r, uint8_t *out, size_t cap, size_t *written,
                     struct pp_h1_framed *framed) PP_MUST_USE;
/* "HTTP/1.1 103 Early Hints" and the like: status 100..199 except 101. cap is at least 64 and, for
 * each field, the lengths of name and value and 4. */
int pp_h1_write_informational(int status, const struct pp_out_field *fields, size_t count,
                              uint8_t *out, size_t cap, size_t *written) PP_MUST_USE;
/* The head of a 101 to `protocol`, with upgrade and connection fields; what pp_h1_write_head drops
 * is dropped. cap is at least 128 and the length of protocol, and as above. */
int pp_h1_write_upgrade(const char *protocol, const struct pp_out_field *fields, size_t count,
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
