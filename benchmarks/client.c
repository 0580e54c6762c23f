/* Sends uploads over connections that it keeps, one thread each, and checks every reply.
 *
 * usage: client PORT PATH OPERATION CONNECTIONS SECONDS COUNT SIZE STEP PAUSE NAME FIELDS SOURCE
 *
 * OPERATION is "create", "upload" (a creation and PATCHes of STEP bytes), "whole" (a creation with its body) or "head".
 * Each connection goes on for SECONDS, or performs COUNT operations if SECONDS is 0. PAUSE is in microseconds, after
 * each operation. NAME is the file name of the uploads; a "*" in it stands for a number and a suffix. FIELDS are further
 * lines of each head that has a body, and of creations if they are about concatenation. Bodies come from the file
 * SOURCE, each from another page of it. They begin at a page, as those of whole files do. If they begin a few bytes
 * before one, some processors need three times as long to copy them out of a pipe.
 *
 * Prints a line "operations seconds cpu p50 p99 mean", times in seconds, and for each upload a line
 * "path name place", where place is where in SOURCE its bytes begin.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { HEAD = 64 << 10, SMALL = 48 << 10, PATH = 512, PAGE = 4096 };

struct upload {
    char path[PATH], name[64];
    long long place;
};

struct worker {
    pthread_t thread;
    int number, socket;
    char out[HEAD + SMALL], in[HEAD + 1];
    long operations, uploads, room;
    double *times;
    struct upload *made;
};

static int port, connections, source;
static long long count, size, step, source_size, pause_us;
static double seconds;
static const char *base, *operation, *file_name, *fields, *data;
static pthread_barrier_t barrier;

static void fail(const char *what, const char *detail) {
    fprintf(stderr, "client: %s: %s\n", what, detail);
    exit(1);
}

static double now(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static int connect_to_server(void) {
    int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), yes = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct timeval patience = {.tv_sec = 120};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(client, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (connect(client, (struct sockaddr *)&address, sizeof address))
        fail("connect", strerror(errno));
    return client;
}

/* The value of a field of a head, or 0. */
static const char *field(const char *head, const char *name) {
    size_t length = strlen(name);
    for (const char *line = strstr(head, "\r\n"); line; line = strstr(line + 2, "\r\n"))
        if (!strncasecmp(line + 2, name, length) && line[2 + length] == ':')
            return line + 3 + length + strspn(line + 3 + length, " ");
    return 0;
}

static size_t receive(struct worker *w, size_t used) {
    ssize_t got = used < HEAD ? recv(w->socket, w->in + used, HEAD - used, 0) : 0;
    if (got <= 0)
        fail(operation, used ? "the reply is cut" : "the server closed the connection");
    w->in[used + got] = 0;
    return used + got;
}

/* Read a reply, its body too; return its status. The head stays in w->in. */
static int read_reply(struct worker *w, int has_body) {
    size_t used = 0;
    char *end;
    for (;;) {
        w->in[used] = 0;
        while (!(end = strstr(w->in, "\r\n\r\n")))
            used = receive(w, used);
        if (strncmp(w->in + 9, "1", 1))
            break;
        used -= end + 4 - w->in; /* an interim response */
        memmove(w->in, end + 4, used);
    }
    end[2] = 0;
    int status = atoi(w->in + 9);
    size_t start = end + 4 - w->in;
    const char *length = field(w->in, "Content-Length"), *encoding = field(w->in, "Transfer-Encoding");
    const char *connection = field(w->in, "Connection");
    if (has_body && status != 204 && status != 304) {
        if (encoding)
            while (used - start < 5 || memcmp(w->in + used - 5, "0\r\n\r\n", 5))
                used = receive(w, used);
        else
            while (length && used - start < (size_t)atoll(length))
                used = receive(w, used);
    }
    if ((connection && !strncasecmp(connection, "close", 5)) || !strncmp(w->in, "HTTP/1.0", 8)) {
        close(w->socket);
        w->socket = -1;
    }
    return status;
}

/* Send a request whose head is in w->out, and its body from a place in the source. */
static void send_request(struct worker *w, int head, long long place, long long body) {
    if (w->socket < 0)
        w->socket = connect_to_server();
    int is_small = body <= SMALL;
    if (is_small && body)
        memcpy(w->out + head, data + place, body);
    size_t first = head + (is_small ? body : 0);
    for (size_t sent = 0; sent < first;) {
        ssize_t moved = send(w->socket, w->out + sent, first - sent, MSG_NOSIGNAL | (is_small ? 0 : MSG_MORE));
        if (moved <= 0)
            fail(operation, "the server does not take the request");
        sent += moved;
    }
    off_t at = place;
    while (!is_small && at < place + body)
        if (sendfile(w->socket, source, &at, place + body - at) <= 0) {
            w->in[0] = 0;
            recv(w->socket, w->in, HEAD, 0);
            fail("the server does not take the body", w->in);
        }
}

static int is_refused(struct worker *w, int status, long long offset) {
    const char *offset_field = field(w->in, "Upload-Offset");
    return status / 100 != 2 || (offset >= 0 && (!offset_field || atoll(offset_field) != offset));
}

static void encode(const char *text, char *out) {
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t left = strlen(text); left; text += left < 3 ? left : 3, left -= left < 3 ? left : 3) {
        unsigned a = (unsigned char)text[0], b = left > 1 ? (unsigned char)text[1] : 0;
        unsigned c = left > 2 ? (unsigned char)text[2] : 0;
        *out++ = letters[a >> 2];
        *out++ = letters[(a & 3) << 4 | b >> 4];
        *out++ = left > 1 ? letters[(b & 15) << 2 | c >> 6] : '=';
        *out++ = left > 2 ? letters[c & 63] : '=';
    }
    *out = 0;
}

static struct upload *new_upload(struct worker *w) {
    if (w->uploads == w->room) {
        w->room = w->room ? 2 * w->room : 256;
        w->made = realloc(w->made, w->room * sizeof *w->made);
    }
    struct upload *upload = &w->made[w->uploads++];
    long number = w->uploads * connections + w->number;
    snprintf(upload->name, sizeof upload->name, "%s", file_name);
    if (strchr(file_name, '*'))
        snprintf(upload->name, sizeof upload->name, "%.*s%08ld.dat", (int)strcspn(file_name, "*"), file_name, number);
    long long stride = (size + PAGE - 1) / PAGE * PAGE;
    upload->place = number * stride % (source_size - size + 1) / PAGE * PAGE;
    return upload;
}

static struct upload *create(struct worker *w, long long body) {
    struct upload *upload = new_upload(w);
    char name[128];
    encode(upload->name, name);
    int head = snprintf(w->out, HEAD,
                        "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nTus-Resumable: 1.0.0\r\nUpload-Length: %lld\r\n"
                        "Upload-Metadata: filename %s,filetype aW1hZ2UvanBlZw==\r\nContent-Length: %lld\r\n%s%s\r\n",
                        base, port, size, name, body, body ? "Content-Type: application/offset+octet-stream\r\n" : "",
                        body || strstr(fields, "Upload-Concat") ? fields : "");
    send_request(w, head, upload->place, body);
    int status = read_reply(w, 1);
    const char *location = field(w->in, "Location");
    if (is_refused(w, status, body ? body : -1) || !location)
        fail("creation", w->in);
    if (strstr(location, "://") && strstr(location, "://") < strstr(location, "\r\n"))
        location = strchr(strstr(location, "://") + 3, '/');
    snprintf(upload->path, PATH, "%.*s", (int)strcspn(location, "\r\n"), location);
    return upload;
}

static void patch(struct worker *w, struct upload *upload) {
    for (long long offset = 0; offset < size; offset += step) {
        long long body = size - offset < step ? size - offset : step;
        int head = snprintf(w->out, HEAD,
                            "PATCH %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: %lld\r\n"
                            "Content-Type: application/offset+octet-stream\r\nContent-Length: %lld\r\n%s\r\n",
                            upload->path, port, offset, body, strstr(fields, "Upload-Concat") ? "" : fields);
        send_request(w, head, upload->place + offset, body);
        if (is_refused(w, read_reply(w, 1), offset + body))
            fail("PATCH", w->in);
    }
}

static void head(struct worker *w, struct upload *upload) {
    int length = snprintf(w->out, HEAD, "HEAD %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nTus-Resumable: 1.0.0\r\n\r\n",
                          upload->path, port);
    send_request(w, length, 0, 0);
    if (is_refused(w, read_reply(w, 0), 0))
        fail("HEAD", w->in);
}

static void perform(struct worker *w) {
    if (!strcmp(operation, "head"))
        head(w, w->made);
    else if (!strcmp(operation, "whole"))
        create(w, size);
    else if (!strcmp(operation, "upload"))
        patch(w, create(w, 0));
    else
        create(w, 0);
}

static void *work(void *argument) {
    struct worker *w = argument;
    long room = 0;
    w->socket = connect_to_server();
    if (!strcmp(operation, "head"))
        create(w, 0);
    pthread_barrier_wait(&barrier);
    double began = now(CLOCK_MONOTONIC), last = began;
    while (seconds > 0 ? last - began < seconds : w->operations < count) {
        if (w->operations == room)
            w->times = realloc(w->times, (room = room ? 2 * room : 1024) * sizeof *w->times);
        perform(w);
        double time = now(CLOCK_MONOTONIC);
        w->times[w->operations++] = time - last;
        last = time;
        if (pause_us) {
            usleep(pause_us);
            last = now(CLOCK_MONOTONIC);
        }
    }
    return 0;
}

static int ascending(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static void report(struct worker *workers, double time, double cpu) {
    long operations = 0, done = 0;
    for (int n = 0; n < connections; n++)
        operations += workers[n].operations;
    double *times = malloc((operations + 1) * sizeof *times), sum = 0;
    for (int n = 0; n < connections; n++)
        for (long i = 0; i < workers[n].operations; i++)
            sum += times[done++] = workers[n].times[i];
    qsort(times, done, sizeof *times, ascending);
    printf("%ld %.9f %.9f %.9f %.9f %.9f\n", done, time, cpu, times[done / 2], times[done * 99 / 100], sum / done);
    for (int n = 0; n < connections; n++)
        for (long i = 0; i < workers[n].uploads; i++)
            printf("%s %s %lld\n", workers[n].made[i].path, workers[n].made[i].name, workers[n].made[i].place);
}

int main(int number, char **arguments) {
    if (number != 13) {
        fprintf(stderr, "usage: see the source\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN); /* sendfile has no flag for it */
    port = atoi(arguments[1]);
    base = arguments[2];
    operation = arguments[3];
    connections = atoi(arguments[4]);
    seconds = atof(arguments[5]);
    count = atoll(arguments[6]);
    size = atoll(arguments[7]);
    step = atoll(arguments[8]);
    pause_us = atoll(arguments[9]);
    file_name = arguments[10];
    fields = arguments[11];
    source = open(arguments[12], O_RDONLY | O_CLOEXEC);
    struct stat status;
    if (source < 0 || fstat(source, &status))
        fail(arguments[12], strerror(errno));
    source_size = status.st_size;
    data = mmap(0, source_size, PROT_READ, MAP_SHARED, source, 0);
    struct worker *workers = calloc(connections, sizeof *workers);
    pthread_barrier_init(&barrier, 0, connections + 1);
    for (int n = 0; n < connections; n++) {
        workers[n].number = n;
        pthread_create(&workers[n].thread, 0, work, &workers[n]);
    }
    pthread_barrier_wait(&barrier);
    double began = now(CLOCK_MONOTONIC), cpu = now(CLOCK_PROCESS_CPUTIME_ID);
    for (int n = 0; n < connections; n++)
        pthread_join(workers[n].thread, 0);
    report(workers, now(CLOCK_MONOTONIC) - began, now(CLOCK_PROCESS_CPUTIME_ID) - cpu);
    return 0;
}
