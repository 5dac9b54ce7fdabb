/* The load generator of the benchmarks of many contexts: `storm PORT PATH OPTION...`, on loopback.
 *
 * Three kinds of load, each from one or more threads with an epoll descriptor of their own:
 *   (default)  keep-alive connections; each asks again as soon as it has been answered, or, with
 *              --rate, requests fall due at fixed times and go to the connection idle for longest
 *   --hold     keep-alive connections that ask once and then stay
 *   --open     a connection per request: opened when due, asks once, closed after the answer
 * --skew, with --rate: from the middle of the warm-up on, all requests go to the connections of
 * whichever context then has the least name; the others stay open, and silent.
 *
 * With a rate, latency counts from the moment a request was due, not from when it could be sent, so
 * a server that stalls cannot hide it. The beginning of an answer's body, up to a blank, is taken
 * for the name of the context that gave it, and connections and requests are counted by name.
 * Connections come from many loopback addresses, so ports do not run out. One JSON object is
 * printed at the end, and a line `begin` when the warm-up is over, for whoever reads clocks
 * meanwhile. Everything is bounded: time, connections, names, answer heads. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    HEAD_BYTES_MAX = 4096,
    NAME_BYTES_MAX = 47,
    NAMES_MAX = 256,
    EVENTS_MAX = 256,
    SOURCES = 250,
    THREADS_MAX = 16,
    CONNECTIONS_MAX = 60000,
    BUCKETS = 64 * 32,
};

enum state { IDLE, CONNECTING, WAITING, CLOSED };

struct conn {
    int fd;
    enum state state;
    int name;        /* index of the last name, or -1 */
    bool benched;    /* asks no more */
    uint64_t due_ns; /* when the request in flight was due */
    size_t have;     /* bytes of the answer so far */
    size_t need;     /* bytes of the whole answer; 0: the head is not complete yet */
    size_t body_off;
    struct conn *next; /* in the queue of those with nothing to do */
    char buf[HEAD_BYTES_MAX + 1];
};

struct named {
    char name[NAME_BYTES_MAX + 1];
    uint64_t requests;
    uint64_t connections;
};

struct worker {
    pthread_t thread;
    int epoll_fd;
    int index;
    struct conn *conns; /* owned */
    int conn_count;
    struct conn *idle_first, *idle_last;
    bool skewed; /* which connections go on asking is settled */
    uint64_t next_due_ns, interval_ns;
    uint64_t requests, connect_errors, read_errors, status_errors, opened;
    uint64_t seen; /* answers in all, the warm-up's included */
    uint64_t hist[BUCKETS];
    struct named names[NAMES_MAX];
    int name_count;
    uint64_t cpu_ns;
};

static struct {
    uint16_t port;
    int threads, connections;
    double seconds, warmup, rate;
    bool hold, open, skew;
    char request[1024];
    size_t request_bytes;
    uint64_t begin_ns, end_ns, skew_ns;
} run = {.threads = 1, .connections = 64, .seconds = 1.0};

static void fail(const char *what)
{
    fprintf(stderr, "storm: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t clock_ns(clockid_t id)
{
    struct timespec ts;
    if (clock_gettime(id, &ts) < 0) {
        fail("clock_gettime");
    }
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* ---- a histogram with 32 steps to each doubling ---- */

static unsigned bucket_of(uint64_t ns)
{
    if (ns < 32) {
        return (unsigned)ns;
    }
    unsigned exponent = 63u - (unsigned)__builtin_clzll(ns);
    return (exponent - 4) * 32 + (unsigned)((ns >> (exponent - 5)) & 31);
}

static double bucket_us(unsigned bucket)
{
    if (bucket < 32) {
        return (double)bucket / 1000.0;
    }
    unsigned exponent = bucket / 32 + 4;
    return (double)((UINT64_C(32) + bucket % 32) << (exponent - 5)) / 1000.0;
}

static double percentile_us(const uint64_t *hist, uint64_t total, double share)
{
    uint64_t wanted = (uint64_t)((double)total * share), seen = 0;
    unsigned last = 0;
    for (unsigned i = 0; i < BUCKETS; i++) {
        if (hist[i] == 0) {
            continue;
        }
        last = i;
        seen += hist[i];
        if (seen > wanted) {
            break;
        }
    }
    return bucket_us(last);
}

/* ---- connections ---- */

static void queue_idle(struct worker *w, struct conn *conn)
{
    conn->next = NULL;
    if (w->idle_last != NULL) {
        w->idle_last->next = conn;
    } else {
        w->idle_first = conn;
    }
    w->idle_last = conn;
}

static struct conn *take_idle(struct worker *w)
{
    struct conn *conn;
    do {
        conn = w->idle_first;
        if (conn != NULL) {
            w->idle_first = conn->next;
            if (w->idle_first == NULL) {
                w->idle_last = NULL;
            }
        }
    } while (conn != NULL && conn->benched);
    return conn;
}

static void watch(struct worker *w, struct conn *conn, uint32_t events, int op)
{
    struct epoll_event event = {.events = events, .data.ptr = conn};
    if (epoll_ctl(w->epoll_fd, op, conn->fd, &event) < 0) {
        fail("epoll_ctl");
    }
}

static void close_conn(struct conn *conn)
{
    if (conn->fd >= 0) {
        (void)close(conn->fd);
    }
    conn->fd = -1;
    conn->state = CLOSED;
}

/* Begins to connect; false if it could not even be tried. */
static bool open_conn(struct worker *w, struct conn *conn)
{
    static const int one = 1;
    struct sockaddr_in source = {.sin_family = AF_INET};
    struct sockaddr_in target = {.sin_family = AF_INET, .sin_port = htons(run.port)};
    uint32_t offset = (uint32_t)((w->opened++ + (uint64_t)w->index * 17) % SOURCES);
    source.sin_addr.s_addr = htonl(0x7f000101u + offset); /* 127.0.1.1 and on */
    target.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    conn->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (conn->fd < 0) {
        fail("socket");
    }
    conn->state = CONNECTING;
    conn->have = conn->need = 0;
    if (setsockopt(conn->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one) < 0 ||
        setsockopt(conn->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) < 0 ||
        bind(conn->fd, (struct sockaddr *)&source, sizeof source) < 0) {
        fail("socket options");
    }
    if (connect(conn->fd, (struct sockaddr *)&target, sizeof target) < 0 && errno != EINPROGRESS) {
        w->connect_errors++;
        close_conn(conn);
        return false;
    }
    watch(w, conn, EPOLLIN | EPOLLOUT, EPOLL_CTL_ADD);
    return true;
}

static bool send_request(struct worker *w, struct conn *conn)
{
    ssize_t sent = send(conn->fd, run.request, run.request_bytes, MSG_NOSIGNAL);
    if (sent != (ssize_t)run.request_bytes) { /* it is far smaller than any socket buffer */
        w->read_errors++;
        close_conn(conn);
        return false;
    }
    conn->state = WAITING;
    conn->have = conn->need = 0;
    return true;
}

/* ---- answers ---- */

static int name_index(struct worker *w, const char *text, size_t len)
{
    for (int i = 0; i < w->name_count; i++) {
        if (strlen(w->names[i].name) == len && memcmp(w->names[i].name, text, len) == 0) {
            return i;
        }
    }
    if (w->name_count == NAMES_MAX) {
        return -1;
    }
    memcpy(w->names[w->name_count].name, text, len);
    return w->name_count++;
}

static void note_name(struct worker *w, struct conn *conn, bool counted)
{
    const char *body = conn->buf + conn->body_off;
    size_t end = conn->have < conn->need ? conn->have : conn->need, len = 0;
    while (conn->body_off + len < end && len < NAME_BYTES_MAX && body[len] > ' ' &&
           body[len] != '"' && body[len] != '\\' && body[len] <= '~') {
        len++;
    }
    conn->name = name_index(w, body, len);
    if (conn->name >= 0 && counted) {
        w->names[conn->name].requests++;
    }
}

/* Looks for the end of the head; 0: not there yet, -1: not an answer we can measure. */
static int parse_head(struct worker *w, struct conn *conn)
{
    size_t have = conn->have < HEAD_BYTES_MAX ? conn->have : HEAD_BYTES_MAX;
    conn->buf[have] = '\0';
    char *end = strstr(conn->buf, "\r\n\r\n");
    if (end == NULL) {
        return have == HEAD_BYTES_MAX ? -1 : 0;
    }
    if (strncmp(conn->buf, "HTTP/1.1 200 ", 13) != 0) {
        w->status_errors++;
        return -1;
    }
    conn->body_off = (size_t)(end - conn->buf) + 4;
    for (char *line = strstr(conn->buf, "\r\n"); line != NULL && line < end;
         line = strstr(line + 2, "\r\n")) {
        if (strncasecmp(line + 2, "content-length:", 15) == 0) {
            conn->need = conn->body_off + strtoul(line + 17, NULL, 10);
            return 1;
        }
    }
    return -1;
}

static void on_answer(struct worker *w, struct conn *conn, uint64_t now)
{
    bool counted = now >= run.begin_ns && now < run.end_ns;
    w->seen++;
    if (counted) {
        unsigned bucket = bucket_of(now - conn->due_ns);
        w->hist[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
        w->requests++;
    }
    note_name(w, conn, counted);
    if (run.open) {
        close_conn(conn);
        queue_idle(w, conn);
        return;
    }
    conn->state = IDLE;
    if (run.hold) {
        return;
    }
    if (run.rate > 0) {
        queue_idle(w, conn);
        return;
    }
    conn->due_ns = now;
    (void)send_request(w, conn);
}

static void on_failed(struct worker *w, struct conn *conn)
{
    if (conn->state == CONNECTING) {
        w->connect_errors++;
    } else {
        w->read_errors++;
    }
    close_conn(conn);
    if (run.open) {
        queue_idle(w, conn);
    } else {
        conn->due_ns = clock_ns(CLOCK_MONOTONIC);
        (void)open_conn(w, conn);
    }
}

static void on_readable(struct worker *w, struct conn *conn)
{
    char rest[65536];
    bool in_head = conn->have < HEAD_BYTES_MAX && conn->need == 0;
    char *to = in_head ? conn->buf + conn->have : rest;
    size_t room = in_head ? HEAD_BYTES_MAX - conn->have : sizeof rest;
    ssize_t got = recv(conn->fd, to, room, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (got <= 0 || conn->state != WAITING) { /* the peer is gone, or speaks out of turn */
        on_failed(w, conn);
        return;
    }
    conn->have += (size_t)got;
    if (conn->need == 0 && parse_head(w, conn) < 0) {
        on_failed(w, conn);
        return;
    }
    if (conn->need != 0 && conn->have >= conn->need) {
        on_answer(w, conn, clock_ns(CLOCK_MONOTONIC));
    }
}

static void on_connected(struct worker *w, struct conn *conn)
{
    int error = 0;
    socklen_t len = sizeof error;
    if (getsockopt(conn->fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0 || error != 0) {
        on_failed(w, conn);
        return;
    }
    watch(w, conn, EPOLLIN, EPOLL_CTL_MOD);
    (void)send_request(w, conn);
}

/* ---- a thread ---- */

/* Benches the connections of all contexts but the one with the least name. */
static void skew(struct worker *w)
{
    int least = -1;
    for (int i = 0; i < w->name_count; i++) {
        if (least < 0 || strcmp(w->names[i].name, w->names[least].name) < 0) {
            least = i;
        }
    }
    for (int i = 0; i < w->conn_count; i++) {
        w->conns[i].benched = w->conns[i].name != least;
    }
    w->skewed = true;
}

/* Sends what is due; returns how long nothing will be. */
static uint64_t run_due(struct worker *w)
{
    uint64_t now = clock_ns(CLOCK_MONOTONIC);
    if (run.skew && !w->skewed && now >= run.skew_ns) {
        skew(w);
    }
    while (w->interval_ns != 0 && w->next_due_ns <= now) {
        struct conn *conn = take_idle(w);
        if (conn == NULL) {
            return run.end_ns > now ? run.end_ns - now : 0; /* an answer will wake us */
        }
        conn->due_ns = w->next_due_ns;
        w->next_due_ns += w->interval_ns;
        bool fine = run.open ? open_conn(w, conn) : send_request(w, conn);
        if (!fine && run.open) {
            queue_idle(w, conn);
        } else if (!fine) {
            (void)open_conn(w, conn);
        }
    }
    uint64_t until =
        w->interval_ns != 0 && w->next_due_ns < run.end_ns ? w->next_due_ns : run.end_ns;
    return until > now ? until - now : 0;
}

static void *work(void *arg)
{
    struct worker *w = arg;
    struct epoll_event events[EVENTS_MAX];
    uint64_t start = clock_ns(CLOCK_MONOTONIC);
    for (int i = 0; i < w->conn_count; i++) {
        w->conns[i].due_ns = start;
        if (run.open) {
            queue_idle(w, &w->conns[i]);
        } else {
            (void)open_conn(w, &w->conns[i]);
        }
    }
    if (run.rate > 0) {
        w->interval_ns = (uint64_t)(1e9 * run.threads / run.rate);
        w->next_due_ns = start + w->interval_ns * (uint64_t)(w->index + 1) / (uint64_t)run.threads;
    }
    while (clock_ns(CLOCK_MONOTONIC) < run.end_ns) {
        uint64_t wait = run_due(w);
        struct timespec ts = {.tv_sec = (time_t)(wait / 1000000000u),
                              .tv_nsec = (long)(wait % 1000000000u)};
        int count = epoll_pwait2(w->epoll_fd, events, EVENTS_MAX, &ts, NULL);
        if (count < 0 && errno != EINTR) {
            fail("epoll_pwait2");
        }
        for (int i = 0; i < count; i++) {
            struct conn *conn = events[i].data.ptr;
            if (conn->fd < 0) {
                continue;
            }
            if (conn->state == CONNECTING) {
                on_connected(w, conn);
            } else {
                on_readable(w, conn);
            }
        }
    }
    w->cpu_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    return NULL;
}

/* ---- the whole ---- */

static double number(const char *text, double low, double high)
{
    char *end = NULL;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || !(value >= low && value <= high)) {
        fprintf(stderr, "storm: expected %g to %g, not %s\n", low, high, text);
        exit(2);
    }
    return value;
}

static void parse(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: storm PORT PATH [--threads N] [--connections N] [--seconds S] "
                        "[--warmup S] [--rate N] [--hold] [--open] [--skew]\n");
        exit(2);
    }
    run.port = (uint16_t)number(argv[1], 1, 65535);
    for (int i = 3; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--hold") == 0) {
            run.hold = true;
            continue;
        }
        if (strcmp(argv[i], "--open") == 0) {
            run.open = true;
            continue;
        }
        if (strcmp(argv[i], "--skew") == 0) {
            run.skew = true;
            continue;
        }
        i++;
        if (strcmp(argv[i - 1], "--threads") == 0) {
            run.threads = (int)number(value, 1, THREADS_MAX);
        } else if (strcmp(argv[i - 1], "--connections") == 0) {
            run.connections = (int)number(value, 1, CONNECTIONS_MAX);
        } else if (strcmp(argv[i - 1], "--seconds") == 0) {
            run.seconds = number(value, 0.01, 600);
        } else if (strcmp(argv[i - 1], "--warmup") == 0) {
            run.warmup = number(value, 0, 60);
        } else if (strcmp(argv[i - 1], "--rate") == 0) {
            run.rate = number(value, 1, 5e6);
        } else {
            fprintf(stderr, "storm: unknown option %s\n", argv[i - 1]);
            exit(2);
        }
    }
    if (run.open && (run.rate <= 0 || run.hold)) {
        fprintf(stderr, "storm: --open needs --rate, and cannot --hold\n");
        exit(2);
    }
    if (run.skew && (run.rate <= 0 || run.open || run.hold || run.threads > 1)) {
        fprintf(stderr, "storm: --skew needs --rate, one thread, and connections that ask on\n");
        exit(2);
    }
    int bytes = snprintf(run.request, sizeof run.request,
                         "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n", argv[2], (int)run.port);
    if (bytes < 0 || (size_t)bytes >= sizeof run.request) {
        fprintf(stderr, "storm: the path is too long\n");
        exit(2);
    }
    run.request_bytes = (size_t)bytes;
}

static void make_worker(struct worker *w, int index)
{
    *w = (struct worker){.index = index};
    w->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    w->conn_count = run.connections / run.threads + (index < run.connections % run.threads);
    w->conns = calloc((size_t)(w->conn_count > 0 ? w->conn_count : 1), sizeof *w->conns);
    if (w->epoll_fd < 0 || w->conns == NULL) {
        fail("start");
    }
    for (int i = 0; i < w->conn_count; i++) {
        w->conns[i].fd = -1;
        w->conns[i].name = -1;
        w->conns[i].state = CLOSED;
    }
}

/* Adds `from` to the totals in `to`, and closes its connections. */
static void merge(struct worker *to, struct worker *from, uint64_t *unfinished)
{
    to->requests += from->requests;
    to->seen += from->seen;
    to->opened += from->opened;
    to->connect_errors += from->connect_errors;
    to->read_errors += from->read_errors;
    to->status_errors += from->status_errors;
    to->cpu_ns += from->cpu_ns;
    for (unsigned i = 0; i < BUCKETS; i++) {
        to->hist[i] += from->hist[i];
    }
    for (int i = 0; i < from->conn_count; i++) {
        struct conn *conn = &from->conns[i];
        if (conn->name >= 0 && conn->fd >= 0) {
            from->names[conn->name].connections++;
        }
        *unfinished += conn->state == WAITING || conn->state == CONNECTING;
        close_conn(conn);
    }
    if (from->interval_ns != 0 && from->next_due_ns < run.end_ns) {
        *unfinished += (run.end_ns - from->next_due_ns) / from->interval_ns;
    }
    for (int i = 0; i < from->name_count; i++) {
        int index = name_index(to, from->names[i].name, strlen(from->names[i].name));
        if (index >= 0) {
            to->names[index].requests += from->names[i].requests;
            to->names[index].connections += from->names[i].connections;
        }
    }
    free(from->conns);
}

static void print(const struct worker *all, uint64_t unfinished)
{
    printf("{\"requests\":%llu,\"seconds\":%.6f,\"rate\":%.1f,\"seen\":%llu,\"opened\":%llu,"
           "\"unfinished\":%llu,\"connect_errors\":%llu,\"read_errors\":%llu,"
           "\"status_errors\":%llu,\"cpu_us\":%.1f",
           (unsigned long long)all->requests, run.seconds, (double)all->requests / run.seconds,
           (unsigned long long)all->seen, (unsigned long long)all->opened,
           (unsigned long long)unfinished, (unsigned long long)all->connect_errors,
           (unsigned long long)all->read_errors, (unsigned long long)all->status_errors,
           (double)all->cpu_ns / 1000.0);
    static const struct {
        const char *name;
        double share;
    } shares[] = {{"p50_us", 0.5}, {"p90_us", 0.9}, {"p99_us", 0.99}, {"p999_us", 0.999}};
    for (size_t i = 0; i < sizeof shares / sizeof *shares; i++) {
        printf(",\"%s\":%.2f", shares[i].name,
               percentile_us(all->hist, all->requests, shares[i].share));
    }
    printf(",\"max_us\":%.2f,\"names\":{", percentile_us(all->hist, all->requests, 1.0));
    for (int i = 0; i < all->name_count; i++) {
        printf("%s\"%s\":{\"connections\":%llu,\"requests\":%llu}", i == 0 ? "" : ",",
               all->names[i].name, (unsigned long long)all->names[i].connections,
               (unsigned long long)all->names[i].requests);
    }
    printf("}}\n");
}

int main(int argc, char **argv)
{
    parse(argc, argv);
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
        files.rlim_cur = files.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &files);
    }
    struct worker *workers = calloc((size_t)run.threads + 1, sizeof *workers);
    if (workers == NULL) {
        fail("start");
    }
    run.begin_ns = clock_ns(CLOCK_MONOTONIC) + (uint64_t)(run.warmup * 1e9);
    run.end_ns = run.begin_ns + (uint64_t)(run.seconds * 1e9);
    run.skew_ns = run.begin_ns - (uint64_t)(run.warmup * 5e8);
    for (int i = 0; i < run.threads; i++) {
        make_worker(&workers[i], i);
        if ((errno = pthread_create(&workers[i].thread, NULL, work, &workers[i])) != 0) {
            fail("pthread_create");
        }
    }
    struct timespec begin = {.tv_sec = (time_t)(run.begin_ns / 1000000000u),
                             .tv_nsec = (long)(run.begin_ns % 1000000000u)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &begin, NULL) == EINTR) {}
    printf("begin\n");
    fflush(stdout);
    struct worker *all = &workers[run.threads];
    uint64_t unfinished = 0;
    for (int i = 0; i < run.threads; i++) {
        (void)pthread_join(workers[i].thread, NULL);
        merge(all, &workers[i], &unfinished);
        (void)close(workers[i].epoll_fd);
    }
    print(all, unfinished);
    free(workers);
    return 0;
}
