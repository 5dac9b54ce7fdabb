/* Files and the threads that read them (contract: file.h). */
#include "net/file.h"
#include "net/sys.h"

#include <errno.h>
#include <string.h>

#include "net/loop_impl.h"

struct pp_file *pp_file_open(const char *path, uint64_t *size)
{
    struct stat st;
    struct pp_file *file = pp_mem_zalloc(sizeof *file);
    if (file == NULL) {
        errno = ENOMEM;
        return NULL;
    }
    /* NONBLOCK: a FIFO must not hold the open up; regular files know nothing of it. */
    file->fd = pp_sys_open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    int problem = file->fd < 0 ? errno : 0;
    if (problem == 0 && pp_sys_fstat(file->fd, &st) != 0) {
        problem = errno;
    } else if (problem == 0 && !S_ISREG(st.st_mode)) {
        problem = S_ISDIR(st.st_mode) ? EISDIR : EINVAL;
    }
    if (problem != 0) {
        if (file->fd >= 0) {
            (void)pp_sys_close(file->fd);
        }
        pp_mem_free(file, sizeof *file);
        errno = problem;
        return NULL;
    }
    file->refs = 1;
    *size = (uint64_t)st.st_size;
    return file;
}

void pp_file_ref(struct pp_file *file)
{
    (void)__atomic_add_fetch(&file->refs, 1, __ATOMIC_RELAXED);
}

void pp_file_unref(struct pp_file *file)
{
    if (__atomic_sub_fetch(&file->refs, 1, __ATOMIC_ACQ_REL) == 0) {
        (void)pp_sys_close(file->fd);
        pp_mem_free(file, sizeof *file);
    }
}

#ifdef PP_FAILURE_INJECTION
bool (*pp_file_test_cold)(uint64_t at, size_t len);
void (*pp_file_test_read)(void);
#endif

bool pp_file_cold(const struct pp_file *file, uint64_t at, size_t len)
{
#ifdef PP_FAILURE_INJECTION
    if (pp_file_test_cold != NULL) {
        return pp_file_test_cold(at, len);
    }
#endif
    for (size_t step = 0; step < len; step += PP_FILE_STEP) {
        uint8_t byte;
        struct iovec iov = {.iov_base = &byte, .iov_len = 1};
        if (pp_sys_preadv2(file->fd, &iov, 1, (off_t)(at + step), RWF_NOWAIT) < 0) {
            return errno == EAGAIN;
        }
    }
    return false;
}

/* ---- the threads ---- */

static void read_chunk(const struct pp_file_job *job, uint8_t *buf)
{
    size_t got = 0;
#ifdef PP_FAILURE_INJECTION
    if (pp_file_test_read != NULL) {
        pp_file_test_read();
    }
#endif
    while (got < job->len) {
        size_t n = job->len - got < PP_FILE_STEP ? job->len - got : PP_FILE_STEP;
        ssize_t rc = pp_sys_pread(job->file->fd, buf, n, (off_t)(job->at + got));
        if (rc <= 0) {
            return; /* sendfile meets the same and says so */
        }
        got += (size_t)rc;
    }
}

static void *reader(void *arg)
{
    struct pp_loop *loop = arg;
    struct pp_filer *filer = &loop->filer;
    uint8_t *buf = pp_mem_alloc(PP_FILE_STEP);
    (void)pp_sys_pthread_mutex_lock(&filer->mutex);
    while (!filer->stopping) {
        struct pp_file_job *job = filer->first;
        if (job == NULL) {
            filer->idle++;
            (void)pp_sys_pthread_cond_wait(&filer->wanted, &filer->mutex);
            filer->idle--;
            continue;
        }
        filer->first = job->next;
        filer->queued--;
        (void)pp_sys_pthread_mutex_unlock(&filer->mutex);
        if (buf != NULL) {
            read_chunk(job, buf);
        }
        (void)pp_sys_pthread_mutex_lock(&filer->mutex);
        job->next = filer->done;
        filer->done = job;
        __atomic_store_n(&filer->news, true, __ATOMIC_RELEASE);
        pp_loop_wake(loop);
    }
    (void)pp_sys_pthread_mutex_unlock(&filer->mutex);
    if (buf != NULL) {
        pp_mem_free(buf, PP_FILE_STEP);
    }
    return NULL;
}

/* One thread more if none waits for this piece of work; under the mutex. A thread that has been
 * signalled counts as idle until it runs, so what is queued counts against it. Signals are for
 * others. */
static void start_reader(struct pp_loop *loop)
{
    struct pp_filer *filer = &loop->filer;
    sigset_t all, before;
    if (filer->idle > filer->queued || filer->thread_count == PP_FILE_THREADS) {
        return;
    }
    (void)sigfillset(&all);
    (void)pp_sys_pthread_sigmask(SIG_SETMASK, &all, &before);
    if (pp_sys_pthread_create(&filer->threads[filer->thread_count], NULL, reader, loop) == 0) {
        filer->thread_count++;
    }
    (void)pp_sys_pthread_sigmask(SIG_SETMASK, &before, NULL);
}

struct pp_file_job *pp_filer_read(struct pp_loop *loop, struct pp_conn *conn, struct pp_file *file,
                                  uint64_t at, size_t len)
{
    struct pp_filer *filer = &loop->filer;
    struct pp_file_job *job = pp_mem_zalloc(sizeof *job);
    if (job == NULL) {
        return NULL;
    }
    if (!filer->ready) {
        (void)pp_sys_pthread_mutex_init(&filer->mutex, NULL);
        (void)pp_sys_pthread_cond_init(&filer->wanted, NULL);
        filer->ready = true;
    }
    pp_file_ref(file);
    job->file = file;
    job->at = at;
    job->len = len;
    job->conn = conn;
    (void)pp_sys_pthread_mutex_lock(&filer->mutex);
    start_reader(loop);
    bool served = filer->thread_count > 0;
    if (served) {
        if (filer->first == NULL) {
            filer->first = job;
        } else {
            filer->last->next = job;
        }
        filer->last = job;
        filer->queued++;
        (void)pp_sys_pthread_cond_signal(&filer->wanted);
    }
    (void)pp_sys_pthread_mutex_unlock(&filer->mutex);
    if (!served) {
        pp_filer_give(job);
        return NULL;
    }
    return job;
}

struct pp_file_job *pp_filer_done(struct pp_loop *loop)
{
    struct pp_filer *filer = &loop->filer;
    if (!__atomic_load_n(&filer->news, __ATOMIC_ACQUIRE)) {
        return NULL;
    }
    (void)pp_sys_pthread_mutex_lock(&filer->mutex);
    struct pp_file_job *done = filer->done;
    filer->done = NULL;
    __atomic_store_n(&filer->news, false, __ATOMIC_RELAXED);
    (void)pp_sys_pthread_mutex_unlock(&filer->mutex);
    return done;
}

void pp_filer_give(struct pp_file_job *job)
{
    pp_file_unref(job->file);
    pp_mem_free(job, sizeof *job);
}

void pp_filer_fini(struct pp_loop *loop)
{
    struct pp_filer *filer = &loop->filer;
    struct pp_file_job *job, *lists[2];
    if (!filer->ready) {
        return;
    }
    (void)pp_sys_pthread_mutex_lock(&filer->mutex);
    filer->stopping = true;
    (void)pp_sys_pthread_cond_broadcast(&filer->wanted);
    (void)pp_sys_pthread_mutex_unlock(&filer->mutex);
    for (unsigned i = 0; i < filer->thread_count; i++) {
        (void)pp_sys_pthread_join(filer->threads[i], NULL);
    }
    lists[0] = filer->first;
    lists[1] = filer->done;
    for (int i = 0; i < 2; i++) {
        while ((job = lists[i]) != NULL) {
            lists[i] = job->next;
            pp_filer_give(job);
        }
    }
    (void)pp_sys_pthread_cond_destroy(&filer->wanted);
    (void)pp_sys_pthread_mutex_destroy(&filer->mutex);
    filer->ready = false;
}
