#pragma once

#include <cmath>
#include <cstdint>
#include <manyheads/lens/trace.hpp>
#include <random>
#include <string>
#include <vector>

#include "lens/text_batches.hpp"

// Texts whose heads are made to do what a test says.
namespace manyheads::test {

// Words "w" of one letter each, a token a word, between [CLS] and [SEP]; a decoder's text has no such tokens. Token t
// of word w is w + 1, or w.
inline lens::BatchText constructed_text(std::size_t index, std::int64_t words, bool causal = false) {
  lens::BatchText text;
  text.index = index;
  model::Encoding& encoding = text.encoding;
  const auto add = [&](const char* token, std::int64_t id, std::int64_t word) {
    const bool special = word < 0;
    encoding.ids.push_back(id);
    encoding.type_ids.push_back(0);
    encoding.tokens.emplace_back(token);
    encoding.offsets.push_back(special ? std::array<std::int64_t, 2>{0, 0}
                                       : std::array<std::int64_t, 2>{2 * word, 2 * word + 1});
    encoding.words.push_back(word);
    encoding.sequences.push_back(special ? -1 : 0);
    encoding.special.push_back(special);
  };
  if (!causal) add("[CLS]", 101, -1);
  for (std::int64_t w = 0; w < words; ++w) {
    add("w", 5, w);
    text.trace.text += w == 0 ? "w" : " w";
  }
  if (!causal) add("[SEP]", 102, -1);
  text.trace.tokens = encoding.tokens;
  text.trace.token_ids = encoding.ids;
  text.trace.offsets = encoding.offsets;
  text.trace.words = encoding.words;
  text.trace.sequences.assign(encoding.sequences.begin(), encoding.sequences.end());
  text.trace.causal = causal;
  text.trace.key_length = static_cast<std::int64_t>(encoding.size());
  return text;
}

// Adds a layer of `heads` heads. score(h, q, k) is what query q gives to key k before the softmax.
template <class Scores>
void add_layer(lens::Trace& trace, std::int64_t heads, const Scores& score) {
  const std::int64_t n = trace.key_length;
  Tensor q(DType::kF32, {heads, n, n}), k(DType::kF32, {heads, n, n}), lse(DType::kF32, {heads, n});
  for (std::int64_t h = 0; h < heads; ++h) {
    for (std::int64_t i = 0; i < n; ++i) {
      double sum = 0;
      for (std::int64_t j = 0; j < n; ++j) {
        const auto value = static_cast<float>(score(h, i, j));
        q.as<float>()[(h * n + i) * n + j] = value;
        k.as<float>()[(h * n + i) * n + j] = i == j ? 1.0f : 0.0f;
        if (!trace.causal || j <= i) sum += std::exp(static_cast<double>(value));
      }
      lse.as<float>()[h * n + i] = static_cast<float>(std::log(sum));
    }
  }
  trace.layers.push_back({q.cview(), k.cview(), lse.cview(), {}, {}, {}, {q, k, lse}});
}

}  // namespace manyheads::test
