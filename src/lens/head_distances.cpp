#include "lens/head_distances.hpp"

#include <algorithm>
#include <limits>
#include <manyheads/tensor.hpp>
#include <numeric>
#include <utility>

#include "base/math.hpp"
#include "base/parallel.hpp"
#include "lens/without_special.hpp"

namespace manyheads::lens {
namespace {

double entropy_of(double p) { return p > 0 ? -p * base::log(p) : 0; }

}  // namespace

void HeadDistances::add(const Trace& trace, const Threads& threads) {
  const std::int64_t n = trace.key_length, keys = trace.num_keys();
  std::vector<std::pair<std::size_t, std::int64_t>> places;
  for (std::size_t layer = 0; layer < trace.layers.size(); ++layer) {
    for (std::int64_t head = 0; head < trace.num_heads(layer); ++head) places.emplace_back(layer, head);
  }
  const auto count = static_cast<std::int64_t>(heads_);
  const int workers = base::worker_count(count, threads);
  const WithoutSpecial without(trace);
  std::vector<std::int64_t> kept = without.kept();
  if (!without_special_) {
    kept.resize(static_cast<std::size_t>(n));
    std::iota(kept.begin(), kept.end(), 0);
  }
  const auto width = static_cast<std::int64_t>(kept.size()), step = (width + kMostRows - 1) / kMostRows;
  Tensor rows(DType::kF32, Dims{count, keys});
  std::vector<double> entropies(heads_);
  for (std::int64_t place = 0; place < width; place += step) {
    const std::int64_t q = kept[static_cast<std::size_t>(place)];
    base::parallel_for(count, workers, threads.executor, [&](std::int64_t i, int) {
      const auto at = static_cast<std::size_t>(i);
      float* const row = rows.as<float>() + i * keys;
      trace_rows(trace, places[at].first, places[at].second, q, TensorView(row, Dims{1, keys}), {.num_threads = 1});
      if (without_special_) {
        std::vector<float> renormalised;
        without.renormalise(q, row, renormalised);
        std::copy(renormalised.begin(), renormalised.end(), row);
      }
      entropies[at] = 0;
      for (std::int64_t k = 0; k < width; ++k) entropies[at] += entropy_of(static_cast<double>(row[k]));
    });
    // One worker has all pairs of a head: its sums run over queries in order.
    base::parallel_for(count, workers, threads.executor, [&](std::int64_t i, int) {
      const auto a = static_cast<std::size_t>(i);
      const float* const row = rows.as<float>() + i * keys;
      for (std::size_t b = a + 1; b < heads_; ++b) {
        const float* const other = rows.as<float>() + static_cast<std::int64_t>(b) * keys;
        double entropy = 0;
        for (std::int64_t k = 0; k < width; ++k) {
          entropy += entropy_of((static_cast<double>(row[k]) + static_cast<double>(other[k])) / 2);
        }
        sums_[a * heads_ + b] += std::max(0.0, entropy - (entropies[a] + entropies[b]) / 2);
      }
    });
    ++rows_;
  }
}

std::vector<double> HeadDistances::mean() const {
  std::vector<double> result(sums_.size());
  for (std::size_t a = 0; a < heads_ && rows_ > 0; ++a) {
    for (std::size_t b = a + 1; b < heads_; ++b) {
      result[a * heads_ + b] = result[b * heads_ + a] = sums_[a * heads_ + b] / static_cast<double>(rows_);
    }
  }
  return result;
}

std::vector<HeadCluster> cluster_heads(const std::vector<double>& distances, std::size_t heads, std::size_t clusters) {
  // A cluster stands at the place of its first head.
  std::vector<std::vector<std::size_t>> members(heads);
  for (std::size_t h = 0; h < heads; ++h) members[h] = {h};
  std::vector<double> between = distances;
  for (std::size_t left = heads; left > clusters; --left) {
    double nearest = std::numeric_limits<double>::infinity();
    std::size_t a = 0, b = 0;
    for (std::size_t i = 0; i < heads; ++i) {
      for (std::size_t j = i + 1; j < heads && !members[i].empty(); ++j) {
        if (members[j].empty() || !(between[i * heads + j] < nearest)) continue;
        nearest = between[i * heads + j];
        a = i;
        b = j;
      }
    }
    const double of_a = static_cast<double>(members[a].size()), of_b = static_cast<double>(members[b].size());
    for (std::size_t i = 0; i < heads; ++i) {
      const double mean = (of_a * between[a * heads + i] + of_b * between[b * heads + i]) / (of_a + of_b);
      between[a * heads + i] = between[i * heads + a] = mean;
    }
    members[a].insert(members[a].end(), members[b].begin(), members[b].end());
    members[b].clear();
  }
  std::vector<HeadCluster> result;
  for (std::vector<std::size_t>& own : members) {
    if (own.empty()) continue;
    std::sort(own.begin(), own.end());
    double sum = 0, pairs = 0;
    for (std::size_t i = 0; i < own.size(); ++i) {
      for (std::size_t j = i + 1; j < own.size(); ++j, ++pairs) sum += distances[own[i] * heads + own[j]];
    }
    result.push_back({std::move(own), pairs > 0 ? sum / pairs : 0});
  }
  return result;
}

}  // namespace manyheads::lens
