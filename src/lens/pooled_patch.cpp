#include <algorithm>
#include <cmath>
#include <manyheads/error.hpp>
#include <manyheads/lens/patch.hpp>
#include <vector>

#include "base/format.hpp"
#include "lens/trace_check.hpp"

namespace manyheads::lens {
namespace {

// The weights that exist at a time.
constexpr std::int64_t kStripRows = 256, kStripKeys = 4096;

}  // namespace

Tensor pooled_patch(const Trace& trace, std::size_t layer, std::int64_t head, Range rows, Range keys, std::int64_t side,
                    Pool pool, const PatchOptions& options) {
  if (side < 1 || rows.begin >= rows.end || keys.begin >= keys.end) {
    throw Error(ErrorCode::kInvalidArgument,
                base::format("pooled_patch: cells of {0} x {0} of queries {1} to {2} and keys {3} to {4}", side,
                             rows.begin, rows.end, keys.begin, keys.end));
  }
  check_ranges("pooled_patch", trace, rows, keys);
  const auto cells = [side](const Range& range) { return (range.size() - 1) / side + 1; };
  const std::int64_t columns = cells(keys);
  std::vector<double> pooled(static_cast<std::size_t>(cells(rows) * columns), 0.0);
  std::vector<float> weights;
  for (std::int64_t r = rows.begin; r < rows.end; r += kStripRows) {
    const Range strip{r, std::min(rows.end, r + kStripRows)};
    for (std::int64_t k = keys.begin; k < keys.end; k += kStripKeys) {
      const Range part{k, std::min(keys.end, k + kStripKeys)};
      weights.resize(static_cast<std::size_t>(strip.size() * part.size()));
      patch(trace, layer, head, strip, part, TensorView(weights.data(), DType::kF32, Dims{strip.size(), part.size()}),
            options);
      const float* weight = weights.data();
      for (std::int64_t i = strip.begin; i < strip.end; ++i) {
        double* const line = pooled.data() + (i - rows.begin) / side * columns;
        for (std::int64_t j = part.begin; j < part.end; ++j) {
          double& cell = line[(j - keys.begin) / side];
          const double value = static_cast<double>(*weight++);
          cell = pool == Pool::kMean ? cell + value : std::isnan(value) ? value : std::max(cell, value);
        }
      }
    }
  }
  Tensor out(DType::kF32, Dims{cells(rows), columns});
  for (std::int64_t r = 0; r < out.size(0); ++r) {
    for (std::int64_t c = 0; c < columns; ++c) {
      const std::int64_t places = std::min(side, rows.size() - r * side) * std::min(side, keys.size() - c * side);
      out.as<float>()[r * columns + c] = static_cast<float>(pooled[static_cast<std::size_t>(r * columns + c)] /
                                                            (pool == Pool::kMean ? static_cast<double>(places) : 1.0));
    }
  }
  return out;
}

}  // namespace manyheads::lens
