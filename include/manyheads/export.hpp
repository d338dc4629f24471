#pragma once

// What libmanyheads shows of itself where it is shared: all else stays hidden.
#if defined(__GNUC__)
#define MANYHEADS_API __attribute__((visibility("default")))
#else
#define MANYHEADS_API
#endif
