#include "lens/scan.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <manyheads/error.hpp>
#include <unordered_set>
#include <utility>

#include "base/format.hpp"
#include "base/index.hpp"
#include "base/parallel.hpp"
#include "kernels/dispatch.hpp"

namespace manyheads::lens {
namespace {

using base::at;

// Mixes all bits: the finalizer of SplitMix64 (Steele et al. 2014).
std::uint64_t mix(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

const float* data_of(const ConstTensorView& view) { return static_cast<const float*>(view.data()); }

}  // namespace

const std::vector<std::int64_t>& distance_edges() {
  static const std::vector<std::int64_t> edges = [] {
    constexpr std::int64_t kSingle = 256;
    std::vector<std::int64_t> out;
    for (std::int64_t edge = std::int64_t{1} << 40; edge > kSingle; edge /= 2) out.push_back(1 - edge);
    for (std::int64_t distance = 1 - kSingle; distance < kSingle; ++distance) out.push_back(distance);
    for (std::int64_t edge = kSingle; edge <= std::int64_t{1} << 40; edge *= 2) out.push_back(edge);
    return out;
  }();
  return edges;
}

Scan::Scan(const model::EncoderConfig& config, std::int64_t seed)
    : layers_(config.num_layers),
      num_heads_(config.num_heads),
      num_kv_heads_(config.num_kv_heads),
      head_dim_(config.head_dim),
      vocabulary_(config.vocab_size),
      seed_(seed),
      scores_(score_rules().size()),
      heads_(at(layers_ * num_heads_)),
      keys_(at(layers_ * num_kv_heads_), Moments(head_dim_)),
      counts_(at(vocabulary_)),
      kept_values_(at(kScanReservoir * layers_ * num_heads_) * scores_) {
  for (Head& head : heads_) {
    head.sketches.resize(scores_);
    head.top.resize(scores_);
    head.distance_mass.resize(distance_edges().size() - 1);
    head.given.resize(at(vocabulary_));
    head.received.resize(at(vocabulary_));
    head.queries = Moments(head_dim_);
  }
}

std::uint64_t Scan::priority_of(std::int64_t passage) const {
  return mix(mix(static_cast<std::uint64_t>(seed_)) ^ static_cast<std::uint64_t>(passage));
}

void Scan::add_top(std::vector<Example>& top, double value, std::int64_t passage) const {
  if (top.size() == at(kScanTop) && !(value > top.back().value)) return;
  if (top.size() == at(kScanTop)) top.pop_back();
  const auto place =
      std::find_if(top.begin(), top.end(), [value](const Example& other) { return value > other.value; });
  top.insert(place, {value, passage});
}

void Scan::read_head(std::size_t index, std::span<const BatchText> texts, std::span<const PassageReader> readers,
                     Memory& memory, double* values) {
  Head& head = heads_[index];
  const std::size_t layer = index / at(num_heads_);
  const auto number = static_cast<std::int64_t>(index % at(num_heads_));
  const std::int64_t group = num_heads_ / num_kv_heads_;
  const std::vector<std::int64_t>& edges = distance_edges();
  PassageReading& reading = memory.reading;
  const kernels::ScorePassKernels& pass = kernels::score_pass_kernels(kernels::active_table());
  memory.wide.resize(at(kernels::kProductRows * head_dim_));
  for (std::size_t p = 0; p < texts.size(); ++p, values += heads() * scores_) {
    const Trace& trace = texts[p].trace;
    readers[p].read(layer, number, memory.reader, reading);
    const std::int64_t passage = passages_ + static_cast<std::int64_t>(p);
    for (std::size_t s = 0; s < scores_; ++s) {
      const std::optional<double>& value = reading.scores[s].value;
      values[s] = value ? *value : std::numeric_limits<double>::quiet_NaN();
      if (!value) continue;
      if (!std::isfinite(*value)) {
        throw Error(ErrorCode::kInvalidArgument,
                    base::format("Scan::add: the score {} of head {}.{} in passage {} is {}", score_rules()[s].name,
                                 layer, number, passage, *value));
      }
      head.sketches[s].add(*value);
      add_top(head.top[s], *value, passage);
    }
    const std::int64_t n = trace.key_length;
    std::size_t bin = 0;
    for (std::int64_t distance = 1 - n; distance < n; ++distance) {
      while (edges[bin + 1] <= distance) ++bin;
      head.distance_mass[bin] += reading.distance_mass[at(distance + n - 1)];
    }
    const std::vector<bool>& text = readers[p].text_tokens();
    for (std::size_t t = 0; t < text.size(); ++t) {
      if (!text[t]) continue;
      const std::size_t id = at(trace.token_ids[t]);
      head.given[id] += reading.given[t];
      head.received[id] += reading.received[t];
    }
    const auto add_rows = [&](const ConstTensorView& rows, std::int64_t of, Moments& moments) {
      for (const Range& range : readers[p].text_ranges()) {
        pass.add_products(data_of(rows) + of * rows.stride(0) + range.begin * rows.stride(1), rows.stride(1),
                          range.size(), head_dim_, moments.sum.data(), moments.products.data(), memory.wide.data());
        moments.count += range.size();
      }
    };
    add_rows(trace.layers[layer].q, number, head.queries);
    if (number % group == 0) {
      add_rows(trace.layers[layer].k, number / group,
               keys_[layer * at(num_kv_heads_) + static_cast<std::size_t>(number / group)]);
    }
  }
}

void Scan::add(std::span<const BatchText> texts, std::span<const ScanPassage> passages, const Threads& threads) {
  if (texts.size() != passages.size()) {
    throw Error(ErrorCode::kInvalidArgument,
                base::format("Scan::add: {} texts and {} passages", texts.size(), passages.size()));
  }
  if (texts.empty()) return;
  std::vector<PassageReader> readers;
  for (const BatchText& text : texts) readers.emplace_back(text.trace);
  std::vector<double> values(texts.size() * heads() * scores_);
  const auto count = static_cast<std::int64_t>(heads());
  const int workers = base::worker_count(count, threads);
  if (memory_.size() < static_cast<std::size_t>(workers)) memory_.resize(static_cast<std::size_t>(workers));
  base::parallel_for(count, workers, threads.executor, [&](std::int64_t i, int worker) {
    read_head(at(i), texts, readers, memory_[static_cast<std::size_t>(worker)], values.data() + at(i) * scores_);
  });
  for (std::size_t p = 0; p < texts.size(); ++p) {
    const Trace& trace = texts[p].trace;
    for (std::size_t t = 0; t < trace.token_ids.size(); ++t) {
      if (readers[p].text_tokens()[t]) ++counts_[at(trace.token_ids[t])];
    }
    tokens_ += trace.key_length;
    ScanPassage passage = passages[p];
    passage.number = passages_;
    known_.emplace(passages_, std::move(passage));
    Kept kept{priority_of(passages_), passages_, reservoir_.size()};
    ++passages_;
    if (reservoir_.size() == at(kScanReservoir)) {
      if (!(kept < reservoir_.front())) continue;
      std::pop_heap(reservoir_.begin(), reservoir_.end());
      kept.row = reservoir_.back().row;
      reservoir_.pop_back();
    }
    std::copy_n(values.data() + p * heads() * scores_, heads() * scores_, kept_values_.data() + place_of(kept));
    reservoir_.push_back(kept);
    std::push_heap(reservoir_.begin(), reservoir_.end());
  }
  if (known_.size() >= forget_at_) forget_passages();
}

void Scan::forget_passages() {
  std::unordered_set<std::int64_t> needed;
  for (const Kept& kept : reservoir_) needed.insert(kept.passage);
  for (const Head& head : heads_) {
    for (const std::vector<Example>& top : head.top) {
      for (const Example& example : top) needed.insert(example.passage);
    }
  }
  std::erase_if(known_, [&](const auto& entry) { return needed.count(entry.first) == 0; });
  forget_at_ = known_.size() + 4096;
}

}  // namespace manyheads::lens
