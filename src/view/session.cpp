#include "view/session.hpp"

#include <algorithm>
#include <iterator>
#include <manyheads/cpu.hpp>
#include <manyheads/error.hpp>
#include <manyheads/version.hpp>
#include <utility>

#include "base/file.hpp"
#include "base/format.hpp"
#include "io/safetensors_bytes.hpp"
#include "view/memory_file.hpp"
#include "view/state.hpp"

namespace manyheads::view {
namespace {

struct Named {
  const char* name;
  Answer (*answer)(const Question&);
};
// The most that a weight is off.
constexpr double kMaxError = 1e-5;

constexpr Named kQuestions[] = {
    {"about", ask_about},
    {"trace", ask_trace},
    {"patch", ask_patch},
    {"map", ask_map},
    {"thumbnails", ask_thumbnails},
    {"mean", ask_mean},
    {"rollout", ask_rollout},
    {"clusters", ask_clusters},
    {"scan", ask_scan},
    {"close", ask_close},
    {"heads", ask_heads},
    {"links", ask_links},
    {"row", ask_row},
    {"why", ask_why},
    {"head_output", ask_head_output},
    {"encode", ask_encode},
    {"pipeline", ask_pipeline},
    {"layer", ask_layer},
    {"dims", ask_dims},
    {"limits", ask_limits},
    {"time", ask_time},
};

}  // namespace

Session::Session(std::string computes, const Threads& threads) : state_(std::make_unique<State>()) {
  state_->computes = std::move(computes);
  state_->threads = threads;
}
Session::~Session() = default;

std::int64_t Session::open_trace(std::string bytes) {
  const std::string name = base::format("trace {}", state_->last_id + 1);
  return open_trace(lens::read_trace(io::read_safetensors(memory_file(std::move(bytes)), name)));
}

std::int64_t Session::open_trace(lens::Trace trace) {
  state_->traces.emplace(state_->last_id + 1, OpenTrace{std::move(trace)});
  return ++state_->last_id;
}

std::int64_t Session::open_model(Model model) {
  if (model.encoder == nullptr) throw Error(ErrorCode::kInvalidArgument, "open_model: the model has no encoder");
  state_->models.emplace(state_->last_id + 1, std::move(model));
  return ++state_->last_id;
}

std::int64_t Session::open_tensors(std::string bytes) {
  const std::string name = base::format("tensors {}", state_->last_id + 1);
  SafetensorsFile file = io::read_safetensors(memory_file(std::move(bytes)), name);
  for (const auto& [tensor, dtype] : file.unsupported) {
    throw Error(ErrorCode::kUnsupported, base::format("{} in {} is of type {}", base::in_quotes(tensor), name, dtype));
  }
  state_->tensors.emplace(state_->last_id + 1, std::move(file.tensors));
  return ++state_->last_id;
}

void Session::close(std::int64_t id) {
  State& state = *state_;
  if (state.traces.erase(id) + state.models.erase(id) + state.scans.erase(id) + state.tensors.erase(id) == 0) {
    throw Error(ErrorCode::kInvalidArgument, base::format("close: nothing is open as {}", id));
  }
}

Answer Session::ask(std::string_view text, const Progress& progress) {
  constexpr int kMostDepth = 8;
  io::JsonDocument json = io::parse_json(text, "ask", kMostDepth);
  const std::string name = require_string(json, "ask");
  std::string names;
  for (const Named& known : kQuestions) {
    if (name == known.name) {
      json.place = "ask " + base::in_quotes(name);
      return known.answer(Question(std::move(json), *state_, progress));
    }
    names += (names.empty() ? "" : ", ") + std::string(known.name);
  }
  refuse_json(json, "ask", "one of " + names);
}

Answer ask_about(const Question& question) {
  using Json = nlohmann::ordered_json;
  Json traces = Json::array(), models = Json::array(), scans = Json::array();
  for (const auto& [id, open] : question.state().traces) {
    traces.push_back({{"id", id}, {"model", open.trace.model}, {"text", open.trace.text}});
  }
  for (const auto& [id, model] : question.state().models) {
    const model::EncoderConfig& config = model.encoder->config();
    models.push_back({{"id", id},
                      {"name", model.name},
                      {"layers", config.num_layers},
                      {"heads", config.num_heads},
                      {"kv_heads", config.num_kv_heads},
                      {"d_model", config.hidden_size},
                      {"max_tokens", config.max_position_embeddings}});
  }
  for (const auto& [id, open] : question.state().scans) scans.push_back({{"id", id}, {"model", open.scan.model}});
  return json_answer({{"computes", question.state().computes},
                      {"isa", active_isa()},
                      {"version", version()},
                      {"max_error", kMaxError},
                      {"traces", traces},
                      {"models", models},
                      {"scans", scans}});
}

}  // namespace manyheads::view
