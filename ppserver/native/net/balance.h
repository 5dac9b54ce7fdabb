/* Even load over the contexts of a server: each new connection goes to the least loaded one, and a
 * context that is much busier than another gives idle keep-alive connections away.
 *
 * Whoever accepts looks at the board. If another context is less loaded, the socket goes through
 * that one's *door*, a SOCK_SEQPACKET pair with one reader and any number of writers: between
 * processes as a passed descriptor, within a process as its number. The message carries what the
 * receiver can not ask the kernel for. The wake-up comes with it, nothing is shared but the board,
 * and a door that is full or closed just means that the acceptor keeps the connection. */
#ifndef PP_NET_BALANCE_H
#define PP_NET_BALANCE_H

#include <stdbool.h>

#include "net/board.h"
#include "net/sock.h"

struct pp_loop;
struct pp_conn;

/* What a loop knows of its peers. */
struct pp_balance {
    struct pp_board *board; /* borrowed; NULL: it is alone */
    unsigned self;          /* its slot */
    int inbox;              /* borrowed: reading end of its own door; -1 = none */
    int *doors;             /* owned: writing ends by slot, -1 = none */
    unsigned count;         /* of doors */
    bool local;             /* all contexts that we hand over to are in this process */
    int32_t pid;            /* which is this one */
    uint32_t round;         /* number of the window in which connections were last looked at */
    unsigned pressed;       /* looks in a row that found somebody who could relieve it */
    uint64_t retry_ms;      /* when to look whether it can take connections again; 0: it can */
    unsigned retry_after_ms;
    unsigned owed, owed_to; /* so many active ones are to leave for that slot, once answered */
    uint64_t next_ms;       /* when to look again whether to give some away */
    uint32_t accepts, accepts_before; /* in this window, and in the one before */
    uint64_t window_us;      /* start of the window that busy_permille will be made of... */
    uint64_t window_busy_us; /* ...and busy_us at that time */
};

/* How loaded a context is, in eighths of an idle connection: open and promised connections,
 * requests that wait inside the application (PP_LOAD_SUSPENDED each), and the time since it has
 * come back from the application, beyond PP_LOAD_STALL_US; among equals the share of time it was
 * busy. */
uint64_t pp_balance_score(const struct pp_slot *slot, uint64_t now_us);

/* The slot that should have a new connection instead of ours, or -1 to keep it. */
int pp_balance_choose(const struct pp_loop *loop, uint64_t now_us);
/* Hands an accepted socket to a slot; false: it is still ours. requests: answered on it so far. */
bool pp_balance_give(struct pp_loop *loop, unsigned slot, int fd, const union pp_sock_addr *peer,
                     const union pp_sock_addr *local, uint16_t tag, uint64_t requests);
/* The inbox is readable: takes connections over, a bounded number. Without a free descriptor they
 * go on to another context; the first of them is lost, which its client sees, and is counted. */
void pp_balance_take(struct pp_loop *loop);
/* Once per turn: closes the window, and gives idle connections away if another is much less busy.
 */
void pp_balance_turn(struct pp_loop *loop, uint64_t now_us);
/* No descriptor is free here: others pass this context over until one is. */
void pp_balance_block(struct pp_loop *loop, enum pp_slot_block why);
/* Hands a connection that this context cannot keep to any other; false: it is still ours. */
bool pp_balance_pass_on(struct pp_loop *loop, int fd, const union pp_sock_addr *peer,
                        const union pp_sock_addr *local, uint16_t tag, uint64_t requests);
/* It has just been answered: hands it over if it is owed. */
void pp_balance_answered(struct pp_conn *conn);
void pp_balance_fini(struct pp_loop *loop);

#endif
