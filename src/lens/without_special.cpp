#include "lens/without_special.hpp"

#include <algorithm>

namespace manyheads::lens {

WithoutSpecial::WithoutSpecial(const Trace& trace) {
  for (std::int64_t t = 0; t < trace.key_length; ++t) {
    if (trace.words.empty() || trace.words[static_cast<std::size_t>(t)] >= 0) kept_.push_back(t);
  }
  const bool none_special = static_cast<std::int64_t>(kept_.size()) == trace.key_length;
  if (none_special && trace.causal && !kept_.empty()) kept_.erase(kept_.begin());
  const TokenKinds all = token_kinds(trace);
  for (const std::int64_t t : kept_) {
    const auto at = static_cast<std::size_t>(t);
    kinds_.ids.push_back(all.ids[at]);
    kinds_.separator.push_back(all.separator[at]);
    kinds_.punctuation.push_back(all.punctuation[at]);
  }
}

bool WithoutSpecial::renormalise(std::int64_t q, const float* weights, std::vector<float>& row) const {
  if (!std::binary_search(kept_.begin(), kept_.end(), q)) return false;
  double total = 0;
  for (const std::int64_t k : kept_) total += static_cast<double>(weights[k]);
  row.resize(kept_.size());
  for (std::size_t i = 0; i < kept_.size(); ++i) {
    row[i] = total == 0 ? 0.0f : static_cast<float>(static_cast<double>(weights[kept_[i]]) / total);
  }
  return true;
}

}  // namespace manyheads::lens
