#include <unistd.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <climits>
#include <csignal>
#include <manyheads/error.hpp>
#include <manyheads/lens/lookback.hpp>
#include <manyheads/model/generate.hpp>
#include <memory>
#include <optional>

#include "arguments.hpp"
#include "base/file.hpp"
#include "base/format.hpp"
#include "cli.hpp"
#include "generate.hpp"
#include "line_reader.hpp"
#include "model/chat_template.hpp"
#include "model/text_model.hpp"
#include "tensors.hpp"
#include "text.hpp"

namespace manyheads::cli {
namespace {

struct Generate {
  Common common;
  std::optional<std::string> text;
  std::string file;
  std::string model;
  bool chat = false;
  std::optional<std::string> system;
  std::int64_t tokens = 128;
  std::optional<double> temperature;
  std::optional<double> top_p;
  std::optional<std::int64_t> seed;
  std::string weights_dtype = "f32";
  std::string cache_dtype = "f32";
  bool lookback = false;
};

std::atomic<bool> interrupted{false};
static_assert(std::atomic<bool>::is_always_lock_free);

// While it lives, the first Ctrl-C ends the texts after the current token, and a second one ends the program. One that
// is ignored from the start, as under nohup, stays so.
class Interrupts {
 public:
  Interrupts() {
    ::sigaction(SIGINT, nullptr, &before_);
    if (before_.sa_handler == SIG_IGN) return;
    struct sigaction once{};
    once.sa_handler = [](int) { interrupted.store(true, std::memory_order_relaxed); };
    once.sa_flags = static_cast<int>(SA_RESETHAND);
    ::sigaction(SIGINT, &once, nullptr);
  }
  ~Interrupts() { ::sigaction(SIGINT, &before_, nullptr); }
  Interrupts(const Interrupts&) = delete;
  Interrupts& operator=(const Interrupts&) = delete;

 private:
  struct sigaction before_{};
};

void check_request(const Generate& request) {
  if (request.text && !request.file.empty()) throw UsageError("TEXT and --file exclude each other");
  if (!request.text && request.file.empty()) throw UsageError("TEXT is required, or --file");
  if (request.system && !request.chat) throw UsageError("--system needs --chat");
  if (request.lookback && !request.file.empty()) throw UsageError("--lookback takes one text, not --file");
  if (request.temperature && *request.temperature < 0) {
    throw UsageError(base::format("--temperature takes 0 or more, got {}", *request.temperature));
  }
  if (request.top_p && !(*request.top_p > 0 && *request.top_p <= 1)) {
    throw UsageError(base::format("--top-p takes a number above 0 and up to 1, got {}", *request.top_p));
  }
  const char* needs = request.top_p ? "--top-p" : request.seed ? "--seed" : nullptr;
  if (needs != nullptr && request.temperature.value_or(0) == 0) {
    throw UsageError(std::string(needs) + " needs a --temperature above 0: without one the likeliest token is taken");
  }
}

// The texts of the request, and what messages call each of them.
std::vector<Prompt> read_prompts(const Generate& request) {
  std::vector<Prompt> prompts;
  if (request.text && *request.text != "-") {
    prompts.push_back({"TEXT", *request.text, {}});
    return prompts;
  }
  LineReader reader(request.text ? "-" : request.file);
  std::string all, line;
  while (reader.next(&line)) {
    if (!request.text) prompts.push_back({base::format("line {} of {}", reader.number(), reader.name()), line, {}});
    if (request.text && reader.number() > 1) all += '\n';
    if (request.text) all += line;
  }
  if (request.text) prompts.push_back({reader.name(), all, {}});
  if (prompts.empty()) throw Error(ErrorCode::kInvalidArgument, reader.name() + " holds no text");
  return prompts;
}

const model::Decoder& decoder_of(const model::TextModel& model) {
  if (model.decoder() != nullptr) return *model.decoder();
  throw Error(ErrorCode::kUnsupported, "--model: " + base::path_in_quotes(model.parts().module.folder) +
                                           " holds an encoder, which writes no text; generate takes a decoder, whose "
                                           "config.json has the \"model_type\" \"llama\"");
}

// ChatML's own words must be tokens: spelled by letters they mean nothing to the model.
model::ChatTemplate chat_template(const model::TextModel& model) {
  const std::filesystem::path& folder = model.parts().module.folder;
  model::ChatTemplate chat = model::load_chat_template(folder);
  for (const char* word : {"<|im_start|>", "<|im_end|>"}) {
    if (model.parts().configured.tokenizer.encode(word, false).size() == 1) continue;
    throw Error(ErrorCode::kMalformedFile, base::path_in_quotes(folder) + ": tokenizer.json has no token " + word +
                                               ", which the chat template needs");
  }
  return chat;
}

void encode(const Generate& request, const model::TextModel& model, std::vector<Prompt>& prompts) {
  const model::Tokenizer& tokenizer = model.parts().configured.tokenizer;
  const std::optional<model::ChatTemplate> chat = request.chat ? std::optional(chat_template(model)) : std::nullopt;
  const std::int64_t most = model.encoder().config().max_position_embeddings;
  for (Prompt& prompt : prompts) {
    model::Encoding encoding;
    try {
      encoding =
          chat ? tokenizer.encode(chat->render(prompt.text, request.system), false) : tokenizer.encode(prompt.text);
    } catch (const Error& error) {
      throw Error(error.code(), prompt.subject + ": " + error.what());
    }
    if (encoding.size() == 0) throw Error(ErrorCode::kInvalidArgument, prompt.subject + " is empty: it has no tokens");
    if (static_cast<std::int64_t>(encoding.size()) > most) {
      throw Error(ErrorCode::kInvalidArgument,
                  prompt.subject + base::format(" has {} tokens, the model takes {}", encoding.size(), most));
    }
    model::check_ids(prompt.subject, encoding.ids, encoding.type_ids, model);
    prompt.ids = std::move(encoding.ids);
  }
}

void generate(const Generate& request) {
  check_request(request);
  if (request.system) check_utf8("--system", *request.system);
  check_model(request.model);
  std::vector<Prompt> prompts = read_prompts(request);
  for (const Prompt& prompt : prompts) check_text(prompt.subject, prompt.text);
  const model::TextModel model(request.model, parse_dtype(request.weights_dtype));
  const model::Decoder& decoder = decoder_of(model);
  encode(request, model, prompts);

  model::GenerateOptions options;
  options.max_tokens = request.tokens;
  options.sampling = {request.temperature.value_or(0), request.top_p.value_or(1),
                      static_cast<std::uint64_t>(request.seed.value_or(0))};
  options.end_tokens = model.end_tokens();
  options.log_probabilities = request.common.json;
  options.cache = request.cache_dtype == "i8" ? DType::kI8 : parse_dtype(request.cache_dtype);
  options.cancel = &interrupted;
  options.threads.num_threads = request.common.threads;
  options.bits = request.common.bits;

  std::vector<std::vector<std::int64_t>> ids;
  for (const Prompt& prompt : prompts) ids.push_back(prompt.ids);
  std::optional<lens::Lookback> lookback;
  if (request.lookback) {
    lookback.emplace(decoder.config(), static_cast<std::int64_t>(ids[0].size()), options.threads, options.bits);
    options.on_heads = [&](std::span<const model::LayerHeads> layers) { lookback->append(layers); };
  }
  const std::unique_ptr<Written> written =
      make_written(model.parts().configured.tokenizer, prompts, request.common.json, request.lookback);
  options.on_token = [&](const model::NewToken& token) {
    written->token(token, lookback ? lookback->last() : std::vector<lens::LookedAt>());
  };
  options.on_end = [&](std::size_t prompt, const model::Generated& text) { written->end(prompt, text); };
  {
    const Interrupts interrupts;
    model::generate(decoder, ids, options);
  }
  if (interrupted) ::raise(SIGINT);  // a shell ends its loop then
}

}  // namespace

void add_generate(CLI::App& app) {
  auto request = std::make_shared<Generate>();
  CLI::App* verb = app.add_subcommand("generate", "Continue a text with a decoder, token by token");
  verb->add_option("TEXT", request->text, "The text to go on from; - is standard input")
      ->transform(plain_text)
      ->type_name("");
  verb->add_option("--model", request->model,
                   "Folder with config.json, model.safetensors and tokenizer.json of a decoder (docs/generate.md)")
      ->required()
      ->type_name("DIR");
  verb->add_option("--file", request->file, "Go on from each line of a file, all together; - is standard input")
      ->type_name("PROMPTS");
  verb->add_flag("--chat", request->chat,
                 "Take TEXT as a question and write the answer, by the model's chat template, which must be ChatML");
  verb->add_option("--system", request->system, "With --chat: the system message, instead of the template's own")
      ->transform(plain_text)
      ->type_name("TEXT");
  verb->add_option("--tokens", request->tokens, "The most tokens to write for a text")
      ->transform(whole_number(1, INT_MAX))
      ->type_name("N")
      ->capture_default_str();
  verb->add_option("--temperature", request->temperature,
                   "Draw each token from softmax(logits / T); default: 0, the likeliest token")
      ->transform(finite_number())
      ->type_name("T");
  verb->add_option("--top-p", request->top_p, "Draw among the likeliest tokens whose probabilities reach P")
      ->transform(finite_number())
      ->type_name("P");
  verb->add_option("--seed", request->seed, "Of the draws; default: 0")->transform(whole_number(0))->type_name("N");
  verb->add_flag("--lookback", request->lookback,
                 "Show for each token the three that it looked at most, and by which heads");
  verb->add_option("--weights-dtype", request->weights_dtype,
                   "What the model's weights are kept as: f32, or bf16 for half the memory and less reading")
      ->check(CLI::IsMember({"f32", "bf16"}))
      ->capture_default_str();
  verb->add_option("--cache-dtype", request->cache_dtype, "What keys and values are kept as: f32, bf16, f16 or i8")
      ->check(CLI::IsMember({"f32", "bf16", "f16", "i8"}))
      ->capture_default_str();
  add_bits(*verb, request->common);
  add_common(*verb, request->common);
  verb->footer("Example: manyheads generate \"The capital of France is\" --model models/SmolLM2-135M-Instruct");
  verb->callback([request] { generate(*request); });
}

}  // namespace manyheads::cli
