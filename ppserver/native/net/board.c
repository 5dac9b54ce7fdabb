/* The board (contract: board.h): a memfd, so that another interpreter of the same process can map
 * it by its descriptor; sealed, so that nobody can shrink it under a reader. */
#include "net/board.h"
#include "net/sys.h"

#include <errno.h>
#include <string.h>

#include "net/loop_impl.h"

#define BOARD_MAGIC UINT64_C(0x9e11b0a2d0000001)
#define HEAD_BYTES 4096

struct head {
    uint64_t magic;
    uint32_t slots;
    uint32_t slot_bytes; /* tells a board of another version */
};

struct pp_board {
    int fd; /* owned */
    unsigned slots;
    size_t bytes;
    uint8_t *base; /* owned mapping */
};

static_assert(sizeof(struct head) <= HEAD_BYTES, "the head has a page of its own");

#define SLOT_BYTES \
    ((sizeof(struct pp_slot) + PP_BOARD_LINE_BYTES - 1) / PP_BOARD_LINE_BYTES * PP_BOARD_LINE_BYTES)

static size_t board_bytes(unsigned slots)
{
    return HEAD_BYTES + (size_t)slots * SLOT_BYTES;
}

static int map(int fd, unsigned slots, struct pp_board **board)
{
    struct pp_board *made = pp_mem_zalloc(sizeof *made);
    if (made == NULL) {
        errno = ENOMEM;
        return PP_ERR_NO_MEMORY;
    }
    made->fd = fd;
    made->slots = slots;
    made->bytes = board_bytes(slots);
    made->base = pp_sys_mmap(NULL, made->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (made->base == MAP_FAILED) {
        int saved = errno;
        pp_mem_free(made, sizeof *made);
        errno = saved;
        return PP_ERR_SYSTEM;
    }
    *board = made;
    return PP_OK;
}

int pp_board_new(unsigned slots, struct pp_board **board)
{
    PP_ASSERT(slots >= 1 && slots <= PP_BOARD_SLOTS_MAX);
    int fd = pp_sys_memfd_create("ppserver-board", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) {
        return PP_ERR_SYSTEM;
    }
    int rc = PP_ERR_SYSTEM;
    if (pp_sys_ftruncate(fd, (off_t)board_bytes(slots)) == 0 &&
        pp_sys_fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0) {
        rc = map(fd, slots, board);
    }
    if (rc != PP_OK) {
        int saved = errno;
        (void)pp_sys_close(fd);
        errno = saved;
        return rc;
    }
    struct head *head = (struct head *)(*board)->base;
    head->slots = slots;
    head->slot_bytes = SLOT_BYTES;
    __atomic_store_n(&head->magic, BOARD_MAGIC, __ATOMIC_RELEASE);
    return PP_OK;
}

int pp_board_attach(int fd, struct pp_board **board)
{
    struct stat st;
    struct head head;
    int seals = pp_sys_fcntl(fd, F_GET_SEALS);
    if (seals < 0 || pp_sys_fstat(fd, &st) != 0) {
        return PP_ERR_SYSTEM;
    }
    if (!(seals & F_SEAL_SHRINK) ||
        pp_sys_pread(fd, &head, sizeof head, 0) != (ssize_t)sizeof head ||
        head.magic != BOARD_MAGIC || head.slot_bytes != SLOT_BYTES || head.slots < 1 ||
        head.slots > PP_BOARD_SLOTS_MAX || (uint64_t)st.st_size < board_bytes(head.slots)) {
        errno = EINVAL;
        return PP_ERR_SYSTEM;
    }
    int own = pp_sys_fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (own < 0) {
        return PP_ERR_SYSTEM;
    }
    int rc = map(own, head.slots, board);
    if (rc != PP_OK) {
        int saved = errno;
        (void)pp_sys_close(own);
        errno = saved;
    }
    return rc;
}

void pp_board_free(struct pp_board *board)
{
    (void)pp_sys_munmap(board->base, board->bytes);
    (void)pp_sys_close(board->fd);
    pp_mem_free(board, sizeof *board);
}

int pp_board_fd(const struct pp_board *board)
{
    return board->fd;
}

unsigned pp_board_slots(const struct pp_board *board)
{
    return board->slots;
}

struct pp_slot *pp_board_slot(struct pp_board *board, unsigned index)
{
    PP_CHECK(index < board->slots);
    return (struct pp_slot *)(void *)(board->base + HEAD_BYTES + (size_t)index * SLOT_BYTES);
}

static void no_tagged(struct pp_slot *slot)
{
    for (int i = 0; i < PP_SLOT_TAGS; i++) {
        pp_stats_set32(&slot->tags[i].connections, 0);
    }
}

void pp_slot_sit(struct pp_slot *slot)
{
    pp_stats_set32(&slot->connections, 0);
    pp_stats_set32(&slot->in_flight, 0);
    pp_stats_set32(&slot->suspended, 0);
    pp_stats_set32(&slot->busy_permille, 0);
    pp_stats_set32(&slot->depth16, 0);
    pp_stats_set32(&slot->blocked, PP_SLOT_FREE);
    pp_stats_set32(&slot->stuck, 0);
    pp_stats_set64(&slot->busy_since_us, 0);
    pp_stats_set64(&slot->heartbeat_us, 0);
    pp_stats_set32(&slot->promised, 0);
    no_tagged(slot);
    __atomic_store_n(&slot->pid, (int32_t)pp_sys_getpid(), __ATOMIC_RELAXED);
}

void pp_slot_leave(struct pp_slot *slot)
{
    __atomic_store_n(&slot->life, PP_SLOT_EMPTY, __ATOMIC_RELEASE);
    pp_stats_set32(&slot->connections, 0);
    pp_stats_set32(&slot->in_flight, 0);
    no_tagged(slot);
    pp_stats_set64(&slot->busy_since_us, 0);
}

void pp_slot_kept(struct pp_slot *slot, uint32_t n)
{
    uint32_t seen = __atomic_load_n(&slot->promised, __ATOMIC_RELAXED), next;
    do {
        next = seen > n ? seen - n : 0;
    } while (!__atomic_compare_exchange_n(&slot->promised, &seen, next, true, __ATOMIC_RELAXED,
                                          __ATOMIC_RELAXED));
}

uint32_t pp_slot_busy(const struct pp_slot *slot, uint64_t now_us)
{
    uint64_t beat = __atomic_load_n(&slot->heartbeat_us, __ATOMIC_RELAXED);
    uint64_t since = __atomic_load_n(&slot->busy_since_us, __ATOMIC_RELAXED);
    if (__atomic_load_n(&slot->stuck, __ATOMIC_RELAXED) != 0 ||
        (since != 0 && since + PP_LOAD_WINDOW_US <= now_us)) {
        return 1000;
    }
    if (since == 0 && beat + PP_LOAD_WINDOW_US <= now_us) {
        return 0;
    }
    return __atomic_load_n(&slot->busy_permille, __ATOMIC_RELAXED);
}
