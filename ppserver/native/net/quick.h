/* The system calls of every request, without glibc's preparations for pthread_cancel(): once a
 * process has a second thread, these are some fifty instructions a call, and nobody here cancels a
 * thread. Results and errno as the functions they are named after. Sanitizers watch those. */
#ifndef PP_NET_QUICK_H
#define PP_NET_QUICK_H

#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

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
static inline ssize_t pp_quick_recv(int fd, void *buf, size_t len, int flags)
{
    return syscall(SYS_recvfrom, fd, buf, len, flags, NULL, NULL);
}
static inline ssize_t pp_quick_send(int fd, const void *buf, size_t len, int flags)
{
    return syscall(SYS_sendto, fd, buf, len, flags, NULL, (socklen_t)0);
}
static inline ssize_t pp_quick_sendmsg(int fd, const struct msghdr *msg, int flags)
{
    return syscall(SYS_sendmsg, fd, msg, flags);
}
static inline int pp_quick_epoll_wait(int fd, struct epoll_event *events, int max, int timeout_ms)
{
    return (int)syscall(SYS_epoll_pwait, fd, events, max, timeout_ms, NULL, (size_t)8);
}
#else
#define pp_quick_recv recv
#define pp_quick_send send
#define pp_quick_sendmsg sendmsg
#define pp_quick_epoll_wait epoll_wait
#endif

#endif
