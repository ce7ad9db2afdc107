/*
 * The fuzzer's target: bytes are a configuration, samples, and how they are cut into chunks, lost and damaged.
 *
 * Beside what the sanitizers see, it aborts where the core breaks its word: another chunking gives other events,
 * times run backwards, a window holds a sample that is no number, a turn's windows leave samples out.
 */
#include <stdlib.h>
#include <string.h>

#include "../spoof_core.h"

#define MAX_FRAMES 6000
#define MAX_WINDOW 3000
#define REQUIRE(condition) \
    if (!(condition)) abort()

typedef struct {
    const uint8_t *bytes;
    size_t left;
} source;

static uint32_t take(source *s, uint32_t below) {
    uint32_t value = 0;
    for (int i = 0; i < 3 && s->left; i++, s->left--) value = value << 8 | *s->bytes++;
    return below ? value % below : 0;
}

/* 16 kHz often, because a filter takes longer to make than everything else. */
static const int32_t RATES[] = {16000, 16000, 16000, 16000, 16000, 8000,  8000,  48000, 16000, 16000, 16000,
                                16000, 11025, 22050, 24000, 32000, 44100, 96000, 192000, 12345};

static spoof_config draw_config(source *s) {
    spoof_config c;
    spoof_config_default(&c);
    c.sample_rate = RATES[take(s, sizeof RATES / sizeof *RATES)];
    c.channels = 1 + (int32_t)take(s, 3);
    c.window = 1 + (int32_t)take(s, MAX_WINDOW);
    c.hop = (int32_t)take(s, 1200);
    c.first = (int32_t)take(s, MAX_WINDOW);
    c.min_speech = (int32_t)take(s, 500);
    c.gate = (int32_t)take(s, 2);
    c.lead_in = (int32_t)take(s, 900);
    c.hang_over = (int32_t)take(s, 900);
    c.pause = (int32_t)take(s, 1500);
    return c;
}

static uint32_t hash(const float *window, int32_t samples) {
    uint32_t value = 2166136261u, bits; /* FNV-1a over whole words: quicker than a CRC */
    for (int32_t i = 0; i < samples; i++) {
        memcpy(&bits, window + i, sizeof bits);
        value = (value ^ bits) * 16777619u;
    }
    return value;
}

typedef struct {
    uint32_t events; /* a CRC over all of them */
    int64_t end, turn, last_end, windows;
} history;

static void note(history *h, const spoof_config *c, const spoof_event *e, const float *window) {
    uint32_t facts[4] = {h->events, spoof_crc32(&e->start, 5 * sizeof(int64_t)), (uint32_t)e->kind, 0};
    REQUIRE(e->end > h->end || (h->end == 0 && e->end == 0) || e->kind == SPOOF_NOT_ENOUGH);
    REQUIRE(e->start <= e->end && e->speech >= 0 && e->turn >= h->turn && e->position >= 0);
    if (e->kind == SPOOF_WINDOW) {
        REQUIRE(e->samples >= 1 && e->samples <= c->window && e->speech >= c->min_speech);
        REQUIRE(e->end - e->start >= e->samples && e->speech <= e->samples);
        int64_t end = e->position + e->samples;
        if (e->turn == h->turn && h->windows) REQUIRE(end > h->last_end && end - h->last_end <= c->hop);
        for (int32_t i = 0; i < c->window; i++) REQUIRE(window[i] > -200 && window[i] < 200);
        for (int32_t i = e->samples; i < c->window; i++) REQUIRE(window[i] == window[i - e->samples]);
        h->windows = 1;
        h->last_end = end;
        facts[3] = hash(window, c->window);
    }
    if (e->turn != h->turn && e->kind != SPOOF_WINDOW) h->windows = 0;
    if (c->min_speech > 0) h->windows = 0; /* windows short of speech lie between */
    h->turn = e->turn;
    h->end = e->end;
    h->events = spoof_crc32(facts, sizeof facts);
}

static void drain(spoof_stream *s, const spoof_config *c, history *h, float *window) {
    spoof_event event;
    while (spoof_stream_next(s, window, &event)) note(h, c, &event, window);
}

/* Plays the samples cut by `cuts` (whole where there are none), with a gap in the middle. */
static history play(const spoof_config *c, void *memory, size_t bytes, const void *samples, int floats, int32_t frames,
                    int64_t lost, source cuts) {
    static float window[MAX_WINDOW];
    history h = {0};
    size_t width = (floats ? sizeof(float) : sizeof(int16_t)) * (size_t)c->channels;
    spoof_stream *s = spoof_stream_init(memory, bytes, c);
    REQUIRE(s);
    for (int32_t done = 0; done < frames;) {
        int32_t middle = frames / 2, room = done < middle ? middle - done : frames - done;
        int32_t count = cuts.left ? 1 + (int32_t)take(&cuts, (uint32_t)room) : room;
        const char *at = (const char *)samples + (size_t)done * width;
        int32_t taken = floats ? spoof_stream_push_float(s, (const float *)(const void *)at, count)
                               : spoof_stream_push_pcm16(s, (const int16_t *)(const void *)at, count);
        REQUIRE(taken >= 0 && taken <= count);
        done += taken;
        drain(s, c, &h, window);
        if (taken && done == middle && lost) {
            REQUIRE(spoof_stream_gap(s, lost) == 1);
            drain(s, c, &h, window);
        }
    }
    spoof_stream_finish(s);
    REQUIRE(spoof_stream_push_pcm16(s, samples, 1) == -1);
    drain(s, c, &h, window);
    spoof_event event;
    REQUIRE(!spoof_stream_next(s, window, &event));
    return h;
}

static void judge(source s) {
    spoof_rules rules;
    spoof_judge judge;
    spoof_rules_default(&rules);
    rules.enter = (double)take(&s, 2000) / 100 - 10;
    rules.exit = (double)take(&s, 2000) / 100 - 10;
    rules.time_constant = take(&s, 100000);
    rules.min_duration = take(&s, 100000);
    if (!spoof_judge_init(&judge, &rules)) return;
    for (int64_t end = 0; s.left >= 8;) {
        float score;
        memcpy(&score, s.bytes, sizeof score);
        s.bytes += sizeof score;
        s.left -= sizeof score;
        end += (int64_t)take(&s, 40000) - 1000;
        spoof_judge before = judge;
        int32_t took = spoof_judge_update(&judge, &rules, score, end);
        REQUIRE(took || !memcmp(&before, &judge, sizeof judge));
        REQUIRE(judge.smoothed >= -1e7 && judge.smoothed <= 1e7);
        REQUIRE(!took || judge.changed == (judge.decision != before.decision));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    static char samples[sizeof(float) * 3 * MAX_FRAMES];
    source s = {bytes, size};
    spoof_config c = draw_config(&s);
    judge(s);
    size_t needed = spoof_stream_size(&c);
    if (!needed) {
        REQUIRE(!spoof_stream_init(samples, sizeof samples, &c));
        return 0;
    }
    int floats = (int)take(&s, 2);
    int64_t lost = take(&s, 2) ? take(&s, 5000) : 0;
    source cuts = {s.bytes, s.left < 64 ? s.left : 64};
    size_t width = (floats ? sizeof(float) : sizeof(int16_t)) * (size_t)c.channels;
    int32_t repeat = 1 + (int32_t)take(&s, 8);
    int32_t frames = (int32_t)(s.left / width);
    if (frames == 0) return 0;
    if (frames > MAX_FRAMES / repeat) frames = MAX_FRAMES / repeat;
    for (int32_t i = 0; i < repeat; i++) memcpy(samples + (size_t)(i * frames) * width, s.bytes, (size_t)frames * width);
    void *memory = aligned_alloc(16, needed); /* exactly: one byte too many is a finding */
    REQUIRE(memory && !spoof_stream_init(memory, needed - 1, &c));
    history whole = play(&c, memory, needed, samples, floats, frames * repeat, lost, (source){0});
    history cut = play(&c, memory, needed, samples, floats, frames * repeat, lost, cuts);
    REQUIRE(whole.events == cut.events);
    free(memory);
    return 0;
}
