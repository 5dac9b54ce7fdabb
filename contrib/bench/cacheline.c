/* What sharing memory costs on this machine, for model.py: `cacheline [MILLISECONDS [TRIES]]`.
 *
 * Prints one JSON object. Threads are bound to a processor each. Each figure is the best of several
 * stretches in which every thread had its processor for itself: two threads that take turns on a
 * busy machine do not contend. `disturbed` counts figures for which there was no such stretch.
 *   add_ns            an atomic add to a line that nobody else uses
 *   add_shared_ns     the same with two threads on one line, by each thread's wall clock
 *   add_beside_ns     two threads, each on a line of its own: what a second thread costs anyway
 *   pass_ns           a line's way from one core to the other: half of a round trip
 *   fd_ns             a descriptor opened and closed, alone
 *   fd_shared_ns      the same by two threads of one process, which share the table of descriptors
 *   accept_ns         accepting a connection that is waiting, and watching it by epoll
 *   copy_1, copy_2    bytes per second of memcpy over buffers larger than the caches, by one thread
 *                     and by two together */
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    LINE = 128,     /* two lines: neighbours are fetched in pairs */
    STRETCHES = 15, /* undisturbed ones */
    WAITING_MAX = 200,
    COPY_BYTES = 64 * 1024 * 1024,
};

struct line {
    _Alignas(LINE) _Atomic uint64_t word;
};

static struct line lines[3];
static _Atomic int ready;
static _Atomic int stop;
static int cpus[2];
static int disturbed;
static long tries = 100;
static uint64_t stretch_ns;

struct job {
    pthread_t thread;
    int index;
    void (*run)(struct job *job);
    struct line *line;
    char *from, *to; /* owned by main */
    uint64_t done, took_ns, cpu_ns;
};

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static uint64_t clock_ns(clockid_t id)
{
    struct timespec ts;
    (void)clock_gettime(id, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void add(struct job *job)
{
    uint64_t done = 0;
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        for (int i = 0; i < 1000; i++) {
            atomic_fetch_add_explicit(&job->line->word, 1, memory_order_relaxed);
        }
        done += 1000;
    }
    job->done = done;
}

static void open_and_close(struct job *job)
{
    uint64_t done = 0;
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        int fd = dup(STDERR_FILENO);
        if (fd < 0 || close(fd) < 0) {
            fail("dup");
        }
        done++;
    }
    job->done = done;
}

/* Two threads take turns: each waits for the other's number and answers with the next. A thread
 * that is alone for long gives up at the end of the stretch. */
static void pass(struct job *job)
{
    uint64_t done = 0, mine = (uint64_t)job->index;
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        uint64_t seen = atomic_load_explicit(&job->line->word, memory_order_acquire);
        if (seen % 2 == mine) {
            atomic_store_explicit(&job->line->word, seen + 1, memory_order_release);
            done++;
        }
    }
    job->done = done;
}

static void copy(struct job *job)
{
    uint64_t done = 0;
    do {
        memcpy(job->to, job->from, COPY_BYTES);
        done += COPY_BYTES;
    } while (!atomic_load_explicit(&stop, memory_order_relaxed));
    job->done = done;
}

static void *start(void *arg)
{
    struct job *job = arg;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)cpus[job->index], &set);
    (void)sched_setaffinity(0, sizeof set, &set);
    atomic_fetch_add(&ready, 1);
    while (atomic_load(&ready) >= 0) {} /* until main lets both go */
    uint64_t began = clock_ns(CLOCK_MONOTONIC), cpu = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    job->run(job);
    job->cpu_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID) - cpu;
    job->took_ns = clock_ns(CLOCK_MONOTONIC) - began;
    return NULL;
}

/* One stretch of `count` threads: nanoseconds of wall clock for each thing done, the mean. */
static double stretch(struct job *jobs, int count, bool *quiet)
{
    atomic_store(&ready, 0);
    atomic_store(&stop, 0);
    for (int i = 0; i < count; i++) {
        jobs[i].index = i;
        if (pthread_create(&jobs[i].thread, NULL, start, &jobs[i]) != 0) {
            fprintf(stderr, "cacheline: cannot start a thread\n");
            exit(1);
        }
    }
    while (atomic_load(&ready) < count) {
        (void)sched_yield();
    }
    atomic_store(&ready, -1000);
    struct timespec ts = {.tv_sec = (time_t)(stretch_ns / 1000000000u),
                          .tv_nsec = (long)(stretch_ns % 1000000000u)};
    (void)nanosleep(&ts, NULL);
    atomic_store(&stop, 1);
    double sum = 0;
    *quiet = true;
    for (int i = 0; i < count; i++) {
        (void)pthread_join(jobs[i].thread, NULL);
        *quiet = *quiet && jobs[i].cpu_ns * 100 >= jobs[i].took_ns * 97;
        sum += (double)jobs[i].took_ns / (double)(jobs[i].done > 0 ? jobs[i].done : 1);
    }
    return sum / count;
}

static double best(struct job *jobs, int count)
{
    double least = 0, least_quiet = 0;
    int quiet_count = 0;
    for (int i = 0; i < tries && quiet_count < STRETCHES; i++) {
        bool quiet;
        double each = stretch(jobs, count, &quiet);
        least = i == 0 || each < least ? each : least;
        if (quiet) {
            least_quiet = quiet_count == 0 || each < least_quiet ? each : least_quiet;
            quiet_count++;
        }
    }
    disturbed += quiet_count == 0;
    return quiet_count == 0 ? least : least_quiet;
}

static double bytes_per_second(struct job *jobs, int count)
{
    double each_ns = best(jobs, count); /* of a byte, by each thread */
    return each_ns > 0 ? count * 1e9 / each_ns : 0;
}

/* Nanoseconds to accept one of `WAITING_MAX` connections that wait, the least of some rounds. */
static double accept_ns(void)
{
    int fds[WAITING_MAX], peers[WAITING_MAX];
    struct sockaddr_in addr = {.sin_family = AF_INET};
    socklen_t len = sizeof addr;
    double least = 0;
    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), epoll = epoll_create1(0);
    if (listener < 0 || epoll < 0 || bind(listener, (struct sockaddr *)&addr, len) < 0 ||
        listen(listener, WAITING_MAX) < 0 ||
        getsockname(listener, (struct sockaddr *)&addr, &len) < 0) {
        fail("listen");
    }
    for (int round = 0; round < STRETCHES; round++) {
        for (int i = 0; i < WAITING_MAX; i++) {
            peers[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
            if (peers[i] < 0 || connect(peers[i], (struct sockaddr *)&addr, len) < 0) {
                fail("connect");
            }
        }
        uint64_t began = clock_ns(CLOCK_THREAD_CPUTIME_ID);
        for (int i = 0; i < WAITING_MAX; i++) {
            struct epoll_event event = {.events = EPOLLIN, .data.fd = i};
            fds[i] = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
            if (fds[i] < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, fds[i], &event) < 0) {
                fail("accept4");
            }
        }
        double each = (double)(clock_ns(CLOCK_THREAD_CPUTIME_ID) - began) / WAITING_MAX;
        least = round == 0 || each < least ? each : least;
        for (int i = 0; i < WAITING_MAX; i++) {
            (void)close(peers[i]);
            (void)close(fds[i]);
        }
    }
    (void)close(listener);
    (void)close(epoll);
    return least;
}

/* The argument at `index`, from 1 to `high`; `absent` if there is none. */
static long number(int argc, char **argv, int index, long absent, long high)
{
    if (index >= argc) {
        return absent;
    }
    char *end = NULL;
    long value = strtol(argv[index], &end, 10);
    if (end == argv[index] || *end != '\0' || value < 1 || value > high) {
        fprintf(stderr, "cacheline: expected 1 to %ld, not %s\n", high, argv[index]);
        exit(2);
    }
    return value;
}

int main(int argc, char **argv)
{
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    int found = 0;
    if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) {
        for (int cpu = 0; cpu < CPU_SETSIZE && found < 2; cpu++) {
            if (CPU_ISSET((size_t)cpu, &allowed)) {
                cpus[found++] = cpu;
            }
        }
    }
    if (found < 2) {
        fprintf(stderr, "cacheline: this needs two processors\n");
        return 1;
    }
    stretch_ns = (uint64_t)number(argc, argv, 1, 5, 1000) * 1000000u;
    tries = number(argc, argv, 2, 100, 1000);
    struct job jobs[2];
    memset(jobs, 0, sizeof jobs);
    jobs[0].run = jobs[1].run = add;
    jobs[0].line = jobs[1].line = &lines[0];
    double alone = best(jobs, 1), shared = best(jobs, 2);
    jobs[1].line = &lines[1];
    double beside = best(jobs, 2);
    jobs[0].run = jobs[1].run = pass;
    jobs[0].line = jobs[1].line = &lines[2];
    double round = best(jobs, 2);
    jobs[0].run = jobs[1].run = open_and_close;
    double fd_alone = best(jobs, 1), fd_shared = best(jobs, 2);
    for (int i = 0; i < 2; i++) {
        jobs[i].run = copy;
        jobs[i].from = malloc(COPY_BYTES);
        jobs[i].to = malloc(COPY_BYTES);
        if (jobs[i].from == NULL || jobs[i].to == NULL) {
            fprintf(stderr, "cacheline: out of memory\n");
            return 1;
        }
        memset(jobs[i].from, 1, COPY_BYTES);
        memset(jobs[i].to, 2, COPY_BYTES);
    }
    double copy_1 = bytes_per_second(jobs, 1), copy_2 = bytes_per_second(jobs, 2);
    for (int i = 0; i < 2; i++) {
        free(jobs[i].from);
        free(jobs[i].to);
    }
    printf("{\"add_ns\":%.2f,\"add_shared_ns\":%.2f,\"add_beside_ns\":%.2f,\"pass_ns\":%.1f,"
           "\"fd_ns\":%.1f,\"fd_shared_ns\":%.1f,\"accept_ns\":%.1f,\"copy_1\":%.4g,"
           "\"copy_2\":%.4g,\"disturbed\":%d}\n",
           alone, shared, beside, round / 2, fd_alone, fd_shared, accept_ns(), copy_1, copy_2,
           disturbed);
    return 0;
}
