#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "base/format.hpp"
#include "base/utf8.hpp"
#include "cli.hpp"
#include "generate.hpp"
#include "heatmap.hpp"
#include "lens/unicode.hpp"
#include "model/text_stream.hpp"

namespace manyheads::cli {

std::string token_text(const model::Tokenizer& tokenizer, std::int64_t id) {
  const auto token = tokenizer.token(id);
  if (!token) return base::format("[{}]", id);
  const std::string text = tokenizer.decode({&id, 1}, false);
  return text.empty() || text.find("\xef\xbf\xbd") != std::string::npos ? token->text : text;
}

namespace {

using Json = nlohmann::ordered_json;

// A terminal obeys control characters, which a model may write; line breaks and tabs alone pass.
std::string for_terminal(const std::string& text) {
  std::string out;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find_first_of("\n\t", begin), text.size());
    out += lens::printable(std::string_view(text).substr(begin, end - begin));
    if (end < text.size()) out += text[end];
    begin = end + 1;
  }
  return out;
}

// In turn: the first prompt whose text has not ended is printed as it comes, those behind it are kept.
class InTurn : public Written {
 public:
  InTurn(const model::Tokenizer& tokenizer, const std::vector<Prompt>& prompts)
      : tokenizer_(tokenizer), prompts_(prompts), waiting_(prompts.size()), ended_(prompts.size()) {
    for (const Prompt& prompt : prompts) streams_.emplace_back(tokenizer, prompt.ids);
  }

 protected:
  void say(std::size_t prompt, const std::string& text) {
    if (prompt == turn_) {
      print(text);
    } else {
      waiting_[prompt] += text;
    }
  }
  void pass_turn(std::size_t prompt) {
    ended_[prompt] = true;
    while (turn_ < ended_.size() && ended_[turn_]) {
      if (++turn_ < ended_.size()) print(waiting_[turn_]);
    }
  }
  const model::Tokenizer& tokenizer_;
  const std::vector<Prompt>& prompts_;
  std::vector<model::TextStream> streams_;

 private:
  std::size_t turn_ = 0;
  std::vector<std::string> waiting_;
  std::vector<bool> ended_;
};

class AsText : public InTurn {
 public:
  using InTurn::InTurn;
  void token(const model::NewToken& token, const std::vector<lens::LookedAt>&) override {
    write(token.prompt, streams_[token.prompt].push(token.id));
  }
  void end(std::size_t prompt, const model::Generated&) override {
    write(prompt, streams_[prompt].finish());
    say(prompt, prompt + 1 < prompts_.size() ? "\n\n" : "\n");
    pass_turn(prompt);
  }

 private:
  void write(std::size_t prompt, const std::string& text) { say(prompt, terminal_ ? for_terminal(text) : text); }
  bool terminal_ = ::isatty(STDOUT_FILENO) == 1;
};

const char* name_of(model::Stop stop) {
  switch (stop) {
    case model::Stop::kEndToken:
      return "end_token";
    case model::Stop::kMaxTokens:
      return "max_tokens";
    case model::Stop::kModelLength:
      return "model_length";
    case model::Stop::kCancelled:
      return "interrupted";
  }
  return "";
}

class AsJson : public InTurn {
 public:
  AsJson(const model::Tokenizer& tokenizer, const std::vector<Prompt>& prompts, bool lookback)
      : InTurn(tokenizer, prompts), lookback_(lookback), texts_(prompts.size()), looked_at_(Json::array()) {}

  void token(const model::NewToken& token, const std::vector<lens::LookedAt>& looked_at) override {
    texts_[token.prompt] += streams_[token.prompt].push(token.id);
    if (!lookback_) return;
    Json list = Json::array();
    for (const lens::LookedAt& looked : looked_at) {
      Json heads = Json::array();
      for (const lens::LookingHead& head : looked.heads) {
        heads.push_back({{"layer", head.layer}, {"head", head.head}, {"weight", head.weight}, {"usual", head.usual}});
      }
      list.push_back({{"token", looked.token}, {"heads", heads}});
    }
    looked_at_.push_back(list);
  }
  void end(std::size_t prompt, const model::Generated& text) override {
    Json tokens = Json::array();
    for (const std::int64_t id : text.ids) {
      const auto token = tokenizer_.token(id);
      tokens.push_back(token ? Json(token->text) : Json(nullptr));
    }
    Json json = {{"prompt", prompts_[prompt].text},
                 {"prompt_ids", prompts_[prompt].ids},
                 {"text", texts_[prompt] + streams_[prompt].finish()},
                 {"ids", text.ids},
                 {"tokens", tokens},
                 {"log_probabilities", text.log_probabilities},
                 {"stop", name_of(text.stop)}};
    if (lookback_) json["looked_at"] = looked_at_;
    say(prompt, json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
    pass_turn(prompt);
  }

 private:
  bool lookback_;
  std::vector<std::string> texts_;
  Json looked_at_;
};

// A token in a table: without the blank before a word, line breaks spelled out, quoted where nothing else would show.
std::string cell(std::string text) {
  std::string spelled;
  for (const char c : text) spelled += c == '\n' ? "\\n" : c == '\t' ? "\\t" : std::string(1, c);
  const std::size_t begin = spelled.find_first_not_of(' ');
  return begin == std::string::npos ? '"' + spelled + '"' : lens::printable(spelled.substr(begin));
}

constexpr int kTokenColumns = 14;
constexpr int kEntryColumns = 32;

class AsLookback : public InTurn {
 public:
  AsLookback(const model::Tokenizer& tokenizer, const std::vector<Prompt>& prompts) : InTurn(tokenizer, prompts) {
    for (const std::int64_t id : prompts[0].ids) name(id);
    say(0, fit("token", kTokenColumns) + "looked at, by head and weight\n");
  }
  void token(const model::NewToken& token, const std::vector<lens::LookedAt>& looked_at) override {
    text_ += streams_[0].push(token.id);
    std::string line = fit(cell(token_text(tokenizer_, token.id)), kTokenColumns - 1) + " ";
    for (const lens::LookedAt& looked : looked_at) {
      std::string entry = names_[static_cast<std::size_t>(looked.token)];
      for (const lens::LookingHead& head : looked.heads) {
        entry += base::format(" {}.{} {:.2f}", head.layer, head.head, head.weight);
      }
      line += fit(entry, std::max(kEntryColumns, lens::display_width(entry))) + " ";
    }
    line.erase(line.find_last_not_of(' ') + 1);
    say(0, line + "\n");
    name(token.id);
  }
  void end(std::size_t, const model::Generated&) override {
    text_ += streams_[0].finish();
    say(0, base::format("\n{}\n", ::isatty(STDOUT_FILENO) == 1 ? for_terminal(text_) : text_));
  }

 private:
  // "the", and "the#2" where it comes again.
  void name(std::int64_t id) {
    std::string text = fit(cell(token_text(tokenizer_, id)), kTokenColumns);
    text.erase(text.find_last_not_of(' ') + 1);
    const std::size_t occurrence = ++seen_[text];
    names_.push_back(occurrence == 1 ? text : base::format("{}#{}", text, occurrence));
  }

  std::vector<std::string> names_;  // of the tokens of the prompt and of those written
  std::unordered_map<std::string, std::size_t> seen_;
  std::string text_;
};

}  // namespace

std::unique_ptr<Written> make_written(const model::Tokenizer& tokenizer, const std::vector<Prompt>& prompts, bool json,
                                      bool lookback) {
  if (json) return std::make_unique<AsJson>(tokenizer, prompts, lookback);
  if (lookback) return std::make_unique<AsLookback>(tokenizer, prompts);
  return std::make_unique<AsText>(tokenizer, prompts);
}

}  // namespace manyheads::cli
