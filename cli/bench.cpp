#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <manyheads/attention.hpp>
#include <manyheads/cpu.hpp>
#include <manyheads/error.hpp>
#include <manyheads/multi_head_attention.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cli.hpp"
#include "kernels/dispatch.hpp"
#include "layer/linear.hpp"
#include "limits.hpp"
#include "sampling.hpp"

namespace manyheads::cli {

namespace {

struct Bench {
  Common common;
  bool quick = false;
  std::string filter;
  std::string isa;
};

// One line of the result. The limits of the machine are lines too.
struct Row {
  std::string name{};
  std::string dtype = "f32";
  std::optional<std::int64_t> heads{};
  std::optional<std::int64_t> head_dim{};
  std::optional<std::int64_t> tokens{};
  std::int64_t batch = 1;
  int threads = 1;
  bool causal = false;
  std::string isa{};
  std::string limit{};  // which limit_gflops is: "fma", or "dot" for bf16 where the machine's dot product is faster
  std::optional<double> limit_gflops{};
  std::optional<double> gflops{};
  std::optional<double> gbs{};        // of memory, for its limit
  std::optional<double> seconds{};    // of one run
  std::optional<double> max_error{};  // against float64, over a few rows
};

// What a row measures: made when its turn comes, since the inputs of all rows at once would be large.
struct Case {
  Row row;
  double flop = 0;
  std::function<std::function<void()>()> prepare;  // gives the work
  std::function<double()> error;                   // after the work has run
};

std::string dtype_name(DType type) { return type == DType::kBF16 ? "bf16" : type == DType::kF16 ? "f16" : "f32"; }

// Rows to compare with float64: the first, the last and some between.
std::vector<std::int64_t> probe_rows(std::int64_t count) {
  std::vector<std::int64_t> rows{0, count / 3, count / 2, count - 1};
  rows.erase(std::unique(rows.begin(), rows.end()), rows.end());
  return rows;
}

float element(const Tensor& tensor, std::int64_t at) {
  switch (tensor.dtype()) {
    case DType::kBF16:
      return static_cast<float>(tensor.as<bfloat16>()[at]);
    case DType::kF16:
      return static_cast<float>(tensor.as<float16>()[at]);
    default:
      return tensor.as<float>()[at];
  }
}

struct AttentionWork {
  Tensor q, k, v, out;
  Workspace workspace;
  AttentionOptions options;
};

Case attention_case(DType type, std::int64_t heads, std::int64_t d, std::int64_t tokens, bool is_causal, int threads) {
  Case c;
  c.row = {.name = "attention",
           .dtype = dtype_name(type),
           .heads = heads,
           .head_dim = d,
           .tokens = tokens,
           .threads = threads,
           .causal = is_causal};
  const auto t = static_cast<double>(tokens);
  c.flop = 4.0 * static_cast<double>(heads * d) * (is_causal ? t * (t + 1) / 2 : t * t);
  auto work = std::make_shared<AttentionWork>();
  c.prepare = [=] {
    const Dims shape{1, heads, tokens, d};
    work->q = normal(type, shape, 1);
    work->k = normal(type, shape, 2);
    work->v = normal(type, shape, 3);
    work->out = Tensor(type, shape);
    if (is_causal) work->options.mask = causal();
    work->options.num_threads = threads;
    work->options.workspace = &work->workspace;
    return [work] { attention(work->q.cview(), work->k.cview(), work->v.cview(), work->out.view(), work->options); };
  };
  c.error = [=] {  // of the last head, one query at a time
    double worst = 0;
    const std::int64_t head = (heads - 1) * tokens * d;
    const std::size_t size = size_of(type);
    const auto at = [&](const Tensor& tensor, std::int64_t element) {
      return static_cast<const std::byte*>(tensor.bytes()) + static_cast<std::size_t>(element) * size;
    };
    for (const std::int64_t i : probe_rows(tokens)) {
      const std::int64_t keys = is_causal ? i + 1 : tokens;
      Tensor expected(DType::kF32, {1, 1, 1, d});
      attention_reference({at(work->q, head + i * d), type, {1, 1, 1, d}}, {at(work->k, head), type, {1, 1, keys, d}},
                          {at(work->v, head), type, {1, 1, keys, d}}, expected.view());
      for (std::int64_t e = 0; e < d; ++e) {
        worst = std::max(worst, std::abs(static_cast<double>(element(work->out, head + i * d + e)) -
                                         static_cast<double>(expected.as<float>()[e])));
      }
    }
    return worst;
  };
  return c;
}

double dot(const float* a, const float* b, std::int64_t count) {
  double sum = 0;
  for (std::int64_t i = 0; i < count; ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return sum;
}

struct LinearWork {
  Tensor weight, bias, x, y;
  layer::Linear linear;
};

Case linear_case(std::int64_t size, std::int64_t rows, int threads) {
  Case c;
  c.row = {.name = fmt::format("linear {}x{}", size, size), .tokens = rows, .threads = threads};
  c.flop = 2.0 * static_cast<double>(rows) * static_cast<double>(size * size);
  auto work = std::make_shared<LinearWork>();
  c.prepare = [=] {
    work->weight = normal(DType::kF32, {size, size}, 1);
    work->bias = normal(DType::kF32, {size}, 2);
    work->x = normal(DType::kF32, {rows, size}, 3);
    work->y = Tensor(DType::kF32, {rows, size});
    work->linear = layer::Linear(work->weight.cview(), work->bias.cview());
    return [=] {
      work->linear.run(std::as_const(work->x).as<float>(), rows, size, work->y.as<float>(), size,
                       layer::Activation::kNone, threads);
    };
  };
  c.error = [=] {
    double worst = 0;
    const float* x = std::as_const(work->x).as<float>();
    const float* w = std::as_const(work->weight).as<float>();
    for (const std::int64_t i : probe_rows(rows)) {
      for (std::int64_t n = 0; n < size; ++n) {
        const double expected = dot(x + i * size, w + n * size, size) + static_cast<double>(element(work->bias, n));
        worst = std::max(worst, std::abs(static_cast<double>(element(work->y, i * size + n)) - expected));
      }
    }
    return worst;
  };
  return c;
}

struct LayerWork {
  explicit LayerWork(const MultiHeadAttentionConfig& config) : layer(config) {}
  MultiHeadAttention layer;
  Tensor x, y;
  Workspace workspace;
  MultiHeadAttentionOptions options;
};

// The layer's definition for one row of the first sequence, in float64.
std::vector<double> layer_row(const LayerWork& work, const std::vector<double>& kv, std::int64_t row) {
  const StateDict state = work.layer.state_dict();
  const float* w_in = state.at("in_proj_weight").as<float>();
  const float* b_in = state.at("in_proj_bias").as<float>();
  const float* w_out = state.at("out_proj.weight").as<float>();
  const float* b_out = state.at("out_proj.bias").as<float>();
  const std::int64_t e = work.layer.config().d_model, d = work.layer.d_k(), tokens = work.x.size(1);
  const float* x = work.x.as<float>();
  std::vector<double> concatenated(static_cast<std::size_t>(e)), q(static_cast<std::size_t>(d));
  for (std::int64_t h = 0; h < work.layer.config().num_heads; ++h) {
    for (std::int64_t c = 0; c < d; ++c) {
      q[static_cast<std::size_t>(c)] =
          dot(x + row * e, w_in + (h * d + c) * e, e) + static_cast<double>(b_in[h * d + c]);
    }
    double sum = 0;
    for (std::int64_t j = 0; j < tokens; ++j) {
      const double* k = &kv[static_cast<std::size_t>(j * 2 * e + h * d)];
      double score = 0;
      for (std::int64_t c = 0; c < d; ++c) score += q[static_cast<std::size_t>(c)] * k[c];
      // Scores of such inputs are small: no maximum has to be taken out in float64.
      const double weight = std::exp(score / std::sqrt(static_cast<double>(d)));
      sum += weight;
      for (std::int64_t c = 0; c < d; ++c) concatenated[static_cast<std::size_t>(h * d + c)] += weight * k[e + c];
    }
    for (std::int64_t c = h * d; c < (h + 1) * d; ++c) concatenated[static_cast<std::size_t>(c)] /= sum;
  }
  std::vector<double> y(static_cast<std::size_t>(e));
  for (std::int64_t n = 0; n < e; ++n) {
    double sum = static_cast<double>(b_out[n]);
    for (std::int64_t c = 0; c < e; ++c) {
      sum += concatenated[static_cast<std::size_t>(c)] * static_cast<double>(w_out[n * e + c]);
    }
    y[static_cast<std::size_t>(n)] = sum;
  }
  return y;
}

Case layer_case(std::int64_t d_model, std::int64_t heads, std::int64_t batch, std::int64_t tokens, int threads) {
  Case c;
  c.row = {.name = fmt::format("layer {}, {} head{}", d_model, heads, heads == 1 ? "" : "s"),
           .heads = heads,
           .head_dim = d_model / heads,
           .tokens = tokens,
           .batch = batch,
           .threads = threads};
  const auto e = static_cast<double>(d_model);
  const auto t = static_cast<double>(tokens);
  c.flop = static_cast<double>(batch) * (8 * t * e * e + 4 * t * t * e);
  auto work = std::make_shared<std::unique_ptr<LayerWork>>();
  c.prepare = [=] {
    *work = std::make_unique<LayerWork>(MultiHeadAttentionConfig{.d_model = d_model, .num_heads = heads});
    LayerWork& w = **work;
    w.x = normal(DType::kF32, {batch, tokens, d_model}, 1);
    w.y = Tensor(DType::kF32, {batch, tokens, d_model});
    w.options.num_threads = threads;
    w.options.workspace = &w.workspace;
    return [work] { (*work)->layer.forward((*work)->x.cview(), (*work)->y.view(), (*work)->options); };
  };
  c.error = [=] {
    const LayerWork& w = **work;
    const StateDict state = w.layer.state_dict();
    const float* w_in = state.at("in_proj_weight").as<float>();
    const float* b_in = state.at("in_proj_bias").as<float>();
    std::vector<double> kv(static_cast<std::size_t>(tokens * 2 * d_model));
    for (std::int64_t j = 0; j < tokens; ++j) {
      for (std::int64_t n = 0; n < 2 * d_model; ++n) {
        kv[static_cast<std::size_t>(j * 2 * d_model + n)] =
            dot(w.x.as<float>() + j * d_model, w_in + (d_model + n) * d_model, d_model) +
            static_cast<double>(b_in[d_model + n]);
      }
    }
    double worst = 0;
    for (const std::int64_t i : probe_rows(tokens)) {
      const std::vector<double> expected = layer_row(w, kv, i);
      for (std::int64_t n = 0; n < d_model; ++n) {
        worst = std::max(worst, std::abs(static_cast<double>(element(w.y, i * d_model + n)) -
                                         expected[static_cast<std::size_t>(n)]));
      }
    }
    return worst;
  };
  return c;
}

std::vector<Case> make_cases(bool quick, const std::vector<int>& thread_counts) {
  std::vector<Case> cases;
  const std::vector<std::int64_t> lengths =
      quick ? std::vector<std::int64_t>{1024} : std::vector<std::int64_t>{1024, 4096};
  for (const int threads : thread_counts) {
    for (const std::int64_t tokens : lengths) {
      const std::int64_t heads = tokens > 1024 ? 1 : 8;
      for (const bool is_causal : {false, true}) {
        for (const std::int64_t d : {32, 64, 128}) {
          cases.push_back(attention_case(DType::kF32, heads, d, tokens, is_causal, threads));
        }
        cases.push_back(attention_case(DType::kBF16, heads, 64, tokens, is_causal, threads));
        cases.push_back(attention_case(DType::kF16, heads, 64, tokens, is_causal, threads));
      }
    }
    for (const std::int64_t rows : {7, 64, 512, 4096}) cases.push_back(linear_case(512, rows, threads));
    cases.push_back(layer_case(512, 8, 1, 7, threads));
    cases.push_back(layer_case(512, 8, 1, 128, threads));
    cases.push_back(layer_case(512, 1, 1, 128, threads));
    if (!quick) cases.push_back(layer_case(512, 8, 8, 512, threads));
  }
  return cases;
}

nlohmann::ordered_json to_json(const Row& row) {
  using Json = nlohmann::ordered_json;
  const auto number = [](const auto& value) { return value ? Json(*value) : Json(); };
  std::optional<double> fraction;
  if (row.gflops && row.limit_gflops) fraction = *row.gflops / *row.limit_gflops;
  return {{"case", row.name},
          {"dtype", row.dtype},
          {"heads", number(row.heads)},
          {"head_dim", number(row.head_dim)},
          {"tokens", number(row.tokens)},
          {"batch", row.batch},
          {"threads", row.threads},
          {"causal", row.causal},
          {"isa", row.isa},
          {"limit", row.limit.empty() ? Json() : Json(row.limit)},
          {"limit_gflops", number(row.limit_gflops)},
          {"gflops", number(row.gflops)},
          {"fraction", number(fraction)},
          {"gbs", number(row.gbs)},
          {"seconds", number(row.seconds)},
          {"max_error", number(row.max_error)}};
}

constexpr const char* kHeader =
    "case                 dtype    D     T   B threads        isa           limit  GFLOP/s fraction  max error\n";

std::string to_text(const Row& row) {
  std::string text =
      fmt::format("{:<20} {:<5} {:>4} {:>5} {:>3} {:>7} {:<6} {:<11}", row.name, row.dtype,
                  row.head_dim ? std::to_string(*row.head_dim) : "", row.tokens ? std::to_string(*row.tokens) : "",
                  row.tokens ? std::to_string(row.batch) : "", row.threads, row.causal ? "causal" : "", row.isa);
  if (row.gbs) return text + fmt::format(" {:>7.1f} GB/s\n", *row.gbs);
  if (!row.seconds) return text + fmt::format(" {:>7.0f} GFLOP/s\n", *row.limit_gflops);
  return text + fmt::format(" {:>3} {:>6.0f} {:>6.0f} {:>8.3f} {:>10.1e}\n", row.limit, *row.limit_gflops, *row.gflops,
                            *row.gflops / *row.limit_gflops, *row.max_error);
}

bool wanted(const Bench& request, const Row& row) {
  return request.filter.empty() || row.name.find(request.filter) != std::string::npos;
}

// Prints a row as soon as it stands, or keeps it for the list.
class Report {
 public:
  explicit Report(bool json) : json_(json) {}

  void add(const Row& row) {
    if (json_) {
      rows_.push_back(to_json(row));
      if (terminal_errors()) {
        const std::string line = fmt::format("\r\x1b[K{} rows, {}", rows_.size(), row.name);
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

void run(const Bench& request) {
  const std::vector<std::string> available = available_isas();
  std::vector<std::string> isas{request.isa.empty() ? active_isa() : request.isa};
  if (request.isa == "all") isas = available;
  const int most = request.common.threads != 0 ? request.common.threads : default_num_threads();
  const std::vector<int> thread_counts = most == 1 ? std::vector<int>{1} : std::vector<int>{1, most};
  const int rounds = request.quick ? 5 : 9;

  for (const std::string& isa : isas) set_isa(isa);  // an unknown name fails before anything is measured
  std::vector<Case> cases = make_cases(request.quick, thread_counts);
  std::erase_if(cases, [&](const Case& c) { return !wanted(request, c.row); });
  const bool limits_wanted = request.filter.empty() || request.filter.starts_with("limit");
  if (cases.empty() && !limits_wanted) {
    throw UsageError("--case \"" + request.filter + "\" is part of no case: attention, linear, layer, limit");
  }

  const Limits::Work dot_work = kernels::bf16_dot_work();
  Limits machine;
  Report report(request.common.json);
  const auto add_limit = [&](const char* name, const char* dtype, const std::string& isa, int threads, double value) {
    Row row{.name = name, .dtype = dtype, .threads = threads, .isa = isa};
    if (row.name == "limit memory") {
      row.gbs = value;
    } else {
      row.limit_gflops = row.gflops = value;
    }
    if (wanted(request, row)) report.add(row);
  };
  if (limits_wanted) {
    for (const int threads : thread_counts) {
      for (const std::string& isa : available) {
        set_isa(isa);
        const kernels::KernelTable& table = kernels::active_table();
        add_limit("limit fma", "f32", isa, threads,
                  medians_in_turn(rounds, {[&] { return machine.arithmetic(table.fma_work, threads); }})[0]);
      }
      if (dot_work != nullptr) {
        add_limit("limit dot", "bf16", "avx512_bf16", threads,
                  medians_in_turn(rounds, {[&] { return machine.arithmetic(dot_work, threads); }})[0]);
      }
      set_isa(available.front());
      add_limit("limit memory", "f32", available.front(), threads,
                medians_in_turn(rounds, {[&] { return machine.memory(kernels::active_table(), threads); }})[0]);
    }
  }

  for (const std::string& isa : isas) {
    set_isa(isa);
    const kernels::KernelTable& table = kernels::active_table();
    for (Case& c : make_cases(request.quick, thread_counts)) {
      if (!wanted(request, c.row)) continue;
      const std::function<double()> sample = timed(c.prepare());
      const double begin = seconds_now();
      sample();
      const double least = std::clamp(seconds_now() - begin, 4e-3, 25e-3);
      const auto limit = [&](Limits::Work work) {
        return [&machine, &c, work, least] { return machine.arithmetic(work, c.row.threads, least); };
      };
      std::vector<std::function<double()>> samples{limit(table.fma_work), sample};
      if (c.row.dtype == "bf16" && dot_work != nullptr && isa.starts_with("avx512")) samples.push_back(limit(dot_work));
      const std::vector<double> medians = medians_in_turn(rounds, samples);
      const bool dot = samples.size() == 3 && medians[2] > medians[0];
      c.row.limit = dot ? "dot" : "fma";
      c.row.limit_gflops = dot ? medians[2] : medians[0];
      c.row.isa = isa;
      c.row.seconds = medians[1];
      c.row.gflops = c.flop / medians[1] / 1e9;
      c.row.max_error = c.error();
      report.add(c.row);
    }
  }
  report.finish();
}

}  // namespace

void add_bench(CLI::App& app) {
  auto request = std::make_shared<Bench>();
  CLI::App* verb =
      app.add_subcommand("bench", "This machine's limits, then attention and the layer as fractions of them");
  verb->add_flag("--quick", request->quick, "Fewer cases and rounds");
  verb->add_option("--case", request->filter, "Only cases whose name contains TEXT: attention, linear, layer, limit")
      ->type_name("TEXT");
  verb->add_option("--isa", request->isa, "Instruction set to run, or all; default: the one that calls use")
      ->type_name("NAME");
  add_common(*verb, request->common);
  verb->footer("Example: manyheads bench --quick --case attention --threads 2");
  verb->callback([request] { run(*request); });
}

}  // namespace manyheads::cli
