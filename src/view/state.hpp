#pragma once

#include <cstdint>
#include <manyheads/lens/patch.hpp>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "io/json.hpp"
#include "view/dims.hpp"
#include "view/session.hpp"

// What the answers to a page's questions share.
namespace manyheads::view {

struct OpenTrace {
  lens::Trace trace;
  std::vector<std::int64_t> type_ids{};                                // of an encoding with a second text
  Tensor head_scale{};                                                 // that it was encoded with, or undefined
  std::map<std::pair<std::int64_t, std::int64_t>, Tensor> row_sums{};  // of (layer, head), [Tq] F32: 0 is not known yet

  Tensor& sums_of(std::int64_t layer, std::int64_t head);
};

struct OpenScan {
  lens::ScanFile scan;
  lens::PassageText text_of;
};

struct Session::State {
  std::string computes;
  Threads threads;
  std::int64_t last_id = 0;
  std::map<std::int64_t, OpenTrace> traces;
  std::map<std::int64_t, Model> models;
  std::map<std::int64_t, OpenScan> scans;
  std::map<std::int64_t, StateDict> tensors;
  std::optional<MachineRoofline> limits;  // once they are measured
};

// A question's arguments, each checked as it is taken.
class Question {
 public:
  Question(io::JsonDocument json, Session::State& state, const Progress& progress)
      : json_(std::move(json)), state_(state), progress_(progress) {}

  const io::JsonDocument& json() const { return json_; }
  Session::State& state() const { return state_; }
  const Threads& threads() const { return state_.threads; }
  const Progress& progress() const { return progress_; }

  OpenTrace& trace() const;
  const Model& model() const;
  // Opens what the answer made, and gives its number.
  std::int64_t open(OpenTrace trace) const;
  std::int64_t layer(const lens::Trace& trace) const;
  std::int64_t head(const lens::Trace& trace, std::int64_t layer) const;
  std::int64_t query(const lens::Trace& trace) const;            // "row"
  lens::Range range(const char* key, std::int64_t count) const;  // [begin, end]; all where it is not given
  lens::Pool pool() const;
  std::int64_t size(std::int64_t usual, std::int64_t most) const;
  [[noreturn]] void refuse(const std::string& what) const;

 private:
  io::JsonDocument json_;
  Session::State& state_;
  const Progress& progress_;
};

// Items of a list of numbers, each from 0 to limits[i] - 1: [[1, 8], ...] is such a list.
std::vector<std::int64_t> numbers(const io::JsonDocument& list, const std::vector<std::int64_t>& limits);

Answer json_answer(const nlohmann::ordered_json& json);
Answer tensors_answer(const StateDict& tensors, const std::map<std::string, std::string>& metadata);
Answer cancelled();

// Each answers one question.
Answer ask_about(const Question& question);
Answer ask_trace(const Question& question);
Answer ask_patch(const Question& question);
Answer ask_map(const Question& question);
Answer ask_thumbnails(const Question& question);
Answer ask_mean(const Question& question);
Answer ask_rollout(const Question& question);
Answer ask_clusters(const Question& question);
Answer ask_scan(const Question& question);
Answer ask_close(const Question& question);
Answer ask_heads(const Question& question);
Answer ask_links(const Question& question);
Answer ask_row(const Question& question);
Answer ask_why(const Question& question);
Answer ask_head_output(const Question& question);
Answer ask_encode(const Question& question);
Answer ask_pipeline(const Question& question);
Answer ask_layer(const Question& question);
Answer ask_dims(const Question& question);
Answer ask_limits(const Question& question);
Answer ask_time(const Question& question);

}  // namespace manyheads::view
