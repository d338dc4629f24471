#include "lens/repeats.hpp"

#include <algorithm>
#include <manyheads/error.hpp>
#include <numeric>
#include <set>
#include <string>

#include "base/format.hpp"
#include "base/index.hpp"
#include "base/parallel.hpp"
#include "lens/each_row.hpp"
#include "lens/loss.hpp"
#include "lens/token_kinds.hpp"

namespace manyheads::lens {
namespace {

constexpr const char* kOlsson = "Olsson et al. 2022, In-context Learning and Induction Heads";
constexpr ScoreId kPatterns[] = {ScoreId::kInductionMul,      ScoreId::kInductionAbs,     ScoreId::kDuplicateTokenMul,
                                 ScoreId::kDuplicateTokenAbs, ScoreId::kPreviousTokenMul, ScoreId::kPreviousTokenAbs};

using base::at;

// SplitMix64.
class Draws {
 public:
  explicit Draws(std::uint64_t seed) : state_(seed) {}
  std::int64_t below(std::int64_t n) {
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return static_cast<std::int64_t>((z ^ (z >> 31)) % static_cast<std::uint64_t>(n));
  }

 private:
  std::uint64_t state_;
};

// The tokens that are drawn, twice, between the special tokens that stand round a text.
class RepeatedTokens {
 public:
  RepeatedTokens(const model::TextModel& model, const RepeatOptions& options)
      : vocabulary_(model.encoder().config().vocab_size),
        special_(model.encode("").ids),
        not_drawn_(special_.begin(), special_.end()),
        draws_(options.seed) {
    const std::int64_t places = model.encoder().config().max_position_embeddings;
    const auto special = static_cast<std::int64_t>(special_.size());
    // As round an empty text: all but the last stand before it.
    first_ = special == 0 ? 0 : std::max<std::int64_t>(1, special - 1);
    const std::int64_t drawable = vocabulary_ - static_cast<std::int64_t>(not_drawn_.size());
    copied_ = std::min({options.tokens, (places - special) / 2, drawable});
    if (copied_ < 2) {
      throw Error(ErrorCode::kInvalidArgument,
                  base::format("read_repeats: at least 2 tokens stand twice; {} are asked for, and the model has {} "
                               "places, {} of them for special tokens, and {} other tokens",
                               options.tokens, places, special, drawable));
    }
  }

  std::int64_t first() const { return first_; }
  std::int64_t copied() const { return copied_; }
  std::vector<std::int64_t> draw() {
    std::vector<std::int64_t> drawn;
    std::set<std::int64_t> taken = not_drawn_;
    while (static_cast<std::int64_t>(drawn.size()) < copied_) {
      const std::int64_t id = draws_.below(vocabulary_);
      if (taken.insert(id).second) drawn.push_back(id);
    }
    std::vector<std::int64_t> ids(special_.begin(), special_.begin() + first_);
    for (int copy = 0; copy < 2; ++copy) ids.insert(ids.end(), drawn.begin(), drawn.end());
    ids.insert(ids.end(), special_.begin() + first_, special_.end());
    return ids;
  }

 private:
  std::int64_t vocabulary_;
  std::vector<std::int64_t> special_;
  std::set<std::int64_t> not_drawn_;
  Draws draws_;
  std::int64_t first_ = 0, copied_ = 0;
};

double mean_of(const std::vector<double>& losses, std::int64_t begin, std::int64_t end) {
  return std::accumulate(losses.begin() + begin, losses.begin() + end, 0.0) / static_cast<double>(end - begin);
}

}  // namespace

RepeatScores score_repeat(const Trace& trace, std::size_t layer, std::int64_t head, std::int64_t first,
                          std::int64_t copied) {
  TokenKinds kinds{trace.token_ids, std::vector<bool>(trace.token_ids.size()),
                   std::vector<bool>(trace.token_ids.size())};
  HeadScorer scorer(kinds);
  Mean prefix_matching, duplicate_token;
  std::int64_t q = 0;
  for_each_row(trace, layer, head, [&](const float* row) {
    scorer.add(row);
    const std::int64_t earlier = q++ - copied;
    if (earlier < first || earlier >= first + copied) return;
    duplicate_token.add(static_cast<double>(row[earlier]));
    // Behind the earlier copy of the last one stands no token of the first copy.
    if (earlier + 1 < first + copied) prefix_matching.add(static_cast<double>(row[earlier + 1]));
  });
  return {prefix_matching.value().value_or(0), duplicate_token.value().value_or(0), scorer.finish()};
}

RepeatReading read_repeats(const model::TextModel& model, const RepeatOptions& options) {
  const model::EncoderConfig& config = model.encoder().config();
  RepeatedTokens tokens(model, options);
  const std::int64_t first = tokens.first(), copied = tokens.copied();
  const std::int64_t heads = config.num_layers * config.num_heads;
  std::vector<Mean> prefix_matching(at(heads)), duplicate_token(at(heads));
  std::vector<std::vector<Mean>> patterns(std::size(kPatterns), std::vector<Mean>(at(heads)));
  Mean first_loss, second_loss;
  RepeatReading reading;
  for (std::int64_t s = 0; s < options.sequences; ++s) {
    const std::vector<std::int64_t>& ids = reading.sequences.emplace_back(tokens.draw());
    std::vector<model::LayerHeads> layers;
    model::EncoderOptions run;
    run.layers = &layers;
    run.threads = options.threads;
    run.bits = options.bits;
    const Tensor hidden = model.encoder().run(model::TokenBatch::from_rows({ids}), run);
    Trace trace;
    trace.token_ids = ids;
    trace.scale = config.scale;
    trace.causal = config.causal;
    trace.key_length = static_cast<std::int64_t>(ids.size());
    for (const model::LayerHeads& layer : layers) {
      const model::EntryHeads of = layer.entry();
      trace.layers.push_back({of.q, of.k, of.lse, {}, {}, {}, layer.storage});
    }
    base::parallel_for(
        heads, base::worker_count(heads, options.threads), options.threads.executor, [&](std::int64_t i, int) {
          const RepeatScores scores =
              score_repeat(trace, at(i / config.num_heads), i % config.num_heads, first, copied);
          prefix_matching[at(i)].add(scores.prefix_matching);
          duplicate_token[at(i)].add(scores.duplicate_token);
          for (std::size_t p = 0; p < std::size(kPatterns); ++p) {
            patterns[p][at(i)].add(scores.of_all.scores[static_cast<std::size_t>(kPatterns[p])].value.value_or(0));
          }
        });
    if (model.decoder() == nullptr) continue;
    // losses[t] is that of token t + 1.
    const std::vector<double> losses = token_losses(*model.decoder(), hidden, 0, ids, options.threads, options.bits);
    first_loss.add(mean_of(losses, first, first + copied - 1));
    second_loss.add(mean_of(losses, first + copied, first + 2 * copied - 1));
  }
  reading.tokens = copied;
  const std::string on = base::format("; {} random tokens twice, mean of {} draws", copied, options.sequences);
  const auto add = [&](const std::string& name, const char* role, const std::vector<Mean>& means,
                       const std::string& formula, const char* source) {
    RoleScore score{name, role, 0.4, true, false, formula + on, source};
    for (const Mean& mean : means) score.values.push_back(mean.value());
    reading.scores.push_back(std::move(score));
  };
  add("prefix_matching", "induction", prefix_matching,
      "mean over q in the second copy of A[q,k], k the token behind the earlier copy of q", kOlsson);
  add("repeated_duplicate_token", "duplicate token", duplicate_token,
      "mean over q in the second copy of A[q,k], k the earlier copy of q", kOlsson);
  for (std::size_t p = 0; p < std::size(kPatterns); ++p) {
    const ScoreRule& rule = score_rules()[static_cast<std::size_t>(kPatterns[p])];
    add(std::string("repeated_") + rule.name, nullptr, patterns[p], rule.formula, rule.source);
  }
  reading.first_loss = first_loss.value();
  reading.second_loss = second_loss.value();
  return reading;
}

}  // namespace manyheads::lens
