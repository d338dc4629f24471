#pragma once

#include <cstdint>
#include <manyheads/lens/patch.hpp>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/lock.hpp"
#include "io/json.hpp"
#include "view/dims.hpp"
#include "view/session.hpp"

// What the answers to a page's questions share.
namespace manyheads::view {

// What patches of a trace have found of its rows' sums. Two questions at once may know different ones of a head.
class KnownSums {
 public:
  // [rows] F32 of a head: 0 is not known yet. A copy.
  Tensor of(std::int64_t layer, std::int64_t head, std::int64_t rows);
  // Takes over those that are known.
  void add(std::int64_t layer, std::int64_t head, std::span<const float> sums);

 private:
  base::Lock lock_;
  std::map<std::pair<std::int64_t, std::int64_t>, std::vector<float>> sums_;
};

struct OpenTrace {
  lens::Trace trace;
  std::vector<std::int64_t> type_ids{};  // of an encoding with a second text
  Tensor head_scale{};                   // that it was encoded with, or undefined
  std::unique_ptr<KnownSums> sums = std::make_unique<KnownSums>();
};

struct OpenScan {
  lens::ScanFile scan;
  lens::PassageText text_of;
};

// What is open, of one kind. What a question works on stays until it has its answer, though another closes it.
template <class T>
using Opened = std::map<std::int64_t, std::shared_ptr<const T>>;

struct Session::State {
  std::string computes;
  Threads threads;

  base::Lock lock;  // of all below
  std::int64_t last_id = 0;
  Opened<OpenTrace> traces;
  Opened<Model> models;
  Opened<OpenScan> scans;
  Opened<StateDict> tensors;
  std::optional<MachineRoofline> limits;  // once they are measured

  template <class T>
  std::int64_t open(Opened<T>& kind, T opened) {
    auto shared = std::make_shared<const T>(std::move(opened));
    const base::Lock::Guard guard(lock);
    kind.emplace(last_id + 1, std::move(shared));
    return ++last_id;
  }
  // Null where there is none.
  template <class T>
  std::shared_ptr<const T> find(const Opened<T>& kind, std::int64_t id) {
    const base::Lock::Guard guard(lock);
    const auto found = kind.find(id);
    return found == kind.end() ? nullptr : found->second;
  }
  // Whether it was there.
  template <class T>
  bool close(Opened<T>& kind, std::int64_t id) {
    typename Opened<T>::node_type closed;  // freed behind the lock
    const base::Lock::Guard guard(lock);
    closed = kind.extract(id);
    return !closed.empty();
  }
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

  // What it names stays while the question does.
  const OpenTrace& trace() const;
  const Model& model() const;
  const OpenScan& scan() const;
  const StateDict& tensors(const char* key) const;
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
  template <class T>
  const T& named(const Opened<T>& kind, const char* key, const char* what) const;

  io::JsonDocument json_;
  Session::State& state_;
  const Progress& progress_;
  mutable std::vector<std::shared_ptr<const void>> held_;
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
