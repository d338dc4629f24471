#include "kernels/backward.hpp"

#include <map>

namespace manyheads::kernels {

// Each is empty. Naming it keeps its unit, units/*.cpp, in a static link.
void link_avx512_backward();
void link_avx2_backward();
void link_other_backward();

namespace {

std::map<std::int64_t, BackwardKernels>& registered() {
  static std::map<std::int64_t, BackwardKernels> map;
  return map;
}

}  // namespace

BackwardRegistration::BackwardRegistration(std::int64_t target, const BackwardKernels& kernels) {
  registered()[target] = kernels;
}

const BackwardKernels& backward_kernels(const KernelTable& table) {
  link_avx512_backward();
  link_avx2_backward();
  link_other_backward();
  return registered().at(table.target);
}

}  // namespace manyheads::kernels
