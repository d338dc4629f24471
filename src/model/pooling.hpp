#pragma once

#include <cstdint>
#include <filesystem>
#include <manyheads/tensor.hpp>
#include <vector>

namespace manyheads::model {

// How a sentence's vector comes from its tokens' vectors.
struct PoolingConfig {
  enum class Mode { kMean, kCls };  // the mean of the tokens, or the first one
  Mode mode = Mode::kMean;
  bool normalize = true;  // to length 1
};

// Reads modules.json and the pooling module's config.json beside the model. Where there is no modules.json: mean and
// normalise. Throws Error on a pooling mode or a module that is not known.
PoolingConfig load_pooling(const std::filesystem::path& folder);

// hidden [B,T,E] F32 -> [B,E] F32. lengths: the tokens of each row that count; empty: all T.
Tensor pool(ConstTensorView hidden, const std::vector<std::int64_t>& lengths, const PoolingConfig& config);

}  // namespace manyheads::model
