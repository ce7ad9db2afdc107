/*
 * Any rate to 16 kHz by a polyphase FIR: output n lies at input time n * down / up, and is the input around it
 * weighted with a windowed sinc. The weights depend on the fraction of that time only, of which there are `up`.
 *
 * Kaiser, "Nonrecursive digital filter design using the I0-sinh window function", ISCAS 1974.
 */
#include "internal.h"

#define MAX_WEIGHTS (1 << 18)
#define MAX_UP 640
#define MIN_RATE 8000
#define MAX_RATE 192000
#define BLOCK 4096 /* input samples held beyond what the filter spans */
#define LANES 8    /* sums taken side by side, so that compilers can use vectors without changing a bit */

struct spoof_resampler {
    int32_t up, down, taps, capacity;
    int32_t filled;        /* samples held */
    int32_t start, phase;  /* of the next output: its first sample, and which weights */
    int64_t heard, given;  /* samples in and out since the start */
    int32_t ended;
    float *weights; /* (up, taps) */
    float *held;    /* (capacity,) */
};

/*
 * Detectors hear files through soxr at its high quality, so these filters were fitted to what soxr answers to noise:
 * white noise at 48, 8 and 44.1 kHz differs by -115, -93 and -70 dB, speech by less.
 */
typedef struct {
    double half_width; /* in samples of the lower rate */
    double beta;       /* of the Kaiser window: the stop band lies at -120 dB or lower */
    double centre;     /* where the gain is half, as a share of the lower Nyquist frequency */
} shape;
static const shape THREEFOLD = {96.957, 13.073, 0.956872}, TWOFOLD = {96.05, 12.717, 0.956874},
                   OTHER = {101.7, 13.726, 0.95684};

typedef struct {
    int32_t up, down, taps;
    shape filter;
    double cutoff; /* of a rate that goes down, its share of the higher rate */
} ratio;

static int32_t common_divisor(int32_t a, int32_t b) { return b ? common_divisor(b, a % b) : a; }

static int find_ratio(int32_t rate, ratio *r) {
    if (rate < MIN_RATE || rate > MAX_RATE) return 0;
    int32_t divisor = common_divisor(rate, SPOOF_RATE);
    r->up = SPOOF_RATE / divisor;
    r->down = rate / divisor;
    r->filter = r->down == 3 ? THREEFOLD : r->up <= 2 && r->down <= 2 ? TWOFOLD : OTHER;
    r->cutoff = rate > SPOOF_RATE ? (double)SPOOF_RATE / rate : 1;
    r->taps = rate == SPOOF_RATE ? 0 : 2 * (((int32_t)(r->filter.half_width / r->cutoff) + LANES) / LANES * LANES);
    return r->up <= MAX_UP && r->up * r->taps <= MAX_WEIGHTS;
}

/* I0(beta * sqrt(1 - x^2)) by its power series, which needs no square root. */
static double kaiser(double beta, double x) {
    double quarter = beta * beta / 4 * (1 - x * x), term = 1, sum = 1;
    for (int k = 1; term > sum * 1e-17; k++) {
        term *= quarter / ((double)k * k);
        sum += term;
    }
    return sum;
}

static void fill_weights(float *weights, const ratio *q) {
    double peak = kaiser(q->filter.beta, 0);
    for (int32_t phase = 0; phase < q->up; phase++) {
        for (int32_t tap = 0; tap < q->taps; tap++) {
            double time = (tap - q->taps / 2 + 1 - (double)phase / q->up) * q->cutoff; /* from the output, lower rate */
            double x = time / q->filter.half_width, at = q->filter.centre * time;
            double sinc = at == 0 ? 1 : spoof_sin_pi(at) / (PI * at);
            double weight = q->cutoff * q->filter.centre * sinc;
            *weights++ = x > -1 && x < 1 ? (float)(weight * kaiser(q->filter.beta, x) / peak) : 0;
        }
    }
}

size_t spoof_resampler_size(int32_t rate) {
    ratio q;
    if (!find_ratio(rate, &q)) return 0;
    return spoof_align(sizeof(spoof_resampler)) + spoof_align(sizeof(float) * (size_t)q.up * q.taps) +
           spoof_align(sizeof(float) * (size_t)(q.taps + BLOCK));
}

spoof_resampler *spoof_resampler_init(void *memory, size_t bytes, int32_t rate) {
    ratio q;
    if (!spoof_memory_fits(memory, bytes, spoof_resampler_size(rate)) || !find_ratio(rate, &q)) return NULL;
    spoof_resampler *r = memory;
    r->up = q.up;
    r->down = q.down;
    r->taps = q.taps;
    r->capacity = q.taps + BLOCK;
    r->weights = (float *)((char *)memory + spoof_align(sizeof *r));
    r->held = (float *)((char *)r->weights + spoof_align(sizeof(float) * (size_t)q.up * q.taps));
    fill_weights(r->weights, &q);
    spoof_resampler_restart(r);
    return r;
}

void spoof_resampler_restart(spoof_resampler *r) {
    r->filled = r->taps ? r->taps / 2 - 1 : 0; /* silence before the first sample, which is output 0's centre */
    memset(r->held, 0, sizeof(float) * (size_t)r->filled);
    r->start = r->phase = r->ended = 0;
    r->heard = r->given = 0;
}

int64_t spoof_resampler_heard(const spoof_resampler *r) { return r->heard; }

int64_t spoof_resampler_time(const spoof_resampler *r, int64_t frames) {
    int64_t whole = frames / r->down, rest = frames % r->down; /* apart, so that no product can overflow */
    return whole * r->up + (2 * rest * r->up + r->down) / (2 * r->down);
}

static void forget_used(spoof_resampler *r) {
    int32_t used = r->start < r->filled ? r->start : r->filled;
    r->filled -= used;
    r->start -= used;
    memmove(r->held, r->held + used, sizeof(float) * (size_t)r->filled);
}

int32_t spoof_resampler_push(spoof_resampler *r, const float *samples, int32_t count) {
    if (r->ended || count <= 0) return 0;
    if (count > r->capacity - r->filled) forget_used(r);
    int32_t taken = r->capacity - r->filled;
    if (taken > count) taken = count;
    memcpy(r->held + r->filled, samples, sizeof(float) * (size_t)taken);
    r->filled += taken;
    r->heard += taken;
    return taken;
}

void spoof_resampler_end(spoof_resampler *r) { r->ended = 1; }

static float weigh(const float *samples, const float *weights, int32_t taps) {
    float sums[LANES] = {0};
    for (int32_t tap = 0; tap < taps; tap += LANES)
        for (int lane = 0; lane < LANES; lane++) sums[lane] += samples[tap + lane] * weights[tap + lane];
    return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

static int32_t pull_same_rate(spoof_resampler *r, float *samples, int32_t room) {
    int32_t given = r->filled - r->start;
    if (given > room) given = room;
    if (given <= 0) return 0;
    memcpy(samples, r->held + r->start, sizeof(float) * (size_t)given);
    r->start += given;
    r->given += given;
    return given;
}

/* After the end, silence follows the last sample for as long as outputs are owed. */
static int can_weigh(spoof_resampler *r) {
    if (r->ended && r->given >= spoof_resampler_time(r, r->heard)) return 0;
    if (r->start + r->taps <= r->filled) return 1;
    if (!r->ended) return 0;
    forget_used(r);
    memset(r->held + r->filled, 0, sizeof(float) * (size_t)(r->capacity - r->filled));
    r->filled = r->capacity;
    return 1;
}

int32_t spoof_resampler_pull(spoof_resampler *r, float *samples, int32_t room) {
    if (r->taps == 0) return pull_same_rate(r, samples, room);
    int32_t given = 0;
    while (given < room && can_weigh(r)) {
        samples[given++] = weigh(r->held + r->start, r->weights + (size_t)r->phase * r->taps, r->taps);
        r->given++;
        r->phase += r->down;
        r->start += r->phase / r->up;
        r->phase %= r->up;
    }
    return given;
}
