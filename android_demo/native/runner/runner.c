/*
 * Scores clips with a model file and times it, for benchmarks/on_device.py:
 *
 *     runner --model FILE --clips FILE --samples N --threads T --runs R [--input NAME] [--output NAME]
 *
 * What it prints is the contract of benchmarks/devices/runs.py. The names of input and output are those that are
 * given, else those of FILE.manifest.json, else waveform and score. Exits with 2 and one line where it was given
 * something wrong, with 1 where the model cannot be run.
 */
#define _POSIX_C_SOURCE 200809L
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../onnx_session.h"
#include "manifest_names.h"

#ifndef ANTISPOOF_VERSION
#error "the build says which version this is"
#endif
#define CANNOT_RUN 1
#define GIVEN_WRONG 2
#define MOST_SAMPLES (1 << 26)
#define MOST_THREADS 256
#define MOST_RUNS 1000000
#define STATUS_ROOM 8192
#define EXACTLY 17 /* digits: INT8 scores are compared to the bit */

typedef struct {
    const char *model, *clips, *input, *output;
    long samples, threads, runs;
} plan;

typedef struct {
    float *samples;
    size_t count;
} clips;

typedef struct {
    double load_ms, first_ms, *scores, *times_ms;
} answer;

/* Ends with one line; what is no plain text in another library's words becomes a space. */
static void fail(int code, const char *what, const char *detail) {
    char line[512];
    snprintf(line, sizeof line, "%s%s%s", what, *detail ? ": " : "", detail);
    for (char *at = line; *at; at++)
        if ((unsigned char)*at < ' ') *at = ' ';
    dprintf(2, "%s\n", line);
    exit(code);
}

static long number(const char *flag, const char *text, long least, long most) {
    char *end;
    long value = strtol(text, &end, 10);
    if (end == text || *end || value < least || value > most) fail(GIVEN_WRONG, flag, "not a number that it takes");
    return value;
}

static plan parse(int count, char **words) {
    plan p = {NULL, NULL, NULL, NULL, 0, 0, -1};
    for (int i = 1; i < count; i += 2) {
        const char *flag = words[i], *value = i + 1 < count ? words[i + 1] : NULL;
        if (!value)
            fail(GIVEN_WRONG, flag, "a flag and its value go together");
        else if (!strcmp(flag, "--model"))
            p.model = value;
        else if (!strcmp(flag, "--clips"))
            p.clips = value;
        else if (!strcmp(flag, "--input"))
            p.input = value;
        else if (!strcmp(flag, "--output"))
            p.output = value;
        else if (!strcmp(flag, "--samples"))
            p.samples = number(flag, value, 1, MOST_SAMPLES);
        else if (!strcmp(flag, "--threads"))
            p.threads = number(flag, value, 1, MOST_THREADS);
        else if (!strcmp(flag, "--runs"))
            p.runs = number(flag, value, 0, MOST_RUNS);
        else
            fail(GIVEN_WRONG, flag, "no such flag");
    }
    if (!p.model || !p.clips || !p.samples || !p.threads || p.runs < 0)
        fail(GIVEN_WRONG, "it takes --model, --clips, --samples, --threads and --runs", "");
    return p;
}

/* Returns a file's content with a 0 behind it; NULL where it is missing, empty or larger than memory. */
static char *content_of(const char *path, size_t *bytes) {
    FILE *file = fopen(path, "rb");
    char *content = NULL;
    long size = file && !fseek(file, 0, SEEK_END) ? ftell(file) : 0;
    if (size > 0 && !fseek(file, 0, SEEK_SET) && (content = malloc((size_t)size + 1))) {
        *bytes = fread(content, 1, (size_t)size, file);
        content[*bytes] = 0;
    }
    if (file) fclose(file);
    if (!content || *bytes == (size_t)size) return content;
    free(content);
    return NULL;
}

static char *needed_content(const char *path, size_t *bytes) {
    char *content = content_of(path, bytes);
    if (!content) fail(GIVEN_WRONG, path, "cannot be read");
    return content;
}

static clips clips_for(const plan *p) {
    size_t bytes = 0, one = (size_t)p->samples * sizeof(float);
    clips found;
    found.samples = (float *)(void *)needed_content(p->clips, &bytes); /* of malloc, so aligned */
    found.count = bytes / one;
    if (!found.count || bytes % one) fail(GIVEN_WRONG, p->clips, "no clips of so many samples");
    return found;
}

static double *room_for(size_t count) {
    double *room = malloc((count + 1) * sizeof *room);
    if (!room) fail(CANNOT_RUN, "no memory", "");
    return room;
}

static names names_for(const plan *p) {
    names found = {"waveform", "score"};
    char path[4096];
    size_t bytes = 0;
    int length = snprintf(path, sizeof path, "%s.manifest.json", p->model);
    char *text = length > 0 && (size_t)length < sizeof path ? content_of(path, &bytes) : NULL;
    if (text && !manifest_names(text, &found)) fail(GIVEN_WRONG, path, "no manifest");
    free(text);
    if (p->input) snprintf(found.input, sizeof found.input, "%s", p->input);
    if (p->output) snprintf(found.output, sizeof found.output, "%s", p->output);
    return found;
}

static double now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
}

/* Returns how long a run of one clip took, and its score. */
static double run_ms(session *s, const float *clip, float *score) {
    failure why = {{0}};
    memcpy(session_input(s), clip, (size_t)session_samples(s) * sizeof *clip);
    double start = now_ms();
    int right = session_run(s, score, &why);
    double took = now_ms() - start;
    if (!right) fail(CANNOT_RUN, "the model failed", why.text);
    if (*score - *score != 0) fail(CANNOT_RUN, "the model gave a score that is no finite number", "");
    return took;
}

/* Returns the most memory that this process ever had, in KiB. */
static long peak_rss_kib(void) {
    char status[STATUS_ROOM];
    FILE *file = fopen("/proc/self/status", "rb");
    size_t bytes = file ? fread(status, 1, sizeof status - 1, file) : 0;
    if (file) fclose(file);
    status[bytes] = 0;
    const char *line = strstr(status, "VmHWM:");
    if (!line) fail(CANNOT_RUN, "/proc/self/status", "does not say how much memory it took");
    return strtol(line + strlen("VmHWM:"), NULL, 10);
}

/* Reads the file and makes it ready to run; says how long that took. */
static session *open_model(const plan *p, double *took_ms) {
    names called = names_for(p);
    failure why = {{0}};
    size_t bytes = 0;
    double start = now_ms();
    char *model = needed_content(p->model, &bytes);
    session *s = session_open(model, bytes, called.input, called.output, (int32_t)p->samples, (int32_t)p->threads, &why);
    *took_ms = now_ms() - start;
    free(model);
    if (!s) fail(GIVEN_WRONG, p->model, why.text);
    return s;
}

static void measure(session *s, const clips *given, size_t runs, answer *a) {
    size_t samples = (size_t)session_samples(s);
    float score = 0;
    for (size_t i = 0; i < given->count; i++) {
        double took = run_ms(s, given->samples + i * samples, &score);
        if (!i) a->first_ms = took;
        a->scores[i] = (double)score;
    }
    for (size_t i = 0; i < runs; i++) a->times_ms[i] = run_ms(s, given->samples + i % given->count * samples, &score);
}

static void print_numbers(const char *name, int digits, const double *numbers, size_t count) {
    printf(" \"%s\": [", name);
    for (size_t i = 0; i < count; i++) printf("%s%.*g", i ? ", " : "", digits, numbers[i]);
    printf("],\n");
}

int main(int count, char **words) {
    plan p = parse(count, words);
    clips given = clips_for(&p);
    answer a = {0, 0, room_for(given.count), room_for((size_t)p.runs)};
    session *s = open_model(&p, &a.load_ms);
    measure(s, &given, (size_t)p.runs, &a);
    printf("{\"runner\": \"antispoof %s\", \"library\": \"onnxruntime %s\",\n", ANTISPOOF_VERSION,
           session_runtime_version());
    print_numbers("scores", EXACTLY, a.scores, given.count);
    print_numbers("times_ms", 6, a.times_ms, (size_t)p.runs);
    printf(" \"load_ms\": %.4f, \"first_ms\": %.4f, \"peak_rss_kib\": %ld}\n", a.load_ms, a.first_ms, peak_rss_kib());
    session_close(s);
    return 0;
}
