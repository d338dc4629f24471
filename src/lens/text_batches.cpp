#include "lens/text_batches.hpp"

#include <algorithm>
#include <utility>

#include "lens/trace_pass.hpp"

namespace manyheads::lens {
namespace {

// q, k and v of so many tokens are tens of megabytes in all layers.
constexpr std::size_t kTokens = 512;

bool has_text(const model::Encoding& encoding) {
  return std::any_of(encoding.sequences.begin(), encoding.sequences.end(), [](std::int32_t s) { return s >= 0; });
}

}  // namespace

void run_batch(const model::Encoder& encoder, std::vector<BatchText>& texts, const BatchOptions& options) {
  std::vector<std::vector<std::int64_t>> ids, type_ids;
  for (const BatchText& text : texts) {
    ids.push_back(text.encoding.ids);
    type_ids.push_back(text.encoding.type_ids);
  }
  std::vector<model::LayerHeads> layers;
  model::EncoderOptions run;
  run.layers = &layers;
  run.threads = options.threads;
  run.bits = options.bits;
  encoder.run(model::TokenBatch::from_rows(ids, type_ids), run);
  for (std::size_t b = 0; b < texts.size(); ++b) {
    add_pass(encoder, texts[b].encoding, layers, static_cast<std::int64_t>(b), texts[b].trace);
  }
}

std::size_t for_each_batch(const model::TextModel& model,
                           const std::function<std::optional<std::string>(std::size_t)>& next,
                           const BatchOptions& options, const std::function<void(std::span<const BatchText>)>& batch) {
  const auto most = static_cast<std::size_t>(model.encoder().config().max_position_embeddings);
  std::vector<BatchText> texts;
  std::size_t longest = 0, left_out = 0;
  const auto flush = [&] {
    if (texts.empty()) return;
    run_batch(model.encoder(), texts, options);
    batch(texts);
    texts.clear();
    longest = 0;
  };
  for (std::size_t i = 0;; ++i) {
    std::optional<std::string> text = next(i);
    if (!text) break;
    BatchText one{i, model.encode(*text), {}};
    one.trace.text = std::move(*text);
    if (one.encoding.size() > most || !has_text(one.encoding)) {
      ++left_out;
      continue;
    }
    longest = std::max(longest, one.encoding.size());
    if ((texts.size() + 1) * longest > kTokens) {
      const std::size_t own = one.encoding.size();
      flush();
      longest = own;
    }
    texts.push_back(std::move(one));
  }
  flush();
  return left_out;
}

}  // namespace manyheads::lens
