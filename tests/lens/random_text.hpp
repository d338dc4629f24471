#pragma once

#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "lens/random_trace.hpp"
#include "lens/text_batches.hpp"

// Texts of many tokens with random heads.
namespace manyheads::lens {

struct RandomText {
  std::int64_t tokens = 10;
  std::int64_t layers = 2, heads = 4, kv_heads = 2, head_dim = 8;
  bool causal = false;
  double scale = 1;
  unsigned seed = 1;
};

// Letters and full stops between [CLS] and [SEP]; equal letters are equal tokens. Text tokens have ids 3 to 12.
inline BatchText random_text(const RandomText& shape) {
  std::mt19937 random(shape.seed);
  BatchText text;
  Trace& trace = text.trace;
  for (std::int64_t t = 0; t < shape.tokens; ++t) {
    const bool special = t == 0 || (t == shape.tokens - 1 && t > 1);
    const auto letter = static_cast<std::int64_t>(random() % 10);
    const auto at = static_cast<std::int64_t>(trace.text.size());
    trace.tokens.push_back(special ? (t == 0 ? "[CLS]" : "[SEP]") : std::string(1, letter == 9 ? '.' : static_cast<char>('a' + letter)));
    trace.token_ids.push_back(special ? (t == 0 ? 1 : 2) : 3 + letter);
    trace.words.push_back(special ? -1 : t - 1);
    trace.sequences.push_back(special ? -1 : 0);
    trace.offsets.push_back(special ? std::array<std::int64_t, 2>{0, 0} : std::array<std::int64_t, 2>{at, at + 1});
    if (!special) trace.text += trace.tokens.back() + " ";
  }
  trace.causal = shape.causal;
  trace.scale = shape.scale;
  trace.key_length = shape.tokens;
  for (std::int64_t l = 0; l < shape.layers; ++l) {
    Tensor q = random_tensor({shape.heads, shape.tokens, shape.head_dim}, random);
    Tensor k = random_tensor({shape.kv_heads, shape.tokens, shape.head_dim}, random);
    Tensor lse(DType::kF32, {shape.heads, shape.tokens});
    trace.layers.push_back({q.cview(), k.cview(), lse.cview(), {}, {}, {}, {q, k, lse}});
    const auto layer = static_cast<std::size_t>(l);
    for (std::int64_t h = 0; h < shape.heads; ++h) {
      for (std::int64_t i = 0; i < shape.tokens; ++i) {
        lse.as<float>()[h * shape.tokens + i] =
            static_cast<float>(row_lse(trace, layer, h, row_scores(trace, layer, h, i)));
      }
    }
  }
  return text;
}

}  // namespace manyheads::lens
