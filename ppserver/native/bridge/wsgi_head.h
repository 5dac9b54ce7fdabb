/* Heads whose first piece does not come, and what a head says. */
#ifndef PP_BRIDGE_WSGI_HEAD_H
#define PP_BRIDGE_WSGI_HEAD_H

#include "bridge/wsgi_call.h"

/* The call's result is asked for pieces from now on, or not any more. Its thread. */
void pp_wsgi_head_begin(PpWsgiCall *call);
void pp_wsgi_head_end(PpWsgiCall *call);
/* Whether the head is on its way to the client; then, after the first time, in call->head_sent. The
 * application's thread. */
bool pp_wsgi_head_sent(PpWsgiCall *call);
/* The application replaces the head: false if it is sent. After true the leader leaves it alone
 * until pp_wsgi_head_reopen, which comes after the new one is there. */
bool pp_wsgi_head_keep(PpWsgiCall *call);
void pp_wsgi_head_reopen(PpWsgiCall *call);
/* What the application's head says, for a body that begins with len bytes. Calls no Python; on any
 * thread that has the right to read the head. */
void pp_wsgi_head_fill(const PpWsgiCall *call, struct pp_response *r, size_t len, bool more);
/* Chores: whether there are calls to look after, and sending heads that have waited for
 * PP_WSGI_HEAD_MS (leader). */
bool pp_wsgi_head_any(struct pp_lead *lead);
void pp_wsgi_head_send_due(struct pp_lead *lead);

#endif
