#include "../../../../runtimes/native/spoof_core.h"
