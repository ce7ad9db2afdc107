/*
 * Scores clips with the app's own session and whatever libonnxruntime.so is found first:
 *
 *     golden_scores MODEL INPUT OUTPUT SAMPLES < CLIPS
 *
 * CLIPS are float32 samples of this machine's byte order. Prints the runtime's version and a score a line.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "../onnx_session.h"

/* Found at run time, because what is linked at build time is the desktop's C library and not Android's. */
const void *OrtGetApiBase(void);
const void *OrtGetApiBase(void) {
    void *library = dlopen("libonnxruntime.so", RTLD_NOW), *symbol = library ? dlsym(library, "OrtGetApiBase") : NULL;
    if (!symbol) {
        fprintf(stderr, "%s\n", dlerror());
        exit(1);
    }
    const void *(*base)(void);
    *(void **)&base = symbol;
    return base();
}

static char *read_all(const char *path, size_t *bytes) {
    FILE *file = fopen(path, "rb");
    char *content = NULL;
    if (file && !fseek(file, 0, SEEK_END) && (*bytes = (size_t)ftell(file)) > 0 && !fseek(file, 0, SEEK_SET)) {
        content = malloc(*bytes);
        if (content && fread(content, 1, *bytes, file) != *bytes) content = NULL;
    }
    if (file) fclose(file);
    return content;
}

int main(int count, char **words) {
    failure why = {{0}};
    size_t bytes = 0;
    if (count != 5) return 2;
    int samples = atoi(words[4]);
    char *model = read_all(words[1], &bytes);
    session *s = model ? session_open(model, bytes, words[2], words[3], samples, 1, &why) : NULL;
    if (!s) {
        fprintf(stderr, "cannot open %s: %s\n", words[1], why.text);
        return 1;
    }
    printf("%s\n", session_runtime_version());
    while (fread(session_input(s), sizeof(float), (size_t)samples, stdin) == (size_t)samples) {
        float score = 0;
        if (!session_run(s, &score, &why)) {
            fprintf(stderr, "%s\n", why.text);
            return 1;
        }
        printf("%a\n", (double)score);
    }
    fflush(stdout);
    _exit(0); /* not exit: Android's library would flush files of Android's, which are none here */
}
