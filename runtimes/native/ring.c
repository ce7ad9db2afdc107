/* The end of a turn: its last samples, and of each 10 ms of them when they were heard and whether in speech. */
#include "internal.h"

/* One frame more than the longest window, because a window may end within the newest frame. */
static int32_t frames_of(const spoof_config *config) { return (config->window + SPOOF_FRAME - 1) / SPOOF_FRAME + 1; }

size_t spoof_ring_bytes(const spoof_config *config) {
    size_t frames = (size_t)frames_of(config);
    return spoof_align(sizeof(spoof_mark) * frames) + spoof_align(sizeof(float) * SPOOF_FRAME * frames);
}

void spoof_ring_init(spoof_ring *ring, void *memory, const spoof_config *config) {
    ring->frames = frames_of(config);
    ring->marks = memory;
    ring->samples = (float *)((char *)memory + spoof_align(sizeof(spoof_mark) * (size_t)ring->frames));
    ring->collected = 0;
}

static int32_t slot_of(const spoof_ring *ring, int64_t position) {
    return (int32_t)(position / SPOOF_FRAME % ring->frames);
}

/* Frames are whole but for the last of a turn, so each has a slot of its own. */
void spoof_ring_append(spoof_ring *ring, const float *frame, spoof_mark mark) {
    int32_t slot = slot_of(ring, ring->collected);
    ring->marks[slot] = mark;
    memcpy(ring->samples + (ptrdiff_t)slot * SPOOF_FRAME, frame, sizeof(float) * (size_t)mark.samples);
    ring->collected += mark.samples;
}

int64_t spoof_ring_time(const spoof_ring *ring, int64_t position) {
    return ring->marks[slot_of(ring, position)].time + position % SPOOF_FRAME;
}

int64_t spoof_ring_speech(const spoof_ring *ring, int64_t from, int64_t to) {
    int64_t speech = 0;
    for (int64_t at = from, next; at < to; at = next) {
        next = (at / SPOOF_FRAME + 1) * SPOOF_FRAME;
        if (next > to) next = to;
        if (ring->marks[slot_of(ring, at)].voiced) speech += next - at;
    }
    return speech;
}

void spoof_ring_copy(const spoof_ring *ring, int64_t from, int64_t to, float *out) {
    int64_t capacity = (int64_t)ring->frames * SPOOF_FRAME, start = from % capacity, count = to - from;
    int64_t head = count < capacity - start ? count : capacity - start;
    memcpy(out, ring->samples + start, sizeof(float) * (size_t)head);
    memcpy(out + head, ring->samples, sizeof(float) * (size_t)(count - head));
}
