/* Everything net/ asks of the operating system: system calls, clocks, threads. No other file of
 * net/ includes a header of the system's or makes a call by itself (tests/tidy.py).
 *
 * In a server, pp_sys_NAME is the function NAME and costs nothing more. With PP_TEST_KERNEL those
 * of sockets, descriptors and time are functions that a test links: a kernel of its own
 * (tests/native/sim_kernel.c).
 *
 * The calls of every request go without glibc's preparations for pthread_cancel(): once a process
 * has a second thread, these are some fifty instructions a call, and nobody here cancels a thread.
 * Results and errno as the functions they are named after. Sanitizers watch those. */
#ifndef PP_NET_SYS_H
#define PP_NET_SYS_H

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* ---- sockets, descriptors, time ---- */

#ifdef PP_TEST_KERNEL

ssize_t pp_sys_recv(int fd, void *buf, size_t len, int flags);
ssize_t pp_sys_send(int fd, const void *buf, size_t len, int flags);
ssize_t pp_sys_sendmsg(int fd, const struct msghdr *msg, int flags);
ssize_t pp_sys_sendfile(int fd, int file, off_t *offset, size_t len);
ssize_t pp_sys_read(int fd, void *buf, size_t len);
ssize_t pp_sys_write(int fd, const void *buf, size_t len);
int pp_sys_open(const char *path, int flags, ...);
int pp_sys_close(int fd);
int pp_sys_fcntl(int fd, int cmd, ...);
int pp_sys_ioctl(int fd, unsigned long what, ...);
int pp_sys_accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags);
int pp_sys_connect(int fd, const struct sockaddr *addr, socklen_t len);
int pp_sys_shutdown(int fd, int how);
int pp_sys_getsockname(int fd, struct sockaddr *addr, socklen_t *len);
int pp_sys_getpeername(int fd, struct sockaddr *addr, socklen_t *len);
int pp_sys_getsockopt(int fd, int level, int name, void *value, socklen_t *len);
int pp_sys_setsockopt(int fd, int level, int name, const void *value, socklen_t len);
int pp_sys_epoll_create1(int flags);
int pp_sys_epoll_ctl(int fd, int op, int target, struct epoll_event *event);
int pp_sys_epoll_wait(int fd, struct epoll_event *events, int max, int timeout_ms);
int pp_sys_eventfd(unsigned value, int flags);
int pp_sys_clock_gettime(clockid_t clock, struct timespec *now);

#else

#define pp_sys_accept4 accept4
#define pp_sys_clock_gettime clock_gettime
#define pp_sys_close close
#define pp_sys_connect connect
#define pp_sys_epoll_create1 epoll_create1
#define pp_sys_epoll_ctl epoll_ctl
#define pp_sys_eventfd eventfd
#define pp_sys_fcntl fcntl
#define pp_sys_getpeername getpeername
#define pp_sys_getsockname getsockname
#define pp_sys_getsockopt getsockopt
#define pp_sys_ioctl ioctl
#define pp_sys_open open
#define pp_sys_read read
#define pp_sys_sendfile sendfile
#define pp_sys_setsockopt setsockopt
#define pp_sys_shutdown shutdown
#define pp_sys_write write

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define PP_QUICK 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || \
    __has_feature(memory_sanitizer)
#define PP_QUICK 0
#endif
#endif
#ifndef PP_QUICK
#define PP_QUICK 1
#endif

#if PP_QUICK && defined(SYS_recvfrom) && defined(SYS_sendto) && defined(SYS_epoll_pwait)
static inline ssize_t pp_sys_recv(int fd, void *buf, size_t len, int flags)
{
    return syscall(SYS_recvfrom, fd, buf, len, flags, NULL, NULL);
}
static inline ssize_t pp_sys_send(int fd, const void *buf, size_t len, int flags)
{
    return syscall(SYS_sendto, fd, buf, len, flags, NULL, (socklen_t)0);
}
static inline ssize_t pp_sys_sendmsg(int fd, const struct msghdr *msg, int flags)
{
    return syscall(SYS_sendmsg, fd, msg, flags);
}
static inline int pp_sys_epoll_wait(int fd, struct epoll_event *events, int max, int timeout_ms)
{
    return (int)syscall(SYS_epoll_pwait, fd, events, max, timeout_ms, NULL, (size_t)8);
}
#else
#define pp_sys_recv recv
#define pp_sys_send send
#define pp_sys_sendmsg sendmsg
#define pp_sys_epoll_wait epoll_wait
#endif

#endif

/* ---- threads, files, memory ---- */

#define pp_sys_fallocate fallocate
#define pp_sys_fstat fstat
#define pp_sys_ftruncate ftruncate
#define pp_sys_getpid getpid
#define pp_sys_memfd_create memfd_create
#define pp_sys_mkostemp mkostemp
#define pp_sys_mmap mmap
#define pp_sys_munmap munmap
#define pp_sys_poll poll
#define pp_sys_pread pread
#define pp_sys_preadv2 preadv2
#define pp_sys_pwrite pwrite
#define pp_sys_recvmsg recvmsg
#define pp_sys_syscall syscall
#define pp_sys_unlink unlink
#define pp_sys_pthread_cond_broadcast pthread_cond_broadcast
#define pp_sys_pthread_cond_destroy pthread_cond_destroy
#define pp_sys_pthread_cond_init pthread_cond_init
#define pp_sys_pthread_cond_signal pthread_cond_signal
#define pp_sys_pthread_cond_wait pthread_cond_wait
#define pp_sys_pthread_create pthread_create
#define pp_sys_pthread_equal pthread_equal
#define pp_sys_pthread_getcpuclockid pthread_getcpuclockid
#define pp_sys_pthread_join pthread_join
#define pp_sys_pthread_mutex_destroy pthread_mutex_destroy
#define pp_sys_pthread_mutex_init pthread_mutex_init
#define pp_sys_pthread_mutex_lock pthread_mutex_lock
#define pp_sys_pthread_mutex_unlock pthread_mutex_unlock
#define pp_sys_pthread_self pthread_self
#define pp_sys_pthread_sigmask pthread_sigmask
#define pp_sys_sem_clockwait sem_clockwait
#define pp_sys_sem_destroy sem_destroy
#define pp_sys_sem_init sem_init
#define pp_sys_sem_post sem_post
#define pp_sys_sem_wait sem_wait

#endif
