/* The selective scan in one fused loop: the limit that the graph forms are measured against.
 *
 * Per step, state and channel: h = exp(delta * A) * h + B * delta * x, and y is the sum of C * h over
 * the states (Gu and Dao 2023, arXiv 2312.00752, Algorithm 2, after the softplus). Plain C99; the
 * compiler vectorises over the channels of a block, and the flags choose the instruction set.
 */

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define BLOCK 64       /* channels whose states, 4 KiB at 16 states, stay in the first-level cache */
#define MAX_STATES 64

/* exp(v) for v <= 0, relative error below 3e-7: v = k ln 2 + r, then a polynomial in r on
 * [-ln 2 / 2, ln 2 / 2]. Below -87 the result stays at about 1e-38 instead of turning subnormal. */
static inline float exp_of_negative(float v)
{
    const float round_bias = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    float shifted, k, r, p, scale;
    int32_t exponent;
    v = v < -87.0f ? -87.0f : v;
    shifted = v * 1.44269504f + round_bias;
    k = shifted - round_bias;
    r = v - k * 0.693359375f;
    r = r + k * 2.12194440e-4f;
    p = 1.3888889e-3f;
    p = p * r + 8.3333333e-3f;
    p = p * r + 4.1666667e-2f;
    p = p * r + 0.16666667f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    memcpy(&exponent, &shifted, sizeof exponent);
    exponent = (exponent + 127) << 23; /* the bias's own bits leave at the top */
    memcpy(&scale, &exponent, sizeof scale);
    return p * scale;
}

/* Runs `width` channels of one sequence; strides are in floats. */
static void scan_block(const float *restrict x, const float *restrict delta, const float *restrict rate,
                       const float *restrict b, const float *restrict c, float *restrict y, size_t length,
                       size_t channels, size_t states, size_t width)
{
    float h[MAX_STATES * BLOCK];
    memset(h, 0, sizeof h);
    for (size_t t = 0; t < length; t++) {
        float drive[BLOCK], sum[BLOCK];
        for (size_t d = 0; d < width; d++) {
            drive[d] = delta[d] * x[d];
            sum[d] = 0.0f;
        }
        for (size_t n = 0; n < states; n++) {
            const float *a = rate + n * channels;
            float *state = h + n * BLOCK;
            float in = b[n], out = c[n];
            for (size_t d = 0; d < width; d++) {
                float next = exp_of_negative(delta[d] * a[d]) * state[d] + in * drive[d];
                state[d] = next;
                sum[d] += out * next;
            }
        }
        memcpy(y, sum, width * sizeof *y);
        x += channels;
        delta += channels;
        y += channels;
        b += states;
        c += states;
    }
}

/* x, delta and y: (batch, length, channels); rate: (states, channels); b and c: (batch, length,
 * states). Returns 0, or 1 where there are more states than the kernel has room for. */
int selective_scan(const float *x, const float *delta, const float *rate, const float *b, const float *c,
                   float *y, size_t batch, size_t length, size_t channels, size_t states)
{
    if (states > MAX_STATES)
        return 1;
    for (size_t i = 0; i < batch; i++) {
        for (size_t d = 0; d < channels; d += BLOCK) {
            size_t at = i * length * channels + d, in = i * length * states;
            size_t left = channels - d;
            if (left >= BLOCK)
                scan_block(x + at, delta + at, rate + d, b + in, c + in, y + at, length, channels, states, BLOCK);
            else
                scan_block(x + at, delta + at, rate + d, b + in, c + in, y + at, length, channels, states, left);
        }
    }
    return 0;
}
