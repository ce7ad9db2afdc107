/* See stdlib.h. On Android both numbers are long, on 32-bit processors too. */
#ifndef ANTISPOOF_TIME_H
#define ANTISPOOF_TIME_H

#define CLOCK_MONOTONIC 1

struct timespec {
    long tv_sec, tv_nsec;
};

int clock_gettime(int clock, struct timespec *now);

#endif
