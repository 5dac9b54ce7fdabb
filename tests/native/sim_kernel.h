/* A kernel for net/ that is a table in memory (PP_TEST_KERNEL of net/sys.h): one epoll, one
 * listener, a few connections, and a clock that only the simulation moves. Single-threaded. */
#ifndef PP_TESTS_NATIVE_SIM_KERNEL_H
#define PP_TESTS_NATIVE_SIM_KERNEL_H

#include "harness.h"

#define SIM_CONNS 5
#define SIM_BYTES 65536
#define SIM_LISTENER 3
#define SIM_CONN_FD 10 /* the first */

struct sim_conn {
    bool waits;    /* in the accept queue */
    bool accepted; /* and has a descriptor until `closed` */
    bool closed, shut;
    bool fin, reset; /* by the client */
    bool registered, woken;
    bool no_space; /* a send found no room: the next room is an edge */
    uint64_t data; /* of its registration */
    uint8_t in[SIM_BYTES], out[SIM_BYTES];
    size_t in_len, out_len, in_cap, out_cap;
};

struct sim {
    uint64_t now_us;
    struct sim_conn conns[SIM_CONNS];
    bool deaf;           /* a fault: SIOCINQ says that nothing is there */
    void (*idle)(void);  /* inside epoll_wait, after the events are known */
    unsigned open_count; /* descriptors */
};
extern struct sim sim;

void sim_reset(void);
/* The client's side; how many bytes went through. */
size_t sim_client_send(struct sim_conn *c, const void *data, size_t len, bool beyond);
size_t sim_client_recv(struct sim_conn *c, void *to, size_t room);
void sim_client_shut(struct sim_conn *c);
void sim_client_reset(struct sim_conn *c);

#endif
