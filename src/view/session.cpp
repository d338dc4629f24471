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

// What takes long reads a head's every weight, runs a model or measures.
using TakesLong = bool (*)(const io::JsonDocument& question);
bool never(const io::JsonDocument&) { return false; }
bool always(const io::JsonDocument&) { return true; }
bool large_patch(const io::JsonDocument& question) {
  constexpr double kManyWeights = 1 << 24;  // a tenth of a second or more
  const auto size = [&](const char* key) {
    if (!has(question, key)) return kManyWeights;  // the whole
    const nlohmann::json& ends = question.value.at(key);
    return ends.at(1).get<double>() - ends.at(0).get<double>();
  };
  return size("rows") * size("keys") >= kManyWeights;
}

struct Named {
  const char* name;
  Answer (*answer)(const Question&);
  TakesLong takes_long = never;
};
// The most that a weight is off.
constexpr double kMaxError = 1e-5;
constexpr int kMostDepth = 8;  // of a question

constexpr Named kQuestions[] = {
    {"about", ask_about},
    {"trace", ask_trace},
    {"patch", ask_patch, large_patch},
    {"map", ask_map, always},
    {"thumbnails", ask_thumbnails, always},
    {"mean", ask_mean, always},
    {"rollout", ask_rollout, always},
    {"clusters", ask_clusters, always},
    {"scan", ask_scan, always},
    {"close", ask_close},
    {"heads", ask_heads, always},
    {"links", ask_links, always},
    {"row", ask_row},
    {"why", ask_why},
    {"head_output", ask_head_output},
    {"encode", ask_encode, always},
    {"pipeline", ask_pipeline, always},
    {"layer", ask_layer, always},
    {"dims", ask_dims},
    {"limits", ask_limits, always},
    {"time", ask_time, always},
};

}  // namespace

Session::Session(std::string computes, const Threads& threads) : state_(std::make_unique<State>()) {
  state_->computes = std::move(computes);
  state_->threads = threads;
}
Session::~Session() = default;

// What messages call that which is opened next.
std::string Session::name_of_next(const char* kind) {
  const base::Lock::Guard guard(state_->lock);
  return base::format("{} {}", kind, state_->last_id + 1);
}

std::int64_t Session::open_trace(std::string bytes) {
  return open_trace(lens::read_trace(io::read_safetensors(memory_file(std::move(bytes)), name_of_next("trace"))));
}

std::int64_t Session::open_trace(lens::Trace trace) {
  return state_->open(state_->traces, OpenTrace{std::move(trace)});
}

std::int64_t Session::open_model(Model model) {
  if (model.encoder == nullptr) throw Error(ErrorCode::kInvalidArgument, "open_model: the model has no encoder");
  return state_->open(state_->models, std::move(model));
}

std::int64_t Session::open_tensors(std::string bytes) {
  const std::string name = name_of_next("tensors");
  SafetensorsFile file = io::read_safetensors(memory_file(std::move(bytes)), name);
  for (const auto& [tensor, dtype] : file.unsupported) {
    throw Error(ErrorCode::kUnsupported, base::format("{} in {} is of type {}", base::in_quotes(tensor), name, dtype));
  }
  return state_->open(state_->tensors, std::move(file.tensors));
}

void Session::close(std::int64_t id) {
  State& state = *state_;
  if (!state.close(state.traces, id) && !state.close(state.models, id) && !state.close(state.scans, id) &&
      !state.close(state.tensors, id)) {
    throw Error(ErrorCode::kInvalidArgument, base::format("close: nothing is open as {}", id));
  }
}

bool Session::takes_long(std::string_view text) {
  const io::JsonDocument json = io::parse_json(text, "ask", kMostDepth);
  const std::string name = require_string(json, "ask");
  return std::any_of(std::begin(kQuestions), std::end(kQuestions),
                     [&](const Named& known) { return name == known.name && known.takes_long(json); });
}

Answer Session::ask(std::string_view text, const Progress& progress) {
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
  Session::State& state = question.state();
  const auto copy_of = [&](const auto& kind) {
    const base::Lock::Guard guard(state.lock);
    return kind;
  };
  for (const auto& [id, open] : copy_of(state.traces)) {
    traces.push_back({{"id", id}, {"model", open->trace.model}, {"text", open->trace.text}});
  }
  for (const auto& [id, model] : copy_of(state.models)) {
    const model::EncoderConfig& config = model->encoder->config();
    models.push_back({{"id", id},
                      {"name", model->name},
                      {"layers", config.num_layers},
                      {"heads", config.num_heads},
                      {"kv_heads", config.num_kv_heads},
                      {"d_model", config.hidden_size},
                      {"max_tokens", config.max_position_embeddings}});
  }
  for (const auto& [id, open] : copy_of(state.scans)) scans.push_back({{"id", id}, {"model", open->scan.model}});
  return json_answer({{"computes", state.computes},
                      {"isa", active_isa()},
                      {"version", version()},
                      {"max_error", kMaxError},
                      {"traces", traces},
                      {"models", models},
                      {"scans", scans}});
}

}  // namespace manyheads::view
