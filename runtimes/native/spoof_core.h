/*
 * The streaming core: microphone samples in, windows for a detector out, scores in, decisions out.
 *
 *     PCM -> mono float -> 16 kHz -> voice gate -> ring -> windows -> [your runtime] -> LLR -> smoothing -> decision
 *
 * C99 without a library: no allocation, no threads, no clock, no input or output. The caller gives the memory
 * (`*_size` says how much, aligned to 16 bytes) and keeps one object to one thread at a time. Built with
 * -ffp-contract=off the same input gives the same bits on every processor, however it is cut into chunks;
 * tests/golden holds what every language must reproduce.
 *
 *     spoof_config config;
 *     spoof_config_default(&config);
 *     config.sample_rate = 48000;
 *     spoof_stream *stream = spoof_stream_init(memory, spoof_stream_size(&config), &config);
 *     while (capturing) {
 *         int32_t done = 0;
 *         while (done < frames) {
 *             done += spoof_stream_push_pcm16(stream, pcm + done * channels, frames - done);
 *             while (spoof_stream_next(stream, window, &event)) { ... score(window), spoof_judge_update ... }
 *         }
 *     }
 *     spoof_stream_finish(stream);
 *     while (spoof_stream_next(stream, window, &event)) { ... }
 *
 * All times are counts of samples at 16 kHz since the stream began, gaps included.
 */
#ifndef SPOOF_CORE_H
#define SPOOF_CORE_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define SPOOF_API __declspec(dllexport)
#else
#define SPOOF_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define SPOOF_VERSION 1         /* of this interface; rises when a struct or a meaning changes */
#define SPOOF_RATE 16000        /* Hz, what every detector takes */
#define SPOOF_FRAME 160         /* samples, 10 ms: the unit of the voice gate */
#define SPOOF_MAX_WINDOW 960000 /* samples, one minute */
#define SPOOF_MAX_CHANNELS 8

/* Returns SPOOF_VERSION as the library was built, so that a binding can refuse another. */
SPOOF_API int32_t spoof_version(void);

/* ---- samples ------------------------------------------------------------------------------------------- */

/* Turns interleaved 16-bit frames into mono: the mean of the channels, divided by 32768 (not 32767). */
SPOOF_API void spoof_pcm16_to_float(const int16_t *pcm, int32_t frames, int32_t channels, float *mono);

/* Returns the CRC-32 (IEEE 802.3, as zlib's crc32) of bytes, to compare windows with golden ones. */
SPOOF_API uint32_t spoof_crc32(const void *bytes, size_t count);

/* ---- resampling ---------------------------------------------------------------------------------------- */

/*
 * Brings any common rate to 16 kHz by one polyphase FIR: a Kaiser-windowed sinc, flat to 0.91 of the lower
 * Nyquist frequency, 120 dB down at that frequency. Output lags by 6 ms (12 ms from 8 kHz), its times do not.
 */
typedef struct spoof_resampler spoof_resampler;

/* Returns the bytes that a resampler from `rate` needs, or 0 if the rate is not supported (8 to 192 kHz,
 * whose ratio to 16 kHz has a numerator of at most 640: 8, 11.025, 16, 22.05, 24, 32, 44.1, 48, 96 kHz...). */
SPOOF_API size_t spoof_resampler_size(int32_t rate);
/* Returns a resampler in `memory`, or NULL if the rate, the size or the alignment will not do. */
SPOOF_API spoof_resampler *spoof_resampler_init(void *memory, size_t bytes, int32_t rate);
/* Takes up to `count` samples and returns how many; less than all of them until some output is pulled. */
SPOOF_API int32_t spoof_resampler_push(spoof_resampler *r, const float *samples, int32_t count);
/* Gives up to `room` samples at 16 kHz and returns how many; 0 means that more input is needed. */
SPOOF_API int32_t spoof_resampler_pull(spoof_resampler *r, float *samples, int32_t room);
/* Says that no input follows: the tail can be pulled now. n samples become round(n * 16000 / rate). */
SPOOF_API void spoof_resampler_end(spoof_resampler *r);

/* ---- the stream: PCM in, windows out ------------------------------------------------------------------- */

typedef struct {
    int32_t sample_rate;   /* Hz of the input; default 16000 */
    int32_t channels;      /* interleaved, averaged; default 1 */
    int32_t window;        /* samples the detector takes, from its manifest; default 64600 */
    int32_t hop;           /* samples of passed audio between windows, at least SPOOF_FRAME; default 8000 */
    int32_t first;         /* samples of passed audio before the first window, 1 to `window`; default 16000 */
    int32_t min_speech;    /* samples of speech a window must hold to be worth a score; default 16000 */
    int32_t gate;          /* 1: only speech and its surroundings pass (default); 0: everything is speech */
    int32_t lead_in;       /* samples that pass before speech, the gate's delay, at most 16000; default 3200 */
    int32_t hang_over;     /* samples that pass after it; default 4800 */
    int32_t pause;         /* samples held back in a row that end a turn; 0: none do; default 32000 */
    float voice_margin_db; /* over the noise floor, to count as speech; default 9 */
    float voice_least_db;  /* dB of full scale below which the noise floor is never taken; default -80 */
} spoof_config;

/* Fills in the defaults. */
SPOOF_API void spoof_config_default(spoof_config *config);

enum spoof_kind {
    SPOOF_WINDOW = 1,    /* a window to score */
    SPOOF_NOT_ENOUGH = 2 /* a hop went by, and there is not enough speech for a score */
};

/*
 * What `spoof_stream_next` found. Windows lie in a turn: passed audio without a gap or a long pause. They end
 * at window - k * hop and window + k * hop samples of the turn, and at its end, and hold the last `window`
 * samples before; where the turn is shorter, what there is, repeated (never padded with zeros).
 */
typedef struct {
    int32_t kind;     /* enum spoof_kind */
    int32_t samples;  /* samples of the turn in the window before it was repeated, at most `window` */
    int64_t start;    /* when its first sample was heard */
    int64_t end;      /* when its last sample was heard, plus one */
    int64_t speech;   /* samples of speech in the window */
    int64_t turn;     /* how many turns ended before this one */
    int64_t position; /* samples of the turn before the window */
} spoof_event;

typedef struct spoof_stream spoof_stream;

/* Returns the bytes that a stream needs, or 0 if the configuration is not legal. */
SPOOF_API size_t spoof_stream_size(const spoof_config *config);
/* Returns a stream in `memory`, or NULL if the configuration, the size or the alignment will not do. */
SPOOF_API spoof_stream *spoof_stream_init(void *memory, size_t bytes, const spoof_config *config);

/* Takes up to `frames` interleaved frames and returns how many, or -1 after `spoof_stream_finish`. Less than all
 * are taken until `spoof_stream_next` has returned 0: nothing is ever dropped. */
SPOOF_API int32_t spoof_stream_push_pcm16(spoof_stream *stream, const int16_t *pcm, int32_t frames);
/* The same for floating point in -1..1. Frames that are NaN, infinite or beyond 100 count as a gap. */
SPOOF_API int32_t spoof_stream_push_float(spoof_stream *stream, const float *samples, int32_t frames);
/* Says that `frames` of input were lost: the turn ends, and time goes on. Returns 1, or 0 where events of an
 * earlier gap wait to be taken, -1 after the end or where `frames` is negative or beyond 2^40. */
SPOOF_API int32_t spoof_stream_gap(spoof_stream *stream, int64_t frames);
/* Says that no input follows: the last events can be taken now. */
SPOOF_API void spoof_stream_finish(spoof_stream *stream);
/* Goes on to the next event and returns 1, or 0 when more input is needed or all is done. A window to score is
 * written to `window`, which has room for config.window samples. */
SPOOF_API int32_t spoof_stream_next(spoof_stream *stream, float *window, spoof_event *event);
/* Returns the time up to which input was heard. */
SPOOF_API int64_t spoof_stream_time(const spoof_stream *stream);
/* Returns the mean power (variance) of the last 10 ms heard, for a level meter. */
SPOOF_API double spoof_stream_power(const spoof_stream *stream);

/* ---- the judge: scores in, decisions out --------------------------------------------------------------- */

enum spoof_decision { SPOOF_UNDECIDED = 0, SPOOF_BONAFIDE = 1, SPOOF_SPOOF = 2 };

typedef struct {
    double scale, offset;  /* llr = scale * score + offset, from the manifest; default 1 and 0 */
    double time_constant;  /* samples in which a score's weight falls to 1/e; 0: no smoothing; default 48000 */
    double enter;          /* "spoof" begins below this smoothed LLR; default 0 */
    double exit;           /* "bona fide" begins at or above this one, at least `enter`; default 0 */
    int64_t min_duration;  /* samples for which the other side must last before the decision turns; default 0 */
} spoof_rules;

/* Fills in the defaults. */
SPOOF_API void spoof_rules_default(spoof_rules *rules);

/* What is decided; read it, and change it only by the functions below. */
typedef struct {
    double llr;       /* of the last score */
    double smoothed;  /* exponential average of the LLRs by time */
    int64_t end;      /* end of the last window */
    int64_t since;    /* when the decision was made */
    int64_t turning;  /* when `leaning` began */
    int32_t decision; /* enum spoof_decision */
    int32_t leaning;  /* where the smoothed LLR points: the decision, unless min_duration still runs */
    int32_t changed;  /* 1 if the last score turned the decision */
    int32_t scores;   /* 0 until the first score, then 1 */
} spoof_judge;

/* Starts undecided. Returns 1, or 0 if the rules are not legal (not finite, scale <= 0, exit < enter...). */
SPOOF_API int32_t spoof_judge_init(spoof_judge *judge, const spoof_rules *rules);
/* Takes the score of the window that ended at `end`. Returns 1, or 0 (and changes nothing) if the LLR is not finite
 * or beyond a million, or the window ended before time began or no later than the last. */
SPOOF_API int32_t spoof_judge_update(spoof_judge *judge, const spoof_rules *rules, double score, int64_t end);

#ifdef __cplusplus
}
#endif
#endif
