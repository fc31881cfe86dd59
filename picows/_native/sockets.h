/* System calls on the socket behind an asyncio transport, and the clock. Where a platform lacks one, the shim says so
 * and the caller takes the transport's own way. */
#ifndef PICOWS_SOCKETS_H
#define PICOWS_SOCKETS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(_WIN32)

static inline int ws_direct_io_supported(void) { return 0; }
static inline ptrdiff_t ws_send(int fd, const void *data, size_t size) { (void)fd; (void)data; (void)size; return 0; }
static inline ptrdiff_t ws_send2(int fd, const void *head, size_t head_size, const void *body, size_t body_size) {
    (void)fd; (void)head; (void)head_size; (void)body; (void)body_size; return 0;
}
static inline ptrdiff_t ws_unsent(int fd) { (void)fd; return 0; }
static inline int ws_writable(int fd) { (void)fd; return 0; }
static inline void ws_tune_tcp(int fd) { (void)fd; }
static inline void ws_shutdown_write(int fd) { (void)fd; }

#else

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#if defined(__linux__)
#include <linux/sockios.h>
#endif

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0 /* macOS: the interpreter ignores SIGPIPE */
#endif

static inline int ws_direct_io_supported(void) { return 1; }

/* Bytes taken by the kernel. 0 also stands for every refusal: the caller then hands the bytes to the transport, which
 * meets the same errno and reports it the way asyncio does. */
static inline ptrdiff_t ws_send(int fd, const void *data, size_t size) {
    ssize_t n;
    do n = send(fd, data, size, MSG_NOSIGNAL); while (n < 0 && errno == EINTR);
    return n < 0 ? 0 : n;
}

/* The same for a header and a body that lie apart: one system call, no copy. */
static inline ptrdiff_t ws_send2(int fd, const void *head, size_t head_size, const void *body, size_t body_size) {
    struct iovec parts[2] = {{(void *)head, head_size}, {(void *)body, body_size}};
    struct msghdr msg;
    ssize_t n;
    memset(&msg, 0, sizeof msg);
    msg.msg_iov = parts;
    msg.msg_iovlen = 2;
    do n = sendmsg(fd, &msg, MSG_NOSIGNAL); while (n < 0 && errno == EINTR);
    return n < 0 ? 0 : n;
}

/* Bytes in the kernel that the peer has not acknowledged; 0 where the system cannot tell. */
static inline ptrdiff_t ws_unsent(int fd) {
    int n = 0;
#if defined(SIOCOUTQ)
    if (ioctl(fd, SIOCOUTQ, &n) != 0) return 0;
#elif defined(SO_NWRITE)
    socklen_t size = sizeof n;
    if (getsockopt(fd, SOL_SOCKET, SO_NWRITE, &n, &size) != 0) return 0;
#else
    (void)fd;
#endif
    return n;
}

/* Whether the kernel has room for more. */
static inline int ws_writable(int fd) {
    struct pollfd asked = {fd, POLLOUT, 0};
    return poll(&asked, 1, 0) == 1 && asked.revents == POLLOUT;
}

/* Not a TCP socket (AF_UNIX): the options are refused, and nothing is lost. */
static inline void ws_tune_tcp(int fd) {
    int one = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
#if defined(TCP_QUICKACK)
    (void)setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &one, sizeof one);
#endif
}

static inline void ws_shutdown_write(int fd) { (void)shutdown(fd, SHUT_WR); }

#endif
#endif
