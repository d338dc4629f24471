#include "kernels/score_pass.hpp"

#include <map>

namespace manyheads::kernels {

// Each is empty. Naming it keeps its unit, units/*.cpp, in a static link.
void link_avx512_score_pass();
void link_avx2_score_pass();
void link_other_score_pass();

namespace {

std::map<std::int64_t, ScorePassKernels>& passes() {
  static std::map<std::int64_t, ScorePassKernels> map;
  return map;
}

}  // namespace

ScorePassRegistration::ScorePassRegistration(std::int64_t target, const ScorePassKernels& kernels) {
  passes()[target] = kernels;
}

const ScorePassKernels& score_pass_kernels(const KernelTable& table) {
  link_avx512_score_pass();
  link_avx2_score_pass();
  link_other_score_pass();
  return passes().at(table.target);
}

}  // namespace manyheads::kernels
