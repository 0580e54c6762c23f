/* The limit: speaks just enough tus to be measured, and writes each byte to a file. It promises nothing else.
 *
 * usage: sink PORT DIRECTORY copy|splice
 *
 * One thread and epoll. "copy" receives into a buffer of 1 MiB and writes that with pwrite; "splice" moves the bytes
 * through a pipe. Creation (with and without a body), HEAD, PATCH; no record on the disk, no lock, no check of a body.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BLOCK = 1 << 20, HEAD = 16 << 10, CONNECTIONS = 4096, UPLOADS = 1 << 22 };

struct connection {
    char head[HEAD];
    size_t used;          /* bytes in head */
    long long rest;       /* bytes of the body that have not come yet; -1 between requests */
    long upload;
    int file;
    int creates;
};

static struct connection *connections[CONNECTIONS];
static long long offsets[UPLOADS], lengths[UPLOADS];
static long uploads;
static const char *directory;
static int splices, pipe_ends[2];
static char *block;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static long long field(const char *head, const char *name, long long missing) {
    size_t length = strlen(name);
    for (const char *line = strstr(head, "\r\n"); line && line[2]; line = strstr(line + 2, "\r\n"))
        if (!strncasecmp(line + 2, name, length) && line[2 + length] == ':')
            return atoll(line + 3 + length);
    return missing;
}

static int open_upload(long upload, int flags) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%lx", directory, upload);
    int file = open(path, O_WRONLY | O_CLOEXEC | flags, 0600);
    if (file < 0)
        fail(path);
    return file;
}

static void reply(int client, const char *status, const char *fields, ...) {
    char text[1024];
    int size = snprintf(text, sizeof text, "HTTP/1.1 %s\r\nTus-Resumable: 1.0.0\r\n", status);
    va_list values;
    va_start(values, fields);
    size += vsnprintf(text + size, sizeof text - size, fields, values);
    va_end(values);
    size += snprintf(text + size, sizeof text - size, "\r\n");
    if (send(client, text, size, MSG_NOSIGNAL) != size)
        perror("send");
}

static void end_body(int client, struct connection *c) {
    if (c->file >= 0)
        close(c->file);
    c->file = -1;
    c->rest = -1;
    if (c->creates)
        reply(client, "201 Created", "Location: /files/%lx\r\nUpload-Offset: %lld\r\nContent-Length: 0\r\n", c->upload,
              offsets[c->upload]);
    else
        reply(client, "204 No Content", "Upload-Offset: %lld\r\n", offsets[c->upload]);
}

/* Write bytes of a body that came with its head. */
static void write_block(struct connection *c, const char *data, size_t size) {
    if (pwrite(c->file, data, size, offsets[c->upload]) != (ssize_t)size)
        fail("pwrite");
    offsets[c->upload] += size;
    c->rest -= size;
}

/* Move bytes from the socket to the file; 0 if none are there, -1 if the connection has ended. */
static int receive(int client, struct connection *c) {
    size_t most = c->rest < BLOCK ? c->rest : BLOCK;
    ssize_t size = splices ? splice(client, 0, pipe_ends[1], 0, most, SPLICE_F_MOVE | SPLICE_F_NONBLOCK)
                           : recv(client, block, most, MSG_DONTWAIT);
    if (size < 0 && errno == EAGAIN)
        return 0;
    if (size <= 0)
        return -1;
    if (!splices) {
        write_block(c, block, size);
        return 1;
    }
    c->rest -= size;
    for (loff_t at = offsets[c->upload]; size > 0;) {
        ssize_t moved = splice(pipe_ends[0], 0, c->file, &at, size, SPLICE_F_MOVE);
        if (moved <= 0)
            fail("splice");
        size -= moved;
        offsets[c->upload] += moved;
    }
    return 1;
}

/* Begin the request whose head is complete. */
static void begin(int client, struct connection *c, size_t size) {
    c->head[size - 2] = 0; /* so that no field is looked for in the body */
    char *path = strchr(c->head, ' ') + 1;
    long long body = field(c->head, "Content-Length", 0);
    c->creates = !strncmp(c->head, "POST", 4);
    if (c->creates) {
        c->upload = ++uploads % UPLOADS;
        offsets[c->upload] = 0;
        lengths[c->upload] = field(c->head, "Upload-Length", 0);
        c->file = open_upload(c->upload, O_CREAT | O_TRUNC);
    } else {
        c->upload = strtol(strncmp(path, "/files/", 7) ? "0" : path + 7, 0, 16) % UPLOADS;
        if (!strncmp(c->head, "HEAD", 4)) {
            reply(client, "200 OK", "Upload-Offset: %lld\r\nUpload-Length: %lld\r\nCache-Control: no-store\r\n",
                  offsets[c->upload], lengths[c->upload]);
            body = -1;
        } else if (strncmp(c->head, "PATCH", 5) || field(c->head, "Upload-Offset", -1) != offsets[c->upload]) {
            reply(client, "409 Conflict", "Content-Length: 0\r\nConnection: close\r\n");
            shutdown(client, SHUT_RDWR);
            return;
        } else {
            c->file = open_upload(c->upload, 0);
        }
    }
    size_t there = c->used - size, mine = body < 0 ? 0 : there < (size_t)body ? there : (size_t)body;
    c->rest = body;
    if (mine)
        write_block(c, c->head + size, mine);
    memmove(c->head, c->head + size + mine, there - mine);
    c->used = there - mine;
    if (c->rest == 0)
        end_body(client, c);
}

/* Do what can be done now; -1 if the connection has ended. */
static int serve(int client, struct connection *c) {
    for (;;) {
        if (c->rest > 0) {
            int moved = receive(client, c);
            if (moved <= 0)
                return moved;
            if (c->rest == 0)
                end_body(client, c);
            continue;
        }
        c->head[c->used] = 0;
        char *end = strstr(c->head, "\r\n\r\n");
        if (end) {
            begin(client, c, end + 4 - c->head);
            continue;
        }
        ssize_t size = recv(client, c->head + c->used, HEAD - 1 - c->used, MSG_DONTWAIT);
        if (size < 0 && errno == EAGAIN)
            return 0;
        if (size <= 0)
            return -1;
        c->used += size;
    }
}

static int listen_on(int port) {
    int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), yes = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(server, (struct sockaddr *)&address, sizeof address) || listen(server, 1024))
        fail("listen");
    return server;
}

static void accept_client(int server, int loop) {
    int client = accept4(server, 0, 0, SOCK_CLOEXEC | SOCK_NONBLOCK), yes = 1;
    if (client < 0 || client >= CONNECTIONS)
        fail("accept");
    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    struct connection *c = connections[client] = malloc(sizeof *c);
    c->used = 0;
    c->rest = -1;
    c->file = -1;
    struct epoll_event event = {.events = EPOLLIN, .data.fd = client};
    epoll_ctl(loop, EPOLL_CTL_ADD, client, &event);
}

int main(int count, char **arguments) {
    if (count != 4) {
        fprintf(stderr, "usage: sink PORT DIRECTORY copy|splice\n");
        return 2;
    }
    directory = arguments[2];
    splices = !strcmp(arguments[3], "splice");
    block = malloc(BLOCK);
    if (pipe(pipe_ends) || fcntl(pipe_ends[1], F_SETPIPE_SZ, BLOCK) < 0)
        fail("pipe");
    int server = listen_on(atoi(arguments[1])), loop = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = server}, events[64];
    epoll_ctl(loop, EPOLL_CTL_ADD, server, &event);
    for (;;) {
        int ready = epoll_wait(loop, events, 64, -1);
        for (int n = 0; n < ready; n++) {
            int client = events[n].data.fd;
            if (client == server) {
                accept_client(server, loop);
            } else if (serve(client, connections[client]) < 0) {
                if (connections[client]->file >= 0)
                    close(connections[client]->file);
                free(connections[client]);
                close(client);
            }
        }
    }
}
