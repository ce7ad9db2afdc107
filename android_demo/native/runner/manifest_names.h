/* What a manifest calls the input and the output of its model. */
#ifndef ANTISPOOF_MANIFEST_NAMES_H
#define ANTISPOOF_MANIFEST_NAMES_H

#define NAME_ROOM 128

typedef struct {
    char input[NAME_ROOM], output[NAME_ROOM];
} names;

/* Returns 1 and the names that stand in a manifest's text; 0 where it is no manifest. */
int manifest_names(const char *text, names *found);

#endif
