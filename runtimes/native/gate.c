/* Lets speech pass together with what comes shortly before and after it, in order and without copies twice. */
#include "internal.h"

static int32_t capacity_of(const spoof_config *config) {
    return (config->gate ? config->lead_in / SPOOF_FRAME : 0) + 1;
}

size_t spoof_gate_bytes(const spoof_config *config) {
    size_t frames = (size_t)capacity_of(config);
    return spoof_align(sizeof(spoof_mark) * frames) + spoof_align(sizeof(float) * SPOOF_FRAME * frames);
}

void spoof_gate_init(spoof_gate *gate, void *memory, const spoof_config *config) {
    gate->capacity = capacity_of(config);
    gate->marks = memory;
    gate->frames = (float *)((char *)memory + spoof_align(sizeof(spoof_mark) * (size_t)gate->capacity));
    gate->always = !config->gate;
    gate->hang = config->hang_over / SPOOF_FRAME;
    spoof_gate_reset(gate);
}

void spoof_gate_reset(spoof_gate *gate) {
    gate->count = gate->head = gate->ahead = 0;
    gate->quiet = gate->hang; /* nothing was said yet: nothing hangs over */
}

void spoof_gate_push(spoof_gate *gate, const float *frame, spoof_mark mark) {
    int32_t slot = (gate->head + gate->count++) % gate->capacity;
    gate->marks[slot] = mark;
    gate->ahead += mark.voiced;
    memcpy(gate->frames + (ptrdiff_t)slot * SPOOF_FRAME, frame, sizeof(float) * (size_t)mark.samples);
}

const float *spoof_gate_pop(spoof_gate *gate, int32_t draining, spoof_mark *mark, int32_t *passes) {
    if (gate->count == 0 || (gate->count < gate->capacity && !draining)) return NULL;
    const float *frame = gate->frames + (ptrdiff_t)gate->head * SPOOF_FRAME;
    *mark = gate->marks[gate->head];
    *passes = gate->always || gate->ahead > 0 || gate->quiet < gate->hang;
    if (mark->voiced)
        gate->quiet = 0;
    else if (gate->quiet < gate->hang)
        gate->quiet++;
    gate->ahead -= mark->voiced;
    gate->head = (gate->head + 1) % gate->capacity;
    gate->count--;
    return frame;
}
