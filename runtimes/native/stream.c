/* The stream: 10 ms at a time from the resampler through the gate into the ring, with at most one event each. */
#include "internal.h"

#define MAX_HOP (1 << 30)
#define MAX_LOSS ((int64_t)1 << 40)
#define MAX_AMPLITUDE 100.0f /* 40 dB over full scale: no recording, but numbers gone wrong */
#define CHUNK 256            /* frames converted at a time */

struct spoof_stream {
    spoof_config config;
    spoof_resampler *resampler;
    spoof_voice voice;
    spoof_gate gate;
    spoof_ring ring;
    float frame[SPOOF_FRAME]; /* being filled */
    int32_t filled;
    int32_t draining; /* a gap or the end: what was heard comes out, nothing goes in */
    int32_t finished;
    int32_t done;        /* the last event was given */
    int64_t input;       /* frames of input, lost ones included */
    int64_t time;        /* of the first sample of `frame` */
    int64_t turn;        /* number of the turn */
    int64_t next_end;    /* of the next window, in samples of the turn */
    int64_t last_end;    /* of the last one, 0 if there was none */
    int64_t turn_speech; /* samples of speech in the turn */
    int64_t quiet;       /* samples since the last that passed */
    int64_t last_event;  /* its time */
};

void spoof_config_default(spoof_config *config) {
    *config = (spoof_config){.sample_rate = SPOOF_RATE,
                             .channels = 1,
                             .window = 64600,
                             .hop = SPOOF_RATE / 2,
                             .first = SPOOF_RATE,
                             .min_speech = SPOOF_RATE,
                             .gate = 1,
                             .lead_in = SPOOF_RATE / 5,
                             .hang_over = SPOOF_RATE * 3 / 10,
                             .pause = 2 * SPOOF_RATE,
                             .voice_margin_db = 9,
                             .voice_least_db = -80};
}

static int is_legal(const spoof_config *c) {
    return c && spoof_resampler_size(c->sample_rate) && c->channels >= 1 && c->channels <= SPOOF_MAX_CHANNELS &&
           c->window >= SPOOF_FRAME && c->window <= SPOOF_MAX_WINDOW && c->hop >= SPOOF_FRAME && c->hop <= MAX_HOP &&
           c->first >= 1 && c->first <= c->window && c->min_speech >= 0 && c->min_speech <= c->window &&
           (c->gate == 0 || c->gate == 1) && c->lead_in >= 0 && c->lead_in <= SPOOF_RATE && c->hang_over >= 0 &&
           c->pause >= 0 && c->voice_margin_db >= 3 && c->voice_margin_db <= 60 && c->voice_least_db >= -120 &&
           c->voice_least_db <= 0;
}

size_t spoof_stream_size(const spoof_config *config) {
    if (!is_legal(config)) return 0;
    return spoof_align(sizeof(spoof_stream)) + spoof_resampler_size(config->sample_rate) + spoof_gate_bytes(config) +
           spoof_ring_bytes(config);
}

static void begin_turn(spoof_stream *s) {
    s->ring.collected = 0;
    s->next_end = spoof_window_first_end(&s->config);
    s->last_end = s->turn_speech = s->quiet = 0;
}

spoof_stream *spoof_stream_init(void *memory, size_t bytes, const spoof_config *config) {
    if (!spoof_memory_fits(memory, bytes, spoof_stream_size(config))) return NULL;
    spoof_stream *s = memory;
    char *next = (char *)memory + spoof_align(sizeof *s);
    size_t resampler = spoof_resampler_size(config->sample_rate);
    memset(s, 0, sizeof *s);
    s->config = *config;
    s->resampler = spoof_resampler_init(next, resampler, config->sample_rate);
    spoof_gate_init(&s->gate, next + resampler, config);
    spoof_ring_init(&s->ring, next + resampler + spoof_gate_bytes(config), config);
    spoof_voice_init(&s->voice, config);
    begin_turn(s);
    return s;
}

int32_t spoof_stream_push_pcm16(spoof_stream *s, const int16_t *pcm, int32_t frames) {
    if (s->finished) return -1;
    int32_t done = 0;
    while (done < frames && !s->draining) {
        float mono[CHUNK];
        int32_t count = frames - done < CHUNK ? frames - done : CHUNK;
        spoof_pcm16_to_float(pcm + (ptrdiff_t)done * s->config.channels, count, s->config.channels, mono);
        int32_t taken = spoof_resampler_push(s->resampler, mono, count);
        done += taken;
        if (taken < count) break;
    }
    s->input += done;
    return done;
}

/* Returns whether the frame is sound, and its mean. */
static int average(const float *samples, int32_t channels, float *mono) {
    double sum = 0;
    int sound = 1;
    for (int32_t c = 0; c < channels; c++) {
        sound &= samples[c] >= -MAX_AMPLITUDE && samples[c] <= MAX_AMPLITUDE; /* false for NaN */
        sum += samples[c];
    }
    *mono = sound ? (float)(sum / channels) : 0;
    return sound;
}

int32_t spoof_stream_push_float(spoof_stream *s, const float *samples, int32_t frames) {
    if (s->finished) return -1;
    int32_t done = 0, damaged = 0, channels = s->config.channels;
    float mono[CHUNK];
    while (done < frames && !s->draining) {
        const float *from = samples + (ptrdiff_t)done * channels;
        int32_t count = 0;
        while (count < CHUNK && count < frames - done && average(from + (ptrdiff_t)count * channels, channels, mono + count))
            count++;
        int32_t taken = spoof_resampler_push(s->resampler, mono, count);
        done += taken;
        s->input += taken;
        if (taken < count) break;
        if (count == CHUNK || done == frames) continue;
        while (done < frames && !average(samples + (ptrdiff_t)done * channels, channels, mono)) {
            done++;
            damaged++;
        }
        spoof_stream_gap(s, damaged);
    }
    return done;
}

int32_t spoof_stream_gap(spoof_stream *s, int64_t frames) {
    if (s->finished || frames < 0 || frames > MAX_LOSS) return -1;
    if (s->draining) return 0;
    s->input += frames;
    s->draining = 1;
    spoof_resampler_end(s->resampler);
    return 1;
}

void spoof_stream_finish(spoof_stream *s) {
    s->finished = s->draining = 1;
    spoof_resampler_end(s->resampler);
}

int64_t spoof_stream_time(const spoof_stream *s) { return s->time + s->filled; }

double spoof_stream_power(const spoof_stream *s) { return s->voice.power; }

/* The window that ends at `end` samples of the turn, or word that it holds too little speech. */
static int32_t tell_window(spoof_stream *s, int64_t end, float *window, spoof_event *event) {
    int64_t start = end > s->config.window ? end - s->config.window : 0;
    event->samples = (int32_t)(end - start);
    event->start = spoof_ring_time(&s->ring, start);
    event->end = spoof_ring_time(&s->ring, end - 1) + 1;
    event->speech = spoof_ring_speech(&s->ring, start, end);
    event->turn = s->turn;
    event->position = start;
    event->kind = event->speech < s->config.min_speech ? SPOOF_NOT_ENOUGH : SPOOF_WINDOW;
    s->last_event = event->end;
    s->last_end = end;
    if (event->kind == SPOOF_WINDOW) {
        spoof_ring_copy(&s->ring, start, end, window);
        spoof_window_tile(window, event->samples, s->config.window);
    }
    return 1;
}

static int32_t tell_not_enough(spoof_stream *s, int64_t now, spoof_event *event) {
    *event = (spoof_event){.kind = SPOOF_NOT_ENOUGH,
                           .start = s->last_event,
                           .end = now,
                           .speech = s->turn_speech,
                           .turn = s->turn};
    s->last_event = now;
    return 1;
}

/* What a turn says at its end: the window of its last samples, if there are new ones. */
static int32_t end_turn(spoof_stream *s, int64_t now, float *window, spoof_event *event) {
    int32_t told = 0;
    if (s->ring.collected > s->last_end && s->turn_speech >= s->config.min_speech)
        told = tell_window(s, s->ring.collected, window, event);
    else if (s->draining && s->turn_speech < s->config.min_speech && now > s->last_event)
        told = tell_not_enough(s, now, event);
    if (s->ring.collected > 0) s->turn++;
    begin_turn(s);
    return told;
}

/* Takes one frame from the gate. */
static int32_t collect(spoof_stream *s, const float *frame, spoof_mark mark, int32_t passes, float *window,
                       spoof_event *event) {
    int64_t now = mark.time + mark.samples;
    if (passes) {
        spoof_ring_append(&s->ring, frame, mark);
        s->quiet = 0;
        s->turn_speech += mark.voiced ? mark.samples : 0;
        if (s->ring.collected >= s->next_end) {
            s->next_end += s->config.hop;
            return tell_window(s, s->next_end - s->config.hop, window, event);
        }
    } else {
        s->quiet += mark.samples;
        if (s->config.pause && s->ring.collected && s->quiet >= s->config.pause && end_turn(s, now, window, event))
            return 1;
    }
    if (s->turn_speech < s->config.min_speech && now - s->last_event >= s->config.hop)
        return tell_not_enough(s, now, event);
    return 0;
}

/* Fills the frame from the resampler; returns its samples once it is whole, or the last of all. */
static int32_t fill_frame(spoof_stream *s) {
    s->filled += spoof_resampler_pull(s->resampler, s->frame + s->filled, SPOOF_FRAME - s->filled);
    return s->filled == SPOOF_FRAME || s->draining ? s->filled : 0;
}

/* After a gap everything starts anew, at the time that the input has reached; what voice knows stays true. */
static void resume(spoof_stream *s) {
    int64_t now = spoof_resampler_time(s->resampler, s->input);
    if (now > s->time) s->time = now;
    spoof_resampler_restart(s->resampler);
    spoof_gate_reset(&s->gate);
    s->draining = 0;
}

int32_t spoof_stream_next(spoof_stream *s, float *window, spoof_event *event) {
    while (!s->done) {
        spoof_mark mark;
        int32_t passes, samples = fill_frame(s);
        if (samples) {
            int32_t voiced = spoof_voice_hear(&s->voice, s->frame, samples) || s->gate.always;
            spoof_gate_push(&s->gate, s->frame, (spoof_mark){s->time, samples, voiced});
            s->time += samples;
            s->filled = 0;
        }
        const float *frame = spoof_gate_pop(&s->gate, s->draining && !samples, &mark, &passes);
        if (frame && collect(s, frame, mark, passes, window, event)) return 1;
        if (frame || samples) continue;
        if (!s->draining) return 0;
        /* One gap told in two parts is one gap: nothing was heard between them, so nothing is said. */
        int32_t told = spoof_resampler_heard(s->resampler) && end_turn(s, s->time, window, event);
        if (s->finished)
            s->done = 1;
        else
            resume(s);
        return told;
    }
    return 0;
}
