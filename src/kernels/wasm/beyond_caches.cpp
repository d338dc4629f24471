// A page does not learn what caches there are, and keeps the memory that it has once taken.
#include "kernels/roofline.hpp"

namespace manyheads::kernels {

std::size_t beyond_caches() { return std::size_t{64} << 20; }

}  // namespace manyheads::kernels
