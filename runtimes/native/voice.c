/*
 * Speech or not, by power over a noise floor that follows the quietest moments.
 *
 * The floor falls to any quieter frame at once and rises slowly, so that it stays below speech, which pauses
 * every second, and reaches steady noise, which does not. At the start it knows nothing and rises faster.
 */
#include "internal.h"

#define RISE_DB_A_SECOND 5.0
#define EARLY_RISE_DB_A_SECOND 40.0
#define EARLY_FRAMES 100
#define STAY_DB 3.0 /* below the margin, for what is speech already */
#define FRAMES_A_SECOND (SPOOF_RATE / SPOOF_FRAME)

void spoof_voice_init(spoof_voice *voice, const spoof_config *config) {
    voice->least = spoof_power_of_db(config->voice_least_db);
    voice->enter = spoof_power_of_db(config->voice_margin_db);
    voice->stay = spoof_power_of_db(config->voice_margin_db - STAY_DB);
    voice->rise = spoof_power_of_db(RISE_DB_A_SECOND / FRAMES_A_SECOND);
    voice->early_rise = spoof_power_of_db(EARLY_RISE_DB_A_SECOND / FRAMES_A_SECOND);
    voice->floor = voice->least;
    voice->power = 0;
    voice->voiced = 0;
    voice->early = EARLY_FRAMES;
}

/* The variance, so that a microphone's constant offset is no sound. */
static double power_of(const float *frame, int32_t samples) {
    double sum = 0, squares = 0;
    for (int32_t i = 0; i < samples; i++) {
        sum += frame[i];
        squares += (double)frame[i] * frame[i];
    }
    double power = squares / samples - sum / samples * (sum / samples);
    return power > 0 ? power : 0;
}

int32_t spoof_voice_hear(spoof_voice *voice, const float *frame, int32_t samples) {
    if (samples < SPOOF_FRAME) return voice->voiced; /* the stub at an end is too short to measure */
    voice->power = power_of(frame, samples);
    voice->floor *= voice->early > 0 ? voice->early_rise : voice->rise;
    if (voice->early > 0) voice->early--;
    if (voice->floor > voice->power) voice->floor = voice->power;
    if (voice->floor < voice->least) voice->floor = voice->least;
    voice->voiced = voice->power > voice->floor * (voice->voiced ? voice->stay : voice->enter);
    return voice->voiced;
}
