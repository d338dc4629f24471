#include <manyheads/cpu.hpp>
#include <manyheads/multi_head_attention.hpp>
#include <optional>
#include <vector>

#include "kernels/roofline.hpp"
#include "layer/convert.hpp"
#include "view/dims.hpp"
#include "view/layer_file.hpp"
#include "view/limits.hpp"
#include "view/state.hpp"
#include "view/timing.hpp"

// Layers of any size, without a model.
namespace manyheads::view {
namespace {

constexpr std::int64_t kMostWidth = 1 << 14, kMostTokens = 1 << 24;

int threads_of(const Question& question) {
  const int given = question.threads().num_threads;
  return given > 0 ? given : default_num_threads();
}

std::optional<MachineRoofline> known_limits(Session::State& state) {
  const base::Lock::Guard guard(state.lock);
  return state.limits;
}

LayerSize size_of(const Question& question, std::int64_t most_width, std::int64_t most_tokens) {
  const io::JsonDocument& json = question.json();
  const auto number = [&](const char* key, std::int64_t usual, std::int64_t most) {
    return has(json, key) ? require_int(json, key, 1, most) : usual;
  };
  LayerSize size;
  size.d_model = number("d_model", size.d_model, most_width);
  size.tokens = number("tokens", size.tokens, most_tokens);
  size.batch = number("batch", size.batch, most_tokens);
  size.kv_heads = number("kv_heads", size.kv_heads, most_width);
  if (has(json, "dtype")) size.dtype = require_string(json, "dtype");
  if (size.dtype != "f32" && size.dtype != "bf16" && size.dtype != "f16") {
    refuse_json(json, "dtype", "f32, bf16 or f16");
  }
  size.threads = threads_of(question);
  return size;
}

Tensor some_numbers(DType type, const Dims& shape) {
  Tensor numbers(DType::kF32, shape);
  std::uint32_t state = 1;
  for (std::int64_t i = 0; i < numbers.elements(); ++i) {
    state = state * 1664525u + 1013904223u;
    numbers.as<float>()[i] = static_cast<float>(state >> 8) * 0x1p-23f - 1.0f;
  }
  return type == DType::kF32 ? numbers : layer::converted(numbers.cview(), type);
}

// The layer on random numbers.
class TimedLayer {
 public:
  TimedLayer(const LayerSize& size, std::int64_t heads, const Threads& threads)
      : layer_({.d_model = size.d_model,
                .num_heads = heads,
                .num_kv_heads = size.kv_heads,
                .dtype = dtype_named(size.dtype)}),
        x_(some_numbers(dtype_named(size.dtype), {size.batch, size.tokens, size.d_model})),
        y_(dtype_named(size.dtype), {size.batch, size.tokens, size.d_model}) {
    options_.threads = threads;
    options_.workspace = &workspace_;
  }
  void run() { layer_.forward(x_.cview(), y_.view(), options_); }

 private:
  MultiHeadAttention layer_;
  Tensor x_, y_;
  Workspace workspace_;
  MultiHeadAttentionOptions options_;
};

}  // namespace

Answer ask_layer(const Question& question) {
  const io::JsonDocument& json = question.json();
  const auto flag = [&](const char* key) { return has(json, key) && require_bool(json, key); };
  const LayerResult result =
      run_layer(question.tensors("weights"), question.tensors("input"),
                {.state_place = "weights",
                 .input_place = "input",
                 .heads = require_int(json, "heads", 1, kMostWidth),
                 .kv_heads = has(json, "kv_heads") ? require_int(json, "kv_heads", 1, kMostWidth) : 0,
                 .causal = flag("causal"),
                 .add_zero_attn = flag("add_zero_attn"),
                 .weights = flag("with_weights"),
                 .threads = question.threads()});
  return tensors_answer(result.tensors, {});
}

Answer ask_dims(const Question& question) {
  const LayerSize size = size_of(question, kMostTokens, kMostTokens);
  std::vector<Cut> cuts;
  for (const io::JsonDocument& heads : require_array(question.json(), "heads")) {
    cuts.push_back(make_cut(size, io::require_int({{{"heads", heads.value}}, heads.place}, "heads", 1, kMostTokens)));
  }
  return json_answer(dims_json(size, cuts, known_limits(question.state())));
}

Answer ask_limits(const Question& question) {
  Session::State& state = question.state();
  const int threads = threads_of(question);
  std::optional<MachineRoofline> limits = known_limits(state);
  if (!limits) {
    limits = measure_limits(threads, question.progress());
    if (!limits) return cancelled();
    const base::Lock::Guard guard(state.lock);
    state.limits = limits;
  }
  return json_answer({{"fma_gflops", limits->fma},
                      {"memory_gbs", limits->memory},
                      {"memory_bytes", kernels::beyond_caches()},
                      {"where", state.computes},
                      {"threads", threads},
                      {"isa", active_isa()}});
}

Answer ask_time(const Question& question) {
  constexpr std::int64_t kMostRows = 1 << 16;
  constexpr int kRounds = 7;
  const LayerSize size = size_of(question, kMostWidth, kMostRows);
  if (size.batch * size.tokens > kMostRows) question.refuse("batch times tokens is above " + std::to_string(kMostRows));
  const std::int64_t heads = require_int(question.json(), "heads", 1, size.d_model);
  TimedLayer many(size, heads, question.threads());
  LayerSize whole = size;
  whole.kv_heads = 0;
  TimedLayer single(whole, 1, question.threads());
  const auto goes_on = [&](double share) { return !question.progress() || question.progress()(share); };
  const RepeatedWork many_runs([&] { many.run(); });
  if (!goes_on(0)) return cancelled();
  const RepeatedWork single_runs([&] { single.run(); });
  std::vector<double> of_many, of_single;
  for (int i = 0; i < kRounds; ++i) {
    of_single.push_back(single_runs.seconds());
    of_many.push_back(many_runs.seconds());
    if (!goes_on(static_cast<double>(i + 1) / kRounds)) return cancelled();
  }
  return json_answer({{"seconds", median(of_many)},
                      {"over_single_head", median(of_many) / median(of_single)},
                      {"samples", kRounds},
                      {"repeats", many_runs.repeats()},
                      {"where", question.state().computes},
                      {"threads", size.threads},
                      {"isa", active_isa()}});
}

}  // namespace manyheads::view
