// For LD_PRELOAD: a program's steady clock is the processor time of its process, so that what it measures and predicts
// of itself does not depend on what else has the machine. Of use for one thread that does not sleep.
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec* time) {
  return (int)syscall(SYS_clock_gettime, clock == CLOCK_MONOTONIC ? CLOCK_PROCESS_CPUTIME_ID : clock, time);
}
