/* Threads, and what another one of this process is doing, as the kernel tells it. */
#ifndef PP_NET_THREAD_H
#define PP_NET_THREAD_H

#include "net/sys.h"
#include <stdbool.h>
#include <stdint.h>

/* The calling thread, for the functions below. */
struct pp_thread {
    pid_t tid;
    clockid_t cpu_clock;
};

pid_t pp_thread_process(void); /* the process it belongs to */
void pp_thread_init(struct pp_thread *self);
/* Processor time of the thread so far, in microseconds; 0 if it has ended. */
uint64_t pp_thread_cpu_us(const struct pp_thread *thread);
/* False if it waits for something: a lock, a socket, time, a page. True on a processor, and if all
 * it waits for is one. False as well where the kernel does not say. Takes some ten microseconds. */
bool pp_thread_runs(const struct pp_thread *thread);

#endif
