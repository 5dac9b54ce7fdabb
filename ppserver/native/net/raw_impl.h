/* The private part of a raw connection (raw.c), which holds it by value. */
#ifndef PP_NET_RAW_IMPL_H
#define PP_NET_RAW_IMPL_H

#include "net/exchange_impl.h"

struct pp_block;
struct pp_proto;

struct pp_raw {
    struct pp_exchange ex;
    struct pp_block *in;        /* owned; while there is something that was not consumed */
    uint32_t start, end;        /* of that */
    uint32_t idle_ms;           /* when IDLE is raised; 0: never */
    uint8_t receive_again;      /* attempts when the socket has nothing, as set... */
    uint8_t receive_again_left; /* ...and left until something moves */
    bool ours : 1;              /* we have closed it */
    bool finish_due : 1;        /* FINISHED is owed once the output is written */
};

extern const struct pp_proto pp_raw_proto;
/* Makes the exchange that the application has on this connection a raw one: a tunnel. Takes the
 * block over, of which data[start, end) is the first that the peer has said. */
void pp_raw_take_over(struct pp_conn *conn, struct pp_block *in, uint32_t start, uint32_t end);

#endif
