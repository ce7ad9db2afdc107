/* Which stretches of a turn are windows, and how one shorter than a window fills it. */
#include "internal.h"

/* Ends lie a whole number of hops from `window`, so that the head of a turn that files are scored by is one. */
int64_t spoof_window_first_end(const spoof_config *config) {
    return config->window - (int64_t)((config->window - config->first) / config->hop) * config->hop;
}

void spoof_window_tile(float *window, int32_t samples, int32_t length) {
    for (int32_t i = samples; i < length; i++) window[i] = window[i - samples];
}
