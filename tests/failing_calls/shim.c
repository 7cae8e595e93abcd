/* Makes chosen system calls of the program fail or go short. It is preloaded into the program by
 * failing_calls.rs; it knows nothing of the program, and it is no part of it.
 *
 * OLIVIA_TEST_FAIL="call:kind:nth:count": from its nth eligible call on, count from 1, so many calls of
 * `call` end as `kind` says: the name of an errno, SHORT (one byte is read or written), PAUSE (recv takes 2 s first), or
 * SLEPT (clock_gettime: the machine has slept for an hour, which CLOCK_BOOTTIME counts). Calls of
 * recv, send, setsockopt, shutdown and close are eligible on TCP sockets only, so that the program's
 * standard error and its signals are left alone. What is done is told on standard error.
 *
 * Reads and writes by io_uring do not come through here: it is refused, unless its own calls are to fail.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static const struct { const char *name; int number; } kinds[] = {
    {"EINTR", EINTR}, {"EAGAIN", EAGAIN}, {"ECONNRESET", ECONNRESET}, {"ECONNABORTED", ECONNABORTED},
    {"EPIPE", EPIPE}, {"EMFILE", EMFILE}, {"ENOBUFS", ENOBUFS}, {"ENOMEM", ENOMEM}, {"ENOSPC", ENOSPC},
    {"ENOTCONN", ENOTCONN}, {"EINVAL", EINVAL}, {"EACCES", EACCES}, {"EIO", EIO}, {"SHORT", -1},
    {"EPERM", EPERM}, {"PAUSE", -2}, {"SLEPT", -3},
};

static char call_name[32];
static int kind; /* 0: nothing was asked for */
static long nth, count, seen;

__attribute__((constructor)) static void read_orders(void) {
    const char *orders = getenv("OLIVIA_TEST_FAIL");
    char kind_name[32];
    if (!orders) return;
    if (sscanf(orders, "%31[^:]:%31[^:]:%ld:%ld", call_name, kind_name, &nth, &count) != 4) abort();
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (!strcmp(kind_name, kinds[i].name)) kind = kinds[i].number;
    if (!kind) abort();
}

static void tell(const char *name) {
    char line[96];
    int length = snprintf(line, sizeof line, "shim: call %ld of %s\n", seen, name);
    if (write(STDERR_FILENO, line, (size_t)length) < 0) return;
}

/* What this call is to end with: an errno, -1 for short, 0 for nothing unusual. */
static int fate(const char *name) {
    if (!kind || strcmp(name, call_name)) return 0;
    seen++;
    if (seen < nth || seen - nth >= count) return 0;
    if (seen - nth < 3) tell(name);
    return kind;
}

static int is_tcp(int fd) {
    int saved = errno, domain = 0, type = 0;
    socklen_t length = sizeof(int);
    int ok = !getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length)
        && !getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length)
        && (domain == AF_INET || domain == AF_INET6) && type == SOCK_STREAM;
    errno = saved;
    return ok;
}

static int is_connection(int fd) {
    int saved = errno, listens = 0;
    socklen_t length = sizeof(int);
    int ok = is_tcp(fd) && !getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &length) && !listens;
    errno = saved;
    return ok;
}

static int fail(int number) {
    errno = number;
    return -1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int socket(int domain, int type, int protocol) {
    int number = fate("socket");
    return number ? fail(number) : REAL(socket)(domain, type, protocol);
}

int bind(int fd, const struct sockaddr *addr, socklen_t length) {
    int number = fate("bind");
    return number ? fail(number) : REAL(bind)(fd, addr, length);
}

int listen(int fd, int backlog) {
    int number = fate("listen");
    return number ? fail(number) : REAL(listen)(fd, backlog);
}

int socketpair(int domain, int type, int protocol, int pair[2]) {
    int number = fate("socketpair");
    return number ? fail(number) : REAL(socketpair)(domain, type, protocol, pair);
}

int epoll_create1(int flags) {
    int number = fate("epoll_create1");
    return number ? fail(number) : REAL(epoll_create1)(flags);
}

int epoll_ctl(int epoll, int op, int fd, struct epoll_event *event) {
    int number = op == EPOLL_CTL_ADD ? fate("epoll_ctl") : 0;
    return number ? fail(number) : REAL(epoll_ctl)(epoll, op, fd, event);
}

int epoll_wait(int epoll, struct epoll_event *events, int events_max, int timeout) {
    int number = fate("epoll_wait");
    return number ? fail(number) : REAL(epoll_wait)(epoll, events, events_max, timeout);
}

int accept4(int fd, struct sockaddr *addr, socklen_t *length, int flags) {
    int number = fate("accept4");
    return number ? fail(number) : REAL(accept4)(fd, addr, length, flags);
}

int setsockopt(int fd, int level, int name, const void *value, socklen_t length) {
    int number = is_tcp(fd) ? fate("setsockopt") : 0;
    return number ? fail(number) : REAL(setsockopt)(fd, level, name, value, length);
}

int shutdown(int fd, int how) {
    int number = is_connection(fd) ? fate("shutdown") : 0;
    return number ? fail(number) : REAL(shutdown)(fd, how);
}

/* The file is closed whatever is returned, as Linux does. */
int close(int fd) {
    int number = is_connection(fd) ? fate("close") : 0;
    int result = REAL(close)(fd);
    return number ? fail(number) : result;
}

ssize_t recv(int fd, void *bytes, size_t length, int flags) {
    int number = is_connection(fd) ? fate("recv") : 0;
    if (number > 0) return fail(number);
    if (number == -2) sleep(2);
    return REAL(recv)(fd, bytes, number == -1 && length ? 1 : length, flags);
}

/* At the limit of maps of a process, each further one fails. The allocator's own calls do not come here. */
void *mmap64(void *at, size_t length, int protection, int flags, int fd, off64_t offset) {
    int number = flags & MAP_ANONYMOUS ? fate("mmap") : 0;
    if (!number) return REAL(mmap64)(at, length, protection, flags, fd, offset);
    errno = number;
    return MAP_FAILED;
}

int clock_gettime(clockid_t id, struct timespec *at) {
    int number = id == CLOCK_BOOTTIME ? fate("clock_gettime") : 0;
    int result = REAL(clock_gettime)(id, at);
    if (number) at->tv_sec += 3600;
    return result;
}

ssize_t send(int fd, const void *bytes, size_t length, int flags) {
    int number = is_connection(fd) ? fate("send") : 0;
    if (number > 0) return fail(number);
    return REAL(send)(fd, bytes, number && length ? 1 : length, flags);
}

/* Counts as send: what is written to a connection goes through one or the other. */
ssize_t writev(int fd, const struct iovec *pieces, int pieces_count) {
    int number = is_connection(fd) ? fate("send") : 0;
    if (number > 0) return fail(number);
    if (number && pieces_count && pieces->iov_len) return REAL(send)(fd, pieces->iov_base, 1, MSG_NOSIGNAL);
    return REAL(writev)(fd, pieces, pieces_count);
}

/* Calls that the C library has no function for. */
long syscall(long call, ...) {
    long a[6];
    va_list list;
    va_start(list, call);
    for (int i = 0; i < 6; i++) a[i] = va_arg(list, long);
    va_end(list);
    int number = 0;
    if (call == SYS_io_uring_enter) number = fate("io_uring_enter");
    if (call == SYS_io_uring_setup) {
        number = fate("io_uring_setup");
        if (!number && kind && strcmp(call_name, "io_uring_enter")) return fail(ENOSYS);
    }
    return number ? fail(number) : REAL(syscall)(call, a[0], a[1], a[2], a[3], a[4], a[5]);
}
