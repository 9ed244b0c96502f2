/* Faults for one process, put between it and the C library (LD_PRELOAD).
 *
 * The file named by SYNOD_FAULTS holds eight numbers of 64 bits, in the order
 * of `struct faults`; it is mapped, so whoever writes to it changes what happens
 * from then on. Disk faults concern only files whose path contains
 * SYNOD_FAULTS_PATH.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

struct faults {
    int64_t wall_nanos;   /* added to CLOCK_REALTIME */
    int64_t sync_micros;  /* every sync takes so much longer */
    int64_t sync_errno;   /* every sync fails with this */
    int64_t write_errno;  /* every write fails with this */
    int64_t free_bytes;   /* what the file system says is free, plus 1 */
    int64_t scope;        /* disk faults concern: 0 all files, 1 the log's, 2 the engine's */
    int64_t unused[2];
};

static struct faults none;
static volatile struct faults *faults = &none;
static const char *part = "";

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("SYNOD_FAULTS");
    const char *only = getenv("SYNOD_FAULTS_PATH");
    if (only)
        part = only;
    if (!path)
        return;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    void *map = mmap(NULL, sizeof(struct faults), PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (map != MAP_FAILED)
        faults = map;
}

static void *next(const char *name)
{
    return dlsym(RTLD_NEXT, name);
}

static int concerns(int fd)
{
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    const char *below = strstr(path, part);
    if (!below)
        return 0;
    switch (faults->scope) {
    case 1:
        return strstr(below, "/log/") != NULL;
    case 2:
        return strstr(below, "/engine/") != NULL;
    default:
        return 1;
    }
}

static int fails(int64_t error, int fd)
{
    if (error == 0 || !concerns(fd))
        return 0;
    errno = (int)error;
    return 1;
}

static void wait_for_disk(int fd)
{
    /* In steps, so that a stall ends when the file says so. */
    for (int64_t waited = 0; waited < faults->sync_micros && concerns(fd); waited += 5000)
        usleep(5000);
}

int fdatasync(int fd)
{
    static int (*real)(int);
    if (!real)
        real = next("fdatasync");
    wait_for_disk(fd);
    return fails(faults->sync_errno, fd) ? -1 : real(fd);
}

int fsync(int fd)
{
    static int (*real)(int);
    if (!real)
        real = next("fsync");
    wait_for_disk(fd);
    return fails(faults->sync_errno, fd) ? -1 : real(fd);
}

ssize_t write(int fd, const void *data, size_t length)
{
    static ssize_t (*real)(int, const void *, size_t);
    if (!real)
        real = next("write");
    return fails(faults->write_errno, fd) ? -1 : real(fd, data, length);
}

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t at)
{
    static ssize_t (*real)(int, const void *, size_t, off64_t);
    if (!real)
        real = next("pwrite64");
    return fails(faults->write_errno, fd) ? -1 : real(fd, data, length, at);
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        real = next("clock_gettime");
    int result = real(clock, time);
    if (result == 0 && clock == CLOCK_REALTIME && faults->wall_nanos != 0) {
        int64_t nanos = time->tv_nsec + faults->wall_nanos % 1000000000;
        time->tv_sec += faults->wall_nanos / 1000000000;
        if (nanos < 0) {
            nanos += 1000000000;
            time->tv_sec -= 1;
        } else if (nanos >= 1000000000) {
            nanos -= 1000000000;
            time->tv_sec += 1;
        }
        time->tv_nsec = nanos;
    }
    return result;
}

int fstatvfs64(int fd, struct statvfs64 *stat)
{
    static int (*real)(int, struct statvfs64 *);
    if (!real)
        real = next("fstatvfs64");
    int result = real(fd, stat);
    if (result == 0 && faults->free_bytes != 0)
        stat->f_bavail = (uint64_t)(faults->free_bytes - 1) / stat->f_frsize;
    return result;
}

int statvfs64(const char *path, struct statvfs64 *stat)
{
    static int (*real)(const char *, struct statvfs64 *);
    if (!real)
        real = next("statvfs64");
    int result = real(path, stat);
    if (result == 0 && faults->free_bytes != 0)
        stat->f_bavail = (uint64_t)(faults->free_bytes - 1) / stat->f_frsize;
    return result;
}
