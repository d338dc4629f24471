#include "lens/loss.hpp"

#include <algorithm>

#include "base/math.hpp"

namespace manyheads::lens {

std::vector<double> token_losses(const model::Decoder& decoder, const Tensor& hidden, std::int64_t b,
                                 const std::vector<std::int64_t>& ids, const Threads& threads, std::string_view bits) {
  constexpr std::int64_t kTogether = 64;  // logits of so many tokens are some tens of megabytes
  const std::int64_t asked = static_cast<std::int64_t>(ids.size()) - 1, width = hidden.size(2);
  const float* const first = hidden.as<float>() + b * hidden.size(1) * width;
  std::vector<double> losses;
  for (std::int64_t begin = 0; begin < asked; begin += kTogether) {
    const std::int64_t count = std::min(kTogether, asked - begin);
    const Tensor logits = decoder.logits(ConstTensorView(first + begin * width, Dims{count, width}), threads, bits);
    for (std::int64_t t = 0; t < count; ++t) {
      const float* const row = logits.as<float>() + t * logits.size(1);
      const double largest = static_cast<double>(*std::max_element(row, row + logits.size(1)));
      double total = 0;
      for (std::int64_t i = 0; i < logits.size(1); ++i) total += base::exp(static_cast<double>(row[i]) - largest);
      const std::int64_t next = ids[static_cast<std::size_t>(begin + t + 1)];
      losses.push_back(largest + base::log(total) - static_cast<double>(row[next]));
    }
  }
  return losses;
}

}  // namespace manyheads::lens
