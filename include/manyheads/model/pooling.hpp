#pragma once

#include <cstdint>
#include <filesystem>
#include <manyheads/tensor.hpp>
#include <vector>

namespace manyheads::model {

// How a sentence's vector comes from its tokens' vectors.
struct PoolingConfig {
  // The first token; the largest of each number; the mean; the sum over the root of the count; the mean with weights
  // 1, 2, 3 ...; the last token.
  enum class Mode { kCls, kMax, kMean, kMeanSqrtLen, kWeightedMean, kLastToken };
  std::vector<Mode> modes{Mode::kMean};  // of several the vectors stand one after another
  bool include_prompt = true;            // whether the tokens of a prompt count
  bool normalize = true;                 // to length 1
};

// Reads modules.json and the pooling module's config.json. Where there is no modules.json: the mean, not normalised.
// Throws Error on a pooling mode or a module that is not known.
PoolingConfig load_pooling(const std::filesystem::path& folder);

// hidden [B,T,E] F32 -> [B, modes x E] F32. lengths: the tokens of each row that count; empty: all T. The first `skip`
// tokens of every row do not count.
Tensor pool(ConstTensorView hidden, const std::vector<std::int64_t>& lengths, const PoolingConfig& config,
            std::int64_t skip = 0);

}  // namespace manyheads::model
