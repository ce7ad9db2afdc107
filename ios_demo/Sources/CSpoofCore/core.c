/*
 * The streaming core of runtimes/native, compiled from where it lies: SwiftPM takes no sources from outside a
 * package and follows no links to folders, but a source may include what it likes. The core's own files turn
 * off the contraction of products and sums (see internal.h), so that the bits are those of every other build.
 */
#include "../../../runtimes/native/gate.c"
#include "../../../runtimes/native/judge.c"
#include "../../../runtimes/native/memory.c"
#include "../../../runtimes/native/numbers.c"
#include "../../../runtimes/native/pcm.c"
#include "../../../runtimes/native/resample.c"
#include "../../../runtimes/native/ring.c"
#include "../../../runtimes/native/stream.c"
#include "../../../runtimes/native/voice.c"
#include "../../../runtimes/native/window.c"
