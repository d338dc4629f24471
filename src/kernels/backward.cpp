#include "kernels/backward.hpp"

#include <map>
#include <utility>

#include <manyheads/error.hpp>

#include "base/format.hpp"
#include "kernels/dispatch.hpp"

namespace manyheads::kernels {

// Each is empty. Naming it keeps its unit, units/*.cpp, in a static link.
void link_avx512_backward();
void link_avx512_bf16_backward();
void link_avx2_backward();
void link_other_backward();

namespace {

using Key = std::pair<std::int64_t, Products>;  // of Highway's target

std::map<Key, BackwardKernels>& registered() {
  static std::map<Key, BackwardKernels> map;
  return map;
}

constexpr std::string_view kPairs = "bf16-pairs-1";

}  // namespace

BackwardRegistration::BackwardRegistration(std::int64_t target, Products products, const BackwardKernels& kernels) {
  registered()[{target, products}] = kernels;
}

const BackwardKernels& backward_kernels(const KernelTable& table, Products products) {
  link_avx512_backward();
  link_avx512_bf16_backward();
  link_avx2_backward();
  link_other_backward();
  return registered().at({table.target, products});
}

const KernelTable& backward_table(const char* function, std::string_view bits, Products products) {
  const KernelTable& table = table_with(function, bits, products);
  if (!table.splits_f32()) return table;
  throw Error(ErrorCode::kUnsupported,
              base::format("{}: bits \"{}\" are those of forward calls: gradients are not multiplied through tiles; "
                           "\"{}\" can be had of them here",
                           function, bits, table.unsplit->bits_of(products)));
}

Products backward_products(const BackwardParams& params, std::string_view bits) {
  const bool bf16 = params.type == DType::kBF16 && params.kv_type == DType::kBF16 && params.dout_type == DType::kBF16;
  if (bits.empty()) bits = active_table().bits_of(Products::kBF16);
  return bf16 && bits == kPairs ? Products::kBF16 : Products::kF32;
}

}  // namespace manyheads::kernels
