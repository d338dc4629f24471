#include "lens/read_heads.hpp"

#include <algorithm>
#include <cmath>
#include <manyheads/error.hpp>

#include "base/parallel.hpp"
#include "lens/unicode.hpp"

namespace manyheads::lens {

namespace {

bool is_special(const Trace& trace, std::size_t t) { return !trace.words.empty() && trace.words[t] < 0; }

// Someone may write [SEP] into the text; the model sees the same token.
bool typed_separator(const Trace& trace, std::size_t t) {
  for (std::size_t s = 1; s < trace.tokens.size(); ++s) {
    if (is_special(trace, s) && trace.tokens[s] == trace.tokens[t]) return true;
  }
  return false;
}

// The text that a token stands for.
std::string token_text(const Trace& trace, std::size_t t) {
  if (trace.offsets.empty()) return trace.tokens[t];
  const std::string& own = !trace.sequences.empty() && trace.sequences[t] == 1 ? *trace.text2 : trace.text;
  const auto [begin, end] = trace.offsets[t];
  return own.substr(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
}

bool all_punctuation(const std::string& text) {
  bool any = false;
  char32_t c;
  for (std::size_t p = 0; p < text.size();) {
    if (!next_code_point(text, &p, &c)) return false;
    if (c == ' ') continue;
    if (!is_punctuation(c)) return false;
    any = true;
  }
  return any;
}

}  // namespace

TokenKinds token_kinds(const Trace& trace) {
  TokenKinds kinds;
  const auto n = static_cast<std::size_t>(trace.key_length);
  for (std::size_t t = 0; t < n; ++t) {
    const bool special = is_special(trace, t);
    kinds.separator.push_back(t > 0 && (special || typed_separator(trace, t)));
    kinds.punctuation.push_back(!special && all_punctuation(token_text(trace, t)));
    if (!trace.token_ids.empty()) {
      kinds.ids.push_back(trace.token_ids[t]);
    } else {
      // Without ids, equal spellings are equal tokens.
      const auto first = std::find(trace.tokens.begin(), trace.tokens.end(), trace.tokens[t]);
      kinds.ids.push_back(first - trace.tokens.begin());
    }
  }
  return kinds;
}

std::vector<HeadReading> read_heads(const Trace& trace, const std::vector<Word>& words, const std::vector<Link>& links,
                                    std::size_t num_strongest, int num_threads) {
  if (trace.num_queries() != trace.num_keys()) {
    throw Error(ErrorCode::kInvalidArgument, "read_heads: trace has " + std::to_string(trace.num_queries()) +
                                                 " queries and " + std::to_string(trace.num_keys()) +
                                                 " keys; scores need a text that attends to itself");
  }
  const TokenKinds kinds = token_kinds(trace);
  std::vector<HeadReading> readings;
  for (std::size_t layer = 0; layer < trace.layers.size(); ++layer) {
    for (std::int64_t head = 0; head < trace.num_heads(layer); ++head) readings.push_back({layer, head, {}, {}, {}});
  }
  base::parallel_for(static_cast<std::int64_t>(readings.size()), num_threads, nullptr, [&](std::int64_t i, int) {
    HeadReading& reading = readings[static_cast<std::size_t>(i)];
    Tensor weights(DType::kF32, Dims{trace.num_queries(), trace.num_keys()});
    trace_weights(trace, reading.layer, reading.head, weights.view(), 1);
    const HeadWeights a{weights.as<float>(), trace.key_length, trace.num_keys()};
    reading.scores = score_head(a, kinds);
    const std::vector<double> by_word = word_weights(a, words);
    reading.strongest = strongest_links(by_word, words.size(), num_strongest);
    for (const Link& link : links) reading.link_weights.push_back(by_word[link.query * words.size() + link.key]);
  });
  return readings;
}

std::vector<LinkReading> rank_heads(const std::vector<HeadReading>& heads, const std::vector<Link>& links) {
  std::vector<LinkReading> result;
  for (std::size_t i = 0; i < links.size(); ++i) {
    LinkReading reading;
    reading.link = links[i];
    double sum = 0;
    for (const HeadReading& head : heads) {
      reading.best.push_back({head.layer, head.head, head.link_weights[i]});
      sum += head.link_weights[i];
    }
    reading.mean = sum / static_cast<double>(heads.size());
    std::stable_sort(reading.best.begin(), reading.best.end(), [](const auto& a, const auto& b) {
      if (std::isnan(a.weight) || std::isnan(b.weight)) return !std::isnan(a.weight) && std::isnan(b.weight);
      return a.weight > b.weight;
    });
    result.push_back(std::move(reading));
  }
  return result;
}

}  // namespace manyheads::lens
