#include <limits>
#include <manyheads/error.hpp>
#include <manyheads/model/pooling.hpp>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "base/format.hpp"
#include "lens/ablation.hpp"
#include "lens/copying.hpp"
#include "lens/head_distances.hpp"
#include "lens/repeats.hpp"
#include "lens/rollout.hpp"
#include "lens/text_scorer.hpp"
#include "lens/without_special.hpp"
#include "line_reader.hpp"
#include "roles.hpp"
#include "roles_found.hpp"
#include "text.hpp"

namespace manyheads::cli {
namespace {

// The texts of a request, one by one.
class Texts {
 public:
  explicit Texts(const RolesRequest& request) : request_(request) {
    for (const std::string& text : request.texts) check_text("TEXT", text);
    if (!request.file.empty()) lines_.emplace(request.file);
  }
  std::optional<std::string> next(std::size_t i) {
    if (!lines_) return i < request_.texts.size() ? std::optional(request_.texts[i]) : std::nullopt;
    std::string line;
    if (!lines_->next(&line)) return std::nullopt;
    check_utf8(base::format("line {} of {}", lines_->number(), lines_->name()), line);
    return line;
  }

 private:
  const RolesRequest& request_;
  std::optional<LineReader> lines_;
};

void check_clusters(const RolesRequest& request, std::int64_t heads) {
  if (request.clusters <= heads) return;
  throw Error(ErrorCode::kInvalidArgument,
              base::format("--clusters: {} clusters of {} heads", request.clusters, heads));
}

RolesFound::Rollout rollout_of(const lens::BatchText& text, const Threads& threads) {
  RolesFound::Rollout rollout{text.index, text.encoding.tokens, lens::attention_rollout(text.trace, threads), {}};
  const lens::WithoutSpecial without(text.trace);
  double sum = 0;
  for (const std::int64_t t : without.kept()) sum += rollout.shares[static_cast<std::size_t>(t)];
  rollout.without_special.assign(rollout.shares.size(), std::numeric_limits<double>::quiet_NaN());
  for (const std::int64_t t : without.kept()) {
    const auto at = static_cast<std::size_t>(t);
    rollout.without_special[at] = sum == 0 ? 0 : rollout.shares[at] / sum;
  }
  return rollout;
}

void read_texts(const RolesRequest& request, const model::TextModel& model, Texts& all, RolesFound& found) {
  const model::EncoderConfig& config = model.encoder().config();
  const auto heads = static_cast<std::size_t>(config.num_layers * config.num_heads);
  const lens::BatchOptions options{{.num_threads = request.common.threads}, request.common.bits};
  lens::TextScorer scorer(config);
  std::optional<lens::AblationScorer> ablation;
  if (request.ablation) {
    // A decoder's folder need not say how it makes vectors.
    ablation.emplace(model, model.decoder() != nullptr ? model::PoolingConfig() : model::load_pooling(request.model));
  }
  lens::HeadDistances distances(heads), distances_without(heads, true);
  found.left_out = lens::for_each_batch(
      model, [&](std::size_t i) { return all.next(i); }, options,
      [&](std::span<const lens::BatchText> texts) {
        found.texts += texts.size();
        scorer.add(texts, options.threads);
        if (ablation) ablation->add(texts, options);
        for (const lens::BatchText& text : texts) {
          found.tokens += text.encoding.size();
          if (request.clusters > 0) {
            distances.add(text.trace, options.threads);
            distances_without.add(text.trace, options.threads);
          }
          if (request.file.empty()) found.rollouts.push_back(rollout_of(text, options.threads));
        }
      });
  if (found.texts == 0) return;
  found.over_texts = scorer.finish();
  if (ablation) found.switched_off.push_back(ablation->finish());
  if (request.clusters == 0) return;
  const auto alike = [&](const lens::HeadDistances& of) {
    const std::vector<double> mean = of.mean();
    return RolesFound::Alike{of.rows(), mean,
                             lens::cluster_heads(mean, heads, static_cast<std::size_t>(request.clusters))};
  };
  found.alike = alike(distances);
  found.alike_without_special = alike(distances_without);
}

}  // namespace

void print_roles(const RolesRequest& request) {
  check_model(request.model);
  Texts texts(request);  // first, so that a bad one is told before the long work
  const model::TextModel model(request.model);
  const model::EncoderConfig& config = model.encoder().config();
  check_clusters(request, config.num_layers * config.num_heads);
  RolesFound found;
  found.model = model_name(request.model);
  found.num_layers = config.num_layers;
  found.num_heads = config.num_heads;
  found.causal = config.causal;
  const Threads threads{.num_threads = request.common.threads};
  read_texts(request, model, texts, found);
  lens::RepeatReading repeats = lens::read_repeats(
      model, {.tokens = request.random_tokens, .seed = request.seed, .threads = threads, .bits = request.common.bits});
  found.repeated = repeats.tokens;
  found.on_repeats = std::move(repeats.scores);
  found.first_loss = repeats.first_loss;
  found.second_loss = repeats.second_loss;
  if (model.decoder() != nullptr) found.written = lens::copying_scores(request.model, threads);
  if (request.common.json) {
    print_roles_json(found);
  } else {
    print_roles_text(found, request.legend);
  }
}

}  // namespace manyheads::cli
