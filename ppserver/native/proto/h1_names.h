/* Known header names: one list, used by the parser (recognition), the scope and the environ. */
#ifndef PP_PROTO_H1_NAMES_H
#define PP_PROTO_H1_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* X(ident, "lower-case name") */
#define PP_H1_NAMES(X) \
    X(ACCEPT, "accept") \
    X(ACCEPT_CHARSET, "accept-charset") \
    X(ACCEPT_ENCODING, "accept-encoding") \
    X(ACCEPT_LANGUAGE, "accept-language") \
    X(AUTHORIZATION, "authorization") \
    X(CACHE_CONTROL, "cache-control") \
    X(CONNECTION, "connection") \
    X(CONTENT_ENCODING, "content-encoding") \
    X(CONTENT_LENGTH, "content-length") \
    X(CONTENT_TYPE, "content-type") \
    X(COOKIE, "cookie") \
    X(DATE, "date") \
    X(DNT, "dnt") \
    X(EXPECT, "expect") \
    X(FORWARDED, "forwarded") \
    X(HOST, "host") \
    X(IF_MATCH, "if-match") \
    X(IF_MODIFIED_SINCE, "if-modified-since") \
    X(IF_NONE_MATCH, "if-none-match") \
    X(IF_RANGE, "if-range") \
    X(KEEP_ALIVE, "keep-alive") \
    X(ORIGIN, "origin") \
    X(PRAGMA, "pragma") \
    X(PRIORITY, "priority") \
    X(PROXY_CONNECTION, "proxy-connection") \
    X(RANGE, "range") \
    X(REFERER, "referer") \
    X(SEC_CH_UA, "sec-ch-ua") \
    X(SEC_CH_UA_MOBILE, "sec-ch-ua-mobile") \
    X(SEC_CH_UA_PLATFORM, "sec-ch-ua-platform") \
    X(SEC_FETCH_DEST, "sec-fetch-dest") \
    X(SEC_FETCH_MODE, "sec-fetch-mode") \
    X(SEC_FETCH_SITE, "sec-fetch-site") \
    X(SEC_FETCH_USER, "sec-fetch-user") \
    X(SEC_WEBSOCKET_KEY, "sec-websocket-key") \
    X(SEC_WEBSOCKET_VERSION, "sec-websocket-version") \
    X(TE, "te") \
    X(TRAILER, "trailer") \
    X(TRANSFER_ENCODING, "transfer-encoding") \
    X(UPGRADE, "upgrade") \
    X(UPGRADE_INSECURE_REQUESTS, "upgrade-insecure-requests") \
    X(USER_AGENT, "user-agent") \
    X(VIA, "via") \
    X(X_FORWARDED_FOR, "x-forwarded-for") \
    X(X_FORWARDED_HOST, "x-forwarded-host") \
    X(X_FORWARDED_PROTO, "x-forwarded-proto") \
    X(X_REAL_IP, "x-real-ip") \
    X(X_REQUEST_ID, "x-request-id") \
    X(X_REQUESTED_WITH, "x-requested-with")

enum pp_h1_name {
    PP_H1_NAME_OTHER = 0,
#define PP_H1_NAME_ENUM_(ident, text) PP_H1_NAME_##ident,
    PP_H1_NAMES(PP_H1_NAME_ENUM_)
#undef PP_H1_NAME_ENUM_
        PP_H1_NAME_COUNT
};

/* The id of a lower-case name, PP_H1_NAME_OTHER when it is not in the list. */
uint16_t pp_h1_name_find(const uint8_t *name, size_t len);
const char *pp_h1_name_text(uint16_t id); /* "" for PP_H1_NAME_OTHER */
size_t pp_h1_name_len(uint16_t id);

/* Names of fields that are about a connection and not about a message (RFC 2616 13.5.1, which PEP
 * 3333 refers to, and the one that clients send to proxies): X(ident, "lower-case name") */
#define PP_H1_HOPS(X) \
    X(CONNECTION, "connection") \
    X(KEEP_ALIVE, "keep-alive") \
    X(PROXY_AUTHENTICATE, "proxy-authenticate") \
    X(PROXY_AUTHORIZATION, "proxy-authorization") \
    X(PROXY_CONNECTION, "proxy-connection") \
    X(TE, "te") \
    X(TRAILERS, "trailers") \
    X(TRANSFER_ENCODING, "transfer-encoding") \
    X(UPGRADE, "upgrade")

enum pp_h1_hop {
    PP_H1_HOP_NONE = 0,
#define PP_H1_HOP_ENUM_(ident, text) PP_H1_HOP_##ident,
    PP_H1_HOPS(PP_H1_HOP_ENUM_)
#undef PP_H1_HOP_ENUM_
};

enum pp_h1_hop pp_h1_hop_find(const uint8_t *name, size_t len);
/* Which of them a name is, in any case. Content-Type and most others are as long as none. */
static inline enum pp_h1_hop pp_h1_hop_of(const uint8_t *name, size_t len)
{
#define PP_H1_HOP_BIT_(ident, text) | UINT32_C(1) << (sizeof text - 1)
    const uint32_t lengths = 0 PP_H1_HOPS(PP_H1_HOP_BIT_);
#undef PP_H1_HOP_BIT_
    return len >= 32 || (lengths >> len & 1) == 0 ? PP_H1_HOP_NONE : pp_h1_hop_find(name, len);
}

#endif
