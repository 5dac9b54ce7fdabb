/* What lives on a connection: HTTP/1.1, raw bytes, later a handshake or HTTP/2. The transport
 * (conn.h) calls these and knows nothing else of it; they call the transport's functions.
 *
 * A protocol is changed at run time by pp_conn_become. Its private part stands by value in the
 * connection. All functions run on the loop's thread, may kill the connection (pp_conn_kill), and
 * are called only while the connection is open (PP_CONN_OPEN), but for `gone` and `next`. */
#ifndef PP_NET_PROTO_H
#define PP_NET_PROTO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pp_conn;
struct pp_exchange;

struct pp_proto {
    const char *name;
    /* The connection is its own from now on. carry[0, len): received already, to be looked at
     * before anything else; valid for the call. */
    void (*begin)(struct pp_conn *conn, const uint8_t *carry, size_t len);
    /* The poller has said something: receives, if conn->readable, until the socket is empty, its
     * share of the turn is used up, or it wants no more. */
    void (*ready)(struct pp_conn *conn);
    /* What pp_conn_resume_later asked for: goes on with what is left over, then as `ready`. */
    void (*resume)(struct pp_conn *conn);
    /* A flush has ended; conn->out.bytes are left. */
    void (*flushed)(struct pp_conn *conn);
    /* The deadline of pp_conn_read_due has passed; it is unset. Ends nothing before a look for what
     * has arrived (pp_conn_look). */
    void (*late)(struct pp_conn *conn);
    /* The time of pp_conn_call_due has come. May be NULL where that is not used. */
    void (*called)(struct pp_conn *conn);
    /* Nothing is received or sent any more, because of `code`. The socket is closed, or (code is
     * DISCONNECTED, then a second call may follow) our side of it is shut. */
    void (*gone)(struct pp_conn *conn, int code);
    /* No further request: the loop drains, or pp_conn_end was called. */
    void (*drain)(struct pp_conn *conn);
    /* An answer is due to the peer. */
    bool (*busy)(const struct pp_conn *conn);
    /* It may change its context now: the peer owes the next word, and nothing of it is here. */
    bool (*may_leave)(const struct pp_conn *conn);
    /* The exchanges that the application holds, one by one: the one after `ex` (NULL: the first),
     * or NULL. Also when the connection is dead. */
    struct pp_exchange *(*next)(struct pp_conn *conn, struct pp_exchange *ex);
};

#endif
