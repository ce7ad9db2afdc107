/* Integers to floating point, channels to one. */
#include "internal.h"

#define FULL_SCALE 32768.0

void spoof_pcm16_to_float(const int16_t *pcm, int32_t frames, int32_t channels, float *mono) {
    if (channels == 1) {
        for (int32_t i = 0; i < frames; i++) mono[i] = (float)pcm[i] * (float)(1 / FULL_SCALE);
        return;
    }
    for (int32_t i = 0; i < frames; i++) {
        int32_t sum = 0;
        for (int32_t c = 0; c < channels; c++) sum += pcm[(ptrdiff_t)i * channels + c];
        mono[i] = (float)(sum / (FULL_SCALE * channels));
    }
}
