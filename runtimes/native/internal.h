/* What the parts of the core know of each other; nothing here is for callers. */
#ifndef SPOOF_INTERNAL_H
#define SPOOF_INTERNAL_H

#include "spoof_core.h"

/* One rounding for each operation, or other processors would give other bits. GCC takes it as a flag only. */
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#endif

/* Declared here because a phone's or a browser's compiler may come without a C library's headers. */
void *memcpy(void *to, const void *from, size_t count);
void *memmove(void *to, const void *from, size_t count);
void *memset(void *to, int value, size_t count);

#define PI 3.14159265358979323846

/* numbers.c: the same bits everywhere, as no two C libraries' functions are. */
double spoof_exp(double x);
double spoof_sin_pi(double x);       /* sin(pi * x) */
double spoof_power_of_db(double db); /* 10^(db / 10) */

/* memory.c: parts laid out one behind the other in the caller's memory. */
#define SPOOF_ALIGN 16
size_t spoof_align(size_t bytes);
int spoof_memory_fits(const void *memory, size_t bytes, size_t needed);

/* resample.c */
void spoof_resampler_restart(spoof_resampler *r);
int64_t spoof_resampler_heard(const spoof_resampler *r); /* samples pushed since then */
int64_t spoof_resampler_time(const spoof_resampler *r, int64_t frames); /* input frames as 16 kHz samples, rounded */

/* voice.c: is this frame speech? */
typedef struct {
    double least, enter, stay; /* power; ratios to the floor */
    double rise, early_rise;   /* of the floor, each frame */
    double floor, power;
    int32_t voiced, early;
} spoof_voice;
void spoof_voice_init(spoof_voice *voice, const spoof_config *config);
int32_t spoof_voice_hear(spoof_voice *voice, const float *frame, int32_t samples);

/* One frame on its way to the ring. */
typedef struct {
    int64_t time; /* of its first sample */
    int32_t samples;
    int32_t voiced;
} spoof_mark;

/* gate.c: delays frames by the lead-in, so that what comes before speech can pass with it. */
typedef struct {
    spoof_mark *marks;
    float *frames;
    int32_t capacity, count, head; /* in frames */
    int32_t always;                /* everything passes */
    int32_t ahead;                 /* voiced frames among those waiting */
    int32_t hang, quiet;           /* frames that pass after speech; frames since it */
} spoof_gate;
size_t spoof_gate_bytes(const spoof_config *config);
void spoof_gate_init(spoof_gate *gate, void *memory, const spoof_config *config);
void spoof_gate_reset(spoof_gate *gate);
void spoof_gate_push(spoof_gate *gate, const float *frame, spoof_mark mark);
/* Gives the oldest frame once `lead_in` of them wait behind it (or all, when draining); *passes says its fate. */
const float *spoof_gate_pop(spoof_gate *gate, int32_t draining, spoof_mark *mark, int32_t *passes);

/* ring.c: the last `window` samples of a turn, and when each frame of them was heard. */
typedef struct {
    float *samples;
    spoof_mark *marks;
    int32_t frames;    /* capacity */
    int64_t collected; /* samples of the turn so far */
} spoof_ring;
size_t spoof_ring_bytes(const spoof_config *config);
void spoof_ring_init(spoof_ring *ring, void *memory, const spoof_config *config);
void spoof_ring_append(spoof_ring *ring, const float *frame, spoof_mark mark);
int64_t spoof_ring_time(const spoof_ring *ring, int64_t position);
int64_t spoof_ring_speech(const spoof_ring *ring, int64_t from, int64_t to);
void spoof_ring_copy(const spoof_ring *ring, int64_t from, int64_t to, float *out);

/* window.c: which stretch of a turn is a window, and how short ones are filled. */
int64_t spoof_window_first_end(const spoof_config *config);
void spoof_window_tile(float *window, int32_t samples, int32_t length);

#endif
