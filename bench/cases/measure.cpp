#include "bench/cases/measure.hpp"

#include <algorithm>
#include <manyheads/cpu.hpp>
#include <utility>
#include <vector>

#include "base/format.hpp"
#include "bench/cases/sampling.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/isa/roofline_probe.hpp"

namespace manyheads::bench {
namespace {

double least(const std::vector<double>& values) { return *std::min_element(values.begin(), values.end()); }
double most(const std::vector<double>& values) { return *std::max_element(values.begin(), values.end()); }

int rounds(bool quick) { return quick ? 5 : 9; }

}  // namespace

Row measure(const Case& of, const std::string& isa, kernels::Roofline& machine, bool quick) {
  const kernels::KernelTable& table = kernels::active_table();
  const bool memory = of.bytes > 0;
  const PreparedCase prepared = of.prepare();
  const double long_enough = memory ? 20e-3 : 4e-3;
  const std::optional<double> megabytes = of.measures_memory ? peak_megabytes(prepared.work) : std::optional<double>();
  double once = 0;  // seconds of work: its roofline is measured for as long
  std::vector<std::function<double()>> samples;
  samples.push_back([&once, sample = timed(prepared.work, long_enough)] { return once = sample(); });
  const auto rate = [&](kernels::ArithmeticProbe work) {
    return [&, work] { return machine.arithmetic(work, of.row.threads, std::clamp(once, 4e-3, 0.1)); };
  };
  std::vector<const char*> limits{memory ? "memory" : "fma"};
  if (memory) samples.push_back([&] { return machine.memory(table, of.row.threads); });
  if (!memory) samples.push_back(rate(table.probes.fma));
  if (!memory && of.row.dtype == "bf16") {
    const bool tiles = isa.starts_with("amx");
    const std::pair<const char*, kernels::ArithmeticProbe> others[] = {
        {"dot", tiles || isa.starts_with("avx512") ? kernels::bf16_dot_probe() : nullptr},
        {"tile", tiles ? kernels::amx_tile_probe() : nullptr}};
    for (const auto& [name, work] : others) {
      if (work == nullptr) continue;
      limits.push_back(name);
      samples.push_back(rate(work));
    }
  }
  if (prepared.base) samples.push_back(timed(prepared.base, long_enough));
  const std::vector<std::vector<double>> values = in_turn(rounds(quick), samples, quick ? 0.2 : 1);

  Row row = of.row;
  row.isa = isa;
  row.seconds = least(values[0]);
  double limit = 0;
  for (std::size_t i = 0; i < limits.size(); ++i) {
    if (most(values[i + 1]) <= limit) continue;
    limit = most(values[i + 1]);
    row.limit = limits[i];
  }
  (memory ? row.limit_gbs : row.limit_gflops) = limit;
  (memory ? row.gbs : row.gflops) = (memory ? of.bytes : of.flop) / *row.seconds / 1e9;
  if (prepared.base) row.ratio = *row.seconds / (of.base_share * least(values.back()));
  row.megabytes = megabytes;
  row.max_error = prepared.error();
  return row;
}

void measure_limits(int threads, kernels::Roofline& machine, bool quick, const std::function<bool(const Row&)>& wanted,
                    const std::function<void(const Row&)>& add) {
  const auto measure_one = [&](const std::string& name, const char* dtype, const std::string& isa,
                               const std::function<double()>& sample) {
    Row row{.name = name, .dtype = dtype, .threads = threads, .isa = isa};
    if (!wanted(row)) return;
    (row.name.starts_with("limit memory") ? row.limit_gbs : row.limit_gflops) =
        most(in_turn(rounds(quick), {sample})[0]);
    row.gbs = row.limit_gbs;
    row.gflops = row.limit_gflops;
    add(row);
  };
  const std::vector<std::string> available = available_isas();
  for (const std::string& isa : available) {
    set_isa(isa);
    measure_one("limit fma", "f32", isa,
                [&] { return machine.arithmetic(kernels::active_table().probes.fma, threads); });
  }
  if (const kernels::ArithmeticProbe dot_work = kernels::bf16_dot_probe(); dot_work != nullptr) {
    measure_one("limit dot", "bf16", "avx512_bf16", [&] { return machine.arithmetic(dot_work, threads); });
  }
  if (const kernels::ArithmeticProbe tile_work = kernels::amx_tile_probe(); tile_work != nullptr) {
    measure_one("limit tile", "bf16", "amx_bf16", [&] { return machine.arithmetic(tile_work, threads); });
    set_isa("amx_bf16");
    const auto split_work = kernels::table_with("bench", "f32-tiles-1", kernels::Products::kF32).split_linear.probe;
    measure_one("limit tile, F32", "f32", "amx_bf16", [&] { return machine.arithmetic(split_work, threads); });
  }
  if (const kernels::ArithmeticProbe byte_work = kernels::int8_dot_probe(); byte_work != nullptr) {
    measure_one("limit int8 dot", "i8", "avx512", [&] { return machine.arithmetic(byte_work, threads); });
  }
  set_isa(available.front());
  measure_one("limit memory", "f32", available.front(),
              [&] { return machine.memory(kernels::active_table(), threads); });
  // 8 rows that share a key multiply a vector of F32, BF16 or I8 so often: reading and multiplying do not overlap
  // whole.
  for (const int multiplies : {8, 16, 32}) {
    measure_one(base::format("limit memory, {} FMA", multiplies), "f32", available.front(),
                [&] { return machine.memory(kernels::active_table(), threads, multiplies); });
  }
  // The bytes of a page of 16 keys: 2 KB for BF16 of 64 values, twice as much for F32 or 128.
  for (const int kilobytes : {2, 4, 8}) {
    measure_one(base::format("limit memory, {} KB pieces", kilobytes), "f32", available.front(), [&] {
      return machine.memory_in_pieces(kernels::active_table(), threads, static_cast<std::size_t>(kilobytes) * 1024);
    });
  }
}

}  // namespace manyheads::bench
