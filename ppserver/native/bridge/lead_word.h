/* Which thread leads. */
#ifndef PP_BRIDGE_LEAD_WORD_H
#define PP_BRIDGE_LEAD_WORD_H

#include "bridge/lead_base.h"

/* Leaves the loop alone and goes into the application. The thread leads. */
void pp_lead_leave(struct pp_lead_worker *self);
/* Back from the application: true if the thread still leads and may touch the loop. */
bool pp_lead_enter(struct pp_lead_worker *self);
/* Back into the same call after pp_lead_enter. */
void pp_lead_exit(struct pp_lead_worker *self);
/* Makes another thread the leader. The thread leads and is not inside the application. */
void pp_lead_hand_over(struct pp_lead_worker *self);
void pp_lead_to_manager(struct pp_lead_worker *self); /* the same, the manager */
/* True if a thread is parked, so that hand-over costs nobody's turn. */
bool pp_lead_spare(struct pp_lead *lead);
/* The calling thread if it is one of ours, or NULL. */
struct pp_lead_worker *pp_lead_self(void);
/* From the loop into the application; the lead goes to a parked thread first if there is one and
 * calls have waited lately, or always. */
void pp_lead_go(struct pp_lead_worker *self, bool always, struct pp_lead_trip *trip);
/* The application is done; what is left to be sent may take its time. */
void pp_lead_called(struct pp_lead_worker *self, struct pp_lead_trip *trip);
/* All is done. leads: never lost the lead. */
void pp_lead_back(struct pp_lead_worker *self, const struct pp_lead_trip *trip, bool leads);
void pp_lead_attach(struct pp_lead_worker *self); /* harmless when attached */
void pp_lead_detach(struct pp_lead_worker *self);
/* Once, before the first thread. */
void pp_lead_prepare(void);
/* The calling thread is that worker from now on; who it was before. */
struct pp_lead_worker *pp_lead_bind(struct pp_lead_worker *self);
/* A parked thread, which is not parked any more, or NULL. */
struct pp_lead_worker *pp_lead_pop_locked(struct pp_lead *lead);
/* target is to take over; `word` is the caller's to change. */
void pp_lead_appoint_locked(struct pp_lead *lead, struct pp_lead_worker *target);
/* The manager: takes the lead from a leader that is inside the application since `word`. */
bool pp_lead_steal(struct pp_lead *lead, uint64_t word, bool for_manager);
/* True: the thread had been appointed, and leads now. */
bool pp_lead_take(struct pp_lead_worker *self);
bool pp_lead_take_locked(struct pp_lead_worker *self);
/* A call waited, or did not: decides whether the next ones are taken to wait. Any thread. */
void pp_lead_learn(struct pp_lead *lead, bool waits);
/* Leader, attached: drops a reference, or reports the raised exception, as above. May lose the
 * lead: self->word tells. */
void pp_lead_drop(struct pp_lead_worker *self, PyObject *object);
void pp_lead_report(struct pp_lead_worker *self);
/* Wakes the manager if it sleeps: there is something to watch. Any thread. */
void pp_lead_wake_watch(struct pp_lead *lead);

#endif
