#include "kernels/backward.hpp"

#include <limits>
#include <map>

#include "base/element.hpp"
#include "kernels/mask.hpp"

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

std::int64_t keys_seen(const QkvMask& params, std::int64_t b, std::int64_t h, std::int64_t i) {
  const AttentionMask mask(params);
  std::int64_t seen = 0;
  for (std::int64_t j = 0; j < params.key_length(b); ++j) {
    if (!mask.sees(b, h, i, j)) continue;
    if (params.bias != nullptr && base::load_element(params.bias, params.bias_type, params.bias_at(b, h, i, j)) ==
                                      -std::numeric_limits<double>::infinity()) {
      continue;
    }
    ++seen;
  }
  return seen;
}

const BackwardKernels& backward_kernels(const KernelTable& table) {
  link_avx512_backward();
  link_avx2_backward();
  link_other_backward();
  return registered().at(table.target);
}

}  // namespace manyheads::kernels
