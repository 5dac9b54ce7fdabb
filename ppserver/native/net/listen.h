/* Accepting, for the turn (pp_loop_listen and its like: loop.h). */
#ifndef PP_NET_LISTEN_H
#define PP_NET_LISTEN_H

#include "net/loop_impl.h"

void pp_listen_accept(struct pp_loop *loop, struct pp_listener *listener);
void pp_listen_resume(struct pp_loop *loop); /* after a pause */

#endif
