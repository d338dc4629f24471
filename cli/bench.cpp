#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <functional>
#include <manyheads/cpu.hpp>
#include <manyheads/parallel.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "arguments.hpp"
#include "base/format.hpp"
#include "bench_case.hpp"
#include "cli.hpp"
#include "kernels/dispatch.hpp"
#include "limits.hpp"
#include "sampling.hpp"

namespace manyheads::cli {

std::vector<int> thread_counts(const BenchSize& size) {
  return size.threads == 1 ? std::vector<int>{1} : std::vector<int>{1, size.threads};
}

std::vector<std::int64_t> probe_rows(std::int64_t count) {
  std::vector<std::int64_t> rows{0, count / 3, count / 2, count - 1};
  rows.erase(std::unique(rows.begin(), rows.end()), rows.end());
  return rows;
}

std::string dtype_name(DType type) {
  switch (type) {
    case DType::kBF16:
      return "bf16";
    case DType::kF16:
      return "f16";
    case DType::kI8:
      return "i8";
    default:
      return "f32";
  }
}

float element(const ConstTensorView& view, std::int64_t at) {
  switch (view.dtype()) {
    case DType::kBF16:
      return static_cast<float>(static_cast<const bfloat16*>(view.data())[at]);
    case DType::kF16:
      return static_cast<float>(static_cast<const float16*>(view.data())[at]);
    default:
      return static_cast<const float*>(view.data())[at];
  }
}

double largest_difference(const ConstTensorView& a, const ConstTensorView& b) {
  double worst = 0;
  for (std::int64_t i = 0; i < element_count(a.shape()); ++i) {
    worst = std::max(worst, std::abs(static_cast<double>(element(a, i)) - static_cast<double>(element(b, i))));
  }
  return worst;
}

namespace {

struct Bench {
  Common common;
  bool quick = false;
  std::string filter;
  std::string dtype;
  std::optional<std::int64_t> head_dim;
  std::optional<std::int64_t> tokens;
  std::string isa;
};

nlohmann::ordered_json to_json(const BenchRow& row) {
  using Json = nlohmann::ordered_json;
  const auto number = [](const auto& value) { return value ? Json(*value) : Json(); };
  const auto text = [](const std::string& value) { return value.empty() ? Json() : Json(value); };
  return {{"case", row.name},
          {"dtype", row.dtype},
          {"heads", number(row.heads)},
          {"kv_heads", number(row.kv_heads)},
          {"head_dim", number(row.head_dim)},
          {"tokens", number(row.tokens)},
          {"batch", row.batch},
          {"threads", row.threads},
          {"causal", row.causal},
          {"share", number(row.share)},
          {"isa", row.isa},
          {"limit", text(row.limit)},
          {"limit_gflops", number(row.limit_gflops)},
          {"gflops", number(row.gflops)},
          {"limit_gbs", number(row.limit_gbs)},
          {"gbs", number(row.gbs)},
          {"fraction", number(row.fraction())},
          {"over", text(row.over)},
          {"ratio", number(row.ratio)},
          {"seconds", number(row.seconds)},
          {"max_error", number(row.max_error)}};
}

constexpr const char* kHeader =
    "case                 dtype kv/heads    D     T   B threads        isa            limit reached       fraction  "
    "max "
    "error  time over\n";

std::string to_text(const BenchRow& row) {
  const auto count = [](const auto& value) { return value ? std::to_string(*value) : std::string(); };
  std::string heads = count(row.heads);
  if (row.kv_heads && row.kv_heads != row.heads) heads = base::format("{}/{}", *row.kv_heads, heads);
  std::string text = base::format("{:<20} {:<5} {:>8} {:>4} {:>5} {:>3} {:>7} {:<6} {:<11}", row.name, row.dtype, heads,
                                  count(row.head_dim), count(row.tokens), row.tokens ? std::to_string(row.batch) : "",
                                  row.threads, row.causal ? "causal" : "", row.isa);
  const double limit = row.limit_gbs ? *row.limit_gbs : *row.limit_gflops;
  const char* const unit = row.limit_gbs ? "GB/s" : "GFLOP/s";
  if (!row.seconds) return text + base::format(" {:>10.1f} {}\n", limit, unit);
  text += base::format(" {:>3} {:>6.1f} {:>7.1f} {:<7} {:>7.3f} {:>10.1e}", row.limit == "memory" ? "mem" : row.limit,
                       limit, row.gbs ? *row.gbs : *row.gflops, unit, *row.fraction(), *row.max_error);
  if (row.ratio) text += base::format("  {:.3f} {}", *row.ratio, row.over);
  return text + "\n";
}

bool wanted(const Bench& request, const BenchRow& row) {
  return row.name.find(request.filter) != std::string::npos && (request.dtype.empty() || request.dtype == row.dtype) &&
         (!request.head_dim || request.head_dim == row.head_dim) && (!request.tokens || request.tokens == row.tokens);
}

std::vector<BenchCase> wanted_cases(const Bench& request, int threads) {
  const BenchSize size{.quick = request.quick, .threads = threads};
  std::vector<BenchCase> cases;
  for (auto* make : {attention_cases, decode_cases, layer_cases}) {
    for (BenchCase& c : make(size)) {
      if (wanted(request, c.row)) cases.push_back(std::move(c));
    }
  }
  return cases;
}

// Prints a row as soon as it stands, or keeps it for the list.
class Report {
 public:
  explicit Report(bool json) : json_(json) {}

  void add(const BenchRow& row) {
    if (json_) {
      rows_.push_back(to_json(row));
      if (terminal_errors()) {
        const std::string line = base::format("\r\x1b[K{} rows, {}", rows_.size(), row.name);
        if (::write(STDERR_FILENO, line.data(), line.size()) < 0) return;
      }
      return;
    }
    if (count_++ == 0) print(kHeader);
    print(to_text(row));
  }

  void finish() {
    if (!json_) return;
    if (terminal_errors() && ::write(STDERR_FILENO, "\r\x1b[K", 4) < 0) return;
    print_json(rows_);
  }

 private:
  bool json_;
  int count_ = 0;
  nlohmann::ordered_json rows_ = nlohmann::ordered_json::array();
};

double least(const std::vector<double>& values) { return *std::min_element(values.begin(), values.end()); }
double most(const std::vector<double>& values) { return *std::max_element(values.begin(), values.end()); }

// What a case reaches, in turn with what limits it and with what it is compared to. The best of each: others take time
// from a shared machine and never give any.
BenchRow measure(const BenchCase& c, const std::string& isa, Limits& machine, bool quick) {
  const kernels::KernelTable& table = kernels::active_table();
  const bool memory = c.bytes > 0;
  const PreparedCase prepared = c.prepare();
  const double long_enough = memory ? 20e-3 : 4e-3;
  double once = 0;  // of work: what limits it is measured for as long
  std::vector<std::function<double()>> samples;
  samples.push_back([&once, sample = timed(prepared.work, long_enough)] { return once = sample(); });
  const auto rate = [&](Limits::Work work) {
    return [&, work] { return machine.arithmetic(work, c.row.threads, std::clamp(once, 4e-3, 0.1)); };
  };
  std::vector<const char*> limits{memory ? "memory" : "fma"};
  if (memory) samples.push_back([&] { return machine.memory(table, c.row.threads); });
  if (!memory) samples.push_back(rate(table.fma_work));
  if (!memory && c.row.dtype == "bf16") {
    const bool tiles = isa.starts_with("amx");
    const std::pair<const char*, Limits::Work> others[] = {
        {"dot", tiles || isa.starts_with("avx512") ? kernels::bf16_dot_work() : nullptr},
        {"tile", tiles ? kernels::amx_tile_work() : nullptr}};
    for (const auto& [name, work] : others) {
      if (work == nullptr) continue;
      limits.push_back(name);
      samples.push_back(rate(work));
    }
  }
  if (prepared.base) samples.push_back(timed(prepared.base, long_enough));
  const std::vector<std::vector<double>> values = in_turn(quick ? 5 : 9, samples, quick ? 0.2 : 1);

  BenchRow row = c.row;
  row.isa = isa;
  row.seconds = least(values[0]);
  double limit = 0;
  for (std::size_t i = 0; i < limits.size(); ++i) {
    if (most(values[i + 1]) <= limit) continue;
    limit = most(values[i + 1]);
    row.limit = limits[i];
  }
  (memory ? row.limit_gbs : row.limit_gflops) = limit;
  (memory ? row.gbs : row.gflops) = (memory ? c.bytes : c.flop) / *row.seconds / 1e9;
  if (prepared.base) row.ratio = *row.seconds / (c.base_share * least(values.back()));
  row.max_error = prepared.error();
  return row;
}

void add_limits(const Bench& request, int threads, Limits& machine, Report& report) {
  const int rounds = request.quick ? 5 : 9;
  const auto add = [&](const std::string& name, const char* dtype, const std::string& isa,
                       const std::function<double()>& sample) {
    BenchRow row{.name = name, .dtype = dtype, .threads = threads, .isa = isa};
    if (!wanted(request, row)) return;
    (row.name.starts_with("limit memory") ? row.limit_gbs : row.limit_gflops) = most(in_turn(rounds, {sample})[0]);
    row.gbs = row.limit_gbs;
    row.gflops = row.limit_gflops;
    report.add(row);
  };
  const std::vector<std::string> available = available_isas();
  for (const std::string& isa : available) {
    set_isa(isa);
    add("limit fma", "f32", isa, [&] { return machine.arithmetic(kernels::active_table().fma_work, threads); });
  }
  if (const Limits::Work dot_work = kernels::bf16_dot_work(); dot_work != nullptr) {
    add("limit dot", "bf16", "avx512_bf16", [&] { return machine.arithmetic(dot_work, threads); });
  }
  if (const Limits::Work tile_work = kernels::amx_tile_work(); tile_work != nullptr) {
    add("limit tile", "bf16", "amx_bf16", [&] { return machine.arithmetic(tile_work, threads); });
  }
  set_isa(available.front());
  add("limit memory", "f32", available.front(), [&] { return machine.memory(kernels::active_table(), threads); });
  // What 8 rows that share a key do to a vector of F32, BF16 and I8: reading and multiplying do not go side by side.
  for (const int multiplies : {8, 16, 32}) {
    add(base::format("limit memory, {} FMA", multiplies), "f32", available.front(),
        [&] { return machine.memory(kernels::active_table(), threads, multiplies); });
  }
  // What a page of 16 keys is to memory: 2 KB for BF16 of 64 values, twice as much for F32 or 128.
  for (const int kilobytes : {2, 4, 8}) {
    add(base::format("limit memory, {} KB pieces", kilobytes), "f32", available.front(), [&] {
      return machine.memory_in_pieces(kernels::active_table(), threads, static_cast<std::size_t>(kilobytes) * 1024);
    });
  }
}

void run(const Bench& request) {
  std::vector<std::string> isas{request.isa.empty() ? active_isa() : request.isa};
  if (request.isa == "all") isas = available_isas();
  for (const std::string& isa : isas) set_isa(isa);  // an unknown name fails before anything is measured
  const int threads = request.common.threads != 0 ? request.common.threads : default_num_threads();
  const std::vector<BenchCase> cases = wanted_cases(request, threads);
  const bool limits_wanted =
      (request.filter.empty() || request.filter.starts_with("limit")) && !request.head_dim && !request.tokens;
  if (cases.empty() && !limits_wanted) {
    throw UsageError("no case fits --case \"" + request.filter + "\" with --dtype, --head-dim and --tokens" +
                     (request.quick ? " among the few of --quick" : ""));
  }

  Limits machine;
  Report report(request.common.json);
  if (limits_wanted) {
    for (const int count : thread_counts({.threads = threads})) add_limits(request, count, machine, report);
  }
  for (const std::string& isa : isas) {
    set_isa(isa);
    for (const BenchCase& c : cases) report.add(measure(c, isa, machine, request.quick));
  }
  report.finish();
}

}  // namespace

void add_bench(CLI::App& app) {
  auto request = std::make_shared<Bench>();
  CLI::App* verb =
      app.add_subcommand("bench", "This machine's limits, then attention and the layer as fractions of them");
  verb->add_flag("--quick", request->quick, "Fewer cases and rounds");
  verb->add_option("--case", request->filter,
                   "Only cases whose name contains TEXT: limit, attention, sharp, window, documents, key lengths, bool "
                   "mask, float bias, layout, packed, decode, page, linear, layer")
      ->type_name("TEXT");
  verb->add_option("--dtype", request->dtype, "Only cases of this type")
      ->check(CLI::IsMember({"f32", "bf16", "f16", "i8"}));
  verb->add_option("--head-dim", request->head_dim, "Only cases of this head size")
      ->transform(whole_number(1))
      ->type_name("N");
  verb->add_option("--tokens", request->tokens, "Only cases of this many tokens; of decode, keys")
      ->transform(whole_number(1))
      ->type_name("N");
  verb->add_option("--isa", request->isa, "Instruction set to run, or all; default: the one that calls use")
      ->type_name("NAME");
  add_common(*verb, request->common);
  verb->footer("Example: manyheads bench --quick --case attention --threads 2");
  verb->callback([request] { run(*request); });
}

}  // namespace manyheads::cli
