// A page has no variables.
#include <cstdlib>

extern "C" char* getenv(const char*) { return nullptr; }
