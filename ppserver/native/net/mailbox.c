/* Messages between threads (contract: mailbox.h). Many producers push onto an atomic stack; the
 * owner takes the whole stack at once and turns it round, which gives the order of posting. The
 * eventfd is written only by the first of several posts between two turns. */
#include "net/mailbox.h"
#include "net/sys.h"

#include <errno.h>

int pp_mailbox_init(struct pp_mailbox *box)
{
    box->stack = NULL;
    box->taken = NULL;
    box->woken = 0;
    box->wake_fd = pp_sys_eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return box->wake_fd < 0 ? PP_ERR_SYSTEM : PP_OK;
}

void pp_mailbox_fini(struct pp_mailbox *box)
{
    if (box->wake_fd >= 0) {
        (void)pp_sys_close(box->wake_fd);
        box->wake_fd = -1;
    }
}

void pp_mailbox_wake(struct pp_mailbox *box)
{
    const uint64_t one = 1;
    if (__atomic_exchange_n(&box->woken, 1, __ATOMIC_ACQ_REL) != 0) {
        return;
    }
    int saved = errno; /* may run inside a signal handler */
    while (pp_sys_write(box->wake_fd, &one, sizeof one) < 0 && errno == EINTR) {}
    errno = saved;
}

void pp_mailbox_post(struct pp_mailbox *box, struct pp_msg *msg)
{
    struct pp_msg *head = __atomic_load_n(&box->stack, __ATOMIC_RELAXED);
    do {
        msg->next = head;
    } while (!__atomic_compare_exchange_n(&box->stack, &head, msg, true, __ATOMIC_RELEASE,
                                          __ATOMIC_RELAXED));
    pp_mailbox_wake(box);
}

void pp_mailbox_woken(struct pp_mailbox *box)
{
    /* An exchange, so that a post before this point is seen by the take that follows it. */
    (void)__atomic_exchange_n(&box->woken, 0, __ATOMIC_ACQ_REL);
}

bool pp_mailbox_empty(const struct pp_mailbox *box)
{
    return box->taken == NULL && __atomic_load_n(&box->stack, __ATOMIC_RELAXED) == NULL;
}

struct pp_msg *pp_mailbox_take(struct pp_mailbox *box)
{
    if (box->taken == NULL) {
        struct pp_msg *msg = __atomic_exchange_n(&box->stack, NULL, __ATOMIC_ACQUIRE);
        while (msg != NULL) {
            struct pp_msg *next = msg->next;
            msg->next = box->taken;
            box->taken = msg;
            msg = next;
        }
    }
    struct pp_msg *first = box->taken;
    if (first != NULL) {
        box->taken = first->next;
        first->next = NULL;
    }
    return first;
}
