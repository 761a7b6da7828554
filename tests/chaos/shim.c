/* Loaded before the C library into a redis-server or a worker of the chaos tests (LD_PRELOAD).
 *
 * REDSTART_SHIM names a folder. In it:
 *   synced  gets a line "inode size" for every fsync or fdatasync that has succeeded: so much of
 *           that file was certainly on the disk. The size is read before the call, because
 *           what is written meanwhile may not be.
 *   slow    holds how many milliseconds each of them is to take longer.
 *   full    holds 1 while the disk is full: nothing can be written to any file.
 *   clock   holds by how many seconds the wall clock is off.
 * The last three may be missing, and change while the process runs.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long setting(const char *name) {
  char path[512], text[32];
  const char *folder = getenv("REDSTART_SHIM");
  if (!folder) return 0;
  snprintf(path, sizeof path, "%s/%s", folder, name);
  int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return 0;
  ssize_t length = read(file, text, sizeof text - 1);
  close(file);
  if (length <= 0) return 0;
  text[length] = 0;
  return atol(text);
}

/* A setting, looked up at most every 50 ms. */
struct cached {
  struct timespec last;
  long value;
};

static long lately(struct cached *of, const char *name) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  long passed = (now.tv_sec - of->last.tv_sec) * 1000 + (now.tv_nsec - of->last.tv_nsec) / 1000000;
  if (of->last.tv_sec == 0 || passed >= 50) {
    of->last = now;
    of->value = setting(name);
  }
  return of->value;
}

static ssize_t really_write(int file, const void *bytes, size_t length) {
  static ssize_t (*real)(int, const void *, size_t);
  if (!real) real = (ssize_t(*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
  return real(file, bytes, length);
}

ssize_t write(int file, const void *bytes, size_t length) {
  static __thread struct cached full;
  struct stat of;
  if (lately(&full, "full") && fstat(file, &of) == 0 && S_ISREG(of.st_mode)) {
    errno = ENOSPC;
    return -1;
  }
  return really_write(file, bytes, length);
}

static int synced(int file, const char *call) {
  int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, call);
  struct stat before;
  int known = fstat(file, &before) == 0 && S_ISREG(before.st_mode);
  long slow = setting("slow");
  if (slow > 0) {
    struct timespec wait = {slow / 1000, slow % 1000 * 1000000};
    nanosleep(&wait, NULL);
  }
  int result = real(file);
  if (result == 0 && known) {
    char path[512], line[64];
    const char *folder = getenv("REDSTART_SHIM");
    snprintf(path, sizeof path, "%s/synced", folder ? folder : ".");
    int record = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (record >= 0) {
      int length = snprintf(line, sizeof line, "%llu %lld\n", (unsigned long long)before.st_ino,
                            (long long)before.st_size);
      if (really_write(record, line, length) != length) abort();
      close(record);
    }
  }
  return result;
}

int fsync(int file) { return synced(file, "fsync"); }
int fdatasync(int file) { return synced(file, "fdatasync"); }

static long offset(void) {
  static __thread struct cached clock;
  return lately(&clock, "clock");
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
  static int (*real)(struct timeval *, void *);
  if (!real) real = (int (*)(struct timeval *, void *))dlsym(RTLD_NEXT, "gettimeofday");
  int result = real(time, zone);
  if (result == 0) time->tv_sec += offset();
  return result;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  int result = real(clock, time);
  /* offset() asks for a steady clock itself. */
  if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
    time->tv_sec += offset();
  return result;
}

time_t time(time_t *out) {
  static time_t (*real)(time_t *);
  if (!real) real = (time_t(*)(time_t *))dlsym(RTLD_NEXT, "time");
  time_t now = real(NULL) + offset();
  if (out) *out = now;
  return now;
}
