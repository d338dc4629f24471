#include <algorithm>
#include <atomic>
#include <cmath>
#include <manyheads/error.hpp>
#include <manyheads/lens/head_map.hpp>
#include <utility>

#include "base/aligned_buffer.hpp"
#include "base/format.hpp"
#include "base/index.hpp"
#include "base/lock.hpp"
#include "base/math.hpp"
#include "base/parallel.hpp"
#include "kernels/canonical_order.hpp"
#include "kernels/dispatch.hpp"
#include "lens/head_rows.hpp"
#include "lens/pyramid.hpp"
#include "lens/trace_check.hpp"

namespace manyheads::lens {
namespace {

using kernels::kPassRows;
using kernels::kRunKeys;

constexpr std::int64_t kCoarseStep = 8;
// Sums in whole numbers of this share of a weight: the same in any order.
constexpr double kShares = 0x1p40;
// Rows whose weights do not add up to 1 more closely than this take the pass again.
constexpr double kFarFromOne = 0x1p-19;

using base::at;

// What a worker keeps of the block under way.
struct BlockMemory {
  BlockMemory(std::int64_t runs, std::int64_t top, bool tracks, std::size_t workspace_floats)
      : block_sum(at(runs * kPassRows)),
        block_max(block_sum.size()),
        columns(tracks ? at(runs * kRunKeys) : 0),
        distances(tracks ? at((runs + 1) * kRunKeys) : 0),
        top_weights(tracks ? at(kPassRows * top) : 0),
        top_keys(top_weights.size()),
        workspace(workspace_floats) {}
  kernels::HeadPassOutputs outputs(std::int64_t top) {
    std::fill(block_sum.begin(), block_sum.end(), 0.0f);
    std::fill(block_max.begin(), block_max.end(), 0.0f);
    std::fill(columns.begin(), columns.end(), 0.0f);
    std::fill(distances.begin(), distances.end(), 0.0f);
    kernels::HeadPassOutputs out;
    out.sum = sum;
    out.block_sum = block_sum.data();
    out.block_max = block_max.data();
    if (columns.empty()) return out;
    out.log_sum = log_sum;
    out.columns = columns.data();
    out.distances = distances.data();
    out.top = top;
    out.top_weights = top_weights.data();
    out.top_keys = top_keys.data();
    return out;
  }
  std::vector<float> block_sum, block_max, columns, distances, top_weights;
  std::vector<std::int64_t> top_keys;
  base::AlignedBuffer<float> workspace;
  double sum[kPassRows], log_sum[kPassRows];
  float shift[kPassRows], factor[kPassRows];
  bool whole[kPassRows];
  double again[kPassRows];  // what a row's weights are multiplied by once its sum is known
  double entropy[kPassRows];
};

class MapPass {
 public:
  MapPass(const Trace& trace, std::size_t layer, std::int64_t head, const HeadMapOptions& options)
      : trace_(trace),
        layer_(layer),
        head_(head),
        options_(options),
        step_(options.coarse ? kCoarseStep : 1),
        queries_(trace.num_queries()),
        keys_(trace.num_keys()),
        pass_(kernels::active_table().head_pass),
        scales_(trace, layer, head),
        params_(head_pass_params(trace, layer, head, {0, queries_}, {0, keys_}, step_)),
        runs_(kernels::runs_of(params_.tk)),
        blocks_((params_.tq + kPassRows - 1) / kPassRows),
        own_(step_ == 1 ? at(queries_) : 0) {
    map_.row_step = step_;
    map_.levels.push_back(empty_level(kRunKeys, queries_, keys_));
    if (step_ != 1) return;
    map_.row_sum.resize(at(queries_));
    Tracks& tracks = map_.tracks.emplace();
    tracks.entropy.resize(at(queries_));
    tracks.top_weights = Tensor(DType::kF32, {queries_, options.top});
    tracks.top_keys = Tensor(DType::kI64, {queries_, options.top});
    columns_.resize(at(keys_));
    distances_.resize(at(std::max<std::int64_t>(0, queries_ + keys_ - 1)));
  }

  std::optional<HeadMap> run() {
    const int workers = base::worker_count(blocks_, options_.threads);
    std::vector<BlockMemory> memory;
    for (int w = 0; w < workers; ++w) {
      memory.emplace_back(runs_, options_.top, map_.tracks.has_value(), pass_.workspace_floats(params_));
    }
    base::parallel_for(blocks_, workers, options_.threads.executor, [&](std::int64_t block, int worker) {
      if (cancelled_) return;
      add_block(block, memory[static_cast<std::size_t>(worker)]);
      if (!options_.progress) return;
      const base::Lock::Guard guard(lock_);
      if (cancelled_) return;
      ++done_;
      if (!options_.progress(static_cast<double>(done_) / static_cast<double>(blocks_))) cancelled_ = true;
    });
    if (cancelled_) return std::nullopt;
    if (step_ == 1) check_lse(trace_, layer_, head_, 0, own_);
    add_levels(queries_, keys_, map_.levels);
    if (map_.tracks) finish_tracks();
    return std::move(map_);
  }

 private:
  void add_block(std::int64_t block, BlockMemory& memory) {
    const std::int64_t first = block * kPassRows;
    const std::int64_t rows = std::min(kPassRows, params_.tq - first);
    for (std::int64_t r = 0; r < rows; ++r) {
      const std::int64_t i = (first + r) * step_;
      // Whatever sums the trace has: those that the pass itself finds have the bits of row_sums.
      const RowScale scale = scales_.of(i, nullptr);
      memory.shift[r] = scale.shift;
      memory.factor[r] = scale.factor;
      memory.whole[r] = scale.whole;
    }
    if (read(first, rows, false, memory)) read(first, rows, true, memory);
    for (std::int64_t r = 0; r < rows; ++r) {
      if (memory.whole[r]) add_whole_row(first + r, r, memory);
    }
    pool(first, rows, memory);
    if (map_.tracks) add_tracks(first, rows, memory);
  }

  // Returns whether some row needs another factor, which then stands.
  bool read(std::int64_t first, std::int64_t rows, bool again, BlockMemory& memory) {
    const kernels::HeadPassOutputs out = memory.outputs(options_.top);
    // Rows and diagonal of the block, from row 0 of its own on.
    kernels::HeadPassParams params = head_pass_params(
        trace_, layer_, head_, {first * step_, std::min(queries_, (first + rows) * step_)}, {0, keys_}, step_);
    params.shift = memory.shift;
    params.factor = memory.factor;
    pass_.run(params, 0, rows, out, memory.workspace.data());
    bool far = false;
    for (std::int64_t r = 0; r < rows; ++r) {
      const std::int64_t i = (first + r) * step_;
      memory.again[r] = memory.whole[r] ? 1 : 0;
      memory.entropy[r] = 0;
      if (step_ == 1 && !again) own_[at(i)] = lse_of(trace_, layer_, head_, i);
      if (memory.factor[r] == 0.0f) continue;
      const double factor = static_cast<double>(memory.factor[r]);
      const RowScale scale{.shift = memory.shift[r], .factor = memory.factor[r]};
      const double sum = scales_.with_sink(scale, memory.sum[r]);
      const double row_sum = scales_.row_sum(i, scale, sum);
      if (!(row_sum >= static_cast<double>(kLeastRowSum) && row_sum <= static_cast<double>(kMostRowSum))) {
        memory.factor[r] = 0.0f;
        memory.whole[r] = far = true;
        continue;
      }
      memory.again[r] = 1 / sum;
      if (std::fabs(sum - 1) > kFarFromOne) {
        memory.factor[r] = static_cast<float>(factor / sum);
        far = true;
      }
      if (step_ != 1) continue;
      if (!again) {
        map_.row_sum[at(i)] = static_cast<float>(row_sum);
        own_[at(i)] = static_cast<float>(static_cast<double>(own_[at(i)]) + base::log(row_sum));
      }
      memory.entropy[r] =
          std::max(0.0, -memory.again[r] * (base::kLn2 * memory.log_sum[r] + base::log(factor / sum) * memory.sum[r]));
    }
    return far;
  }

  // Adds a row that the kernel leaves out.
  void add_whole_row(std::int64_t row, std::int64_t r, BlockMemory& memory) {
    Tensor weights(DType::kF32, {1, keys_});  // trace_rows checks lse
    trace_rows(trace_, layer_, head_, row * step_, weights.view(), {.num_threads = 1});
    for (std::int64_t j = 0; j < params_.tk; ++j) {
      const float weight = weights.as<float>()[j];
      if (std::isnan(weight)) {
        throw Error(trace_.place.empty() ? ErrorCode::kInvalidArgument : ErrorCode::kMalformedFile,
                    base::format("{}: the weights of layer {}, head {}, row {} are not numbers",
                                 trace_.place.empty() ? "map_head" : trace_.place, layer_, head_, row * step_));
      }
      float& sum = memory.block_sum[at(j / kRunKeys * kPassRows + r)];
      float& largest = memory.block_max[at(j / kRunKeys * kPassRows + r)];
      sum += weight;
      largest = std::max(largest, weight);
      if (memory.columns.empty()) continue;
      memory.columns[at(j)] += weight;
      memory.distances[at(r - j + runs_ * kRunKeys)] += weight;
      const double p = static_cast<double>(weight);
      if (p > 0) memory.entropy[r] -= p * base::log(p);
      float* const top = memory.top_weights.data() + r * options_.top;
      std::int64_t* const keys = memory.top_keys.data() + r * options_.top;
      std::int64_t place = options_.top;
      while (place > 0 && weight > top[place - 1]) --place;
      if (place == options_.top) continue;
      std::copy_backward(top + place, top + options_.top - 1, top + options_.top);
      std::copy_backward(keys + place, keys + options_.top - 1, keys + options_.top);
      top[place] = weight;
      keys[place] = j;
    }
  }

  // Cells of the finest level; no other block writes them.
  void pool(std::int64_t first, std::int64_t rows, const BlockMemory& memory) {
    PyramidLevel& level = map_.levels[0];
    const std::int64_t rows_of_cell = kPassRows / step_;
    for (std::int64_t r = 0; r < rows; r += rows_of_cell) {
      const std::int64_t end = std::min(rows, r + rows_of_cell);
      const std::int64_t cell = (first + r) / rows_of_cell * level.keys();
      for (std::int64_t run = 0; run < runs_; ++run) {
        double sum = 0, largest = 0;
        for (std::int64_t i = r; i < end; ++i) {
          sum += memory.again[i] * static_cast<double>(memory.block_sum[at(run * kPassRows + i)]);
          largest = std::max(largest, memory.again[i] * static_cast<double>(memory.block_max[at(run * kPassRows + i)]));
        }
        const std::int64_t places = (end - r) * std::min(kRunKeys, keys_ - run * kRunKeys);
        level.mean.as<float>()[cell + run] = static_cast<float>(sum / static_cast<double>(places));
        level.max.as<float>()[cell + run] = static_cast<float>(largest);
      }
    }
  }

  void add_tracks(std::int64_t first, std::int64_t rows, const BlockMemory& memory) {
    Tracks& tracks = *map_.tracks;
    for (std::int64_t r = 0; r < rows; ++r) {
      tracks.entropy[at(first + r)] = memory.entropy[r];
      for (std::int64_t n = 0; n < options_.top; ++n) {
        const std::int64_t to = (first + r) * options_.top + n, from = r * options_.top + n;
        tracks.top_weights.as<float>()[to] =
            static_cast<float>(memory.again[r] * static_cast<double>(memory.top_weights[at(from)]));
        tracks.top_keys.as<std::int64_t>()[to] = memory.top_keys[at(from)];
      }
    }
    const auto shares = [](float mass) {
      return std::isfinite(mass) ? static_cast<std::int64_t>(static_cast<double>(mass) * kShares) : 0;
    };
    const base::Lock::Guard guard(lock_);
    for (std::int64_t j = 0; j < params_.tk; ++j) columns_[at(j)] += shares(memory.columns[at(j)]);
    // Place a of the block is row - key = first + a - runs 64; place 0 of all is row - key = 1 - keys.
    for (std::size_t a = 0; a < memory.distances.size(); ++a) {
      const std::int64_t place = first + static_cast<std::int64_t>(a) - runs_ * kRunKeys + keys_ - 1;
      if (place >= 0 && place < queries_ + keys_ - 1) distances_[at(place)] += shares(memory.distances[a]);
    }
  }

  void finish_tracks() {
    Tracks& tracks = *map_.tracks;
    const auto weights = [](const std::vector<std::int64_t>& shares) {
      std::vector<double> out;
      for (const std::int64_t n : shares) out.push_back(static_cast<double>(n) / kShares);
      return out;
    };
    tracks.column_mass = weights(columns_);
    tracks.distance_mass = weights(distances_);
    tracks.first_distance = 1 - keys_ + params_.offset;
    double mass = 0, sum = 0, squares = 0;
    const auto each = [&](auto&& visit) {
      for (std::size_t a = 0; a < tracks.distance_mass.size(); ++a) {
        visit(static_cast<double>(tracks.first_distance + static_cast<std::int64_t>(a)), tracks.distance_mass[a]);
      }
    };
    each([&](double distance, double weight) { mass += weight, sum += weight * distance; });
    if (!(mass > 0)) return;
    tracks.distance_mean = sum / mass;
    each([&](double distance, double weight) {
      squares += weight * (distance - tracks.distance_mean) * (distance - tracks.distance_mean);
    });
    tracks.distance_variance = squares / mass;
  }

  const Trace& trace_;
  const std::size_t layer_;
  const std::int64_t head_;
  const HeadMapOptions& options_;
  const std::int64_t step_, queries_, keys_;
  const kernels::HeadPassKernels& pass_;
  const RowScales scales_;
  const kernels::HeadPassParams params_;
  const std::int64_t runs_, blocks_;
  HeadMap map_;
  std::vector<float> own_;
  std::vector<std::int64_t> columns_, distances_;
  base::Lock lock_;
  std::int64_t done_ = 0;
  std::atomic<bool> cancelled_{false};
};

}  // namespace

std::optional<HeadMap> map_head(const Trace& trace, std::size_t layer, std::int64_t head,
                                const HeadMapOptions& options) {
  check_head("map_head", trace, layer, head);
  if (options.top < 0) {
    throw Error(ErrorCode::kInvalidArgument, base::format("map_head: top is {}, expected 0 or more", options.top));
  }
  if (trace.num_queries() == 0 || trace.num_keys() == 0) {
    throw Error(ErrorCode::kInvalidArgument, base::format("map_head: a trace of {} queries and {} keys has no map",
                                                          trace.num_queries(), trace.num_keys()));
  }
  return MapPass(trace, layer, head, options).run();
}

}  // namespace manyheads::lens
