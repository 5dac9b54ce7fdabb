/* Even load (contract: balance.h). Loop's thread only; others' slots are read, and only `promised`
 * of them is written.
 *
 * New connections. The acceptor compares scores at the moment of the accept. A promise is counted
 * before the socket is sent, so that the next choice, here or elsewhere, already knows of it.
 *
 * Old connections. Every PP_BALANCE_MS a context that was busy for most of the last window looks
 * for one under much less pressure, and, finding one a few times in a row, gives it some of its
 * connections: those which had a request since the last look (others bring no load) and are between
 * requests, with nothing of theirs in our memory: now, or once they are answered. One that has many
 * more connections than another, and is no busier, gives idle ones away. What the peer sends
 * meanwhile waits in the socket, which moves as it is. The gap that it takes to begin is wide and a
 * step closes half of it, so connections do not wander back and forth.
 *
 * The seam to the connection is small: pp_conn_may_leave, pp_conn_detach and pp_conn_left,
 * pp_conn_open. */
#include "net/balance.h"
#include "net/sys.h"

#include <errno.h>
#include <string.h>

#include "net/conn.h"

#define DOOR_MAGIC 0x9e11d002u
#define TAKE_BATCH PP_ACCEPT_BATCH

struct door_msg {
    uint32_t magic;
    int32_t pid; /* of the sender, whose descriptor fd is */
    int32_t fd;  /* its number when sender and receiver share a process; -1: it comes along */
    uint64_t requests;
    union pp_sock_addr peer, local;
    uint16_t tag;
};

/* ---- joining ---- */

int pp_loop_join(struct pp_loop *loop, struct pp_board *board, unsigned self, int inbox,
                 const int *doors, unsigned count, bool local)
{
    struct pp_balance *b = &loop->balance;
    PP_LOOP_ENTER(loop);
    PP_CHECK(loop->slot == pp_board_slot(board, self));
    if (b->board != NULL || count > PP_DOORS_MAX || count > pp_board_slots(board)) {
        errno = EINVAL;
        return PP_ERR_SYSTEM;
    }
    int *copy = pp_mem_alloc((count + 1) * sizeof *copy);
    if (copy == NULL) {
        errno = ENOMEM;
        return PP_ERR_NO_MEMORY;
    }
    memcpy(copy, doors, count * sizeof *copy);
    int rc = pp_poll_add_inbox(loop->poll_fd, inbox);
    if (rc != PP_OK) {
        pp_mem_free(copy, (count + 1) * sizeof *copy);
        return rc;
    }
    b->board = board;
    b->self = self;
    b->inbox = inbox;
    b->doors = copy;
    b->count = count;
    b->local = local;
    b->pid = (int32_t)pp_sys_getpid();
    __atomic_store_n(&loop->slot->life, PP_SLOT_OPEN, __ATOMIC_RELEASE);
    return PP_OK;
}

void pp_balance_fini(struct pp_loop *loop)
{
    struct pp_balance *b = &loop->balance;
    if (b->doors != NULL) {
        pp_mem_free(b->doors, (b->count + 1) * sizeof *b->doors);
        b->doors = NULL;
    }
    if (b->inbox >= 0) {
        (void)pp_poll_del(loop->poll_fd, b->inbox);
        b->inbox = -1;
    }
    b->board = NULL;
}

/* ---- choosing ---- */

/* How long it has been inside the application, or kept from the processor. */
static uint64_t stuck_us(const struct pp_slot *slot, uint64_t now_us)
{
    uint64_t since = __atomic_load_n(&slot->busy_since_us, __ATOMIC_RELAXED);
    return since != 0 && since < now_us ? now_us - since : 0;
}

uint64_t pp_balance_score(const struct pp_slot *slot, uint64_t now_us)
{
    uint64_t score =
        (uint64_t)__atomic_load_n(&slot->connections, __ATOMIC_RELAXED) +
        __atomic_load_n(&slot->promised, __ATOMIC_RELAXED) +
        (uint64_t)PP_LOAD_SUSPENDED * __atomic_load_n(&slot->suspended, __ATOMIC_RELAXED);
    /* Among equals the less busy one, in quarters: what is measured differs a little anyway. */
    score = score * 8 + pp_slot_busy(slot, now_us) / 250;
    uint64_t stuck = stuck_us(slot, now_us);
    if (stuck > PP_LOAD_STALL_US) {
        score += 8 * PP_LOAD_STALL_WEIGHT * ((stuck - PP_LOAD_STALL_US) / 1000 + 1);
    }
    return score;
}

static bool open_for(const struct pp_balance *b, const struct pp_slot *slot, unsigned index)
{
    return index != b->self && b->doors[index] >= 0 &&
           __atomic_load_n(&slot->life, __ATOMIC_ACQUIRE) == PP_SLOT_OPEN &&
           __atomic_load_n(&slot->blocked, __ATOMIC_RELAXED) == PP_SLOT_FREE &&
           /* During a reload threads of two processes sit side by side. */
           (!b->local || __atomic_load_n(&slot->pid, __ATOMIC_RELAXED) == b->pid);
}

int pp_balance_choose(const struct pp_loop *loop, uint64_t now_us)
{
    const struct pp_balance *b = &loop->balance;
    int best = -1;
    if (b->board == NULL || loop->slot->life != PP_SLOT_OPEN) {
        return -1;
    }
    /* In a storm the numbers are a moment old, and small differences not worth a hand-over. */
    uint64_t slack = 8 * (uint64_t)((b->accepts + b->accepts_before) / PP_BALANCE_STORM);
    uint64_t own = pp_balance_score(loop->slot, now_us);
    uint64_t least = own > slack ? own - slack : 0;
    for (unsigned i = 0; i < b->count && least > 0; i++) {
        const struct pp_slot *slot = pp_board_slot(b->board, i);
        if (open_for(b, slot, i)) {
            uint64_t score = pp_balance_score(slot, now_us);
            if (score < least) {
                least = score;
                best = (int)i;
            }
        }
    }
    return best;
}

/* ---- doors ---- */

bool pp_balance_give(struct pp_loop *loop, unsigned slot, int fd, const union pp_sock_addr *peer,
                     const union pp_sock_addr *local, uint16_t tag, uint64_t requests)
{
    struct pp_balance *b = &loop->balance;
    struct pp_slot *target = pp_board_slot(b->board, slot);
    struct door_msg msg;

    memset(&msg, 0, sizeof msg); /* padding leaves the process, too */
    msg.magic = DOOR_MAGIC;
    msg.pid = b->pid;
    msg.fd = b->local ? fd : -1;
    msg.requests = requests;
    msg.peer = *peer;
    msg.local = *local;
    msg.tag = tag;
    (void)__atomic_fetch_add(&target->promised, 1, __ATOMIC_RELAXED);
    if (pp_sock_pass(b->doors[slot], &msg, sizeof msg, b->local ? -1 : fd) != PP_OK) {
        pp_slot_kept(target, 1);
        return false;
    }
    pp_stats_add(&loop->slot->counters.handed_out, 1);
    if (!b->local) {
        (void)pp_sys_close(fd); /* the message holds the socket now */
    }
    return true;
}

void pp_balance_block(struct pp_loop *loop, enum pp_slot_block why)
{
    struct pp_balance *b = &loop->balance;
    bool deaf = b->board != NULL && loop->slot->blocked == PP_SLOT_NO_INBOX;
    if (b->board == NULL || (deaf && b->inbox < 0)) {
        return;
    }
    /* An inbox that nobody reads stays the reason until it is read again: see retry(). */
    pp_stats_set32(&loop->slot->blocked, deaf ? PP_SLOT_NO_INBOX : why);
    b->retry_after_ms = b->retry_after_ms == 0 ? PP_ACCEPT_PAUSE_MS : b->retry_after_ms * 2;
    if (b->retry_after_ms > PP_BALANCE_RETRY_MS) {
        b->retry_after_ms = PP_BALANCE_RETRY_MS;
    }
    b->retry_ms = loop->now_ms + b->retry_after_ms;
}

static bool descriptor_free(struct pp_loop *loop)
{
    if (loop->reserve_fd < 0) {
        loop->reserve_fd = pp_sys_open("/dev/null", O_RDONLY | O_CLOEXEC);
    }
    int probe = pp_sys_open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (probe >= 0) {
        (void)pp_sys_close(probe);
    }
    return probe >= 0 && loop->reserve_fd >= 0;
}

/* Looks whether what has blocked us is over. */
static void retry(struct pp_loop *loop)
{
    struct pp_balance *b = &loop->balance;
    bool inbox = loop->slot->blocked == PP_SLOT_NO_INBOX;
    if (!descriptor_free(loop)) {
        pp_balance_block(loop, inbox ? PP_SLOT_NO_INBOX : PP_SLOT_NO_DESCRIPTORS);
    } else if (inbox && pp_poll_add_inbox(loop->poll_fd, b->inbox) != PP_OK) {
        pp_balance_block(loop, PP_SLOT_NO_INBOX);
    } else {
        b->retry_ms = 0;
        pp_stats_set32(&loop->slot->blocked, PP_SLOT_FREE);
    }
}

bool pp_balance_pass_on(struct pp_loop *loop, int fd, const union pp_sock_addr *peer,
                        const union pp_sock_addr *local, uint16_t tag, uint64_t requests)
{
    const struct pp_balance *b = &loop->balance;
    uint64_t least = UINT64_MAX;
    int best = -1;
    for (unsigned i = 0; b->board != NULL && !b->local && i < b->count; i++) {
        const struct pp_slot *slot = pp_board_slot(b->board, i);
        uint64_t score = pp_balance_score(slot, loop->now_us);
        if (open_for(b, slot, i) && score < least) {
            least = score;
            best = (int)i;
        }
    }
    return best >= 0 && pp_balance_give(loop, (unsigned)best, fd, peer, local, tag, requests);
}

static void inbox_failed(struct pp_loop *loop, int rc)
{
    struct pp_balance *b = &loop->balance;
    (void)pp_poll_del(loop->poll_fd, b->inbox);
    pp_balance_block(loop, PP_SLOT_NO_INBOX);
    if (rc == PP_ERR_DISCONNECTED) { /* every writer is gone: nothing will come of it again */
        b->inbox = -1;
        b->retry_ms = 0;
    }
}

/* One message. False: no more of them now. */
static bool take_one(struct pp_loop *loop, bool starving)
{
    struct pp_balance *b = &loop->balance;
    struct door_msg msg;
    size_t got = 0;
    int fd = -1;
    int rc = pp_sock_passed(b->inbox, &msg, sizeof msg, &got, &fd);
    if (rc == PP_AGAIN) {
        return false;
    }
    if (rc != PP_OK) {
        pp_stats_error(&loop->slot->counters, rc);
        if (rc != PP_ERR_NO_DESCRIPTORS) {
            inbox_failed(loop, rc);
            return false;
        }
        pp_slot_kept(loop->slot, 1);
        pp_balance_block(loop, PP_SLOT_NO_DESCRIPTORS);
        return true;
    }
    PP_CHECK(got == sizeof msg && msg.magic == DOOR_MAGIC);
    pp_slot_kept(loop->slot, 1);
    if (fd < 0) {
        if (msg.pid != b->pid) {
            return true; /* left behind by a process that died, and its sockets with it */
        }
        fd = msg.fd;
    }
    pp_stats_add(&loop->slot->counters.handed_in, 1);
    if (!starving) {
        b->retry_after_ms = 0;
        pp_conn_open(loop, fd, &msg.peer, &msg.local, msg.tag, msg.requests);
    } else if (!pp_balance_pass_on(loop, fd, &msg.peer, &msg.local, msg.tag, msg.requests)) {
        pp_stats_error(&loop->slot->counters, PP_ERR_NO_DESCRIPTORS);
        pp_stats_add(&loop->slot->counters.closed, 1);
        pp_sock_close(fd);
    }
    return true;
}

void pp_balance_take(struct pp_loop *loop)
{
    struct pp_balance *b = &loop->balance;
    bool more = true;
    for (int i = 0; i < TAKE_BATCH && more && b->inbox >= 0; i++) {
        bool starving = loop->slot->blocked == PP_SLOT_NO_DESCRIPTORS && !b->local;
        if (starving && loop->reserve_fd >= 0) { /* what it is for: to get this one further */
            (void)pp_sys_close(loop->reserve_fd);
            loop->reserve_fd = -1;
        }
        more = take_one(loop, starving);
        if (starving) {
            loop->reserve_fd = pp_sys_open("/dev/null", O_RDONLY | O_CLOEXEC);
        }
    }
}

/* ---- giving away what is idle ---- */

/* Work that waits: the busy share times the requests that come up per turn, in thousandths. */
static uint64_t pressure(const struct pp_slot *slot, uint64_t now_us)
{
    uint32_t depth16 = __atomic_load_n(&slot->depth16, __ATOMIC_RELAXED);
    return (uint64_t)pp_slot_busy(slot, now_us) * (depth16 > 16 ? depth16 : 16) / 16;
}

/* Whom to give some to: the one under least pressure, if that is at most half of ours. */
static int relief(const struct pp_balance *b, uint64_t own, uint64_t now_us, uint64_t *other)
{
    int best = -1;
    uint64_t least = own / 2;
    for (unsigned i = 0; i < b->count; i++) {
        const struct pp_slot *slot = pp_board_slot(b->board, i);
        if (open_for(b, slot, i) && stuck_us(slot, now_us) < PP_BALANCE_STUCK_US) {
            uint64_t found = pressure(slot, now_us);
            if (found <= least) {
                least = found;
                best = (int)i;
            }
        }
    }
    *other = least;
    return best;
}

/* Hands a connection to the context in that slot; false: it could not be, and is as before. */
static bool hand_over(struct pp_conn *conn, unsigned slot)
{
    pp_conn_detach(conn);
    if (!pp_balance_give(conn->loop, slot, conn->fd, &conn->peer, &conn->local, conn->tag,
                         conn->requests)) {
        return false;
    }
    pp_conn_left(conn);
    return true;
}

/* Gives up to `moves` of the connections that may leave to a context, among the first in the list;
 * only_active: those that bring load. The next look begins where this one ended. How many went. */
static unsigned move_some(struct pp_loop *loop, unsigned target, uint64_t moves, bool only_active)
{
    struct pp_list *n = loop->conns.next;
    unsigned moved = 0;
    for (int i = 0; i < PP_BALANCE_LOOKS && n != &loop->conns && moved < moves; i++) {
        struct pp_conn *conn = PP_CONTAINER(n, struct pp_conn, all);
        n = n->next;
        if (!pp_conn_may_leave(conn) || (only_active && !pp_conn_active(conn))) {
            continue;
        }
        if (!hand_over(conn, target)) {
            break;
        }
        moved++;
    }
    if (n != &loop->conns) { /* turn the ring: the head goes before n */
        pp_list_remove(&loop->conns);
        pp_list_push(n, &loop->conns);
    }
    return moved;
}

/* Those that had a request since the last look, whether they are answered by now or not. */
static uint32_t active(const struct pp_loop *loop)
{
    uint32_t count = 0;
    const struct pp_list *n = loop->conns.next;
    for (int i = 0; i < PP_BALANCE_LOOKS && n != &loop->conns; i++, n = n->next) {
        const struct pp_conn *conn = PP_CONTAINER(n, struct pp_conn, all);
        count += pp_conn_active(conn);
    }
    return count;
}

/* True when some were given to somebody who is under much less pressure. One look may just have met
 * two in different moments of the same load, so it takes several. */
static bool relieve(struct pp_loop *loop, uint64_t now_us)
{
    struct pp_balance *b = &loop->balance;
    uint64_t own = pressure(loop->slot, now_us), other = 0;
    int target = -1;
    if (loop->slot->busy_permille >= PP_BALANCE_BUSY) {
        target = relief(b, own, now_us, &other);
    }
    if (target < 0) {
        b->pressed = 0;
        return false;
    }
    if (++b->pressed < PP_BALANCE_PATIENCE) {
        return false;
    }
    b->pressed = 0;
    /* Their share of the load, as if all were alike. One at least if the other is really idle, so
     * that a heavy neighbour does not keep a light one from leaving. */
    uint64_t moves = (uint64_t)active(loop) * (own - other) / (2 * own);
    if (moves == 0 && other + PP_BALANCE_GAP <= PP_BALANCE_BUSY) {
        moves = 1;
    }
    moves = moves < PP_BALANCE_MOVES_MAX ? moves : PP_BALANCE_MOVES_MAX;
    unsigned moved = move_some(loop, (unsigned)target, moves, true);
    b->owed = (unsigned)moves - moved;
    b->owed_to = (unsigned)target;
    return moves > 0;
}

void pp_balance_answered(struct pp_conn *conn)
{
    struct pp_balance *b = &conn->loop->balance;
    const struct pp_slot *target = pp_board_slot(b->board, b->owed_to);
    if (!pp_conn_may_leave(conn)) {
        return;
    }
    b->owed--;
    if (!open_for(b, target, b->owed_to) || !hand_over(conn, b->owed_to)) {
        b->owed = 0;
    }
}

/* Numbers that differ a lot, after a storm that a door could not hold or a context that came later:
 * half of the difference, whether it brings load or not. */
static void even_out(struct pp_loop *loop, uint64_t now_us)
{
    const struct pp_balance *b = &loop->balance;
    uint32_t own = loop->slot->connections, least = own;
    int best = -1;
    for (unsigned i = 0; i < b->count; i++) {
        const struct pp_slot *slot = pp_board_slot(b->board, i);
        if (open_for(b, slot, i) && stuck_us(slot, now_us) <= PP_LOAD_STALL_US &&
            pp_slot_busy(slot, now_us) < PP_BALANCE_BUSY) {
            uint32_t count = __atomic_load_n(&slot->connections, __ATOMIC_RELAXED) +
                             __atomic_load_n(&slot->promised, __ATOMIC_RELAXED);
            if (count < least) {
                least = count;
                best = (int)i;
            }
        }
    }
    uint32_t gap = own - least;
    if (best >= 0 && gap > PP_BALANCE_COUNT_GAP && gap > own / 8) {
        (void)move_some(loop, (unsigned)best,
                        gap / 2 < PP_BALANCE_MOVES_MAX ? gap / 2 : PP_BALANCE_MOVES_MAX, false);
    }
}

void pp_balance_turn(struct pp_loop *loop, uint64_t now_us)
{
    struct pp_balance *b = &loop->balance;
    struct pp_slot *slot = loop->slot;
    uint64_t passed = now_us - b->window_us;
    if (passed >= PP_LOAD_WINDOW_US) {
        uint64_t busy = slot->busy_us - b->window_busy_us;
        uint64_t share = busy * 1000 / passed;
        pp_stats_set32(&slot->busy_permille, share > 1000 ? 1000 : (uint32_t)share);
        b->accepts_before = b->accepts;
        b->accepts = 0;
        b->window_us = now_us;
        b->window_busy_us = slot->busy_us;
    }
    if (b->retry_ms != 0 && loop->now_ms >= b->retry_ms) {
        retry(loop);
    }
    if (b->board != NULL && loop->now_ms >= b->next_ms && !loop->draining) {
        b->next_ms = loop->now_ms + PP_BALANCE_MS;
        b->owed = 0;
        if (loop->slot->connections > 1 && !relieve(loop, now_us)) {
            even_out(loop, now_us);
        }
        b->round++;
    }
}
