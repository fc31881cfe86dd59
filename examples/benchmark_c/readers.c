/* Thousands of WebSocket clients that read, or do not: the subscribers of examples/benchmark_topics.py. Linux only.
 *
 * Obeys commands on standard input, a line of JSON each, and prints a line of JSON for each result, until its input ends:
 *
 *   ["pin", CORE]
 *   ["open", PORT, COUNT, TOPICS, RECEIVE_BUFFER, READS]   connect; each asks for the path "/0" to "/TOPICS - 1" in turn, for "/all"
 *                                                          if TOPICS is 0. What does not read is recorded once it does.
 *   ["wait", MESSAGES, MILLISECONDS, SPIN]   until so many have come in all, or the time is over; the result is how many have.
 *                                            SPIN: without sleeping, so that no sender pays for waking us
 *   ["reset"]                   count from 0
 *   ["report"]                  the counts since, and how long messages were on their way, in microseconds
 *   ["resume"]                  those who did not read begin to
 *   ["recorded", "FILE"]        write what these have got: for each how many messages, then their numbers, 32 bits each
 *   ["ended", "FILE"]           write a line for each connection: nanoseconds of its CLOSE, its code, messages, how it has ended
 *
 * A message begins with the time it was sent, in nanoseconds, its number among all, and its number in its topic. Without
 * a time it is counted and no more.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    MAX_FRAME = 512,
    READ_SIZE = 64 * 1024,
    OPEN_AT_ONCE = 64,
    MAX_MICROSECONDS = 1000 * 1000,
    COMMANDS = -1 /* instead of the number of a connection */
};
enum { OPEN, ENDED, RESET };

struct client {
    int fd;
    int end;
    int reads;
    uint32_t messages;
    uint32_t next; /* the number in its topic that comes next */
    uint32_t code;
    uint64_t closed_at;
    uint32_t *recorded; /* the numbers of all messages, of those who did not read at first */
    size_t record_size;
    size_t left; /* bytes of a frame whose rest has not come yet */
    uint8_t part[MAX_FRAME];
};

static struct client *clients;
static int count;
static int poller;
static uint64_t messages;
static uint64_t awaited, deadline; /* 0: nobody waits for messages */
static int spin;
static uint32_t gaps, resets, ends, closes;
static uint32_t by_microseconds[MAX_MICROSECONDS + 1];

static void fail(const char *what) {
    fprintf(stderr, "readers: %s: %s\n", what, errno ? strerror(errno) : "unexpected");
    exit(1);
}

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void watch(int index) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = index};
    int fd = index == COMMANDS ? STDIN_FILENO : clients[index].fd;
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) != 0) fail("epoll_ctl");
}

/* Connections */

static int connect_one(int port, int receive_buffer, int topic) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    char request[256], path[16] = "all";
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) fail("socket");
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (receive_buffer) setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0) fail("connect");
    if (topic >= 0) snprintf(path, sizeof path, "%d", topic);
    int size = snprintf(request, sizeof request,
        "GET /%s HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", path);
    if (send(fd, request, (size_t)size, MSG_NOSIGNAL) != size) fail("the request");
    return fd;
}

/* Nothing is published yet: what comes is the answer alone. */
static void read_answer(int fd) {
    char answer[2048];
    size_t size = 0;
    while (size < 4 || memcmp(answer + size - 4, "\r\n\r\n", 4) != 0) {
        ssize_t got = recv(fd, answer + size, sizeof answer - size, 0);
        if (got <= 0) fail("no answer to the upgrade");
        size += (size_t)got;
    }
    if (strncmp(answer, "HTTP/1.1 101", 12) != 0) fail("the upgrade was refused");
}

static void open_clients(int port, int more, int topics, int receive_buffer, int reads) {
    int first = count;
    clients = realloc(clients, (size_t)(count + more) * sizeof *clients);
    if (clients == NULL) fail("memory");
    memset(clients + count, 0, (size_t)more * sizeof *clients);
    while (count < first + more) {
        int begin = count;
        for (; count < first + more && count < begin + OPEN_AT_ONCE; count++) {
            clients[count].fd = connect_one(port, receive_buffer, topics ? (count - first) % topics : -1);
            clients[count].reads = reads;
        }
        for (int i = begin; i < count; i++) {
            read_answer(clients[i].fd);
            if (fcntl(clients[i].fd, F_SETFL, O_NONBLOCK) != 0) fail("fcntl");
            if (reads) watch(i);
        }
    }
}

/* Frames */

static void record(struct client *client, uint32_t number) {
    if (client->messages == client->record_size) {
        client->record_size = client->record_size ? 2 * client->record_size : 1024;
        client->recorded = realloc(client->recorded, client->record_size * sizeof *client->recorded);
        if (client->recorded == NULL) fail("memory");
    }
    client->recorded[client->messages] = number;
}

static void take_message(struct client *client, const uint8_t *payload, size_t size, uint64_t time) {
    uint64_t sent = 0;
    uint32_t number, number_in_topic;
    if (size >= 16) memcpy(&sent, payload, 8);
    if (sent) {
        memcpy(&number, payload + 8, 4);
        memcpy(&number_in_topic, payload + 12, 4);
        if (client->reads) {
            uint64_t microseconds = time > sent ? (time - sent) / 1000 : 0;
            by_microseconds[microseconds < MAX_MICROSECONDS ? microseconds : MAX_MICROSECONDS]++;
            gaps += number_in_topic != client->next;
            client->next = number_in_topic + 1;
        } else {
            record(client, number);
        }
    }
    client->messages++;
    messages++;
}

static void take_close(struct client *client, const uint8_t *payload, size_t size, uint64_t time) {
    uint8_t answer[8] = {0x88, 0x82, 0, 0, 0, 0, 0x03, 0xE8};
    client->closed_at = time;
    closes++;
    if (size >= 2) {
        client->code = (uint32_t)(payload[0] << 8 | payload[1]);
        memcpy(answer + 6, payload, 2);
    }
    if (send(client->fd, answer, sizeof answer, MSG_NOSIGNAL) != (ssize_t)sizeof answer) resets++;
}

static void read_client(struct client *client) {
    static uint8_t buffer[MAX_FRAME + READ_SIZE];
    const uint8_t *data = buffer;
    ssize_t got = recv(client->fd, buffer + client->left, READ_SIZE, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) {
        client->end = got < 0 ? RESET : ENDED;
        resets += got < 0;
        ends++;
        close(client->fd);
        return;
    }
    uint64_t time = now();
    memcpy(buffer, client->part, client->left);
    size_t size = client->left + (size_t)got;
    while (size >= 2) {
        size_t head = 2, payload = data[1];
        if (payload == 126) {
            if (size < 4) break;
            head = 4;
            payload = (size_t)(data[2] << 8 | data[3]);
        }
        if (head + payload > MAX_FRAME) { errno = 0; fail("a frame that is too large"); }
        if (size < head + payload) break;
        if (data[0] == 0x81 || data[0] == 0x82) take_message(client, data + head, payload, time);
        else if (data[0] == 0x88) take_close(client, data + head, payload, time);
        else { errno = 0; fail("a frame that is no message"); }
        data += head + payload;
        size -= head + payload;
    }
    client->left = size;
    memcpy(client->part, data, size);
}

/* Commands */

static uint32_t percentile(double part) {
    uint64_t total = 0, seen = 0;
    uint32_t microseconds = 0;
    for (uint32_t i = 0; i <= MAX_MICROSECONDS; i++) total += by_microseconds[i];
    while (microseconds < MAX_MICROSECONDS && (double)(seen += by_microseconds[microseconds]) < part * (double)total) microseconds++;
    return microseconds;
}

static void report(void) {
    uint32_t least = UINT32_MAX, most = 0;
    struct rusage usage;
    for (int i = 0; i < count; i++) {
        if (!clients[i].reads) continue;
        if (clients[i].messages < least) least = clients[i].messages;
        if (clients[i].messages > most) most = clients[i].messages;
    }
    getrusage(RUSAGE_SELF, &usage);
    printf("{\"messages\": %llu, \"least\": %u, \"most\": %u, \"gaps\": %u, \"closes\": %u, \"ends\": %u, \"resets\": %u, "
           "\"p50\": %u, \"p99\": %u, \"p99.9\": %u, \"max\": %u, \"cpu\": %ld.%06ld}\n",
           (unsigned long long)messages, least == UINT32_MAX ? 0 : least, most, gaps, closes, ends, resets, percentile(0.5),
           percentile(0.99), percentile(0.999), percentile(1), usage.ru_utime.tv_sec + usage.ru_stime.tv_sec
           + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1000000,
           (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) % 1000000);
}

static void reset(void) {
    memset(by_microseconds, 0, sizeof by_microseconds);
    messages = gaps = closes = ends = resets = 0;
    for (int i = 0; i < count; i++) clients[i].messages = clients[i].next = 0;
}

static void write_recorded(const char *path) {
    FILE *file = fopen(path, "wb");
    if (file == NULL) fail(path);
    for (int i = 0; i < count; i++) {
        if (clients[i].reads) continue;
        fwrite(&clients[i].messages, sizeof clients[i].messages, 1, file);
        fwrite(clients[i].recorded, sizeof *clients[i].recorded, clients[i].messages, file);
    }
    if (fclose(file) != 0) fail(path);
}

static void write_ended(const char *path) {
    FILE *file = fopen(path, "w");
    if (file == NULL) fail(path);
    for (int i = 0; i < count; i++)
        fprintf(file, "%llu %u %u %d\n", (unsigned long long)clients[i].closed_at, clients[i].code, clients[i].messages, clients[i].end);
    if (fclose(file) != 0) fail(path);
}

static void answer_when_here(void) {
    if (deadline && (messages >= awaited || now() >= deadline)) {
        printf("%llu\n", (unsigned long long)messages);
        fflush(stdout);
        deadline = 0;
        spin = 0;
    }
}

static void obey(const char *line) {
    char name[16] = "", path[1024] = "";
    long a[5] = {0};
    if (sscanf(line, "[\"%15[^\"]\", \"%1023[^\"]", name, path) < 2)
        sscanf(line, "[\"%15[^\"]\", %ld, %ld, %ld, %ld, %ld", name, a, a + 1, a + 2, a + 3, a + 4);
    if (!strcmp(name, "wait")) {
        awaited = (uint64_t)a[0];
        deadline = now() + (uint64_t)a[1] * 1000000;
        spin = (int)a[2];
        return;
    }
    if (!strcmp(name, "report")) { report(); return; }
    if (!strcmp(name, "open")) {
        open_clients((int)a[0], (int)a[1], (int)a[2], (int)a[3], (int)a[4]);
    } else if (!strcmp(name, "pin")) {
        cpu_set_t cores;
        CPU_ZERO(&cores);
        CPU_SET((size_t)a[0], &cores);
        if (sched_setaffinity(0, sizeof cores, &cores) != 0) fail("sched_setaffinity");
    } else if (!strcmp(name, "resume")) {
        for (int i = 0; i < count; i++) if (!clients[i].reads) watch(i);
    } else if (!strcmp(name, "recorded")) {
        write_recorded(path);
    } else if (!strcmp(name, "ended")) {
        write_ended(path);
    } else if (!strcmp(name, "reset")) {
        reset();
    } else {
        errno = 0;
        fail(line);
    }
    printf("null\n");
}

static void read_commands(void) {
    static char lines[4096];
    static size_t size;
    ssize_t got = read(STDIN_FILENO, lines + size, sizeof lines - 1 - size);
    if (got <= 0) exit(0);
    size += (size_t)got;
    lines[size] = 0;
    char *begin = lines, *end;
    while ((end = strchr(begin, '\n')) != NULL) {
        *end = 0;
        obey(begin);
        begin = end + 1;
    }
    fflush(stdout);
    size -= (size_t)(begin - lines);
    memmove(lines, begin, size);
}

int main(void) {
    static struct epoll_event events[1024];
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (poller < 0) fail("epoll");
    watch(COMMANDS);
    for (;;) {
        int ready = epoll_wait(poller, events, sizeof events / sizeof *events, spin ? 0 : deadline ? 10 : -1);
        for (int i = 0; i < ready; i++) {
            if (events[i].data.fd == COMMANDS) read_commands();
            else read_client(clients + events[i].data.fd);
        }
        answer_when_here();
    }
}
