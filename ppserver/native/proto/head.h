/* The head of a request and of a response, as every protocol gives and takes them. Names of request
 * fields are lower-case. Spans are offsets into the bytes that come with the head, which may move.
 */
#ifndef PP_PROTO_HEAD_H
#define PP_PROTO_HEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

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

struct pp_field {
    uint32_t name_off, value_off, value_len;
    uint16_t name_len; /* a longer name is refused with HEAD_TOO_LARGE */
    uint16_t name_id;  /* enum pp_h1_name, PP_H1_NAME_OTHER when not a known one */
};

struct pp_head {
    uint32_t head_bytes; /* everything up to and including the empty line, leading CRLFs too */
    struct pp_span method;
    struct pp_span target;    /* as sent */
    struct pp_span path;      /* origin-form path, still percent-encoded; "*" for asterisk-form;
                                 for absolute-form its path part (len 0 stands for "/") */
    struct pp_span query;     /* without "?"; len 0 when there is none */
    struct pp_span authority; /* absolute- and authority-form: it replaces Host; else len 0 */
    uint64_t content_length;  /* valid with has_content_length */
    struct pp_field *fields;  /* borrowed from the owner of the head: room for field_room */
    uint16_t field_count, field_room;
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
};

struct pp_out_field {
    const uint8_t *name, *value; /* borrowed for the call */
    size_t name_len, value_len;
};

/* Bytes that a field takes in a head of HTTP/1.1. */
static inline size_t pp_out_field_bytes(const struct pp_out_field *f)
{
    return f->name_len + f->value_len + 4;
}

struct pp_response {
    int status;            /* 200..999 (1xx only through pp_h1_write_informational) */
    const uint8_t *reason; /* NULL: the registry's phrase, "" for an unknown status */
    size_t reason_len;
    const struct pp_out_field *fields; /* the application's */
    size_t field_count;
    size_t field_bytes; /* the sum of their pp_out_field_bytes, if it is known already, or 0 */
    const struct pp_out_field *extra_fields; /* --header: added if the application has not set it */
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

#endif
