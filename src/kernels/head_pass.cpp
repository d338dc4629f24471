#include "kernels/head_pass.hpp"

#include <map>

namespace manyheads::kernels {

// Each is empty. Naming it keeps its unit, units/*.cpp, in a static link.
void link_avx512_head_pass();
void link_avx2_head_pass();
void link_other_head_pass();

namespace {

std::map<std::int64_t, HeadPassKernels>& registered() {
  static std::map<std::int64_t, HeadPassKernels> map;
  return map;
}

}  // namespace

HeadPassRegistration::HeadPassRegistration(std::int64_t target, const HeadPassKernels& kernels) {
  registered()[target] = kernels;
}

const HeadPassKernels& head_pass_kernels(const KernelTable& table) {
  link_avx512_head_pass();
  link_avx2_head_pass();
  link_other_head_pass();
  return registered().at(table.target);
}

}  // namespace manyheads::kernels
