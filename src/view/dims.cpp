#include "view/dims.hpp"

#include <manyheads/cpu.hpp>
#include <manyheads/multi_head_attention.hpp>
#include <utility>

#include "base/format.hpp"

namespace manyheads::view {

DType dtype_named(const std::string& name) {
  return name == "bf16" ? DType::kBF16 : name == "f16" ? DType::kF16 : DType::kF32;
}

double parameters(double d_model, double kv_width) {
  return 2 * (d_model * d_model + d_model) + 2 * (d_model * kv_width + kv_width);
}

Cut make_cut(const LayerSize& request, std::int64_t heads) {
  Cut cut;
  cut.heads = heads;
  cut.d_k = request.d_model / heads;
  cut.problem = head_count_problem(request.d_model, heads);
  if (cut.problem.empty() && request.kv_heads > 0 && heads % request.kv_heads != 0) {
    cut.problem = base::format("num_heads {} is not a multiple of num_kv_heads {}", heads, request.kv_heads);
  }
  if (!cut.problem.empty()) return cut;
  cut.kv_width = cut.d_k * (request.kv_heads > 0 ? request.kv_heads : heads);
  const auto e = static_cast<double>(request.d_model);
  const auto kv = static_cast<double>(cut.kv_width);
  const auto h = static_cast<double>(heads);
  const auto t = static_cast<double>(request.tokens);
  const double rows = static_cast<double>(request.batch) * t;
  const auto size = static_cast<double>(size_of(dtype_named(request.dtype)));
  const double scores = rows * t * h;
  constexpr double kScoreSize = 4;    // scores and weights are F32 whatever the type
  constexpr double kSoftmaxFlop = 5;  // maximum, subtract, exp, sum, divide
  cut.steps = {{"projections", 2 * rows * e * (e + 2 * kv), size * (rows * e + e * (e + 2 * kv) + rows * (e + 2 * kv))},
               {"scores", 2 * rows * t * e, size * rows * (e + kv) + kScoreSize * scores},
               {"softmax", kSoftmaxFlop * scores, kScoreSize * 2 * scores},
               {"values", 2 * rows * t * e, kScoreSize * scores + size * rows * (e + kv)},
               {"output", 2 * rows * e * e, size * (rows * e + e * e + rows * e)}};
  cut.fused = {"scores to values, fused", cut.steps[1].flop + cut.steps[2].flop + cut.steps[3].flop,
               size * 2 * rows * (e + kv)};
  return cut;
}

const char* binding(const Step& step, const MachineRoofline& limits) {
  return step.intensity() < limits.ridge() ? "memory" : "fma";
}

namespace {

nlohmann::ordered_json to_json(const Step& step, const std::optional<MachineRoofline>& limits) {
  nlohmann::ordered_json json{
      {"step", step.name}, {"flop", step.flop}, {"bytes", step.bytes}, {"intensity", step.intensity()}};
  json["limit"] = limits ? nlohmann::ordered_json(binding(step, *limits)) : nlohmann::ordered_json();
  return json;
}

}  // namespace

nlohmann::ordered_json dims_json(const LayerSize& request, const std::vector<Cut>& cuts,
                                 const std::optional<MachineRoofline>& limits) {
  using Json = nlohmann::ordered_json;
  const std::int64_t e = request.d_model;
  Json json{{"d_model", e},           {"batch", request.batch},     {"tokens", request.tokens},
            {"dtype", request.dtype}, {"threads", request.threads}, {"limits", nullptr},
            {"heads", Json::array()}};
  if (limits) {
    json["limits"] = {{"isa", active_isa()}, {"fma_gflops", limits->fma}, {"memory_gbs", limits->memory}};
  }
  for (const Cut& cut : cuts) {
    Json entry{{"heads", cut.heads}, {"divides", cut.problem.empty()}};
    if (!cut.problem.empty()) {
      entry["problem"] = cut.problem;
      entry["floor_d_k"] = cut.d_k;
      entry["dropped"] = e - cut.heads * cut.d_k;
      json["heads"].push_back(std::move(entry));
      continue;
    }
    entry["d_k"] = cut.d_k;
    entry["shapes"] = {{"W_q", {e, e}},           {"W_k", {e, cut.kv_width}}, {"W_v", {e, cut.kv_width}},
                       {"W_o", {e, e}},           {"W_q_head", {e, cut.d_k}}, {"W_k_head", {e, cut.d_k}},
                       {"W_v_head", {e, cut.d_k}}};
    entry["parameters"] =
        static_cast<std::int64_t>(parameters(static_cast<double>(e), static_cast<double>(cut.kv_width)));
    for (const Step& step : cut.steps) entry["steps"].push_back(to_json(step, limits));
    entry["fused"] = to_json(cut.fused, limits);
    entry["seconds"] = cut.seconds ? Json(*cut.seconds) : Json();
    entry["over_single_head"] = cut.ratio ? Json(*cut.ratio) : Json();
    json["heads"].push_back(std::move(entry));
  }
  return json;
}

}  // namespace manyheads::view
