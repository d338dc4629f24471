#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <manyheads/cpu.hpp>
#include <manyheads/error.hpp>
#include <manyheads/multi_head_attention.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "arguments.hpp"
#include "base/format.hpp"
#include "bench/cases/sampling.hpp"
#include "cli.hpp"
#include "look_text.hpp"
#include "tensors.hpp"
#include "view/dims.hpp"
#include "view/limits.hpp"

namespace manyheads::cli {

namespace {

struct DimsRequest : view::LayerSize {
  Common common;
  std::string heads = "1,2,4,8";
  bool no_time = false;
};

using view::binding, view::Cut, view::MachineRoofline, view::parameters, view::Step;

constexpr int kColumns = 80;

// The layer itself, on random numbers.
class Layer {
 public:
  Layer(const DimsRequest& request, std::int64_t heads)
      : layer_({.d_model = request.d_model, .num_heads = heads, .dtype = parse_dtype(request.dtype)}),
        x_(bench::normal(parse_dtype(request.dtype), {request.batch, request.tokens, request.d_model}, 1)),
        y_(parse_dtype(request.dtype), {request.batch, request.tokens, request.d_model}) {
    options_.threads.num_threads = request.common.threads;
    options_.workspace = &workspace_;
  }
  void run() { layer_.forward(x_.cview(), y_.view(), options_); }

 private:
  MultiHeadAttention layer_;
  Tensor x_, y_;
  Workspace workspace_;
  MultiHeadAttentionOptions options_;
};

// The layer's weights, twice (as loaded and packed), for two layers, and its activations.
void check_memory(const DimsRequest& request) {
  const auto e = static_cast<double>(request.d_model);
  const double rows = static_cast<double>(request.batch) * static_cast<double>(request.tokens);
  const double wanted = 4.0 * (4 * view::parameters(e, e) + 12 * rows * e);
  const double memory = static_cast<double>(::sysconf(_SC_PHYS_PAGES)) * static_cast<double>(::sysconf(_SC_PAGESIZE));
  if (wanted > memory / 2) {
    throw Error(ErrorCode::kOutOfMemory,
                base::format("measuring the layer takes about {:.0f} GiB, more than half of this machine's "
                             "{:.0f} GiB; --no-time measures nothing",
                             wanted / 0x1p30, memory / 0x1p30));
  }
}

void measure(const DimsRequest& request, std::vector<Cut>& cuts) {
  constexpr int kRounds = 15;
  Layer single(request, 1);
  for (Cut& cut : cuts) {
    if (!cut.problem.empty()) continue;
    if (cut.heads == 1) {
      cut.seconds = bench::medians_in_turn(kRounds, {bench::timed([&] { single.run(); })})[0];
      cut.ratio = 1;
      continue;
    }
    Layer many(request, cut.heads);
    const std::vector<double> seconds =
        bench::medians_in_turn(kRounds, {bench::timed([&] { single.run(); }), bench::timed([&] { many.run(); })});
    cut.seconds = seconds[1];
    cut.ratio = seconds[1] / seconds[0];
  }
}

std::string grouped(std::int64_t value) {
  std::string digits = std::to_string(value);
  for (std::ptrdiff_t at = static_cast<std::ptrdiff_t>(digits.size()) - 3; at > 0; at -= 3) {
    digits.insert(static_cast<std::size_t>(at), 1, ',');
  }
  return digits;
}

std::string counted(double value) {
  constexpr std::array kUnits = {"", " k", " M", " G", " T", " P"};
  std::size_t unit = 0;
  while (value >= 1000 && unit + 1 < kUnits.size()) {
    value /= 1000;
    ++unit;
  }
  return unit == 0 ? base::format("{:.0f}", value) : base::format("{:.{}f}{}", value, value < 10 ? 2 : 1, kUnits[unit]);
}

std::string duration(double seconds) {
  return seconds < 1e-3 ? base::format("{:.1f} us", seconds * 1e6)
         : seconds < 1  ? base::format("{:.2f} ms", seconds * 1e3)
                        : base::format("{:.2f} s", seconds);
}

const char* heads_word(std::int64_t heads) { return heads == 1 ? "head" : "heads"; }

// d_model as a bar, with a border between heads.
std::string drawing(std::int64_t heads) {
  constexpr std::int64_t kWidth = 64;
  if (heads > kWidth / 2) return "(too narrow to draw)";
  std::string bar = "|";
  for (std::int64_t i = 0; i < heads; ++i) {
    const std::int64_t begin = kWidth * i / heads, end = kWidth * (i + 1) / heads;
    bar.append(static_cast<std::size_t>(end - begin - 1), '-');
    bar += '|';
  }
  return bar;
}

std::string problem_text(const DimsRequest& request, const Cut& cut) {
  const std::int64_t used = cut.heads * cut.d_k;
  return paragraph(cut.problem, kColumns, 0) +
         paragraph(base::format("{} // {} = {} would not fail: it keeps {} numbers and silently drops {}.",
                                request.d_model, cut.heads, cut.d_k, used, request.d_model - used),
                   kColumns, 2);
}

std::string shapes_text(const DimsRequest& request, const std::vector<Cut>& cuts) {
  const std::int64_t e = request.d_model;
  std::string text = base::format("{:>5} {:>5}  d_model {}\n", "heads", "d_k", e);
  for (const Cut& cut : cuts) text += base::format("{:>5} {:>5}  {}\n", cut.heads, cut.d_k, drawing(cut.heads));

  text += base::format("\n{:>5} {:>5}  {}", "heads", "d_k", "W_q, W_k, W_v of one head");
  text += request.no_time ? "\n" : base::format(" {:>10} {:>14}\n", "time", "over one head");
  for (const Cut& cut : cuts) {
    const std::string one = Dims{e, cut.d_k}.to_string();
    text += cut.seconds ? base::format("{:>5} {:>5}  {:<25} {:>10} {:>13.2f}x\n", cut.heads, cut.d_k, one,
                                       duration(*cut.seconds), *cut.ratio)
                        : base::format("{:>5} {:>5}  {}\n", cut.heads, cut.d_k, one);
  }
  return text;
}

bool same_work(const Step& a, const Step& b) { return a.flop == b.flop && a.bytes == b.bytes; }

std::string work_text(const DimsRequest& request, const std::vector<Cut>& cuts,
                      const std::optional<MachineRoofline>& limits) {
  std::string text =
      "\n" +
      paragraph(base::format("Work for batch {}, {} tokens, {}; each step reads its inputs and writes its outputs "
                             "once.",
                             request.batch, request.tokens, request.dtype),
                kColumns, 0);
  if (limits) {
    text += paragraph(
        base::format("This machine, measured now ({}, threads: {}): {:.0f} GFLOP/s of FMA, {:.1f} GB/s from memory. "
                     "Steps below {:.1f} FLOP a byte wait for memory, unless a cache holds their data.",
                     active_isa(), request.common.threads, limits->fma, limits->memory, limits->ridge()),
        kColumns, 0);
  }
  text += base::format("\n{:>5}  {:<24} {:>9} {:>9} {:>10}", "heads", "step", "FLOP", "bytes", "FLOP/byte");
  text += limits ? "  bound by\n" : "\n";
  std::string heads;
  const auto add = [&](const Step& step) {
    text += base::format("{:>5}  {:<24} {:>9} {:>9} {:>10.1f}", heads, step.name, counted(step.flop),
                         counted(step.bytes), step.intensity());
    text += limits ? base::format("  {}\n", binding(step, *limits)) : "\n";
    heads.clear();
  };
  const auto any_heads = [&](std::size_t step) {
    return cuts.size() > 1 && std::all_of(cuts.begin(), cuts.end(), [&](const Cut& cut) {
             return same_work(cut.steps[step], cuts[0].steps[step]);
           });
  };
  heads = "any";
  for (std::size_t i = 0; i < cuts[0].steps.size(); ++i) {
    if (any_heads(i)) add(cuts[0].steps[i]);
  }
  for (const Cut& cut : cuts) {
    heads = std::to_string(cut.heads);
    for (std::size_t i = 0; i < cut.steps.size(); ++i) {
      if (!any_heads(i)) add(cut.steps[i]);
    }
    add(cut.fused);
  }
  return text;
}

std::string to_text(const DimsRequest& request, const std::vector<Cut>& cuts,
                    const std::optional<MachineRoofline>& limits) {
  std::vector<Cut> whole;  // those that divide
  std::string list;
  for (const Cut& cut : cuts) {
    if (!cut.problem.empty()) continue;
    list += base::format("{}{} {} of {}", list.empty() ? "" : ", ", cut.heads, heads_word(cut.heads), cut.d_k);
    whole.push_back(cut);
  }
  const std::int64_t e = request.d_model;
  std::string text = paragraph(base::format("{} numbers a token, cut into {}.", e, list), kColumns, 0);
  text += paragraph(
      base::format(
          "Each head attends on its own slice; the slices are put side by side again and mixed by W_o. More heads "
          "are more patterns, each seen through fewer numbers. For any number of heads W_q, W_k, W_v and W_o are "
          "{} each, {} parameters with the biases.",
          Dims{e, e}.to_string(),
          grouped(static_cast<std::int64_t>(parameters(static_cast<double>(e), static_cast<double>(e))))),
      kColumns, 0);
  text += "\n" + shapes_text(request, whole) + work_text(request, whole, limits);
  for (const Cut& cut : cuts) {
    if (!cut.problem.empty()) text += "\n" + problem_text(request, cut);
  }
  const bool textbook =
      e == 512 && std::any_of(cuts.begin(), cuts.end(), [](const Cut& cut) { return cut.heads == 8; });
  if (textbook) {
    text += "\n" + paragraph(
                       "A known textbook example with these numbers computes d_model // num_heads without a check, "
                       "and its comment counts 4 subspaces where its code makes 8.",
                       kColumns, 0);
  }
  return text;
}

// Throws where no count divides d_model.
void check_any_divides(const std::vector<Cut>& cuts) {
  std::string problems;
  for (const Cut& cut : cuts) {
    if (cut.problem.empty()) return;
    // "... by 7 heads (512 = 7 * 73 + 1); 1, 2, 4 would divide": the first part, for the other counts.
    problems += problems.empty() ? cut.problem : "; " + cut.problem.substr(0, cut.problem.find(';'));
  }
  throw Error(ErrorCode::kInvalidArgument, problems);
}

void run(DimsRequest request) {
  std::vector<Cut> cuts;
  for (const std::int64_t heads : parse_integers("--heads", request.heads)) {
    if (heads < 1) throw UsageError("--heads takes counts of 1 or more, got " + std::to_string(heads));
    cuts.push_back(view::make_cut(request, heads));
  }
  check_any_divides(cuts);
  if (request.common.threads == 0) request.common.threads = default_num_threads();
  request.threads = request.common.threads;
  std::optional<MachineRoofline> limits;
  if (!request.no_time) {
    check_memory(request);
    limits = view::measure_limits(request.common.threads);
    measure(request, cuts);
  }
  if (request.common.json) {
    print_json(view::dims_json(request, cuts, limits));
  } else {
    print(to_text(request, cuts, limits));
  }
}

}  // namespace

void add_dims(CLI::App& app) {
  auto request = std::make_shared<DimsRequest>();
  CLI::App* verb = app.add_subcommand("dims", "How d_model is cut into heads: shapes, parameters, work, time");
  const auto sizes = whole_number(1, std::int64_t{1} << 24);
  verb->add_option("--d-model", request->d_model, "Numbers a token; default 512")->transform(sizes)->type_name("N");
  verb->add_option("--heads", request->heads, "Head counts to compare; default 1,2,4,8")->type_name("N,N");
  verb->add_option("--tokens", request->tokens, "Length of the sequence; default 128")
      ->transform(sizes)
      ->type_name("N");
  verb->add_option("--batch", request->batch, "Sequences at once; default 1")->transform(sizes)->type_name("N");
  verb->add_option("--dtype", request->dtype, "Type of weights and tokens: f32 (default), bf16 or f16")
      ->check(CLI::IsMember({"f32", "bf16", "f16"}))
      ->type_name("TYPE");
  verb->add_flag("--no-time", request->no_time, "Measure nothing");
  add_common(*verb, request->common);
  verb->footer("Example: manyheads dims --d-model 512 --heads 1,2,4,8 --tokens 128");
  verb->callback([request] { run(*request); });
}

}  // namespace manyheads::cli
