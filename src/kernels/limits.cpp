#include <algorithm>
#include <chrono>
#include <limits>
#include <manyheads/limits.hpp>

#include "base/fail.hpp"
#include "base/parallel.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/isa/roofline_probe.hpp"
#include "kernels/roofline.hpp"
#include "kernels/tuning.hpp"

namespace manyheads {

Limits limits(const Threads& threads) {
  if (threads.num_threads < 0) {
    base::fail("limits", base::format("num_threads is {}, expected 0 or more", threads.num_threads));
  }
  const kernels::KernelTable& table = kernels::active_table();
  Limits found;
  found.isa = table.name;
  found.threads = base::worker_count(std::numeric_limits<std::int64_t>::max(), threads);
  const kernels::Tuning& tuning = kernels::tuning();
  found.l1_bytes = tuning.l1_bytes;
  found.l2_bytes = tuning.l2_bytes;
  found.l3_bytes = tuning.l3_bytes;

  kernels::Roofline machine(threads.executor);
  const auto best = [](double& rate, double sample) { rate = std::max(rate, sample); };
  const auto arithmetic = [&](double& rate, kernels::ArithmeticProbe work) {
    if (work != nullptr) best(rate, machine.arithmetic(work, found.threads));
  };
  constexpr int kRounds = 5;
  constexpr double kEnough = 1;  // seconds: what is slow needs no further sample
  const auto begin = std::chrono::steady_clock::now();
  const auto seconds = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(); };
  for (int round = 0; round < kRounds && seconds() < kEnough; ++round) {
    arithmetic(found.fma_gflops, table.probes.fma);
    arithmetic(found.bf16_dot_gflops, kernels::bf16_dot_probe());
    arithmetic(found.bf16_tile_gflops, kernels::amx_tile_probe());
    arithmetic(found.int8_dot_gflops, kernels::int8_dot_probe());
    best(found.memory_gbs_one_thread, machine.memory(table, 1));
    if (found.threads > 1) best(found.memory_gbs, machine.memory(table, found.threads));
  }
  if (found.threads == 1) found.memory_gbs = found.memory_gbs_one_thread;
  return found;
}

std::string Limits::to_string() const {
  std::string text = base::format("{}, threads {}: multiply-adds {:.1f} GFLOP/s", isa, threads, fma_gflops);
  const auto add = [&](const char* name, double rate) {
    if (rate > 0) text += base::format(", {} {:.1f}", name, rate);
  };
  add("BF16 dot products", bf16_dot_gflops);
  add("BF16 tiles", bf16_tile_gflops);
  add("INT8 dot products", int8_dot_gflops);
  return text + base::format("; memory {:.1f} GB/s, {:.1f} on one thread; caches {} KB, {} KB and {} KB", memory_gbs,
                             memory_gbs_one_thread, l1_bytes / 1024, l2_bytes / 1024, l3_bytes / 1024);
}

}  // namespace manyheads
