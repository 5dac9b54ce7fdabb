/* What a thread does, as another sees it. */
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <unistd.h>

#include "harness.h"
#include "net/thread.h"

static struct pp_thread thread;
static sem_t ready, lock;
static int pipe_ends[2];
static atomic_bool stop;

static void begin(void)
{
    pp_thread_init(&thread);
    CHECK(sem_post(&ready) == 0);
}

static void *waits_for_a_lock(void *arg)
{
    (void)arg;
    begin();
    while (sem_wait(&lock) < 0) {}
    return NULL;
}

static void *waits_for_a_pipe(void *arg)
{
    char byte;
    (void)arg;
    begin();
    CHECK(read(pipe_ends[0], &byte, 1) == 1);
    return NULL;
}

static void *computes(void *arg)
{
    (void)arg;
    begin();
    while (!atomic_load(&stop)) {}
    return NULL;
}

/* Until it is seen as expected: a thread takes a moment to get there. */
static void until(bool runs)
{
    while (pp_thread_runs(&thread) != runs) {
        (void)usleep(100);
    }
}

static pthread_t start(void *(*run)(void *))
{
    pthread_t started;
    CHECK(sem_init(&ready, 0, 0) == 0);
    CHECK(pthread_create(&started, NULL, run, NULL) == 0);
    while (sem_wait(&ready) < 0) {}
    return started;
}

TEST(net_thread_that_waits_for_a_lock)
{
    CHECK(sem_init(&lock, 0, 0) == 0);
    pthread_t started = start(waits_for_a_lock);
    until(false);
    CHECK(sem_post(&lock) == 0);
    CHECK(pthread_join(started, NULL) == 0);
    while (pp_thread_cpu_us(&thread) > 0) { /* the kernel is a moment behind */
        (void)usleep(100);
    }
    CHECK(!pp_thread_runs(&thread));
}

TEST(net_thread_that_waits_for_a_pipe)
{
    CHECK(pipe(pipe_ends) == 0);
    pthread_t started = start(waits_for_a_pipe);
    until(false);
    CHECK(write(pipe_ends[1], "x", 1) == 1);
    CHECK(pthread_join(started, NULL) == 0);
    (void)close(pipe_ends[0]);
    (void)close(pipe_ends[1]);
}

TEST(net_thread_that_computes)
{
    atomic_store(&stop, false);
    pthread_t started = start(computes);
    until(true);
    while (pp_thread_cpu_us(&thread) < 2000) { /* its own time, not the time */
        CHECK(pp_thread_runs(&thread));
    }
    atomic_store(&stop, true);
    CHECK(pthread_join(started, NULL) == 0);
}
