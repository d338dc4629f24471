// What WebAssembly has of it: memory has one size of page.
#pragma once

#include <stddef.h>

#define MADV_HUGEPAGE 0
static inline int madvise(void*, size_t, int) { return 0; }
