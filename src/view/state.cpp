#include "view/state.hpp"

#include <algorithm>
#include <manyheads/error.hpp>

#include "base/format.hpp"
#include "io/safetensors_bytes.hpp"

namespace manyheads::view {

Tensor KnownSums::of(std::int64_t layer, std::int64_t head, std::int64_t rows) {
  Tensor sums(DType::kF32, {rows});
  std::fill_n(sums.as<float>(), rows, 0.0f);
  const base::Lock::Guard guard(lock_);
  const auto found = sums_.find({layer, head});
  if (found != sums_.end()) std::copy(found->second.begin(), found->second.end(), sums.as<float>());
  return sums;
}

void KnownSums::add(std::int64_t layer, std::int64_t head, std::span<const float> sums) {
  std::vector<float> fresh(sums.begin(), sums.end());
  const base::Lock::Guard guard(lock_);
  std::vector<float>& known = sums_.try_emplace({layer, head}, std::move(fresh)).first->second;
  for (std::size_t i = 0; i < sums.size(); ++i) {
    if (sums[i] != 0.0f) known[i] = sums[i];
  }
}

template <class T>
const T& Question::named(const Opened<T>& kind, const char* key, const char* what) const {
  const std::shared_ptr<const T> found = state_.find(kind, require_int(json_, key));
  if (found == nullptr) refuse_json(json_, key, what);
  held_.push_back(found);
  return *found;
}

const OpenTrace& Question::trace() const { return named(state_.traces, "trace", "the number of an open trace"); }
const Model& Question::model() const { return named(state_.models, "model", "the number of an open model"); }
const OpenScan& Question::scan() const { return named(state_.scans, "scan", "the number of an open scan"); }
const StateDict& Question::tensors(const char* key) const {
  return named(state_.tensors, key, "the number of open tensors");
}

std::int64_t Question::open(OpenTrace trace) const { return state_.open(state_.traces, std::move(trace)); }

std::int64_t Question::layer(const lens::Trace& trace) const {
  if (trace.layers.empty()) refuse("the trace has no layers");
  return require_int(json_, "layer", 0, static_cast<std::int64_t>(trace.layers.size()) - 1);
}

std::int64_t Question::head(const lens::Trace& trace, std::int64_t layer) const {
  return require_int(json_, "head", 0, trace.num_heads(static_cast<std::size_t>(layer)) - 1);
}

std::int64_t Question::query(const lens::Trace& trace) const {
  return require_int(json_, "row", 0, trace.num_queries() - 1);
}

lens::Range Question::range(const char* key, std::int64_t count) const {
  if (!has(json_, key)) return {0, count};
  const std::vector<io::JsonDocument> ends = require_array(json_, key);
  const auto end = [&](std::size_t i) {
    return ends[i].value.is_number_integer() ? io::require_int({{{"at", ends[i].value}}, ends[i].place}, "at", 0, count)
                                             : -1;
  };
  const lens::Range range = ends.size() == 2 ? lens::Range{end(0), end(1)} : lens::Range{-1, -1};
  if (range.begin < 0 || range.begin >= range.end) {
    refuse_json(json_, key, base::format("[begin, end], a part of [0, {}],", count));
  }
  return range;
}

lens::Pool Question::pool() const {
  if (!has(json_, "pool")) return lens::Pool::kMean;
  const std::string name = require_string(json_, "pool");
  if (name != "mean" && name != "max") refuse_json(json_, "pool", "mean or max");
  return name == "max" ? lens::Pool::kMax : lens::Pool::kMean;
}

std::int64_t Question::size(std::int64_t usual, std::int64_t most) const {
  return has(json_, "size") ? require_int(json_, "size", 1, most) : usual;
}

void Question::refuse(const std::string& what) const {
  throw Error(ErrorCode::kInvalidArgument, json_.place + ": " + what);
}

std::vector<std::int64_t> numbers(const io::JsonDocument& list, const std::vector<std::int64_t>& limits) {
  const io::JsonDocument object{{{"list", list.value}}, list.place};
  const std::vector<io::JsonDocument> items = require_array(object, "list");
  std::vector<std::int64_t> found;
  if (items.size() != limits.size()) refuse_json(object, "list", base::format("a list of {} numbers", limits.size()));
  for (std::size_t i = 0; i < items.size(); ++i) {
    found.push_back(io::require_int({{{"item", items[i].value}}, items[i].place}, "item", 0, limits[i] - 1));
  }
  return found;
}

Answer json_answer(const nlohmann::ordered_json& json) { return {Answer::Kind::kJson, json.dump()}; }

Answer tensors_answer(const StateDict& tensors, const std::map<std::string, std::string>& metadata) {
  return {Answer::Kind::kSafetensors, io::safetensors_bytes(tensors, metadata)};
}

Answer cancelled() { return json_answer({{"cancelled", true}}); }

}  // namespace manyheads::view
