#include <manyheads/model/generate.hpp>

#include <algorithm>
#include <cstring>
#include <manyheads/error.hpp>
#include <optional>

#include "base/format.hpp"
#include "base/parallel.hpp"
#include "model/sampler.hpp"

namespace manyheads::model {
namespace {

using Ids = std::vector<std::int64_t>;

[[noreturn]] void refuse(const std::string& what) { throw Error(ErrorCode::kInvalidArgument, "generate: " + what); }

void check(const EncoderConfig& config, std::span<const Ids> prompts, const GenerateOptions& options) {
  check_sampling(options.sampling);
  for (const auto& [value, name] : {std::pair{options.max_tokens, "max_tokens"}, std::pair{options.chunk, "chunk"},
                                    std::pair{options.batch, "batch"}}) {
    if (value < 1) refuse(base::format("{} is {}, 1 or more is needed", name, value));
  }
  for (std::size_t p = 0; p < prompts.size(); ++p) {
    if (prompts[p].empty()) refuse(base::format("prompt {} is empty", p));
    if (static_cast<std::int64_t>(prompts[p].size()) > config.max_position_embeddings) {
      refuse(base::format("prompt {} has {} tokens, the model takes {}", p, prompts[p].size(),
                          config.max_position_embeddings));
    }
    for (const std::int64_t id : prompts[p]) {
      if (id < 0 || id >= config.vocab_size) {
        refuse(base::format("prompt {} has the id {}, vocab_size is {}", p, id, config.vocab_size));
      }
    }
  }
}

// How many tokens all prompts begin with, one of each left out: its hidden state says what comes next.
std::size_t shared_tokens(std::span<const Ids> prompts) {
  if (prompts.size() < 2) return 0;
  std::size_t shared = prompts[0].size() - 1;
  for (const Ids& prompt : prompts.subspan(1)) {
    shared = std::min(shared, prompt.size() - 1);
    const auto end = prompt.begin() + static_cast<std::ptrdiff_t>(shared);
    shared = static_cast<std::size_t>(std::mismatch(prompt.begin(), end, prompts[0].begin()).first - prompt.begin());
  }
  return shared;
}

class Writer {
 public:
  Writer(const Decoder& decoder, std::span<const Ids> prompts, const GenerateOptions& options)
      : decoder_(decoder),
        prompts_(prompts),
        options_(options),
        shared_(shared_tokens(prompts)),
        cache_(decoder.config(), {.dtype = options.cache}),
        written_(prompts.size()) {}

  std::vector<Generated> run() {
    read_shared();
    while (!cancelled() && admit()) pass();
    for (const Text& text : texts_) end(text, Stop::kCancelled);
    return std::move(written_);
  }

 private:
  struct Text {  // one that is being written
    std::size_t prompt = 0;
    DecoderCache::Sequence sequence = 0;
    std::size_t read = 0;  // tokens of the prompt that the cache has
  };

  bool cancelled() const { return options_.cancel != nullptr && options_.cancel->load(std::memory_order_relaxed); }

  Tensor extend(std::span<const DecoderChunk> chunks) {
    EncoderOptions options{.threads = options_.threads, .bits = options_.bits, .workspace = &workspace_};
    if (options_.on_heads) options.layers = &layers_;
    Tensor hidden = decoder_.extend(cache_, chunks, options);
    if (options_.on_heads) options_.on_heads(layers_);
    return hidden;
  }

  void read_shared() {
    if (shared_ == 0) return;
    prefix_ = cache_.add();
    const std::span<const std::int64_t> ids = std::span(prompts_[0]).first(shared_);
    const auto chunk = static_cast<std::size_t>(options_.chunk);
    for (std::size_t i = 0; i < shared_ && !cancelled(); i += chunk) {
      const DecoderChunk next{*prefix_, ids.subspan(i, std::min(chunk, shared_ - i))};
      extend({&next, 1});
    }
  }

  // Begins texts while there is room for them. False where none is left.
  bool admit() {
    while (next_ < prompts_.size() && static_cast<std::int64_t>(texts_.size()) < options_.batch) {
      texts_.push_back({next_, prefix_ ? cache_.fork(*prefix_) : cache_.add(), shared_});
      ++next_;
    }
    if (prefix_ && next_ == prompts_.size()) {
      cache_.remove(*prefix_);
      prefix_.reset();
    }
    return !texts_.empty();
  }

  // One token further with each text whose prompt is read, and up to a chunk of the prompts that are not.
  void pass() {
    std::vector<DecoderChunk> chunks;
    std::vector<std::size_t> ready, rows;  // texts that get a token, and the row that says which
    auto left = static_cast<std::size_t>(options_.chunk);
    std::size_t row = 0;
    for (std::size_t t = 0; t < texts_.size(); ++t) {
      Text& text = texts_[t];
      const Ids& prompt = prompts_[text.prompt];
      std::span<const std::int64_t> ids = std::span(written_[text.prompt].ids).last(text.read < prompt.size() ? 0 : 1);
      if (text.read < prompt.size()) {
        ids = std::span(prompt).subspan(text.read, std::min(left, prompt.size() - text.read));
        if (ids.empty()) continue;
        left -= ids.size();
        text.read += ids.size();
      }
      chunks.push_back({text.sequence, ids});
      row += ids.size();
      if (text.read < prompt.size()) continue;
      ready.push_back(t);
      rows.push_back(row - 1);
    }
    const Tensor hidden = extend(chunks);
    if (!ready.empty()) choose(hidden, ready, rows);
  }

  void choose(const Tensor& hidden, const std::vector<std::size_t>& ready, const std::vector<std::size_t>& rows) {
    const auto count = static_cast<std::int64_t>(ready.size());
    const auto width = static_cast<std::size_t>(hidden.size(1));
    Tensor last(DType::kF32, Dims{count, hidden.size(1)});
    for (std::size_t i = 0; i < rows.size(); ++i) {
      std::memcpy(last.as<float>() + i * width, hidden.as<float>() + rows[i] * width, width * sizeof(float));
    }
    const Tensor logits = decoder_.logits(last.cview(), options_.threads, options_.bits);
    const auto vocabulary = static_cast<std::size_t>(logits.size(1));
    std::vector<std::int64_t> ids(ready.size());
    std::vector<double> log_probabilities(options_.log_probabilities ? ready.size() : 0);
    base::parallel_for(count, base::worker_count(count, options_.threads), options_.threads.executor,
                       [&](std::int64_t r, int) {
                         const auto i = static_cast<std::size_t>(r);
                         const std::span<const float> values(logits.as<float>() + i * vocabulary, vocabulary);
                         const std::size_t prompt = texts_[ready[i]].prompt;
                         ids[i] = sample(values, options_.sampling, prompt, written_[prompt].ids.size());
                         if (options_.log_probabilities) log_probabilities[i] = log_probability(values, ids[i]);
                       });
    for (std::size_t i = 0; i < ready.size(); ++i) {
      Generated& written = written_[texts_[ready[i]].prompt];
      written.ids.push_back(ids[i]);
      if (options_.log_probabilities) written.log_probabilities.push_back(log_probabilities[i]);
      if (options_.on_token) options_.on_token({texts_[ready[i]].prompt, ids[i]});
    }
    std::erase_if(texts_, [&](const Text& text) { return ended(text); });
  }

  bool ended(const Text& text) {
    const std::vector<std::int64_t>& ids = written_[text.prompt].ids;
    if (ids.empty()) return false;
    const auto tokens = static_cast<std::int64_t>(prompts_[text.prompt].size() + ids.size());
    if (std::count(options_.end_tokens.begin(), options_.end_tokens.end(), ids.back()) > 0) {
      end(text, Stop::kEndToken);
    } else if (static_cast<std::int64_t>(ids.size()) == options_.max_tokens) {
      end(text, Stop::kMaxTokens);
    } else if (tokens > decoder_.config().max_position_embeddings) {
      end(text, Stop::kModelLength);
    } else {
      return false;
    }
    return true;
  }

  void end(const Text& text, Stop stop) {
    cache_.remove(text.sequence);
    written_[text.prompt].stop = stop;
    if (options_.on_end) options_.on_end(text.prompt, written_[text.prompt]);
  }

  const Decoder& decoder_;
  std::span<const Ids> prompts_;
  const GenerateOptions& options_;
  std::size_t shared_;
  DecoderCache cache_;
  std::optional<DecoderCache::Sequence> prefix_;  // what all prompts begin with
  std::size_t next_ = 0;                          // the first prompt whose text has not begun
  std::vector<Text> texts_;
  std::vector<Generated> written_;
  std::vector<LayerHeads> layers_;
  Workspace workspace_;
};

}  // namespace

std::vector<Generated> generate(const Decoder& decoder, std::span<const std::vector<std::int64_t>> prompts,
                                const GenerateOptions& options) {
  check(decoder.config(), prompts, options);
  return Writer(decoder, prompts, options).run();
}

}  // namespace manyheads::model
