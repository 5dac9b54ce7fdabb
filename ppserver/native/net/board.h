/* The board: one anonymous shared mapping with a slot for every context of a server. The context
 * that sits in a slot writes its load, heartbeat, counters and histograms there; every thread and
 * process that has the mapping reads all of it without locks.
 *
 * A slot has one writer at a time. Only `promised`, on a cache line of its own, is written by
 * others: once per connection handed over, never once per request. */
#ifndef PP_NET_BOARD_H
#define PP_NET_BOARD_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "base/hist.h"
#include "base/mem.h"
#include "net/stats.h"

#define PP_BOARD_SLOTS_MAX 4096
#define PP_BOARD_LINE_BYTES 128 /* two cache lines: some processors fetch them in pairs */

enum pp_slot_life {
    PP_SLOT_EMPTY,
    PP_SLOT_OPEN,  /* takes connections */
    PP_SLOT_CLOSED /* serves what it has: draining */
};

/* Why a context that is open takes no connection from others. */
enum pp_slot_block { PP_SLOT_FREE, PP_SLOT_NO_DESCRIPTORS, PP_SLOT_NO_INBOX };

/* What came by the listeners of one tag. Programs with more tags share the last one. */
#define PP_SLOT_TAGS 16
struct pp_tag_counters {
    uint64_t accepted, bytes_in, bytes_out;
    uint32_t connections; /* gauge: now */
    uint32_t unused;
};

struct pp_slot {
    /* Gauges of the owner. Times are CLOCK_MONOTONIC, the same in all processes. */
    uint32_t life; /* enum pp_slot_life */
    int32_t pid;
    uint32_t connections;
    uint32_t in_flight;     /* requests with the application */
    uint32_t suspended;     /* the same when the loop last went to wait: those that wait, too */
    uint32_t busy_permille; /* share of the last window in which it did not wait */
    uint32_t depth16;       /* events for the application per turn, smoothed, in sixteenths */
    uint32_t blocked;       /* enum pp_slot_block: others pass it over */
    uint32_t stuck;         /* its event loop has not turned for long; written by who watches it */
    uint32_t unused;
    uint64_t heartbeat_us;  /* start of the last turn, end of the last wait */
    uint64_t busy_since_us; /* up to here busy_us counts; 0 while it waits */
    uint64_t busy_us;       /* sum of the time it did not wait */
    struct pp_counters counters;
    struct pp_tag_counters tags[PP_SLOT_TAGS];
    struct pp_hist batch; /* events for the application per turn that had any */
    struct pp_hist busy;  /* microseconds between two waits, or two turns that did not wait */
    uint8_t own_line[PP_BOARD_LINE_BYTES];
    uint32_t promised; /* connections handed to it that it has not taken yet; any writer */
    uint8_t other_line[PP_BOARD_LINE_BYTES - sizeof(uint32_t)];
};

struct pp_board;

/* Makes a board. PP_OK, NO_MEMORY or SYSTEM (errno). */
int pp_board_new(unsigned slots, struct pp_board **board) PP_MUST_USE;
/* Maps a board again by its descriptor, which stays the caller's (another interpreter of this
 * process, or another program). SYSTEM with EINVAL when it is none. */
int pp_board_attach(int fd, struct pp_board **board) PP_MUST_USE;
void pp_board_free(struct pp_board *board); /* unmaps it here */
int pp_board_fd(const struct pp_board *board);
unsigned pp_board_slots(const struct pp_board *board);
struct pp_slot *pp_board_slot(struct pp_board *board, unsigned index);

/* The caller becomes the writer. Counters and histograms go on, gauges start anew. */
void pp_slot_sit(struct pp_slot *slot);
void pp_slot_leave(struct pp_slot *slot);
/* Takes back n promises; they may have been forgotten by a new owner of the slot meanwhile. */
void pp_slot_kept(struct pp_slot *slot, uint32_t n);
/* Busy share in thousandths as of `now`: 0 when it has been waiting for a whole window, 1000 when
 * it has been away from its loop for one. */
uint32_t pp_slot_busy(const struct pp_slot *slot, uint64_t now_us);

#endif
