#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <exception>
#include <filesystem>
#include <manyheads/error.hpp>
#include <manyheads/safetensors.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>

#include "base/file.hpp"
#include "base/format.hpp"
#include "base/parallel.hpp"
#include "cli.hpp"
#include "model/bert.hpp"
#include "model/pooling.hpp"
#include "model/tokenizer.hpp"
#include "tensors.hpp"
#include "text.hpp"

namespace manyheads::cli {

namespace {

// Lines that are sorted by length together, tokens of one pass through the model, and the longest line.
constexpr std::size_t kWindow = 2048;
constexpr std::size_t kBatchTokens = 8192;
constexpr std::size_t kLongestLine = 64u << 20;

struct Embed {
  Common common;
  std::string in = "-";
  std::string model;
  std::string out;
  std::string weights_dtype = "f32";
  bool truncate = false;
};

// Lines of a file or of standard input, without their ends; a last line needs none.
class LineReader {
 public:
  explicit LineReader(const std::string& path)
      : name_(path == "-" ? "standard input" : base::path_in_quotes(path)),
        file_(path == "-" ? stdin : std::fopen(path.c_str(), "rb"),
              path == "-" ? [](std::FILE*) { return 0; } : std::fclose) {
    if (file_ == nullptr) fail();
  }

  bool next(std::string* line) {
    line->clear();
    for (;;) {
      if (begin_ == end_) {
        end_ = std::fread(buffer_.data(), 1, buffer_.size(), file_.get());
        begin_ = 0;
        if (end_ == 0) {
          if (std::ferror(file_.get()) != 0) fail();
          if (line->empty()) return false;
          break;
        }
      }
      const char* at = buffer_.data() + begin_;
      const void* newline = std::memchr(at, '\n', end_ - begin_);
      const std::size_t size =
          newline == nullptr ? end_ - begin_ : static_cast<std::size_t>(static_cast<const char*>(newline) - at);
      line->append(at, size);
      begin_ += size + (newline == nullptr ? 0 : 1);
      if (line->size() > kLongestLine) {
        throw Error(ErrorCode::kInvalidArgument,
                    base::format("line {} of {} is longer than {} MiB", number_ + 1, name_, kLongestLine >> 20));
      }
      if (newline != nullptr) break;
    }
    ++number_;
    if (!line->empty() && line->back() == '\r') line->pop_back();
    return true;
  }

  std::size_t number() const { return number_; }
  const std::string& name() const { return name_; }

 private:
  [[noreturn]] void fail() const { throw Error(ErrorCode::kIo, "cannot read " + name_ + ": " + std::strerror(errno)); }

  std::string name_;
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file_;
  std::array<char, 1 << 16> buffer_{};
  std::size_t begin_ = 0, end_ = 0;
  std::size_t number_ = 0;
};

// The text `lines` so far on a terminal's standard error, and nothing in a pipe.
class Progress {
 public:
  ~Progress() {
    if (shown_) std::fputs("\r\x1b[K", stderr);
  }
  void show(std::size_t texts) {
    if (!terminal_errors()) return;
    std::fprintf(stderr, "\r%zu texts", texts);
    shown_ = true;
  }

 private:
  bool shown_ = false;
};

class Embedder {
 public:
  explicit Embedder(const Embed& request)
      : request_(request),
        tokenizer_(std::filesystem::path(request.model) / "tokenizer.json"),
        encoder_(model::BertEncoder::load(request.model, parse_dtype(request.weights_dtype))),
        pooling_(model::load_pooling(request.model)) {}

  std::int64_t size() const { return encoder_.config().hidden_size; }

  // The vectors of the texts, in their order, one after another. `first` is the line number of the first.
  std::vector<float> embed(const std::vector<std::string>& texts, std::size_t first, const std::string& source) {
    std::vector<EncodedText> encoded(texts.size());
    std::vector<std::exception_ptr> problems(texts.size());
    base::parallel_for(
        static_cast<std::int64_t>(texts.size()), request_.common.threads, nullptr, [&](std::int64_t i, int) {
          const auto t = static_cast<std::size_t>(i);
          try {
            encoded[t] = encode_text(tokenizer_, base::format("line {} of {}", first + t, source), texts[t], {},
                                     encoder_.config().max_position_embeddings, request_.truncate);
          } catch (...) {
            problems[t] = std::current_exception();
          }
        });
    // Of several bad lines the first is named, whichever thread was faster.
    for (const std::exception_ptr& problem : problems) {
      if (problem) std::rethrow_exception(problem);
    }
    // Texts of like length share a pass. The encoder's bits do not depend on who shares it.
    std::vector<std::size_t> order(texts.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
      return encoded[a].encoding.size() > encoded[b].encoding.size();
    });
    const auto width = static_cast<std::size_t>(size());
    std::vector<float> vectors(texts.size() * width);
    for (std::size_t begin = 0; begin < order.size();) {
      const std::size_t longest = encoded[order[begin]].encoding.size();
      const std::size_t end = std::min(order.size(), begin + std::max<std::size_t>(1, kBatchTokens / longest));
      std::vector<std::vector<std::int64_t>> ids, type_ids;
      for (std::size_t i = begin; i < end; ++i) {
        ids.push_back(encoded[order[i]].encoding.ids);
        type_ids.push_back(encoded[order[i]].encoding.type_ids);
      }
      const model::BertInput input = model::BertInput::from_rows(ids, type_ids);
      model::BertOptions options;
      options.num_threads = request_.common.threads;
      options.workspace = &workspace_;
      const Tensor hidden = encoder_.run(input, options);
      const Tensor pooled = model::pool(hidden.view(), input.lengths, pooling_);
      for (std::size_t i = begin; i < end; ++i) {
        std::copy_n(pooled.as<float>() + (i - begin) * width, width, vectors.data() + order[i] * width);
      }
      begin = end;
    }
    for (std::size_t t = 0; t < texts.size(); ++t) {
      if (encoded[t].full_size > encoded[t].encoding.size()) {
        std::fprintf(stderr, "manyheads embed: line %zu of %s: cut from %zu to %zu tokens\n", first + t, source.c_str(),
                     encoded[t].full_size, encoded[t].encoding.size());
      }
    }
    return vectors;
  }

 private:
  const Embed& request_;
  model::Tokenizer tokenizer_;
  model::BertEncoder encoder_;
  model::PoolingConfig pooling_;
  Workspace workspace_;
};

// The shortest digits that give the same float again.
std::string json_line(const std::string& text, const float* vector, std::size_t width) {
  std::string line = "{\"text\":" + nlohmann::json(text).dump() + ",\"embedding\":[";
  for (std::size_t i = 0; i < width; ++i) {
    if (i > 0) line += ',';
    line += std::isfinite(vector[i]) ? base::format("{}", vector[i]) : "null";
  }
  return line + "]}\n";
}

void embed(const Embed& request) {
  check_model(request.model);
  if (!request.out.empty()) check_output(request.out);
  LineReader reader(request.in);
  Embedder embedder(request);
  const auto width = static_cast<std::size_t>(embedder.size());
  Progress progress;
  std::vector<float> all;
  for (;;) {
    std::vector<std::string> texts;
    const std::size_t first = reader.number() + 1;
    for (std::string line; texts.size() < kWindow && reader.next(&line);) texts.push_back(line);
    if (texts.empty()) break;
    const std::vector<float> vectors = embedder.embed(texts, first, reader.name());
    if (request.out.empty()) {
      std::string lines;
      for (std::size_t t = 0; t < texts.size(); ++t) lines += json_line(texts[t], vectors.data() + t * width, width);
      print(lines);
    } else {
      all.insert(all.end(), vectors.begin(), vectors.end());
    }
    progress.show(reader.number());
  }
  if (reader.number() == 0) throw Error(ErrorCode::kInvalidArgument, reader.name() + " holds no text");
  if (request.out.empty()) return;

  const auto count = static_cast<std::int64_t>(reader.number());
  Tensor embeddings(DType::kF32, Dims{count, embedder.size()});
  std::copy(all.begin(), all.end(), embeddings.as<float>());
  save_safetensors(request.out, {{"embeddings", embeddings}}, {{"model", model_name(request.model)}});
  if (request.common.json) {
    print_json({{"out", request.out}, {"texts", count}, {"dimensions", embedder.size()}});
  } else {
    print(base::format("Wrote {}: embeddings [{},{}]\n", request.out, count, embedder.size()));
  }
}

}  // namespace

void add_embed(CLI::App& app) {
  auto request = std::make_shared<Embed>();
  CLI::App* verb = app.add_subcommand("embed", "Sentence embeddings, one text a line");
  verb->add_option("FILE", request->in, "One text a line; - (the default) is standard input")->type_name("");
  verb->add_option("--model", request->model, "Folder with config.json, model.safetensors and tokenizer.json")
      ->required()
      ->type_name("DIR");
  verb->add_option("-o,--out", request->out, "Write a safetensors file (embeddings [N,E]) instead of JSON lines")
      ->type_name("FILE");
  verb->add_option("--weights-dtype", request->weights_dtype,
                   "What the model's weights are kept as: f32, or bf16 for half the memory and less reading")
      ->check(CLI::IsMember({"f32", "bf16"}))
      ->capture_default_str();
  verb->add_flag("--truncate", request->truncate, "Cut texts that are longer than the model takes");
  add_common(*verb, request->common);
  verb->footer("Example: echo \"The black cat sat on the mat.\" | manyheads embed --model models/all-MiniLM-L6-v2");
  verb->callback([request] { embed(*request); });
}

}  // namespace manyheads::cli
