/* The system calls on sockets, with their errors turned into codes of the table. Plain TCP and Unix
 * streams; TLS gets a table of its own in front of this. Nothing here blocks. */
#ifndef PP_NET_SOCK_H
#define PP_NET_SOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/assert.h"
#include "base/err.h"
#include "net/sys.h"

/* An address of a family the server speaks; for AF_UNIX only the family is kept. */
union pp_sock_addr {
    sa_family_t family; /* AF_UNSPEC: not known (yet) */
    struct sockaddr sa;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
};

/* PP_OK: *got bytes, 0 = the peer's end of stream. PP_AGAIN: nothing here now. DISCONNECTED. */
int pp_sock_recv(int fd, uint8_t *buf, size_t len, size_t *got) PP_MUST_USE;
/* PP_OK: *put bytes were taken (at least 1). PP_AGAIN: the socket is full. DISCONNECTED. */
/* more: further output follows at once. */
int pp_sock_send(int fd, const struct iovec *iov, int count, bool more, size_t *put) PP_MUST_USE;
/* From a file, which the page cache should have. PP_ERR_APP_BODY_TOO_SHORT: it ends before. */
int pp_sock_sendfile(int fd, int file, uint64_t at, size_t len, size_t *put) PP_MUST_USE;
/* Bytes that the peer has not acknowledged yet, 0 when it cannot be told. */
uint32_t pp_sock_unsent(int fd);
/* Connections that wait in a listening socket's queue; UINT32_MAX when it cannot be told. */
uint32_t pp_sock_queued(int fd);
/* Whether there is something to receive. */
bool pp_sock_waiting(int fd);
void pp_sock_shut_write(int fd);
/* Ends a connection, also where a child that the application has forked holds a copy of it, and
 * closes. reset: the peer gets an RST instead of an orderly end. */
void pp_sock_end(int fd, bool reset);
/* Closes this copy; the connection ends with the last one. */
void pp_sock_close(int fd);

/* PP_OK: *fd is a non-blocking, close-on-exec connection. PP_AGAIN: none is waiting, or the one
 * that was is gone (*gone = true: try the next). NO_DESCRIPTORS, NO_MEMORY: try later. SYSTEM:
 * never. */
int pp_sock_accept(int listen_fd, int *fd, union pp_sock_addr *peer, bool *gone) PP_MUST_USE;
/* Sends one message over a SOCK_SEQPACKET socket, with a descriptor if pass >= 0, never waiting.
 * PP_OK, PP_AGAIN (full) or SYSTEM. */
int pp_sock_pass(int fd, const void *msg, size_t len, int pass) PP_MUST_USE;
/* Receives one. *passed is -1 or a new close-on-exec descriptor. PP_AGAIN: none is there.
 * NO_DESCRIPTORS: the message came, its descriptor could not. DISCONNECTED: no writer is left. */
int pp_sock_passed(int fd, void *msg, size_t len, size_t *got, int *passed) PP_MUST_USE;
/* Prepares a listening socket: what is set on it is inherited by the connections it accepts.
 * silent_ms: when the kernel gives up a peer that answers nothing, neither probes of an idle
 * connection nor, from stalled_ms on, data; 0 = the system's own rules. */
int pp_sock_prepare_listen(int fd, uint32_t silent_ms, uint32_t stalled_ms) PP_MUST_USE;
/* Of a connected socket. PP_OK or SYSTEM (errno). */
int pp_sock_peer(int fd, union pp_sock_addr *addr) PP_MUST_USE;
/* family is AF_UNSPEC when it could not be found out. */
void pp_sock_local(int fd, union pp_sock_addr *addr);
/* The path a Unix socket is bound to, not NUL-terminated: its length, 0 for none or no room. */
size_t pp_sock_local_path(int fd, char *buf, size_t cap);
bool pp_sock_wildcard(const union pp_sock_addr *addr);

#endif
