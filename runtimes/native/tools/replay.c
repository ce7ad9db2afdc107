/*
 * Plays raw 16-bit samples through the core and prints what it says, one event a line: what the golden vectors
 * are checked with on processors that have no Python. Each window's score is made of its CRC.
 *
 *     replay CHUNK [NAME=VALUE ...] < samples.pcm
 *
 * NAME is a member of spoof_config or spoof_rules. `lose=N` reports a gap of N frames after each chunk.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../spoof_core.h"

static spoof_config config;
static spoof_rules rules;
static long long lose;

static int set(const char *argument) {
#define INTEGER(name) \
    if (!strncmp(argument, #name "=", sizeof #name)) return config.name = atoi(argument + sizeof #name), 1
#define NUMBER(where, name) \
    if (!strncmp(argument, #name "=", sizeof #name)) return where.name = atof(argument + sizeof #name), 1
    INTEGER(sample_rate);
    INTEGER(channels);
    INTEGER(window);
    INTEGER(hop);
    INTEGER(first);
    INTEGER(min_speech);
    INTEGER(gate);
    INTEGER(lead_in);
    INTEGER(hang_over);
    INTEGER(pause);
    NUMBER(config, voice_margin_db);
    NUMBER(config, voice_least_db);
    NUMBER(rules, scale);
    NUMBER(rules, offset);
    NUMBER(rules, time_constant);
    NUMBER(rules, enter);
    NUMBER(rules, exit);
    NUMBER(rules, min_duration);
    if (!strncmp(argument, "lose=", 5)) return lose = atoll(argument + 5), 1;
    return 0;
}

static void tell(spoof_stream *stream, spoof_judge *judge, float *window) {
    spoof_event e;
    while (spoof_stream_next(stream, window, &e)) {
        printf("%d %d %lld %lld %lld %lld %lld", (int)e.kind, (int)e.samples, (long long)e.start, (long long)e.end,
               (long long)e.speech, (long long)e.turn, (long long)e.position);
        if (e.kind == SPOOF_WINDOW) {
            uint32_t crc = spoof_crc32(window, sizeof(float) * (size_t)config.window);
            spoof_judge_update(judge, &rules, ((int)(crc % 2001) - 1000) / 250.0, e.end);
            printf(" %u %.17g %d %lld", (unsigned)crc, judge->smoothed, (int)judge->decision, (long long)judge->since);
        }
        printf("\n");
    }
}

int main(int count, char **arguments) {
    spoof_config_default(&config);
    spoof_rules_default(&rules);
    for (int i = 2; i < count; i++)
        if (!set(arguments[i])) return fprintf(stderr, "what is %s?\n", arguments[i]), 2;
    spoof_judge judge;
    size_t bytes = spoof_stream_size(&config);
    int chunk = count > 1 ? atoi(arguments[1]) : 0;
    if (!bytes || chunk < 1 || !spoof_judge_init(&judge, &rules)) return fprintf(stderr, "not legal\n"), 2;
    void *memory = malloc(bytes);
    spoof_stream *stream = spoof_stream_init(memory, bytes, &config);
    float *window = malloc(sizeof(float) * (size_t)config.window);
    int16_t *pcm = malloc(sizeof(int16_t) * (size_t)(chunk * config.channels));
    int got;
    while ((got = (int)fread(pcm, sizeof(int16_t) * (size_t)config.channels, (size_t)chunk, stdin)) > 0) {
        for (int done = 0; done < got;) {
            done += spoof_stream_push_pcm16(stream, pcm + done * config.channels, got - done);
            tell(stream, &judge, window);
        }
        if (lose) spoof_stream_gap(stream, lose);
    }
    spoof_stream_finish(stream);
    tell(stream, &judge, window);
    free(memory);
    free(window);
    free(pcm);
    return 0;
}
