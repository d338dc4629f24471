#include <algorithm>
#include <cmath>
#include <limits>
#include <manyheads/error.hpp>
#include <manyheads/model/pooling.hpp>
#include <string>
#include <vector>

namespace manyheads::model {
namespace {

using Mode = PoolingConfig::Mode;

// One mode's vector over the tokens [begin, end) of a row, summed in double.
void pool_row(const ConstTensorView& hidden, std::int64_t row, std::int64_t begin, std::int64_t end, Mode mode,
              double* out) {
  const std::int64_t width = hidden.size(2);
  // Of a text that is all prompt no token counts: kCls still takes the first token, the other modes give 0.
  if (mode == Mode::kCls) {
    if (begin == end) begin = 0;
    end = std::min(begin + 1, end);
  }
  if (mode == Mode::kLastToken) begin = std::max(begin, end - 1);
  std::fill_n(out, width, mode == Mode::kMax ? -std::numeric_limits<double>::infinity() : 0.0);
  double total = 0;
  for (std::int64_t t = begin; t < end; ++t) {
    const float* from = static_cast<const float*>(hidden.data()) + row * hidden.stride(0) + t * hidden.stride(1);
    const double weight = mode == Mode::kWeightedMean ? static_cast<double>(t + 1) : 1.0;
    total += weight;
    for (std::int64_t i = 0; i < width; ++i) {
      const double value = from[i * hidden.stride(2)];
      out[i] = mode == Mode::kMax ? std::max(out[i], value) : out[i] + weight * value;
    }
  }
  if (mode == Mode::kMax || total == 0) return;
  const double divisor = mode == Mode::kMeanSqrtLen ? std::sqrt(total) : total;
  for (std::int64_t i = 0; i < width; ++i) out[i] /= divisor;
}

}  // namespace

Tensor pool(ConstTensorView hidden, const std::vector<std::int64_t>& lengths, const PoolingConfig& config,
            std::int64_t skip) {
  if (hidden.rank() != 3 || hidden.dtype() != DType::kF32) {
    throw Error(ErrorCode::kInvalidArgument, std::string("pool: hidden is ") + name_of(hidden.dtype()) + " " +
                                                 hidden.shape().to_string() + ", expected F32 [B,T,E]");
  }
  const std::int64_t batch = hidden.size(0), tokens = hidden.size(1), width = hidden.size(2);
  if (!lengths.empty() && static_cast<std::int64_t>(lengths.size()) != batch) {
    throw Error(ErrorCode::kInvalidArgument,
                "pool: " + std::to_string(lengths.size()) + " lengths for hidden " + hidden.shape().to_string());
  }
  const auto modes = static_cast<std::int64_t>(config.modes.size());
  Tensor pooled(DType::kF32, {batch, modes * width});
  std::vector<double> sums(static_cast<std::size_t>(modes * width));
  for (std::int64_t b = 0; b < batch; ++b) {
    const std::int64_t length = lengths.empty() ? tokens : lengths[static_cast<std::size_t>(b)];
    if (length < 0 || length > tokens) {
      throw Error(ErrorCode::kInvalidArgument, "pool: length " + std::to_string(length) + " of entry " +
                                                   std::to_string(b) + " for hidden " + hidden.shape().to_string());
    }
    for (std::int64_t m = 0; m < modes; ++m) {
      pool_row(hidden, b, std::min(skip, length), length, config.modes[static_cast<std::size_t>(m)],
               sums.data() + m * width);
    }
    double squares = 0;
    for (const double value : sums) squares += value * value;
    const double divisor = config.normalize ? std::max(std::sqrt(squares), 1e-12) : 1.0;
    float* out = pooled.as<float>() + b * modes * width;
    for (std::size_t i = 0; i < sums.size(); ++i) out[i] = static_cast<float>(sums[i] / divisor);
  }
  return pooled;
}

}  // namespace manyheads::model
