#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "base/format.hpp"
#include "bench/cases/case.hpp"
#include "bench/cases/sampling.hpp"
#include "lens/each_row.hpp"
#include "lens/head_scorer.hpp"
#include "lens/passage_reader.hpp"
#include "lens/scan.hpp"
#include "lens/text_batches.hpp"
#include "model/bert.hpp"

namespace manyheads::bench {

namespace {

constexpr std::int64_t kTokens = 8192;       // of the texts
constexpr std::int64_t kBatchTokens = 2048;  // of a scan's batch
constexpr std::int64_t kVocabulary = 1000;

// MiniLM's shape with random weights.
std::unique_ptr<const model::BertEncoder> encoder() {
  model::BertConfig config;
  config.hidden_size = 384;
  config.num_hidden_layers = 6;
  config.num_attention_heads = 12;
  config.intermediate_size = 1536;
  config.vocab_size = kVocabulary;
  config.max_position_embeddings = 512;
  config.type_vocab_size = 2;
  config.layer_norm_eps = 1e-12;
  StateDict tensors;
  std::uint64_t seed = 1;
  const auto add = [&](const std::string& name, const Dims& shape, float scale) {
    tensors[name] = normal(DType::kF32, shape, seed++, scale);
  };
  const auto add_norm = [&](const std::string& name) {
    add(name + ".bias", {384}, 0.1f);
    tensors[name + ".weight"] = Tensor(DType::kF32, {384});
    std::fill_n(tensors[name + ".weight"].as<float>(), 384, 1.0f);
  };
  const auto add_linear = [&](const std::string& name, std::int64_t out, std::int64_t in) {
    add(name + ".weight", {out, in}, 0.08f);
    add(name + ".bias", {out}, 0.1f);
  };
  add("embeddings.word_embeddings.weight", {kVocabulary, 384}, 1);
  add("embeddings.position_embeddings.weight", {512, 384}, 0.3f);
  add("embeddings.token_type_embeddings.weight", {2, 384}, 0.1f);
  add_norm("embeddings.LayerNorm");
  for (std::int64_t l = 0; l < config.num_hidden_layers; ++l) {
    const std::string layer = base::format("encoder.layer.{}.", l);
    for (const char* part : {"query", "key", "value"}) add_linear(layer + "attention.self." + part, 384, 384);
    add_linear(layer + "attention.output.dense", 384, 384);
    add_norm(layer + "attention.output.LayerNorm");
    add_linear(layer + "intermediate.dense", 1536, 384);
    add_linear(layer + "output.dense", 384, 1536);
    add_norm(layer + "output.LayerNorm");
  }
  return std::make_unique<const model::BertEncoder>(config, tensors);
}

struct ScanWork {
  explicit ScanWork(std::int64_t tokens) : model(encoder()), scan(model->config(), 1) {
    std::uint64_t state = 1;
    for (std::int64_t first = 0; first < kTokens; first += tokens) {
      model::Encoding& encoding = texts.emplace_back().encoding;
      for (std::int64_t t = 0; t < tokens; ++t) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        const bool special = t == 0 || t == tokens - 1;
        encoding.ids.push_back(special ? (t == 0 ? 1 : 2) : static_cast<std::int64_t>(3 + (state >> 33) % (kVocabulary - 3)));
        encoding.type_ids.push_back(0);
        encoding.tokens.emplace_back(special ? "[CLS]" : "word");
        encoding.offsets.push_back({0, 0});
        encoding.words.push_back(special ? -1 : t - 1);
        encoding.sequences.push_back(special ? -1 : 0);
        encoding.special.push_back(special);
      }
    }
  }

  // The texts in batches, each read.
  void run(int threads) {
    const std::size_t tokens = texts.front().encoding.size(), together = static_cast<std::size_t>(kBatchTokens) / tokens;
    for (std::size_t first = 0; first < texts.size(); first += together) {
      batch.clear();
      for (std::size_t i = first; i < first + together; ++i) batch.push_back({i, texts[i].encoding, {}});
      const std::vector<lens::ScanPassage> passages(batch.size());
      lens::run_batch(*model, batch, {.threads = {.num_threads = threads}});
      scan.add(batch, passages, {.num_threads = threads});
    }
  }

  std::unique_ptr<const model::BertEncoder> model;
  lens::Scan scan;
  std::vector<lens::BatchText> texts, batch;
  Workspace workspace;
};

// The largest difference of a score from its definition over rows, of a few heads.
double score_error(const lens::Trace& trace) {
  double worst = 0;
  const lens::PassageReader reader(trace);
  const lens::TokenKinds kinds = lens::token_kinds(trace);
  lens::PassageReader::Memory memory;
  lens::PassageReading reading;
  for (std::size_t layer = 0; layer < trace.layers.size(); layer += 2) {
    reader.read(layer, 5, memory, reading);
    lens::HeadScorer scorer(kinds);
    lens::for_each_row(trace, layer, 5, [&](const float* row) { scorer.add(row); });
    const lens::HeadScores scores = scorer.finish();
    for (std::size_t s = 0; s < reading.scores.size(); ++s) {
      if (!scores.scores[s].value) continue;
      const double right = *scores.scores[s].value;
      worst = std::max(worst, std::fabs(*reading.scores[s].value - right) / std::max(1.0, std::fabs(right)));
    }
  }
  return worst;
}

}  // namespace

std::vector<Case> scan_cases(const Size& size) {
  std::vector<Case> cases;
  for (const std::int64_t tokens : {std::int64_t{32}, std::int64_t{512}}) {
    if (size.quick && tokens != 32) continue;
    for (const int threads : thread_counts(size)) {
      Case c;
      c.row = {.name = "scan", .heads = 12, .head_dim = 32, .tokens = tokens, .batch = kTokens / tokens, .threads = threads, .over = "embedding"};
      const double e = 384, t = static_cast<double>(tokens);
      c.flop = 6 * static_cast<double>(kTokens) * (24 * e * e + 4 * t * e);
      c.prepare = [=] {
        auto work = std::make_shared<ScanWork>(tokens);
        PreparedCase prepared{.work = [=] { work->run(threads); }, .base = {}, .error = {}};
        prepared.base = [=] {
          std::vector<std::vector<std::int64_t>> ids;
          for (const lens::BatchText& text : work->texts) ids.push_back(text.encoding.ids);
          model::EncoderOptions options;
          options.threads.num_threads = threads;
          options.workspace = &work->workspace;
          work->model->run(model::TokenBatch::from_rows(ids), options);
        };
        prepared.error = [=] { return score_error(work->batch.front().trace); };
        return prepared;
      };
      cases.push_back(std::move(c));
    }
  }
  return cases;
}

}  // namespace manyheads::bench
