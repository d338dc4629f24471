#include "view/limits.hpp"

#include <vector>

#include "kernels/dispatch.hpp"
#include "kernels/roofline.hpp"
#include "view/timing.hpp"

namespace manyheads::view {

std::optional<MachineRoofline> measure_limits(int threads, const std::function<bool(double)>& progress) {
  constexpr int kRounds = 7;
  const kernels::KernelTable& table = kernels::active_table();
  kernels::Roofline machine;
  const double least = least_seconds();
  const RepeatedWork reading([&] { machine.memory(table, threads); });
  const auto bytes = static_cast<double>(kernels::beyond_caches());
  std::vector<double> fma, memory;
  for (int i = 0; i < kRounds; ++i) {
    fma.push_back(machine.arithmetic(table.probes.fma, threads, least));
    memory.push_back(bytes / reading.seconds() / 1e9);
    if (progress && !progress(static_cast<double>(i + 1) / kRounds)) return std::nullopt;
  }
  return MachineRoofline{median(fma), median(memory)};
}

}  // namespace manyheads::view
