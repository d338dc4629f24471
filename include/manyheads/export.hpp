#pragma once

// Marks what a shared libmanyheads exports. Everything else stays hidden.
#if defined(__GNUC__)
#define MANYHEADS_API __attribute__((visibility("default")))
#else
#define MANYHEADS_API
#endif
