/* The one way into a loop from another thread or a signal handler: an intrusive stack of messages
 * that any thread pushes, and an eventfd that cuts the loop's wait short. No locks. */
#ifndef PP_NET_MAILBOX_H
#define PP_NET_MAILBOX_H

#include <stdbool.h>

#include "net/loop.h"

struct pp_mailbox {
    struct pp_msg *stack; /* atomic: the latest message first */
    struct pp_msg *taken; /* owner's: oldest first */
    int wake_fd;          /* owned eventfd */
    int woken;            /* atomic: a wake-up is on its way, no second write is needed */
};

int pp_mailbox_init(struct pp_mailbox *box) PP_MUST_USE; /* PP_OK or SYSTEM */
void pp_mailbox_fini(struct pp_mailbox *box);
void pp_mailbox_wake(struct pp_mailbox *box);                     /* any thread, signal handlers */
void pp_mailbox_post(struct pp_mailbox *box, struct pp_msg *msg); /* any thread */
/* Owner, on the eventfd's event: before looking for messages. */
void pp_mailbox_woken(struct pp_mailbox *box);
bool pp_mailbox_empty(const struct pp_mailbox *box);
struct pp_msg *pp_mailbox_take(struct pp_mailbox *box); /* oldest; NULL when empty */

#endif
