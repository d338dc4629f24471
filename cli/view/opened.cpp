#include "view/opened.hpp"

#include <algorithm>
#include <manyheads/error.hpp>
#include <manyheads/lens/links.hpp>
#include <manyheads/lens/read_heads.hpp>
#include <manyheads/model/pooling.hpp>
#include <manyheads/version.hpp>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <utility>

#include "base/base64.hpp"
#include "base/file.hpp"
#include "base/format.hpp"
#include "generate.hpp"
#include "io/json.hpp"
#include "lens/scan_file.hpp"
#include "lens/tour.hpp"
#include "lens/treebank.hpp"
#include "model/checkpoint.hpp"
#include "model/sampler.hpp"
#include "model/text_model.hpp"
#include "roles.hpp"
#include "scan_texts.hpp"
#include "text.hpp"
#include "view/packed.hpp"
#include "view/pairs.hpp"

namespace manyheads::cli {
namespace {

constexpr std::size_t kMostLaterTraces = 16;
// What the tour follows: the heads that read this link best, or the strongest links where the text has it not.
constexpr const char *kModifier = "black", *kNoun = "cat";
constexpr std::size_t kTourHeads = 2;

std::string type_of(const view::Answer& answer) {
  return answer.kind == view::Answer::Kind::kJson ? "application/json" : "application/octet-stream";
}

// Of all heads with v, so that the page can show outputs; exact in every patch at once.
lens::Trace trace_of(const model::TextModel& model, const ViewRequest& request) {
  const EncodedText encoded = encode_text(model, "TEXT", request.text(), request.pair, request.truncate);
  lens::TraceOptions options;
  options.text2 = request.pair;
  options.values = options.row_sums = true;
  options.threads.num_threads = request.common.threads;
  options.bits = request.common.bits;
  return lens::make_trace(model.encoder(), encoded.encoding, model_name(request.model), request.text(), options);
}

// As generate's sampler sees them; empty for an encoder.
view::NextTokens next_tokens(const std::shared_ptr<const model::TextModel>& model, const Threads& threads,
                             const std::string& bits) {
  if (model->decoder() == nullptr) return {};
  return [model, threads, bits](const ConstTensorView& last, std::size_t count) {
    const Tensor logits = model->decoder()->logits(last, threads, bits);
    std::vector<view::NextToken> tokens;
    const std::span<const float> row(logits.as<float>(), static_cast<std::size_t>(logits.elements()));
    for (const auto& [id, probability] : model::likeliest(row, count)) {
      tokens.push_back({id, token_text(model->parts().configured.tokenizer, id), probability});
    }
    return tokens;
  };
}

// Seven digits of each number: a first picture writes three.
void shorten(nlohmann::json& json) {
  if (json.is_number_float()) json = std::stod(base::format("{:.7g}", json.get<double>()));
  if (json.is_structured()) {
    for (nlohmann::json& part : json) shorten(part);
  }
}

// Puts the tokens of the question's text into it.
void add_tokens(io::Json& question, const model::TextModel& model) {
  const io::JsonDocument named{question, "ask " + base::in_quotes(question["ask"].get<std::string>())};
  const std::string text = io::require_string(named, "text");
  std::optional<std::string> text2;
  if (io::has(named, "text2")) text2 = io::require_string(named, "text2");
  const EncodedText encoded = encode_text(model, "text", text, text2, true);
  if (encoded.full_size > encoded.encoding.size()) {
    throw Error(ErrorCode::kInvalidArgument, base::format("the text has {} tokens, and the model takes {}",
                                                          encoded.full_size, encoded.encoding.size()));
  }
  question["ids"] = encoded.encoding.ids;
  question["type_ids"] = encoded.encoding.type_ids;
  question["tokens"] = encoded.encoding.tokens;
  question["offsets"] = encoded.encoding.offsets;
  question["words"] = encoded.encoding.words;
  question["sequences"] = encoded.encoding.sequences;
}

}  // namespace

Opened::Opened(const ViewRequest& request)
    : threads_(request.common.threads), treebank_(request.treebank), session_("native", {.num_threads = threads_}) {
  check_text("TEXT", request.text());
  if (!treebank_.empty()) lens::load_treebank(treebank_);  // so that its errors come now
  if (!request.model.empty()) {
    check_model(request.model);
    model_ = std::make_shared<const model::TextModel>(request.model);
    model_id_ = session_.open_model({.name = model_name(request.model),
                                     .encoder = {model_, &model_->encoder()},
                                     .pooling = pooling_ = model::load_pooling(request.model),
                                     .tensors = model::load_checkpoint(model_->parts().module.folder).tensors,
                                     .next = next_tokens(model_, {.num_threads = threads_}, request.common.bits)});
  }
  if (request.is_scan() || !request.scan.empty()) {
    const lens::ScanFile scan = lens::load_scan(request.is_scan() ? *request.what : request.scan);
    session_.open_scan(scan, [scan](std::int64_t row) { return text_of(scan, row); });
  }
  if (!request.is_trace() && model_ == nullptr) return;  // the scan alone
  trace_ = request.is_trace() ? lens::load_trace(*request.what) : trace_of(*model_, request);
  trace_id_ = session_.open_trace(trace_);
}

std::optional<nlohmann::ordered_json> Opened::ask_model(const io::Json& question,
                                                        const view::Progress& progress) const {
  if (model_ == nullptr || !question.is_object() || !question.contains("ask")) return std::nullopt;
  const lens::BatchOptions options{{.num_threads = threads_}};
  if (question["ask"] == "relations") return lens::tour_relations(*model_, trace_.model, options, progress);
  if (question["ask"] == "treebank") {
    if (treebank_.empty()) {
      throw Error(ErrorCode::kInvalidArgument,
                  "ask \"treebank\": no treebank was given; view --treebank FILE gives one");
    }
    return treebank_json(read_treebank(*model_, trace_.model, treebank_, {}, options, progress));
  }
  if (question["ask"] != "ablations") return std::nullopt;
  const io::JsonDocument named{question, "ask \"ablations\""};
  return lens::tour_ablations(*model_, trace_.model, pooling_, io::require_string(named, "text"), options, progress);
}

view::Answer Opened::ask(const std::string& text, const view::Progress& progress) {
  io::Json question = io::parse_json(text, "the question").value;
  if (const auto answer = ask_model(question, progress)) return {view::Answer::Kind::kJson, answer->dump()};
  const bool texts = question.is_object() && question.contains("model") && question.contains("text");
  if (!texts || question.contains("ids") || model_ == nullptr || !question["ask"].is_string()) {
    return session_.ask(text, progress);
  }
  add_tokens(question, *model_);
  view::Answer answer = session_.ask(question.dump(), progress);
  if (answer.kind == view::Answer::Kind::kJson && question["ask"] == "encode") {
    const io::Json said = io::Json::parse(answer.bytes);
    if (said.contains("trace")) keep_trace(said["trace"].get<std::int64_t>());
  }
  return answer;
}

void Opened::keep_trace(std::int64_t id) {
  const std::lock_guard lock(lock_);
  later_.push_back(id);
  if (later_.size() <= kMostLaterTraces) return;
  try {
    session_.close(later_.front());
  } catch (const Error&) {  // the page has closed it
  }
  later_.pop_front();
}

bool Opened::takes_long(const std::string& text) {
  const io::Json question = io::parse_json(text, "the question").value;
  const std::string name = question.at("ask").get<std::string>();
  return name == "relations" || name == "treebank" || name == "ablations" || view::Session::takes_long(text);
}

server::Response Opened::answer(const std::string& question, const server::Progress& progress) {
  view::Answer answer = ask(question, progress);
  return {200, type_of(answer), std::move(answer.bytes)};
}

std::vector<HeadName> Opened::shown_heads(const std::string& more) const {
  std::vector<HeadName> names;
  const auto add = [&](std::size_t layer, std::int64_t head) {
    const auto same = [&](const HeadName& name) { return name.layer == layer && name.head == head; };
    if (std::none_of(names.begin(), names.end(), same)) names.push_back({layer, head});
  };
  const std::vector<lens::Word> words = lens::words_of(trace_);
  std::vector<lens::Link> links;
  if (lens::has_word(words, kModifier) && lens::has_word(words, kNoun)) {
    links = {{lens::find_word(words, kModifier), lens::find_word(words, kNoun)}};
    if (trace_.causal) std::swap(links[0].query, links[0].key);
  }
  std::vector<lens::HeadReading> heads;
  if (trace_.num_queries() == trace_.num_keys())
    heads = lens::read_heads(trace_, words, links, 1, {.num_threads = threads_});
  if (!links.empty() && !heads.empty()) {
    const std::vector<lens::LinkReading> ranked = lens::rank_heads(heads, links);
    for (const lens::LinkReading::Head& best : ranked[0].best) {
      if (names.size() < kTourHeads) add(best.layer, best.head);
    }
  }
  std::stable_sort(heads.begin(), heads.end(), [](const lens::HeadReading& a, const lens::HeadReading& b) {
    if (a.strongest.empty() || b.strongest.empty()) return !a.strongest.empty() && b.strongest.empty();
    return lens::ranks_before(a.strongest[0], b.strongest[0]);
  });
  for (const lens::HeadReading& head : heads) {
    if (names.size() < kTourHeads) add(head.layer, head.head);
  }
  for (std::size_t at = 0; !more.empty() && at <= more.size();) {
    const std::size_t end = std::min(more.find(',', at), more.size());
    const HeadName name = parse_head(more.substr(at, end - at), "--heads");
    if (name.layer >= trace_.layers.size() || name.head >= trace_.num_heads(name.layer)) {
      throw UsageError(base::format("--heads {}: there are {} layers of {} heads, both counted from 0", more,
                                    trace_.layers.size(), trace_.num_heads(0)));
    }
    add(name.layer, name.head);
    at = end + 1;
  }
  return names;
}

nlohmann::ordered_json Opened::start(const char* mode, const std::string& more_heads, const Aside& aside) {
  nlohmann::ordered_json answers = nlohmann::ordered_json::array();
  const std::vector<HeadName> heads = model_ ? shown_heads(more_heads) : std::vector<HeadName>();
  for (const HeadName& name : heads) {
    // In the page the trace is the first that is opened, and there is no model.
    nlohmann::ordered_json question = {{"ask", "pipeline"}, {"trace", 1}, {"layer", name.layer}, {"head", name.head}};
    nlohmann::ordered_json here = question;
    here["trace"] = trace_id_;
    here["model"] = model_id_;
    const view::Answer answer = session_.ask(here.dump());
    const std::string packed = packed_numbers(answer.bytes);
    answers.push_back({{"question", question}, {"type", type_of(answer)}});
    if (aside) {
      answers.back()["file"] = aside(name, packed);
    } else {
      answers.back()["base64"] = base::base64(packed);
    }
  }
  std::vector<nlohmann::json> of_model;
  if (model_) of_model = {{{"ask", "relations"}}, {{"ask", "ablations"}, {"text", trace_.text}}};
  if (!treebank_.empty()) of_model.push_back({{"ask", "treebank"}});
  for (const nlohmann::json& question : of_model) {
    try {
      const std::string answer = packed_text(ask_model(question, {})->dump());
      answers.push_back({{"question", question}, {"type", "application/json"}, {"base64", base::base64(answer)}});
    } catch (const Error& error) {
      // A decoder has no vector of a text, and a model of few tokens does not take the tour's sentences.
      if (error.code() != ErrorCode::kInvalidArgument) throw;
    }
  }
  return {{"mode", mode},
          {"version", version()},
          {"traces", {base::base64(packed_numbers(lens::trace_bytes(trace_)))}},
          {"answers", answers}};
}

nlohmann::ordered_json Opened::first(const char* mode) {
  // Beyond that its numbers take as long as the rest of the page.
  constexpr std::int64_t kMostWeights = std::int64_t{1} << 22;
  nlohmann::ordered_json answers = nlohmann::ordered_json::array();
  const auto layers = static_cast<std::int64_t>(trace_.layers.size());
  if (layers > 0 && layers * trace_.num_heads(0) * trace_.num_queries() * trace_.num_keys() <= kMostWeights) {
    nlohmann::json trace =
        nlohmann::json::parse(session_.ask(nlohmann::json{{"ask", "trace"}, {"trace", trace_id_}}.dump()).bytes);
    trace["id"] = 1;  // in the page it is the first that is opened
    answers.push_back({{"question", {{"ask", "trace"}, {"trace", 1}}}, {"answer", trace}});
    if (const std::vector<Pair> pairs = pairs_of(trace, ""); !pairs.empty()) {
      nlohmann::json question = {{"ask", "links"}, {"trace", trace_id_}, {"pairs", pairs}};
      nlohmann::json links = nlohmann::json::parse(session_.ask(question.dump()).bytes);
      shorten(links);
      question["trace"] = 1;
      answers.push_back({{"question", question}, {"answer", links}});
    }
  }
  return {{"mode", mode}, {"answers", answers}};
}

}  // namespace manyheads::cli
