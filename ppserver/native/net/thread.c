/* /proc/self/task/TID/syscall (proc(5)) says "running" of a thread that is not blocked, and in
 * which system call it is otherwise. A process may always read it of its own threads, unless it is
 * not dumpable or /proc is not there. */
#include "net/thread.h"
#include "net/sys.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"

pid_t pp_thread_process(void)
{
    return pp_sys_getpid();
}

void pp_thread_init(struct pp_thread *self)
{
    self->tid = (pid_t)pp_sys_syscall(SYS_gettid);
    PP_CHECK(pp_sys_pthread_getcpuclockid(pp_sys_pthread_self(), &self->cpu_clock) == 0);
}

uint64_t pp_thread_cpu_us(const struct pp_thread *thread)
{
    struct timespec now;
    if (pp_sys_clock_gettime(thread->cpu_clock, &now) < 0) {
        return 0;
    }
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

bool pp_thread_runs(const struct pp_thread *thread)
{
    static const char RUNNING[] = "running";
    char path[64], text[sizeof(RUNNING) - 1];
    (void)snprintf(path, sizeof(path), "/proc/self/task/%ld/syscall", (long)thread->tid);
    int fd = pp_sys_open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    ssize_t len;
    do {
        len = pp_sys_read(fd, text, sizeof(text));
    } while (len < 0 && errno == EINTR);
    (void)pp_sys_close(fd);
    return len == (ssize_t)sizeof(text) && memcmp(text, RUNNING, sizeof(text)) == 0;
}
