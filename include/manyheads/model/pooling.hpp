#pragma once

#include <cstdint>
#include <filesystem>
#include <manyheads/tensor.hpp>
#include <vector>

namespace manyheads::model {

// How a sentence's vector comes from its tokens' vectors.
struct PoolingConfig {
  // Of the tokens' vectors: the first; the maximum; the mean; the sum divided by the root of their number; the mean
  // with weights 1, 2, 3 ...; the last.
  enum class Mode { kCls, kMax, kMean, kMeanSqrtLen, kWeightedMean, kLastToken };
  std::vector<Mode> modes{Mode::kMean};  // the vectors of several stand one after another
  bool include_prompt = true;            // whether the tokens of a prompt count
  bool normalize = true;                 // to length 1
};

// Reads modules.json and the pooling module's config.json. Without modules.json: the mean, not normalised.
// Throws Error on an unknown pooling mode or module.
PoolingConfig load_pooling(const std::filesystem::path& folder);

// hidden [B,T,E] F32 -> [B, modes x E] F32. `lengths` [B] are the tokens of each row that count; empty: all T. The
// first `skip` tokens of every row do not count.
Tensor pool(ConstTensorView hidden, const std::vector<std::int64_t>& lengths, const PoolingConfig& config,
            std::int64_t skip = 0);

}  // namespace manyheads::model
