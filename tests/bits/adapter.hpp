#pragma once

#include <string>
#include <vector>

#include "cases.hpp"

// What one version of the library does with the calls. Each adapter_*.cpp is the only file that names its version.
namespace bits {

std::vector<std::string> instruction_sets();  // that this build holds and this machine runs
void use(const std::string& instruction_set);

struct Results {
  std::vector<Array> out, lse, weights;
};
inline Results fresh(const AttentionCall& call) {
  return {.out = {call.out.fresh()}, .lse = {call.lse.fresh()}, .weights = {}};
}
// On the default number of threads.
Results run(const AttentionCall& call);
Results run(const LayerCall& call);

}  // namespace bits
