#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <exception>
#include <manyheads/error.hpp>
#include <manyheads/model/encoder.hpp>
#include <manyheads/model/pooling.hpp>
#include <manyheads/safetensors.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>

#include "base/file.hpp"
#include "base/format.hpp"
#include "base/parallel.hpp"
#include "cli.hpp"
#include "line_reader.hpp"
#include "model/first_tokens.hpp"
#include "model/modules.hpp"
#include "model/text_model.hpp"
#include "out_file.hpp"
#include "tensors.hpp"
#include "text.hpp"

namespace manyheads::cli {

namespace {

// A window of lines (or about so many bytes) is sorted by length. A pass through the model takes so many tokens.
constexpr std::size_t kWindow = 2048;
constexpr std::size_t kWindowBytes = std::size_t{16} << 20;
constexpr std::size_t kMostTogether = 8192;

struct Embed {
  Common common;
  std::string in = "-";
  std::string model;
  std::string out;
  std::string weights_dtype = "f32";
  std::optional<std::string> prompt_name;
  std::optional<std::string> prompt;
  bool no_prompt = false;
  bool truncate = true;
  bool skip_empty = false;
};

// Shows the number of texts so far on a terminal's standard error, and nothing in a pipe.
class Progress {
 public:
  ~Progress() { clear(); }
  void clear() {
    if (shown_) std::fputs("\r\x1b[K", stderr);
    shown_ = false;
  }
  void show(std::size_t texts) {
    if (!terminal_errors()) return;
    std::fprintf(stderr, "\r%zu texts", texts);
    shown_ = true;
  }

 private:
  bool shown_ = false;
};

void say(const std::string& text) { std::fprintf(stderr, "manyheads embed: %s\n", text.c_str()); }

class Embedder {
 public:
  explicit Embedder(const Embed& request)
      : request_(request),
        model_(request.model, parse_dtype(request.weights_dtype)),
        pooling_(model::load_pooling(request.model)) {
    const model::SentenceSettings settings = model::load_sentence_settings(request.model);
    prompt_ = request.prompt ? *request.prompt : request.no_prompt ? "" : settings.prompt(request.prompt_name);
    check_utf8("--prompt", prompt_);
    check_pooling();
    set_limit();
    const auto modes = static_cast<std::int64_t>(pooling_.modes.size());
    size_ = modes * model_.encoder().config().hidden_size;
    if (settings.truncate_dim) size_ = std::min(size_, *settings.truncate_dim);
    if (!pooling_.include_prompt && !prompt_.empty()) skip_ = prompt_tokens();
  }

  std::int64_t size() const { return size_; }  // of a vector
  std::int64_t limit() const { return limit_; }
  const std::string& limit_source() const { return limit_source_; }

  // The vectors of the lines [first, first + texts.size()) of `source`.
  struct Result {
    std::vector<std::size_t> kept;  // the texts that have a vector, counted from 0
    std::vector<float> vectors;     // one after another
    std::size_t cut = 0;            // texts that were too long
  };
  Result embed(const std::vector<std::string>& texts, std::size_t first, const std::string& source) {
    std::vector<model::FirstTokens> encoded(texts.size());
    std::vector<char> empty(texts.size());
    std::vector<std::exception_ptr> problems(texts.size());
    const auto count = static_cast<std::int64_t>(texts.size());
    base::parallel_for(count, base::worker_count(count, {.num_threads = request_.common.threads}), nullptr,
                       [&](std::int64_t i, int) {
                         const auto t = static_cast<std::size_t>(i);
                         try {
                           encoded[t] = encode(base::format("line {} of {}", first + t, source), texts[t], &empty[t]);
                         } catch (...) {
                           problems[t] = std::current_exception();
                         }
                       });
    // The first of several bad lines is named, whichever thread was faster.
    for (const std::exception_ptr& problem : problems) {
      if (problem) std::rethrow_exception(problem);
    }
    Result result;
    for (std::size_t t = 0; t < texts.size(); ++t) {
      if (empty[t] != 0) continue;
      result.kept.push_back(t);
      if (encoded[t].cut) ++result.cut;
    }
    // Texts of like length share a pass. The encoder's bits do not depend on their neighbours.
    std::vector<std::size_t> order(result.kept.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    const auto tokens = [&](std::size_t i) -> const model::FirstTokens& { return encoded[result.kept[i]]; };
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return tokens(a).ids.size() > tokens(b).ids.size(); });
    const auto width = static_cast<std::size_t>(size());
    result.vectors.resize(order.size() * width);
    for (std::size_t begin = 0; begin < order.size();) {
      const std::size_t longest = tokens(order[begin]).ids.size();
      const std::size_t end =
          std::min(order.size(), begin + std::max<std::size_t>(1, kMostTogether / std::max<std::size_t>(1, longest)));
      std::vector<std::vector<std::int64_t>> ids, type_ids;
      for (std::size_t i = begin; i < end; ++i) {
        ids.push_back(tokens(order[i]).ids);
        type_ids.push_back(tokens(order[i]).type_ids);
      }
      const model::TokenBatch input = model::TokenBatch::from_rows(ids, type_ids);
      model::EncoderOptions options;
      options.threads.num_threads = request_.common.threads;
      options.bits = request_.common.bits;
      options.workspace = &workspace_;
      const Tensor hidden = model_.encoder().run(input, options);
      const Tensor pooled = model::pool(hidden.view(), input.lengths, pooling_, skip_);
      const auto stride = static_cast<std::size_t>(pooled.size(1));
      for (std::size_t i = begin; i < end; ++i) {
        std::copy_n(pooled.as<float>() + (i - begin) * stride, width, result.vectors.data() + order[i] * width);
      }
      begin = end;
    }
    return result;
  }

 private:
  // Without the file sentence-transformers takes the mean, which holds for encoders alone: what a decoder's first
  // tokens say does not know of the last ones.
  void check_pooling() const {
    if (model_.decoder() == nullptr || !model::load_modules(request_.model).empty()) return;
    throw Error(ErrorCode::kInvalidArgument, base::path_in_quotes(request_.model) +
                                                 " holds a decoder and no modules.json, which would say how its tokens "
                                                 "become a vector");
  }

  // sentence-transformers cuts a text to this many tokens, at most the model's positions.
  void set_limit() {
    limit_ = model_.encoder().config().max_position_embeddings;
    limit_source_ = "max_position_embeddings of config.json";
    const auto lower = [&](const std::optional<std::int64_t>& to, const std::string& source) {
      if (!to || *to > limit_) return;
      limit_ = *to;
      limit_source_ = source;
    };
    if (model_.parts().module.max_seq_length) {
      lower(model_.parts().module.max_seq_length, "max_seq_length of " + model_.parts().module.max_seq_length_file);
    } else {
      lower(model_.parts().configured.model_max_length, "model_max_length of tokenizer_config.json");
    }
    special_ = model_.parts().configured.tokenizer.encode("").size();
    if (static_cast<std::int64_t>(special_) > limit_) {
      throw Error(ErrorCode::kMalformedFile,
                  base::path_in_quotes(model_.parts().module.folder) + ": " + limit_source_ +
                      base::format(" is {}, too few for the {} special tokens", limit_, special_));
    }
  }

  model::FirstTokens encode(const std::string& subject, const std::string& text, char* empty) const {
    check_utf8(subject, text);
    model::FirstTokens tokens;
    try {
      tokens =
          model::first_tokens(model_.parts().configured.tokenizer, prompt_ + text, static_cast<std::size_t>(limit_));
      if (request_.skip_empty) *empty = is_empty(tokens, text) ? 1 : 0;
    } catch (const Error& error) {
      throw Error(error.code(), subject + ": " + error.what());
    }
    if (tokens.cut && !request_.truncate) {
      const std::string count =
          tokens.read_whole ? base::format("{}", tokens.text_tokens + special_) : base::format("more than {}", limit_);
      throw Error(ErrorCode::kInvalidArgument,
                  subject + base::format(" has {} tokens, the model takes {} ({})", count, limit_, limit_source_));
    }
    model::check_ids(subject, tokens.ids, tokens.type_ids, model_);
    return tokens;
  }

  // A prompt does not count: it is the same in every line.
  bool is_empty(const model::FirstTokens& tokens, const std::string& text) const {
    if (prompt_.empty()) return tokens.text_tokens == 0;
    return model::first_tokens(model_.parts().configured.tokenizer, text, static_cast<std::size_t>(limit_))
               .text_tokens == 0;
  }

  // The tokens before a text, as sentence-transformers counts them: those of the prompt alone, without the special one
  // at the end.
  std::int64_t prompt_tokens() const {
    const model::Encoding encoding = model_.parts().configured.tokenizer.encode(prompt_);
    const std::int64_t size = std::min(static_cast<std::int64_t>(encoding.size()), limit_);
    return size - (size > 0 && encoding.special.back() ? 1 : 0);
  }

  const Embed& request_;
  model::TextModel model_;
  model::PoolingConfig pooling_;
  std::string prompt_;
  std::int64_t limit_ = 0;
  std::string limit_source_;
  std::size_t special_ = 0;  // tokens that the tokenizer adds to a text
  std::int64_t size_ = 0;
  std::int64_t skip_ = 0;
  Workspace workspace_;
};

// The shortest digits that give the same float again. `line` is left out where it is 0.
std::string json_line(std::size_t line, const std::string& text, const float* vector, std::size_t width) {
  std::string json = "{";
  if (line > 0) json += base::format("\"line\":{},", line);
  json += "\"text\":" + nlohmann::json(text).dump() + ",\"embedding\":[";
  for (std::size_t i = 0; i < width; ++i) {
    if (i > 0) json += ',';
    json += std::isfinite(vector[i]) ? base::format("{}", vector[i]) : "null";
  }
  return json + "]}\n";
}

// All vectors of a run, for a file.
struct Collected {
  std::vector<float> vectors;
  std::vector<std::int64_t> lines;
};

void save(const Embed& request, const OutFile& file, const Collected& all, std::int64_t width, std::size_t cut,
          std::size_t left_out) {
  const auto count = static_cast<std::int64_t>(all.lines.size());
  Tensor embeddings(DType::kF32, Dims{count, width});
  std::copy(all.vectors.begin(), all.vectors.end(), embeddings.as<float>());
  StateDict tensors{{"embeddings", embeddings}};
  if (request.skip_empty) {
    Tensor lines(DType::kI64, Dims{count});
    std::copy(all.lines.begin(), all.lines.end(), lines.as<std::int64_t>());
    tensors.emplace("lines", lines);
  }
  file.save([&](const std::string& path) { save_safetensors(path, tensors, {{"model", model_name(request.model)}}); });
  if (request.common.json) {
    print_json({{"out", request.out}, {"texts", count}, {"dimensions", width}, {"cut", cut}, {"left_out", left_out}});
  } else {
    file.report(base::format("Wrote {}: embeddings [{},{}]\n", file.shown(), count, width));
  }
}

void embed(const Embed& request) {
  if ((request.prompt ? 1 : 0) + (request.prompt_name ? 1 : 0) + (request.no_prompt ? 1 : 0) > 1) {
    throw UsageError("--prompt, --prompt-name and --no-prompt exclude each other");
  }
  check_model(request.model);
  std::optional<OutFile> file;
  if (!request.out.empty()) file.emplace(request.out, request.common.json);
  LineReader reader(request.in);
  Embedder embedder(request);
  const auto width = static_cast<std::size_t>(embedder.size());
  Progress progress;
  Collected all;
  std::size_t cut = 0, left_out = 0;
  for (;;) {
    std::vector<std::string> texts;
    const std::size_t first = reader.number() + 1;
    // A window ends where nothing more can be read now: whoever waits for an answer gets it.
    const auto more = [&](std::size_t bytes) {
      if (texts.empty()) return true;
      return texts.size() < kWindow && bytes < kWindowBytes && (!request.out.empty() || reader.ready());
    };
    std::size_t bytes = 0;
    for (std::string line; more(bytes) && reader.next(&line); bytes += line.size()) texts.push_back(line);
    if (texts.empty()) break;
    const Embedder::Result result = embedder.embed(texts, first, reader.name());
    cut += result.cut;
    left_out += texts.size() - result.kept.size();
    if (request.out.empty()) {
      std::string lines;
      for (std::size_t i = 0; i < result.kept.size(); ++i) {
        const std::size_t t = result.kept[i];
        lines += json_line(request.skip_empty ? first + t : 0, texts[t], result.vectors.data() + i * width, width);
      }
      print(lines);
    } else {
      all.vectors.insert(all.vectors.end(), result.vectors.begin(), result.vectors.end());
      for (const std::size_t t : result.kept) all.lines.push_back(static_cast<std::int64_t>(first + t));
    }
    progress.show(reader.number());
  }
  if (reader.number() == 0) throw Error(ErrorCode::kInvalidArgument, reader.name() + " holds no text");
  if (file) save(request, *file, all, embedder.size(), cut, left_out);
  progress.clear();
  if (cut > 0) {
    say(base::format("{} of {} lines cut to {} tokens ({})", cut, reader.number(), embedder.limit(),
                     embedder.limit_source()));
  }
  if (left_out > 0) say(base::format("{} of {} lines left out: they have no token", left_out, reader.number()));
}

}  // namespace

void add_embed(CLI::App& app) {
  auto request = std::make_shared<Embed>();
  CLI::App* verb = app.add_subcommand("embed", "Sentence embeddings, one text a line");
  verb->add_option("FILE", request->in, "One text a line; - (the default) is standard input")->type_name("");
  verb->add_option("--model", request->model,
                   "Folder with config.json, model.safetensors and tokenizer.json; its sentence-transformers settings "
                   "are obeyed (docs/embeddings.md)")
      ->required()
      ->type_name("DIR");
  verb->add_option("-o,--out", request->out,
                   "Write a safetensors file (embeddings [N,E]) instead of JSON lines; - is standard output")
      ->type_name("FILE");
  verb->add_option("--weights-dtype", request->weights_dtype,
                   "What the model's weights are kept as: f32, or bf16 for half the memory and less reading")
      ->check(CLI::IsMember({"f32", "bf16"}))
      ->capture_default_str();
  verb->add_option("--prompt-name", request->prompt_name,
                   "Put this prompt of the model's before each text, instead of its default one")
      ->type_name("NAME");
  verb->add_option("--prompt", request->prompt, "Put these words before each text")->type_name("TEXT");
  verb->add_flag("--no-prompt", request->no_prompt, "Put nothing before a text, not the model's default prompt either");
  verb->add_flag("--truncate,!--no-truncate", request->truncate,
                 "Cut a text that is longer than the model takes (the default), or refuse it");
  verb->add_flag("--skip-empty", request->skip_empty,
                 "Leave out lines without a token, and number the others, instead of giving them a vector");
  add_bits(*verb, request->common);
  add_common(*verb, request->common);
  verb->footer("Example: echo \"The black cat sat on the mat.\" | manyheads embed --model models/all-MiniLM-L6-v2");
  verb->callback([request] { embed(*request); });
}

}  // namespace manyheads::cli
