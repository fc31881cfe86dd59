/* The limit of any broadcast: one frame, built before, to many sockets by bare send(). Called by benchmark_topics_servers.py. */
#include <errno.h>
#include <stddef.h>
#include <sys/socket.h>

/* Returns how many sockets took the whole frame. */
size_t send_to_all(const int *sockets, size_t count, const void *frame, size_t size) {
    size_t taken = 0;
    for (size_t i = 0; i < count; i++) {
        ssize_t sent;
        do sent = send(sockets[i], frame, size, MSG_NOSIGNAL); while (sent < 0 && errno == EINTR);
        taken += sent == (ssize_t)size;
    }
    return taken;
}
