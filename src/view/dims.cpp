#include "view/dims.hpp"

#include <manyheads/cpu.hpp>
#include <manyheads/multi_head_attention.hpp>
#include <utility>

namespace manyheads::view {

DType dtype_named(const std::string& name) {
  return name == "bf16" ? DType::kBF16 : name == "f16" ? DType::kF16 : DType::kF32;
}

double parameters(double d_model) { return 4 * d_model * d_model + 4 * d_model; }

Cut make_cut(const LayerSize& request, std::int64_t heads) {
  Cut cut;
  cut.heads = heads;
  cut.d_k = request.d_model / heads;
  cut.problem = head_count_problem(request.d_model, heads);
  if (!cut.problem.empty()) return cut;
  const auto e = static_cast<double>(request.d_model);
  const auto h = static_cast<double>(heads);
  const auto t = static_cast<double>(request.tokens);
  const double rows = static_cast<double>(request.batch) * t;
  const auto size = static_cast<double>(size_of(dtype_named(request.dtype)));
  const double scores = rows * t * h;
  constexpr double kScoreSize = 4;    // scores and weights are F32 whatever the type
  constexpr double kSoftmaxFlop = 5;  // maximum, subtract, exp, sum, divide
  cut.steps = {{"projections", 2 * rows * e * 3 * e, size * (rows * e + 3 * e * e + 3 * rows * e)},
               {"scores", 2 * rows * t * e, size * 2 * rows * e + kScoreSize * scores},
               {"softmax", kSoftmaxFlop * scores, kScoreSize * 2 * scores},
               {"values", 2 * rows * t * e, kScoreSize * scores + size * 2 * rows * e},
               {"output", 2 * rows * e * e, size * (rows * e + e * e + rows * e)}};
  cut.fused = {"scores to values, fused", cut.steps[1].flop + cut.steps[2].flop + cut.steps[3].flop,
               size * 4 * rows * e};
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
    entry["shapes"] = {{"W_q", {e, e}},
                       {"W_k", {e, e}},
                       {"W_v", {e, e}},
                       {"W_o", {e, e}},
                       {"W_q_head", {e, cut.d_k}},
                       {"W_k_head", {e, cut.d_k}},
                       {"W_v_head", {e, cut.d_k}}};
    entry["parameters"] = static_cast<std::int64_t>(parameters(static_cast<double>(e)));
    for (const Step& step : cut.steps) entry["steps"].push_back(to_json(step, limits));
    entry["fused"] = to_json(cut.fused, limits);
    entry["seconds"] = cut.seconds ? Json(*cut.seconds) : Json();
    entry["over_single_head"] = cut.ratio ? Json(*cut.ratio) : Json();
    json["heads"].push_back(std::move(entry));
  }
  return json;
}

}  // namespace manyheads::view
