#include <unistd.h>

#include <CLI/CLI.hpp>
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
#include "bench/cases/measure.hpp"
#include "cli.hpp"

namespace manyheads::cli {

namespace {

struct BenchRequest {
  Common common;
  bool quick = false;
  std::string filter;
  std::string dtype;
  std::optional<std::int64_t> head_dim;
  std::optional<std::int64_t> tokens;
  std::string isa;
};

nlohmann::ordered_json to_json(const bench::Row& row) {
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
          {"megabytes", number(row.megabytes)},
          {"max_error", number(row.max_error)}};
}

constexpr const char* kHeader =
    "case                 dtype kv/heads    D     T   B threads        isa            limit reached       fraction  "
    "max "
    "error  time over\n";

std::string to_text(const bench::Row& row) {
  const auto count = [](const auto& value) { return value ? std::to_string(*value) : std::string(); };
  std::string heads = count(row.heads);
  if (row.kv_heads && row.kv_heads != row.heads) heads = base::format("{}/{}", *row.kv_heads, heads);
  std::string text = base::format("{:<20} {:<5} {:>8} {:>4} {:>5} {:>3} {:>7} {:<6} {:<11}", row.name, row.dtype, heads,
                                  count(row.head_dim), count(row.tokens), row.tokens ? std::to_string(row.batch) : "",
                                  row.threads, row.causal ? "causal" : "", row.isa);
  const double limit = row.limit_gbs ? *row.limit_gbs : *row.limit_gflops;
  const bool long_call = row.seconds && *row.seconds >= 1e-3;
  const char* const unit = row.by_time ? long_call ? "ms" : "us" : row.limit_gbs ? "GB/s" : "GFLOP/s";
  if (!row.seconds) return text + base::format(" {:>10.1f} {}\n", limit, unit);
  const double reached = row.by_time ? *row.seconds * (long_call ? 1e3 : 1e6) : row.gbs ? *row.gbs : *row.gflops;
  text += base::format(" {:>3} {:>6.1f} {:>7.{}f} {:<7} {:>7.3f} {:>10.1e}", row.limit == "memory" ? "mem" : row.limit,
                       limit, reached, row.by_time ? 2 : 1, unit, *row.fraction(), *row.max_error);
  if (row.ratio) text += base::format("  {:.3f} {}", *row.ratio, row.over);
  if (row.megabytes) text += base::format("  {:.0f} MB", *row.megabytes);
  return text + "\n";
}

bool wanted(const BenchRequest& request, const bench::Row& row) {
  return row.name.find(request.filter) != std::string::npos && (request.dtype.empty() || request.dtype == row.dtype) &&
         (!request.head_dim || request.head_dim == row.head_dim) && (!request.tokens || request.tokens == row.tokens);
}

std::vector<bench::Case> wanted_cases(const BenchRequest& request, int threads) {
  const bench::Size size{.quick = request.quick, .threads = threads};
  std::vector<bench::Case> cases;
  for (auto* make : {bench::attention_cases, bench::backward_cases, bench::decode_cases, bench::layer_cases,
                     bench::lens_cases, bench::scan_cases}) {
    for (bench::Case& c : make(size)) {
      if (wanted(request, c.row)) cases.push_back(std::move(c));
    }
  }
  return cases;
}

// Prints a row as soon as it stands, or keeps it for the list.
class Report {
 public:
  explicit Report(bool json) : json_(json) {}

  void add(const bench::Row& row) {
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

void run(const BenchRequest& request) {
  std::vector<std::string> isas{request.isa.empty() ? active_isa() : request.isa};
  if (request.isa == "all") isas = available_isas();
  for (const std::string& isa : isas) set_isa(isa);  // an unknown name fails before anything is measured
  const int threads = request.common.threads != 0 ? request.common.threads : default_num_threads();
  const std::vector<bench::Case> cases = wanted_cases(request, threads);
  const bool limits_wanted =
      (request.filter.empty() || request.filter.starts_with("limit")) && !request.head_dim && !request.tokens;
  if (cases.empty() && !limits_wanted) {
    throw UsageError("no case fits --case \"" + request.filter + "\" with --dtype, --head-dim and --tokens" +
                     (request.quick ? " among the few of --quick" : ""));
  }

  kernels::Roofline machine;
  Report report(request.common.json);
  if (limits_wanted) {
    for (const int count : bench::thread_counts({.threads = threads})) {
      bench::measure_limits(
          count, machine, request.quick, [&](const bench::Row& row) { return wanted(request, row); },
          [&](const bench::Row& row) { report.add(row); });
    }
  }
  for (const std::string& isa : isas) {
    set_isa(isa);
    for (const bench::Case& c : cases) report.add(bench::measure(c, isa, machine, request.quick));
  }
  report.finish();
}

}  // namespace

void add_bench(CLI::App& app) {
  auto request = std::make_shared<BenchRequest>();
  CLI::App* verb = app.add_subcommand(
      "bench", "This machine's limits, then attention, its backward, the layer and maps of heads as fractions of them");
  verb->add_flag("--quick", request->quick, "Fewer cases and rounds");
  verb->add_option("--case", request->filter,
                   "Only cases whose name contains TEXT: limit, attention, small, sharp, window, documents, key "
                   "lengths, bool mask, float bias, dropout, layout, packed, backward, decode, page, linear, layer, "
                   "pyramid, patch, scan")
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
