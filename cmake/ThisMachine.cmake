# MANYHEADS_THIS_MACHINE: the kernels of the best instruction set that Highway finds here, and no others, nor the emulation of
# tiles. The same code as in the build of all of them, and so the same bits; it compiles in a third of the time.
set(_probe ${PROJECT_BINARY_DIR}/this_machine.cpp)
file(WRITE ${_probe} "#include <hwy/targets.h>
#include <cstdio>
int main() {
  const auto runs = hwy::SupportedTargets();
  std::puts((runs & HWY_AVX3) ? \"avx512\" : (runs & HWY_AVX2) ? \"avx2\" : \"other\");
}
")
try_run(_ran _compiled ${PROJECT_BINARY_DIR}/this_machine SOURCES ${_probe} LINK_LIBRARIES hwy::hwy
        CXX_STANDARD 20 RUN_OUTPUT_VARIABLE _best)
if(NOT _compiled OR NOT _ran EQUAL 0)
  message(FATAL_ERROR "MANYHEADS_THIS_MACHINE: the program that asks Highway for the instruction set does not run")
endif()
string(STRIP "${_best}" _best)
set(_amx "")
if(EXISTS /proc/cpuinfo)
  file(STRINGS /proc/cpuinfo _amx REGEX "amx_bf16" LIMIT_COUNT 1)
endif()
message(STATUS "Kernels: ${_best} alone")
if(_best STREQUAL "avx512")
  set(MANYHEADS_DISABLED_TARGETS "HWY_AVX2")
elseif(_best STREQUAL "avx2")
  set(MANYHEADS_DISABLED_TARGETS "HWY_AVX3")
else()
  set(MANYHEADS_DISABLED_TARGETS "HWY_AVX3 | HWY_AVX2")
endif()
