/* A disk that is away, for all processes that load this with LD_PRELOAD: while there is a file FAULTY_DISK, with
   "ERRNO PATH" in it, nothing at or below PATH can be opened, looked at, read, written, renamed or removed. */

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LONGEST 4096

/* The error of a path now; 0 where there is none. System calls, since it is called by what stands in for their
   functions. */
static int error_of(const char *path) {
    static const char *file;
    char fault[LONGEST + 16], *prefix;
    int before = errno, descriptor;
    ssize_t length;
    if (!file && !(file = getenv("FAULTY_DISK"))) return 0;
    descriptor = syscall(SYS_openat, AT_FDCWD, file, O_RDONLY | O_CLOEXEC);
    length = descriptor < 0 ? -1 : syscall(SYS_read, descriptor, fault, sizeof fault - 1);
    if (descriptor >= 0) syscall(SYS_close, descriptor);
    errno = before;
    if (length <= 0 || !path) return 0;
    fault[length] = 0;
    prefix = strchr(fault, ' ');
    return prefix && !strncmp(path, prefix + 1, strlen(prefix + 1)) ? atoi(fault) : 0;
}

static int error_of_open(int descriptor) {
    char link[64], path[LONGEST];
    int before = errno;
    ssize_t length;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    length = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
    errno = before;
    if (length <= 0) return 0;
    path[length] = 0;
    return error_of(path);
}

#define STAND_IN(result, failed, name, parameters, arguments, error)     \
    result name parameters {                                             \
        static result(*real) parameters;                                 \
        int number = error;                                              \
        if (number) {                                                    \
            errno = number;                                              \
            return failed;                                               \
        }                                                                \
        if (!real) real = (result(*) parameters)dlsym(RTLD_NEXT, #name); \
        return real arguments;                                           \
    }

#define STAND_IN_FOR_OPEN(name)                                                             \
    int name(const char *path, int flags, ...) {                                            \
        static int (*real)(const char *, int, ...);                                         \
        int number = error_of(path);                                                        \
        va_list more;                                                                       \
        mode_t mode;                                                                        \
        if (number) {                                                                       \
            errno = number;                                                                 \
            return -1;                                                                      \
        }                                                                                   \
        va_start(more, flags);                                                              \
        mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;                    \
        va_end(more);                                                                       \
        if (!real) real = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, #name);         \
        return real(path, flags, mode);                                                     \
    }

STAND_IN_FOR_OPEN(open)
STAND_IN_FOR_OPEN(open64)
STAND_IN(DIR *, NULL, opendir, (const char *path), (path), error_of(path))
STAND_IN(int, -1, stat, (const char *path, struct stat *found), (path, found), error_of(path))
STAND_IN(int, -1, stat64, (const char *path, struct stat64 *found), (path, found), error_of(path))
STAND_IN(int, -1, lstat64, (const char *path, struct stat64 *found), (path, found), error_of(path))
STAND_IN(int, -1, mkdir, (const char *path, mode_t mode), (path, mode), error_of(path))
STAND_IN(int, -1, rename, (const char *from, const char *to), (from, to), error_of(to))
STAND_IN(int, -1, link, (const char *from, const char *to), (from, to), error_of(to))
STAND_IN(int, -1, unlink, (const char *path), (path), error_of(path))
STAND_IN(ssize_t, -1, read, (int file, void *to, size_t size), (file, to, size), error_of_open(file))
STAND_IN(ssize_t, -1, pread, (int file, void *to, size_t size, off_t at), (file, to, size, at), error_of_open(file))
STAND_IN(ssize_t, -1, pread64, (int file, void *to, size_t size, off64_t at), (file, to, size, at), error_of_open(file))
STAND_IN(ssize_t, -1, write, (int file, const void *from, size_t size), (file, from, size), error_of_open(file))
STAND_IN(int, -1, fsync, (int file), (file), error_of_open(file))
