#include "lens/tour.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <manyheads/error.hpp>
#include <optional>
#include <string>

#include "base/format.hpp"
#include "io/json.hpp"
#include "lens/relations.hpp"
#include "lens/relations_json.hpp"

namespace manyheads::lens {
namespace {

using io::OrderedJson;

const std::vector<std::string> kLinks = {"amod:link", "nsubj:link", "obl:link"};
constexpr std::string_view kOther = "A cat was sitting on a rug.";

const OrderedJson kCancelled = {{"cancelled", true}};

std::string form_of(const TreebankSentence& sentence, std::size_t word) {
  const auto [begin, end] = sentence.words[word].offsets;
  return sentence.text.substr(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
}

OrderedJson links_of(const TreebankSentence& sentence, const model::Encoding& encoding) {
  const AlignedSentence aligned = align(sentence, encoding);
  OrderedJson links = OrderedJson::array();
  for (const std::string& relation : kLinks) {
    for (std::size_t w = 0; w < sentence.words.size(); ++w) {
      if (sentence.words[w].relation != relation) continue;
      const auto head = static_cast<std::size_t>(sentence.words[w].head);
      const std::optional<std::size_t> from = aligned.word_of[w], to = aligned.word_of[head];
      links.push_back(
          {{"word", form_of(sentence, w)},
           {"head", form_of(sentence, head)},
           {"offset", from && to ? OrderedJson(static_cast<std::int64_t>(*to) - static_cast<std::int64_t>(*from))
                                 : OrderedJson(nullptr)}});
    }
  }
  return links;
}

double cosine(const Tensor& a, const Tensor& b) {
  double ab = 0, aa = 0, bb = 0;
  for (std::int64_t i = 0; i < a.size(1); ++i) {
    const double x = static_cast<double>(a.as<float>()[i]), y = static_cast<double>(b.as<float>()[i]);
    ab += x * y;
    aa += x * x;
    bb += y * y;
  }
  return ab / std::sqrt(aa * bb);
}

// A text's vector with each head's output times its scale.
class Vectors {
 public:
  Vectors(const model::TextModel& model, const model::PoolingConfig& pooling, std::string_view text,
          const BatchOptions& options)
      : model_(model), pooling_(pooling) {
    const model::Encoding encoding = model.encode(text);
    const std::int64_t most = model.encoder().config().max_position_embeddings;
    if (static_cast<std::int64_t>(encoding.ids.size()) > most) {
      throw Error(ErrorCode::kInvalidArgument,
                  base::format("ablations: the text has {} tokens, and the model takes {}", encoding.ids.size(), most));
    }
    batch_ = model::TokenBatch::from_rows({encoding.ids}, {encoding.type_ids});
    run_.threads = options.threads;
    run_.bits = options.bits;
  }

  Tensor with(ConstTensorView scale) {
    run_.head_scale = scale;
    return model::pool(model_.encoder().run(batch_, run_).cview(), batch_.lengths, pooling_);
  }

 private:
  const model::TextModel& model_;
  const model::PoolingConfig& pooling_;
  model::TokenBatch batch_;
  model::EncoderOptions run_;
};

}  // namespace

OrderedJson tour_relations(const model::TextModel& model, std::string_view name, const BatchOptions& options,
                           const TourProgress& progress) {
  const std::vector<TreebankSentence> treebank = tour_treebank();
  const model::EncoderConfig& config = model.encoder().config();
  RelationScorer scorer(kLinks, config.num_layers, config.num_heads, config.causal);
  scorer.keep_hits();
  OrderedJson texts = OrderedJson::array();
  bool going = true;
  const std::size_t too_long = for_each_batch(
      model,
      [&](std::size_t i) { return going && i < treebank.size() ? std::optional(treebank[i].text) : std::nullopt; },
      options,
      [&](std::span<const BatchText> batch) {
        scorer.add(treebank, batch, options.threads);
        for (const BatchText& text : batch) {
          const TreebankSentence& sentence = treebank[text.index];
          texts.push_back({{"text", sentence.text}, {"links", links_of(sentence, text.encoding)}});
        }
        if (progress) going = progress(static_cast<double>(texts.size()) / static_cast<double>(treebank.size()));
      });
  if (!going) return kCancelled;
  if (too_long > 0) {
    throw Error(ErrorCode::kInvalidArgument, base::format("relations: {} of the {} sentences are longer than the model "
                                                          "takes",
                                                          too_long, treebank.size()));
  }
  for (std::size_t i = 0; i < texts.size(); ++i) {
    OrderedJson& hits = texts[i]["hits"] = OrderedJson::array();
    for (const std::vector<std::size_t>& heads : scorer.hits()[i].heads) {
      OrderedJson found = OrderedJson::array();
      for (const std::size_t head : heads) {
        const auto count = static_cast<std::size_t>(config.num_heads);
        found.push_back({head / count, head % count});
      }
      hits.push_back(std::move(found));
    }
  }
  const auto all = static_cast<std::size_t>(config.num_layers * config.num_heads);
  return {{"model", name},
          {"sentences", treebank.size()},
          {"causal", config.causal},
          {"relations", relations_json(scorer.finish(all))},
          {"texts", std::move(texts)}};
}

OrderedJson tour_ablations(const model::TextModel& model, std::string_view name, const model::PoolingConfig& pooling,
                           std::string_view text, const BatchOptions& options, const TourProgress& progress) {
  if (model.decoder() != nullptr) {
    throw Error(ErrorCode::kInvalidArgument, "ablations: compares the vectors of texts, and a decoder makes none");
  }
  const model::EncoderConfig& config = model.encoder().config();
  Tensor scale(DType::kF32, Dims{config.num_layers, config.num_heads});
  const auto count = static_cast<std::size_t>(config.num_layers * config.num_heads);
  float* const of_head = scale.as<float>();
  std::fill_n(of_head, count, 1.0f);
  Vectors text_vectors(model, pooling, text, options), other_vectors(model, pooling, kOther, options);
  const Tensor whole = text_vectors.with({});
  const double similarity = cosine(whole, other_vectors.with({}));
  struct Left {
    double self, other;
  };
  const auto left = [&] {
    const Tensor without = text_vectors.with(scale.cview());
    return Left{cosine(whole, without), cosine(without, other_vectors.with(scale.cview()))};
  };
  const auto go_on = [&](std::size_t done) {
    return !progress || progress(static_cast<double>(done) / static_cast<double>(2 * count));
  };

  std::vector<Left> alone;
  for (std::size_t head = 0; head < count; ++head) {
    of_head[head] = 0;
    alone.push_back(left());
    of_head[head] = 1;
    if (!go_on(head + 1)) return kCancelled;
  }
  std::vector<std::size_t> order(count);
  for (std::size_t i = 0; i < count; ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return alone[a].self > alone[b].self; });

  const auto per_layer = static_cast<std::size_t>(config.num_heads);
  OrderedJson rows = OrderedJson::array(), in_order = OrderedJson::array();
  for (std::size_t head = 0; head < count; ++head) {
    if (head % per_layer == 0) rows.push_back(OrderedJson::array());
    rows.back().push_back({{"self", alone[head].self}, {"other", alone[head].other}});
  }
  for (std::size_t i = 0; i < count; ++i) {
    of_head[order[i]] = 0;
    const Left those = left();
    in_order.push_back({{"layer", order[i] / per_layer},
                        {"head", order[i] % per_layer},
                        {"self", those.self},
                        {"other", those.other}});
    if (!go_on(count + i + 1)) return kCancelled;
  }
  return {{"model", name},
          {"text", text},
          {"other", kOther},
          {"similarity", similarity},
          {"alone", std::move(rows)},
          {"in_order", std::move(in_order)}};
}

}  // namespace manyheads::lens
