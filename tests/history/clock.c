/* Moves the wall clock of the program: adds the milliseconds in the file OLIVIA_TEST_CLOCK to each reading. It is
 * preloaded by history/main.rs; it knows nothing of the program, and it is no part of it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* Eight bytes of a file, shared with the test, which writes them. */
static const volatile long *offset_ms;

__attribute__((constructor)) static void open_file(void) {
    const char *path = getenv("OLIVIA_TEST_CLOCK");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *map = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *offset_ms, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) abort();
    offset_ms = map;
    close(fd);
}

int clock_gettime(clockid_t id, struct timespec *at) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(id, at);
    if (result || id != CLOCK_REALTIME || !offset_ms) return result;
    long long nanos = at->tv_sec * 1000000000LL + at->tv_nsec + *offset_ms * 1000000LL;
    at->tv_sec = nanos / 1000000000LL;
    at->tv_nsec = nanos % 1000000000LL;
    return 0;
}
