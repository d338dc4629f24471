#include <unistd.h>

#include <algorithm>

#include "kernels/roofline.hpp"
#include "kernels/tuning.hpp"

namespace manyheads::kernels {

std::size_t beyond_caches() {
  const double physical = static_cast<double>(::sysconf(_SC_PHYS_PAGES)) * static_cast<double>(::sysconf(_SC_PAGESIZE));
  const double wanted = std::clamp(2.0 * static_cast<double>(tuning().l3_bytes), 0x1p28, 0x1p30);
  return static_cast<std::size_t>(std::min(wanted, physical / 8));
}

}  // namespace manyheads::kernels
