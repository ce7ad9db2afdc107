#include "manifest_names.h"

#include <stddef.h>
#include <string.h>

/*
 * As much of JSON as two names take. Each function takes a place in a text that ends with 0 and returns one behind
 * what it read, or NULL where there is no such thing; NULL goes through all of them.
 */

static const char *past_space(const char *at) {
    while (at && (*at == ' ' || *at == '\n' || *at == '\r' || *at == '\t')) at++;
    return at;
}

static const char *past_string(const char *at) {
    if (!at || *at != '"') return NULL;
    for (at++; *at && *at != '"'; at++)
        if (*at == '\\' && !*++at) return NULL;
    return *at ? at + 1 : NULL;
}

/* Past a value of any kind, with everything in it; what stands between brackets may be any text. */
static const char *past_value(const char *at) {
    int depth = 0;
    if (!at) return NULL;
    do {
        at = past_space(at);
        if (*at == '"') {
            if (!(at = past_string(at))) return NULL;
        } else if (*at == '{' || *at == '[') {
            depth++, at++;
        } else if (depth && (*at == '}' || *at == ']')) {
            depth--, at++;
        } else if (depth && (*at == ',' || *at == ':')) {
            at++;
        } else {
            size_t length = strcspn(at, ",:]}\"[{ \t\r\n");
            if (!length) return NULL;
            at += length;
        }
    } while (depth);
    return at;
}

/* Returns where the value of an object's key begins. */
static const char *value_of(const char *object, const char *key) {
    const char *at = past_space(object);
    size_t length = strlen(key);
    if (!at || *at != '{') return NULL;
    do {
        const char *name = past_space(at + 1), *behind = past_string(name), *value = past_space(behind);
        if (!value || *value != ':') return NULL;
        value = past_space(value + 1);
        if ((size_t)(behind - name) == length + 2 && !memcmp(name + 1, key, length)) return value;
        at = past_space(past_value(value));
    } while (at && *at == ',');
    return NULL;
}

/* Copies a text without escapes: names of tensors have none. */
static int copy_text(const char *at, char *to) {
    const char *behind = past_string(at);
    size_t length = behind ? (size_t)(behind - at) - 2 : 0;
    if (!length || length >= NAME_ROOM || memchr(at, '\\', length + 1)) return 0;
    memcpy(to, at + 1, length);
    to[length] = 0;
    return 1;
}

int manifest_names(const char *text, names *found) {
    return copy_text(value_of(value_of(text, "input"), "name"), found->input) &&
           copy_text(value_of(value_of(text, "output"), "name"), found->output);
}
