#include "lens/passage_reader.hpp"

#include <algorithm>
#include <cmath>
#include <manyheads/error.hpp>
#include <unordered_map>

#include "base/format.hpp"
#include "base/index.hpp"
#include "base/math.hpp"
#include "kernels/canonical_order.hpp"
#include "kernels/dispatch.hpp"
#include "lens/each_row.hpp"
#include "lens/head_rows.hpp"
#include "lens/head_scorer.hpp"

namespace manyheads::lens {
namespace {

using kernels::kPassRows;
using kernels::kRunKeys;

// How far a row's sum of exp(score - lse) may be from 1. Each row is divided by it.
constexpr double kFarthest = 0x1p40;

using base::at;

void grow(base::AlignedBuffer<float>& buffer, std::size_t size) {
  if (buffer.size() >= size) return;
  buffer = base::AlignedBuffer<float>(size);
  std::fill_n(buffer.data(), size, 0.0f);
}

// In four sums, which do not wait for each other.
double sum_of(const float* values, std::int64_t count) {
  double sums[4] = {};
  for (std::int64_t i = 0; i < count; ++i) sums[i % 4] += static_cast<double>(values[i]);
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

}  // namespace

struct PassageReader::Sums {
  Mean self, previous, next, first, separator, punctuation, entropy, confidence, distance, variance;
  double previous_token = 0, duplicate_token = 0, induction = 0;  // the weights on each pattern
  std::size_t duplicate = 0;                                      // of duplicates_ that were read
};

PassageReader::PassageReader(const Trace& trace)
    : trace_(trace),
      pass_(kernels::score_pass_kernels(kernels::active_table())),
      kinds_(token_kinds(trace)),
      n_(static_cast<std::int64_t>(kinds_.ids.size())),
      left_out_(std::make_unique<bool[]>(kinds_.ids.size())) {
  if (trace.num_queries() != trace.num_keys() || n_ != trace.num_keys()) {
    throw Error(ErrorCode::kInvalidArgument,
                base::format("PassageReader: trace has {} queries, {} keys and {} tokens; scores need a text that attends "
                             "to itself",
                             trace.num_queries(), trace.num_keys(), n_));
  }
  std::unordered_map<std::int64_t, std::vector<std::int64_t>> places;
  for (std::int64_t t = 0; t < n_; ++t) {
    const bool text = trace.words.empty() || trace.words[at(t)] >= 0;
    text_.push_back(text);
    if (!text) {
      special_.push_back(t);
    } else if (text_ranges_.empty() || text_ranges_.back().end != t) {
      text_ranges_.push_back({t, t + 1});
    } else {
      text_ranges_.back().end = t + 1;
    }
    if (kinds_.separator[at(t)]) separators_.push_back(t);
    if (kinds_.punctuation[at(t)]) punctuation_.push_back(t);
    left_out_[at(t)] = kinds_.separator[at(t)];
    std::vector<std::int64_t>& earlier = places[kinds_.ids[at(t)]];
    for (const std::int64_t k : earlier) duplicates_.emplace_back(t, k);
    earlier.push_back(t);
  }
}

void PassageReader::read_block(const kernels::HeadPassParams& params, std::int64_t first, std::int64_t rows,
                               std::size_t layer, std::int64_t head, Memory& memory, Sums& sums,
                               PassageReading& reading) const {
  const std::int64_t runs = kernels::runs_of(n_);
  double sum[kPassRows], entropy[kPassRows], distance[kPassRows], variance[kPassRows];
  float largest[kPassRows], largest_key[kPassRows];
  float* const tiles = memory.tiles.data();
  pass_.run(params, first, rows, left_out_.get(),
            {tiles, sum, entropy, distance, variance, largest, largest_key, memory.columns.data(),
             memory.distances.data()},
            memory.workspace.data());
  const auto weight = [tiles](std::int64_t r, std::int64_t k) {
    return static_cast<double>(kernels::score_weights(tiles, k)[r]);
  };
  const auto mass_on = [&](std::int64_t r, const std::vector<std::int64_t>& places) {
    double mass = 0;
    for (const std::int64_t k : places) mass += weight(r, k);
    return mass;
  };
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::int64_t q = first + r;
    if (!(sum[r] > 1 / kFarthest && sum[r] < kFarthest)) {
      throw Error(ErrorCode::kInvalidArgument,
                  base::format("PassageReader: lse of layer {}, head {}, row {} is {:.9g}; the row's weights add up to {:.9g}",
                               layer, head, q, lse_of(trace_, layer, head, q), sum[r]));
    }
    const double self = weight(r, q);
    sums.self.add(self);
    if (q > 0) {
      sums.previous.add(weight(r, q - 1));
      sums.previous_token += weight(r, q - 1);
    }
    if (q + 1 < n_) sums.next.add(weight(r, q + 1));
    sums.first.add(weight(r, 0));
    if (!separators_.empty()) sums.separator.add(mass_on(r, separators_));
    if (!punctuation_.empty()) sums.punctuation.add(mass_on(r, punctuation_));
    sums.entropy.add(entropy[r]);
    sums.distance.add(distance[r]);
    sums.variance.add(variance[r]);
    for (; sums.duplicate < duplicates_.size() && duplicates_[sums.duplicate].first == q; ++sums.duplicate) {
      const std::int64_t k = duplicates_[sums.duplicate].second;
      sums.duplicate_token += weight(r, k);
      sums.induction += weight(r, k + 1);
    }
    if (!left_out_[at(q)]) {
      sums.confidence.add(static_cast<double>(largest[r]));
      ++memory.hits[at(static_cast<std::int64_t>(largest_key[r]) - q + n_ - 1)];
    }
    if (text_[at(q)]) {
      // Each row adds up to 1.
      reading.given[at(q)] = std::max(0.0, 1 - self - mass_on(r, special_));
      reading.received[at(q)] -= self;
    } else {
      for (std::int64_t k = 0; k < n_; ++k) reading.received[at(k)] -= weight(r, k);
    }
  }
  for (std::int64_t k = 0; k < n_; ++k) {
    const auto column = static_cast<double>(memory.columns[at(k)]);
    reading.received[at(k)] += column;
    if (k <= first) {
      memory.from_itself[at(k)] += column;
      continue;
    }
    if (k < first + rows) memory.from_itself[at(k)] += sum_of(kernels::score_weights(tiles, k) + (k - first), rows - (k - first));
  }
  // Place a of the block is row - key = first + a - runs 64; place 0 of all is row - key = 1 - n.
  for (std::int64_t a = 0; a < (runs + 1) * kRunKeys; ++a) {
    const std::int64_t place = first + a - runs * kRunKeys + n_ - 1;
    if (place >= 0 && place < 2 * n_ - 1) reading.distance_mass[at(place)] += static_cast<double>(memory.distances[at(a)]);
  }
}

void PassageReader::put_scores(std::size_t layer, std::int64_t head, const Sums& sums, const Memory& memory,
                               PassageReading& reading) const {
  const auto n = static_cast<double>(n_);
  // sum|A - P| is sum A + sum P - 2 sum(A P), for no weight exceeds 1.
  const auto mul = [n](double on_pattern) { return Score{on_pattern / n, {}}; };
  const auto abs = [n](double on_pattern, std::int64_t places) {
    return Score{1 - (n + static_cast<double>(places) - 2 * on_pattern) / n, {}};
  };
  const auto pairs = static_cast<std::int64_t>(duplicates_.size());
  reading.scores.clear();
  bool all = true;
  for (const ScoreRule& rule : score_rules()) {
    Score& score = reading.scores.emplace_back();
    switch (rule.id) {
      case ScoreId::kSelf: score.value = sums.self.value(); break;
      case ScoreId::kPrevious: score.value = sums.previous.value(); break;
      case ScoreId::kNext: score.value = sums.next.value(); break;
      case ScoreId::kFirst: score.value = sums.first.value(); break;
      case ScoreId::kSeparator: score.value = sums.separator.value(); break;
      case ScoreId::kPunctuation: score.value = sums.punctuation.value(); break;
      case ScoreId::kEntropy: score.value = sums.entropy.value(); break;
      case ScoreId::kDuplicateTokenMul: score = mul(sums.duplicate_token); break;
      case ScoreId::kDuplicateTokenAbs: score = abs(sums.duplicate_token, pairs); break;
      case ScoreId::kConfidence: score.value = sums.confidence.value(); break;
      case ScoreId::kPositional:
        if (sums.confidence.value()) score = positional_score(kinds_, memory.hits);
        break;
      case ScoreId::kSink: score = sink_score(memory.from_itself); break;
      case ScoreId::kPreviousTokenMul: score = mul(sums.previous_token); break;
      case ScoreId::kPreviousTokenAbs: score = abs(sums.previous_token, n_ - 1); break;
      case ScoreId::kInductionMul: score = mul(sums.induction); break;
      case ScoreId::kInductionAbs: score = abs(sums.induction, pairs); break;
      case ScoreId::kDistance: score.value = sums.distance.value(); break;
      case ScoreId::kDistanceVariance: score.value = sums.variance.value(); break;
      default: all = false;
    }
  }
  if (all) return;
  // A score that is not read in blocks.
  HeadScorer scorer(kinds_);
  for_each_row(trace_, layer, head, [&](const float* row) { scorer.add(row); });
  reading.scores = scorer.finish().scores;
}

void PassageReader::read(std::size_t layer, std::int64_t head, Memory& memory, PassageReading& reading) const {
  reading.distance_mass.assign(n_ == 0 ? 0 : at(2 * n_ - 1), 0);
  reading.given.assign(at(n_), 0);
  reading.received.assign(at(n_), 0);
  reading.scores.assign(score_rules().size(), {});
  if (n_ == 0) return;
  kernels::HeadPassParams params = head_pass_params(trace_, layer, head, {0, n_}, {0, n_});
  const std::int64_t runs = kernels::runs_of(n_);
  grow(memory.tiles, at(runs * kernels::kScoreTile));
  grow(memory.workspace, pass_.workspace_floats(params));
  memory.columns.resize(at(runs * kRunKeys));
  memory.distances.resize(at((runs + 1) * kRunKeys));
  memory.from_itself.assign(at(n_), 0);
  memory.hits.assign(at(2 * n_ - 1), 0);
  memory.shifts.resize(at(n_));
  for (std::int64_t i = 0; i < n_; ++i) {
    memory.shifts[at(i)] = static_cast<float>(static_cast<double>(lse_of(trace_, layer, head, i)) * base::kLog2e);
  }
  params.shift = memory.shifts.data();
  Sums sums;
  for (std::int64_t first = 0; first < n_; first += kPassRows) {
    read_block(params, first, std::min(kPassRows, n_ - first), layer, head, memory, sums, reading);
  }
  for (const std::int64_t t : special_) reading.received[at(t)] = 0;
  for (double& mass : reading.received) mass = std::max(0.0, mass);
  put_scores(layer, head, sums, memory, reading);
}

}  // namespace manyheads::lens
