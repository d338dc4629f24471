#include <algorithm>
#include <array>
#include <cmath>
#include <manyheads/attention.hpp>
#include <manyheads/lens/head_map.hpp>
#include <manyheads/lens/patch.hpp>
#include <memory>
#include <random>
#include <vector>

#include "bench/cases/case.hpp"
#include "bench/cases/sampling.hpp"

namespace manyheads::bench {
namespace {

constexpr std::int64_t kHeadDim = 64, kTraceHeads = 12, kPatch = 512;
// The queries repeat: lse of so many is that of all, and does not cost as much as what is measured.
constexpr std::int64_t kQueries = 1000;

// A trace of one layer, of N(0,1), and the sums of its rows.
struct LensWork {
  LensWork(std::int64_t heads, std::int64_t tokens) : row_sum(DType::kF32, {heads, tokens}) {
    const std::int64_t few = std::min(kQueries, tokens);
    const Tensor queries = normal(DType::kF32, {heads, few, kHeadDim}, 1);
    Tensor q(DType::kF32, {heads, tokens, kHeadDim}), lse(DType::kF32, {heads, tokens});
    Tensor k = normal(DType::kF32, {heads, tokens, kHeadDim}, 2);
    Tensor out(DType::kF32, {1, heads, few, kHeadDim}), lse_of_few(DType::kF32, {1, heads, few});
    const auto batch = [&](const Tensor& x) {
      return ConstTensorView(x.as<float>(), Dims{1, heads, x.size(1), kHeadDim});
    };
    const TensorView lse_view = lse_of_few.view();
    attention(batch(queries), batch(k), batch(k), out.view(), {.lse = lse_view});
    for (std::int64_t h = 0; h < heads; ++h) {
      for (std::int64_t i = 0; i < tokens; ++i) {
        std::copy_n(queries.as<float>() + (h * few + i % few) * kHeadDim, kHeadDim,
                    q.as<float>() + (h * tokens + i) * kHeadDim);
        lse.as<float>()[h * tokens + i] = lse_of_few.as<float>()[h * few + i % few];
      }
    }
    trace.scale = 1 / std::sqrt(static_cast<double>(kHeadDim));
    trace.key_length = tokens;
    trace.layers.push_back({q.cview(), k.cview(), lse.cview(), {}, {}, {}, {q, k, lse}});
    for (std::int64_t h = 0; h < heads; ++h) {
      const std::vector<float> sums = lens::row_sums(trace, 0, h, {0, few});
      for (std::int64_t i = 0; i < tokens; ++i) {
        row_sum.as<float>()[h * tokens + i] = sums[static_cast<std::size_t>(i % few)];
      }
    }
  }

  // A row of the last head in float64.
  std::vector<double> row(std::int64_t i) const {
    const std::int64_t tokens = trace.num_keys(), head = trace.num_heads(0) - 1;
    const float* q = static_cast<const float*>(trace.layers[0].q.data()) + (head * tokens + i) * kHeadDim;
    const float* k = static_cast<const float*>(trace.layers[0].k.data()) + head * tokens * kHeadDim;
    std::vector<double> weights(static_cast<std::size_t>(tokens));
    double sum = 0;
    for (std::int64_t j = 0; j < tokens; ++j) {
      double score = 0;
      for (std::int64_t d = 0; d < kHeadDim; ++d) {
        score += static_cast<double>(q[d]) * static_cast<double>(k[j * kHeadDim + d]);
      }
      // Scores of such inputs are small: float64 needs no maximum subtracted.
      sum += weights[static_cast<std::size_t>(j)] = std::exp(score * trace.scale);
    }
    for (double& weight : weights) weight /= sum;
    return weights;
  }

  lens::Trace trace;
  Tensor row_sum;
  lens::HeadMap map;  // of the last head
};

// Farthest cell from float64 in the last line of the finest level.
double map_error(const LensWork& work) {
  const lens::PyramidLevel& level = work.map.levels[0];
  const std::int64_t line = level.rows() - 1, first = line * level.side, tokens = work.trace.num_keys();
  std::vector<double> sum(static_cast<std::size_t>(level.keys())), max(sum.size());
  for (std::int64_t i = first; i < tokens; i += work.map.row_step) {
    const std::vector<double> row = work.row(i);
    for (std::size_t j = 0; j < row.size(); ++j) {
      const std::size_t cell = j / static_cast<std::size_t>(level.side);
      sum[cell] += row[j];
      max[cell] = std::max(max[cell], row[j]);
    }
  }
  const std::int64_t rows = (tokens - first + work.map.row_step - 1) / work.map.row_step;
  double worst = 0;
  for (std::int64_t c = 0; c < level.keys(); ++c) {
    const std::int64_t places = rows * std::min(level.side, tokens - c * level.side), at = line * level.keys() + c;
    const std::size_t cell = static_cast<std::size_t>(c);
    worst = std::max({worst, std::abs(element(level.mean.cview(), at) - sum[cell] / static_cast<double>(places)),
                      std::abs(element(level.max.cview(), at) - max[cell])});
  }
  return worst;
}

Case map_case(std::int64_t heads, std::int64_t tokens, bool coarse, int threads) {
  Case c;
  c.row = {.name = coarse ? "pyramid, coarse" : "pyramid",
           .heads = heads,
           .head_dim = kHeadDim,
           .tokens = tokens,
           .threads = threads,
           .by_time = coarse};
  const auto t = static_cast<double>(tokens);
  c.flop = 2 * static_cast<double>(heads) * t * t * static_cast<double>(kHeadDim) / (coarse ? 8 : 1);
  c.prepare = [=] {
    auto work = std::make_shared<LensWork>(heads, tokens);
    PreparedCase prepared;
    prepared.work = [=] {
      for (std::int64_t h = 0; h < heads; ++h) {
        work->map = *lens::map_head(work->trace, 0, h, {.coarse = coarse, .threads = {.num_threads = threads}});
      }
    };
    prepared.error = [=] { return map_error(*work); };
    return prepared;
  };
  c.measures_memory = !coarse;
  return c;
}

Case patch_case(std::int64_t tokens, int threads) {
  Case c;
  c.row = {
      .name = "patch 512x512", .heads = 1, .head_dim = kHeadDim, .tokens = tokens, .threads = threads, .by_time = true};
  c.flop = 2.0 * static_cast<double>(kPatch * kPatch * kHeadDim);
  c.prepare = [=] {
    auto work = std::make_shared<LensWork>(1, tokens);
    auto weights = std::make_shared<Tensor>(DType::kF32, Dims{kPatch, kPatch});
    auto random = std::make_shared<std::mt19937_64>(3);
    auto corner = std::make_shared<std::array<std::int64_t, 2>>();
    PreparedCase prepared;
    prepared.work = [=] {
      for (std::int64_t& at : *corner) {
        at = static_cast<std::int64_t>((*random)() % static_cast<std::uint64_t>(tokens - kPatch));
      }
      const auto [row, key] = *corner;
      lens::patch(
          work->trace, 0, 0, {row, row + kPatch}, {key, key + kPatch}, weights->view(),
          {.row_sum = ConstTensorView(work->row_sum.as<float>(), Dims{tokens}), .threads = {.num_threads = threads}});
    };
    prepared.error = [=] {
      const auto [row, key] = *corner;
      double worst = 0;
      for (const std::int64_t i : probe_rows(kPatch)) {
        const std::vector<double> expected = work->row(row + i);
        for (std::int64_t j = 0; j < kPatch; ++j) {
          worst = std::max(
              worst, std::abs(element(weights->cview(), i * kPatch + j) - expected[static_cast<std::size_t>(key + j)]));
        }
      }
      return worst;
    };
    return prepared;
  };
  return c;
}

}  // namespace

std::vector<Case> lens_cases(const Size& size) {
  std::vector<Case> cases;
  for (const int threads : thread_counts(size)) {
    cases.push_back(map_case(1, 10'000, false, threads));
    cases.push_back(map_case(kTraceHeads, 10'000, true, threads));
    cases.push_back(patch_case(size.quick ? 10'000 : 100'000, threads));
  }
  if (!size.quick) cases.push_back(map_case(1, 100'000, false, size.threads));
  return cases;
}

}  // namespace manyheads::bench
