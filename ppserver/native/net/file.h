/* Files on their way to sockets: what is in the page cache goes out by sendfile(2), what is not is
 * first read by a few threads, so that a slow disk holds up nobody but the peer that wants it.
 *
 * Whether a chunk is cached is asked of the kernel by preadv2(RWF_NOWAIT), a byte at a time at
 * distances below the readahead's. Where a file system cannot say (EOPNOTSUPP) it is taken to be.
 */
#ifndef PP_NET_FILE_H
#define PP_NET_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"
#include "net/sys.h"

#define PP_FILE_CHUNK 262144 /* bytes that are looked at, read and sent at a time */
#define PP_FILE_STEP 65536   /* between two looks */
#define PP_FILE_THREADS 4    /* that read for one loop, started when needed */

struct pp_conn;
struct pp_loop;

/* An open file; counted, closed with the last reference. */
struct pp_file {
    uint32_t refs; /* atomic */
    int fd;
};

/* Opens a regular file for reading. NULL: errno says why (EISDIR and EINVAL: it is none). */
struct pp_file *pp_file_open(const char *path, uint64_t *size);
void pp_file_ref(struct pp_file *file);
void pp_file_unref(struct pp_file *file);
/* Whether reading [at, at + len) would have to wait. */
bool pp_file_cold(const struct pp_file *file, uint64_t at, size_t len);

/* A chunk that is being read for a connection. */
struct pp_file_job {
    struct pp_file_job *next;
    struct pp_file *file; /* counted */
    uint64_t at;
    size_t len;
    struct pp_conn *conn; /* borrowed; NULL: it has gone. The loop's thread only. */
};

struct pp_filer {
    pthread_mutex_t mutex;
    pthread_cond_t wanted;
    pthread_t threads[PP_FILE_THREADS];
    unsigned thread_count, idle, queued; /* idle: signalled ones that do not run yet, too */
    bool ready;                          /* mutex and condition exist */
    bool stopping;                       /* under the mutex, as all below */
    struct pp_file_job *first, *last, *done;
    bool news; /* atomic: done is not empty */
};

/* Has [at, at + len) read for conn. NULL: it could not be asked for. */
struct pp_file_job *pp_filer_read(struct pp_loop *loop, struct pp_conn *conn, struct pp_file *file,
                                  uint64_t at, size_t len);
/* The jobs that are done, linked by next; the caller's to free by pp_filer_give. */
struct pp_file_job *pp_filer_done(struct pp_loop *loop);
void pp_filer_give(struct pp_file_job *job);
void pp_filer_fini(struct pp_loop *loop); /* waits for the threads */

#ifdef PP_FAILURE_INJECTION
/* Test builds: what is cold, and something that a reading thread waits for first; NULL = no. */
extern bool (*pp_file_test_cold)(uint64_t at, size_t len);
extern void (*pp_file_test_read)(void);
#endif

#endif
