/* Waiting threads (contract: park.h): a POSIX semaphore, because it counts wake-ups, may be posted
 * from a signal handler and returns to its waiter when a signal handler has run. */
#include "net/park.h"
#include "net/sys.h"

#include <errno.h>

#if defined(__SANITIZE_THREAD__)
#define PP_PARK_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define PP_PARK_TSAN 1
#endif
#endif
#ifdef PP_PARK_TSAN
#include <sanitizer/tsan_interface.h>
#endif

void pp_park_init(struct pp_park *park)
{
    PP_CHECK(pp_sys_sem_init(&park->sem, 0, 0) == 0);
}

void pp_park_fini(struct pp_park *park)
{
    (void)pp_sys_sem_destroy(&park->sem);
}

void pp_park_wake(struct pp_park *park)
{
    (void)pp_sys_sem_post(&park->sem); /* fails only when 2^31 wake-ups are already there */
}

enum pp_park_end pp_park_wait(struct pp_park *park, int64_t timeout_us)
{
    int rc;
    if (timeout_us < 0) {
        rc = pp_sys_sem_wait(&park->sem);
    } else {
        struct timespec until;
        (void)pp_sys_clock_gettime(CLOCK_MONOTONIC, &until);
        int64_t nsec = until.tv_nsec + (timeout_us % 1000000) * 1000;
        until.tv_sec += timeout_us / 1000000 + nsec / 1000000000;
        until.tv_nsec = nsec % 1000000000;
        rc = pp_sys_sem_clockwait(&park->sem, CLOCK_MONOTONIC, &until);
    }
    if (rc == 0) {
#ifdef PP_PARK_TSAN
        __tsan_acquire(&park->sem); /* the sanitizer does not know sem_clockwait */
#endif
        return PP_PARK_WOKEN;
    }
    PP_CHECK(errno == ETIMEDOUT || errno == EINTR);
    return errno == EINTR ? PP_PARK_SIGNAL : PP_PARK_TIMEOUT;
}

void pp_park_wait_woken(struct pp_park *park)
{
    while (pp_park_wait(park, -1) != PP_PARK_WOKEN) {}
}
