/* The life of an executor, and what is asked of its leader. */
#ifndef PP_BRIDGE_LEAD_H
#define PP_BRIDGE_LEAD_H

#include "bridge/lead_base.h"

/* core->mode of its users. */
extern const struct pp_mode pp_lead_mode;
/* A user's struct of `bytes` bytes, all zero behind its struct pp_lead, for a core that serves
 * nothing yet; NULL with an exception. It becomes the core's by core->lead. */
struct pp_lead *pp_lead_new(PpCore *core, size_t bytes, int threads, const struct pp_lead_ops *ops);
void pp_lead_ref(struct pp_lead *lead);
void pp_lead_unref(struct pp_lead *lead); /* attached */

/* Leader: requests and events that are there. Returns false when the leadership was lost or given
 * away on the way. May attach. */
bool pp_lead_serve(struct pp_lead_worker *self);
/* Drops what the loop has no more use for, which may run code of the application. Leader; attaches
 * if there is something. False: leadership lost. */
bool pp_lead_release(struct pp_lead_worker *self);
/* Runs signal handlers (a no-op where run_wsgi is not on the main thread). Manager. */
void pp_lead_signals(struct pp_lead_worker *manager);
/* Posts op and waits until it is done; false if nobody leads, any more or yet. Attached. */
bool pp_lead_ask(struct pp_lead *lead, struct pp_lead_op *op);
/* The thread leads and has applied op itself, which is not done: another one leads from here on,
 * and the thread waits for op. Attached. */
void pp_lead_await(struct pp_lead_worker *self, struct pp_lead_op *op);
/* Leader: op, for which somebody waits, is done. It is gone after this. */
void pp_lead_op_done(struct pp_lead_op *op);
/* Posts a struct pp_lead_errand about object and goes on: from any thread, wherever it is.
 * Attached; -1 with an exception. */
int pp_lead_send(struct pp_lead *lead, PyObject *object, bool (*apply)(struct pp_lead_op *op));
/* Asks the leader to do chores, unless it has been asked already. Manager. */
void pp_lead_ask_chores(struct pp_lead *lead);
void pp_lead_messages(struct pp_lead *lead);   /* leader: does what is asked */
void pp_lead_drop_spent(struct pp_lead *lead); /* attached: drops the objects of errands */

#endif
