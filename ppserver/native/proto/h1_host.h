/* Authority syntax: uri-host [ ":" port ] of Host and of request targets (RFC 3986 3.2.2). */
#ifndef PP_PROTO_H1_HOST_H
#define PP_PROTO_H1_HOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum pp_h1_host_rule {
    PP_H1_HOST_MAY_BE_EMPTY, /* Host of a target that brings its own authority or needs none */
    PP_H1_HOST_NEEDED,       /* http and https URIs: the host is not empty (RFC 9110 4.2.1) */
    PP_H1_HOST_PORT_NEEDED   /* authority-form: host and port (RFC 9112 3.2.3) */
};

/* reg-name, IPv4 or bracketed IPv6; no userinfo, no zone, no IPvFuture; the port has at most five
 * digits and is at most 65535, and may be empty after the colon ("host:") but for PORT_NEEDED. */
bool pp_h1_host_valid(const uint8_t *data, size_t len, enum pp_h1_host_rule rule);

#endif
