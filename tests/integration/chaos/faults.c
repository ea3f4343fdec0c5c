/* Preloaded into a run: counts the file operations below a folder and makes one of them fail, write short, or end the process.
 *
 * Whoever writes (Python, safetensors' Rust, Arrow, matplotlib) ends in these functions of the C library.
 *   fault_arm(folder, at, mode, code)   at: which operation, from 0; −1 counts only
 *   modes: 1 fail with errno `code` · 2 write half, then fail with `code` · 3 end before the operation · 4 end after it
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char root[4096];
static int at = -1, mode = 0, code = 0, count = 0, hit = 0;
static char what[64];

void fault_arm(const char *folder, int at_, int mode_, int code_) {
    strncpy(root, folder, sizeof root - 1);
    at = at_; mode = mode_; code = code_; count = 0; hit = 0; what[0] = 0;
}
int fault_count(void) { return count; }
int fault_hit(void) { return hit; }
const char *fault_what(void) { return what; }

static int below(const char *path) { return root[0] && path && strncmp(path, root, strlen(root)) == 0; }

static int below_fd(int fd) {
    char link[64], path[4096];
    if (!root[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n <= 0) return 0;
    path[n] = 0;
    return below(path);
}

/* 0: let it through; 1: fail; 2: half; 4: end afterwards */
static int decide(const char *name) {
    if (count++ != at) return 0;
    hit = 1;
    strncpy(what, name, sizeof what - 1);
    if (mode == 3) { _exit(99); }
    if (mode == 2 && strncmp(name, "write", 5) && strncmp(name, "pwrite", 6)) { errno = code; return 1; }
    if (mode == 1) errno = code;
    return mode;
}

#define REAL(type, name, ...) static type (*real)(__VA_ARGS__); if (!real) real = dlsym(RTLD_NEXT, name)
#define AROUND(name, watched, call, type) \
    int d = (watched) ? decide(name) : 0; \
    if (d == 1 || (d == 2)) { errno = code; return -1; } \
    type result = call; \
    if (d == 4) _exit(99); \
    return result;

#define WRITES (O_CREAT | O_TRUNC | O_WRONLY | O_RDWR)
#define OPEN(function, sname) \
    int function(const char *path, int flags, ...) { \
        mode_t permissions = 0; \
        if (flags & (O_CREAT | O_TMPFILE)) { va_list list; va_start(list, flags); permissions = va_arg(list, mode_t); va_end(list); } \
        REAL(int, sname, const char *, int, ...); \
        AROUND("open", (flags & WRITES) && below(path), real(path, flags, permissions), int) \
    }
#define OPENAT(function, sname) \
    int function(int folder, const char *path, int flags, ...) { \
        mode_t permissions = 0; \
        if (flags & (O_CREAT | O_TMPFILE)) { va_list list; va_start(list, flags); permissions = va_arg(list, mode_t); va_end(list); } \
        REAL(int, sname, int, const char *, int, ...); \
        AROUND("open", (flags & WRITES) && below(path), real(folder, path, flags, permissions), int) \
    }
OPEN(open, "open")
OPEN(open64, "open64")
OPENAT(openat, "openat")
OPENAT(openat64, "openat64")

ssize_t write(int fd, const void *data, size_t size) {
    REAL(ssize_t, "write", int, const void *, size_t);
    int d = below_fd(fd) ? decide("write") : 0;
    if (d == 2) { static int once; if (!once) { once = 1; at = count; return real(fd, data, size / 2); } }
    if (d == 1 || d == 2) { errno = code; return -1; }
    ssize_t result = real(fd, data, size);
    if (d == 4) _exit(99);
    return result;
}
ssize_t writev(int fd, const struct iovec *parts, int n) {
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    AROUND("writev", below_fd(fd), real(fd, parts, n), ssize_t)
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t where) {
    REAL(ssize_t, "pwrite", int, const void *, size_t, off_t);
    AROUND("pwrite", below_fd(fd), real(fd, data, size, where), ssize_t)
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t where) {
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t);
    AROUND("pwrite", below_fd(fd), real(fd, data, size, where), ssize_t)
}
int fsync(int fd) { REAL(int, "fsync", int); AROUND("fsync", below_fd(fd), real(fd), int) }
int fdatasync(int fd) { REAL(int, "fdatasync", int); AROUND("fsync", below_fd(fd), real(fd), int) }
int ftruncate(int fd, off_t n) { REAL(int, "ftruncate", int, off_t); AROUND("ftruncate", below_fd(fd), real(fd, n), int) }
int ftruncate64(int fd, off64_t n) { REAL(int, "ftruncate64", int, off64_t); AROUND("ftruncate", below_fd(fd), real(fd, n), int) }
int rename(const char *a, const char *b) { REAL(int, "rename", const char *, const char *); AROUND("rename", below(b), real(a, b), int) }
int renameat(int x, const char *a, int y, const char *b) {
    REAL(int, "renameat", int, const char *, int, const char *);
    AROUND("rename", below(b), real(x, a, y, b), int)
}
int mkdir(const char *path, mode_t m) { REAL(int, "mkdir", const char *, mode_t); AROUND("mkdir", below(path), real(path, m), int) }
int unlink(const char *path) { REAL(int, "unlink", const char *); AROUND("unlink", below(path), real(path), int) }
int unlinkat(int folder, const char *path, int flags) {
    REAL(int, "unlinkat", int, const char *, int);
    AROUND("unlink", below_fd(folder) || below(path), real(folder, path, flags), int)
}
int rmdir(const char *path) { REAL(int, "rmdir", const char *); AROUND("rmdir", below(path), real(path), int) }
