/* Forwarded fields: believed from trusted peers, removed from everybody else's requests.
 *
 * Who the client of a request is, is decided once, when its head is whole, so that the scope, the
 * environ and the access line cannot tell different stories. Reads text, addresses and nothing
 * else; any thread may call these. */
#ifndef PP_NET_FORWARDED_H
#define PP_NET_FORWARDED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "net/sock.h"
#include "proto/h1_parse.h"

#define PP_FORWARDED_HOPS_MAX 64 /* of a request; beyond, its fields name nobody */
#define PP_TRUSTED_NETWORKS_MAX 4096

struct pp_network {
    uint8_t address[16]; /* IPv4 as ::ffff:a.b.c.d */
    uint8_t bits;        /* of the prefix, 0 to 128 */
};

/* Whom to believe. */
struct pp_trusted {
    bool everybody;
    bool unix_peers;
    uint32_t count;
    struct pp_network networks[];
};

enum pp_forwarded_scheme { PP_SCHEME_UNSAID, PP_SCHEME_HTTP, PP_SCHEME_HTTPS };

/* What a trusted proxy says of a request. */
struct pp_forwarded {
    union pp_sock_addr client; /* family AF_UNSPEC: nothing, so it is the socket's peer */
    enum pp_forwarded_scheme scheme;
};

/* A copy, to be freed by pp_trusted_free; NULL: no memory. */
struct pp_trusted *pp_trusted_copy(const struct pp_trusted *trusted) PP_MUST_USE;
void pp_trusted_free(struct pp_trusted *trusted);
bool pp_trusted_has(const struct pp_trusted *trusted, const union pp_sock_addr *address);
/* The client is the last address of X-Forwarded-For, from the right, that is not trusted itself:
 * what stands left of it came from the client and proves nothing. The scheme is the last word of
 * X-Forwarded-Proto. */
void pp_forwarded_read(const struct pp_trusted *trusted, const struct pp_head *head,
                       const uint8_t *base, struct pp_forwarded *found);
/* Removes from the head the forwarded fields whose names have an underscore (applications take them
 * for those with a dash), and with `all` those with a dash, too. */
void pp_forwarded_strip(struct pp_head *head, const uint8_t *base, bool all);

#endif
