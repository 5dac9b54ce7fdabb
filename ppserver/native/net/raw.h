/* Raw exchanges: bytes both ways between a peer and the application, from a listener with
 * PP_TAG_RAW.
 *
 * The application has such a connection from its beginning to its end: REQUEST comes once, at the
 * beginning; BODY whenever bytes came; EOF when the peer will send no more; FINISHED when all that
 * was queued is written; IDLE when neither has happened for long; CLOSED at the end, after which
 * pp_exchange_finish lets go of it. Input is not received while a block is full of bytes that were
 * not consumed, or output is above its high water mark. Of exchange.h the functions apply whose
 * comments do not speak of a request, a response or a body; peek and consume do. */
#ifndef PP_NET_RAW_H
#define PP_NET_RAW_H

#include "net/exchange.h"

bool pp_exchange_is_raw(const struct pp_exchange *ex);
void pp_raw_close(struct pp_exchange *ex); /* once what is queued is written */
/* Whether it was our side that closed: at the application's word, or because the loop drains. */
bool pp_raw_ours(const struct pp_exchange *ex);
/* How often to try again at once when the socket has nothing, or takes nothing, before waiting for
 * it to become ready; at first neither is tried again. */
void pp_raw_attempts(struct pp_exchange *ex, uint8_t receive, uint8_t send);
/* At most so many bytes a second are sent, a quarter of a second's at once; 0 = no limit. */
void pp_raw_rate(struct pp_exchange *ex, uint32_t bytes_per_second);
/* IDLE is raised whenever, for so long, nothing came and all that was queued is written; 0 = never.
 * What to do then is the application's affair: it knows whether it is about to say something. */
void pp_raw_idle(struct pp_exchange *ex, uint32_t after_ms);
uint64_t pp_raw_out_bytes(const struct pp_exchange *ex); /* queued and not yet written */

#endif
