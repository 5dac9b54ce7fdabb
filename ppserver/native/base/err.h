/* Error table: every failure the server can name, with its HTTP status and text.
 *
 * Functions return PP_OK, PP_AGAIN (more input or time needed), PP_NO_ROOM (more memory) or one of
 * the codes below, always as `int`. Codes are negative, so `rc < 0` means failure. The table is the
 * one place that decides which status a peer sees (RFC 9110 section 15) and under which name the
 * event is counted. */
#ifndef PP_BASE_ERR_H
#define PP_BASE_ERR_H

#define PP_OK 0
#define PP_AGAIN 1
#define PP_NO_ROOM 2

/* X(name, status, class, text): class is P (peer), A (application), O (ours). */
#define PP_ERR_TABLE(X) \
    X(BAD_REQUEST_LINE, 400, P, "malformed request line") \
    X(BAD_METHOD, 400, P, "malformed method") \
    X(BAD_TARGET, 400, P, "malformed request target") \
    X(BAD_VERSION, 505, P, "HTTP version not supported") \
    X(BAD_HEADER, 400, P, "malformed header field") \
    X(BAD_HOST, 400, P, "missing, repeated or malformed Host") \
    X(BAD_CONTENT_LENGTH, 400, P, "malformed or repeated Content-Length") \
    X(BAD_TRANSFER_CODING, 400, P, "unacceptable Transfer-Encoding") \
    X(UNKNOWN_TRANSFER_CODING, 400, P, "transfer coding not implemented") \
    X(BAD_EXPECT, 417, P, "expectation not supported") \
    X(BAD_CHUNK, 400, P, "malformed chunk") \
    X(BAD_TRAILER, 400, P, "malformed trailer field") \
    X(URI_TOO_LONG, 414, P, "request line too long") \
    X(HEAD_TOO_LARGE, 431, P, "request header fields too large") \
    X(TOO_MANY_FIELDS, 431, P, "too many request header fields") \
    X(BODY_TOO_LARGE, 413, P, "request body too large") \
    X(HEADER_TIMEOUT, 408, P, "request head took too long") \
    X(BODY_TIMEOUT, 408, P, "request body stalled") \
    X(WRITE_TIMEOUT, 0, P, "peer does not read the response") \
    X(IDLE_TIMEOUT, 0, P, "keep-alive time is over") \
    X(DISCONNECTED, 0, P, "peer closed the connection") \
    X(OVERLOADED, 503, O, "too many requests at once") \
    X(NO_MEMORY, 503, O, "out of memory") \
    X(NO_DESCRIPTORS, 0, O, "out of file descriptors") \
    X(SYSTEM, 0, O, "system call failed") \
    X(APP_BAD_STATUS, 500, A, "status code outside 100..999 or not allowed here") \
    X(APP_BAD_HEADER_NAME, 500, A, "response header name is not a token") \
    X(APP_BAD_HEADER_VALUE, 500, A, "response header value has control characters") \
    X(APP_BAD_REASON, 500, A, "reason phrase has control characters") \
    X(APP_BAD_CONTENT_LENGTH, 500, A, "malformed or repeated response Content-Length") \
    X(APP_BODY_TOO_LONG, 500, A, "response body longer than its Content-Length") \
    X(APP_BODY_TOO_SHORT, 500, A, "response body shorter than its Content-Length") \
    X(APP_FAILED, 500, A, "application failed")

enum pp_err {
    PP_ERR_BASE_ = -1000,
#define PP_ERR_ENUM_(name, status, class_, text) PP_ERR_##name,
    PP_ERR_TABLE(PP_ERR_ENUM_)
#undef PP_ERR_ENUM_
        PP_ERR_END_
};

#define PP_ERR_COUNT (PP_ERR_END_ - PP_ERR_BASE_ - 1)

/* The HTTP status for an error code; 0 when the connection is closed without an answer. */
int pp_err_status(int code);
/* Static text, never NULL, also for PP_OK, PP_AGAIN and unknown codes. */
const char *pp_err_text(int code);
/* Lower-case name for counters, for example "bad_chunk"; NULL for what is not in the table. */
const char *pp_err_name(int code);
/* 0 .. PP_ERR_COUNT-1 for a code of the table; -1 otherwise. */
int pp_err_index(int code);
/* The code with that index: the inverse of pp_err_index. */
int pp_err_at(int index);

#endif
