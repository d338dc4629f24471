#include "lens/treebank.hpp"

#include <algorithm>
#include <charconv>
#include <manyheads/error.hpp>
#include <optional>
#include <string_view>

#include "base/file.hpp"
#include "base/format.hpp"
#include "base/utf8.hpp"

namespace manyheads::lens {
namespace {

using base::in_quotes;

constexpr std::size_t kColumns = 10;
constexpr std::size_t kId = 0, kForm = 1, kHead = 6, kRelation = 7, kMisc = 9;
constexpr const char* kNames[kColumns] = {"ID",    "FORM", "LEMMA",  "UPOS", "XPOS",
                                          "FEATS", "HEAD", "DEPREL", "DEPS", "MISC"};
constexpr std::size_t kLongest = 40;  // bytes of a field that a message quotes

using Columns = std::array<std::string_view, kColumns>;

std::optional<std::int64_t> whole_number(std::string_view text) {
  std::int64_t value = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, problem] = std::from_chars(text.data(), end, value);
  const bool plain = text == "0" || (!text.empty() && text[0] >= '1' && text[0] <= '9');
  if (!plain || problem != std::errc() || stop != end) return std::nullopt;
  return value;
}

// Two whole numbers with a mark between them: "1-2", "1.1".
std::optional<std::array<std::int64_t, 2>> two_numbers(std::string_view text, char mark) {
  const std::size_t at = text.find(mark);
  if (at == std::string_view::npos) return std::nullopt;
  const auto first = whole_number(text.substr(0, at)), second = whole_number(text.substr(at + 1));
  if (!first || !second) return std::nullopt;
  return std::array{*first, *second};
}

std::string_view without_spaces(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(' ');
  return begin == std::string_view::npos ? "" : text.substr(begin, text.find_last_not_of(' ') + 1 - begin);
}

bool glued(std::string_view misc) {
  while (!misc.empty()) {
    const std::size_t bar = misc.find('|');
    if (misc.substr(0, bar) == "SpaceAfter=No") return true;
    misc.remove_prefix(bar == std::string_view::npos ? misc.size() : bar + 1);
  }
  return false;
}

// Reads a treebank line by line. Errors name `path`.
class Reader {
 public:
  Reader(std::string_view text, const std::filesystem::path& path) : path_(path), all_(text) {}

  std::vector<TreebankSentence> read() {
    std::string_view rest = base::without_byte_order_mark(all_);
    while (!rest.empty()) {
      const std::size_t end = rest.find('\n');
      std::string_view line = rest.substr(0, end);
      rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
      ++line_;
      if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
      take(line);
    }
    ++line_;
    end_sentence();
    if (sentences_.empty()) fail_without_line("holds no sentence");
    return std::move(sentences_);
  }

 private:
  [[noreturn]] void fail_without_line(const std::string& what) const {
    throw Error(ErrorCode::kMalformedFile, base::path_in_quotes(path_) + " " + what);
  }
  [[noreturn]] void fail_at(std::int64_t line, const std::string& what) const {
    throw Error(ErrorCode::kMalformedFile, base::path_in_quotes(path_) + base::format(": line {}: ", line) + what);
  }
  [[noreturn]] void fail(const std::string& what) const { fail_at(line_, what); }

  void take(std::string_view line) {
    char32_t c;
    for (std::size_t p = 0; p < line.size();) {
      const std::size_t at = p;
      if (!base::next_code_point(line, &p, &c)) fail(byte_of(line, at) + " is not UTF-8");
      if (c != '\t' && base::is_control(c) && line[0] != '#') {
        fail(byte_of(line, at) + base::format(" is the control character U+{:04X}", static_cast<std::uint32_t>(c)));
      }
    }
    if (line.empty()) {
      end_sentence();
    } else if (line[0] == '#') {
      take_comment(line.substr(1));
    } else {
      take_word(columns_of(line));
    }
  }

  // "byte 3 (FORM)"
  static std::string byte_of(std::string_view line, std::size_t at) {
    const std::string_view before = line.substr(0, at);
    const auto column = static_cast<std::size_t>(std::count(before.begin(), before.end(), '\t'));
    return base::format("byte {}", at) +
           (line[0] == '#' || column >= kColumns ? "" : base::format(" ({})", kNames[column]));
  }

  void take_comment(std::string_view comment) {
    if (begun()) fail("a comment between the words of a sentence");
    const std::size_t equals = comment.find('=');
    if (equals == std::string_view::npos || without_spaces(comment.substr(0, equals)) != "text") return;
    if (text_) fail("a second \"# text =\"");
    text_ = without_spaces(comment.substr(equals + 1));
    text_line_ = line_;
  }

  Columns columns_of(std::string_view line) const {
    Columns columns;
    std::size_t count = 0;
    for (std::string_view rest = line;; ++count) {
      const std::size_t tab = rest.find('\t');
      if (count < kColumns) columns[count] = rest.substr(0, tab);
      if (tab == std::string_view::npos) break;
      rest.remove_prefix(tab + 1);
    }
    if (++count != kColumns) {
      fail(base::format("{} column{}, expected {} with tabs between them: {}", count, count == 1 ? "" : "s", kColumns,
                        in_quotes(line, kLongest)));
    }
    for (std::size_t i = 0; i < kColumns; ++i) {
      if (columns[i].empty()) fail(base::format("column {} ({}) is empty", i + 1, kNames[i]));
    }
    return columns;
  }

  void take_word(const Columns& columns) {
    const auto next = static_cast<std::int64_t>(sentence_.words.size()) + 1;
    if (sentence_.words.empty() && forms_.empty()) sentence_.line = line_;
    const std::string_view id = columns[kId];
    if (const auto range = two_numbers(id, '-')) {
      if ((*range)[0] != next || (*range)[1] < next || next <= multiword_end_) {
        fail(base::format("ID {}: a token of several words begins with the next word, {}, and ends at it or later",
                          in_quotes(id, kLongest), next));
      }
      multiword_end_ = (*range)[1];
      add_form(columns);
    } else if (const auto empty = two_numbers(id, '.')) {
      const std::int64_t expected = (*empty)[0] == empty_after_ ? empty_number_ + 1 : 1;
      if ((*empty)[0] != next - 1 || (*empty)[1] != expected) {
        fail(base::format("ID {}: the next empty node is {}.{}", in_quotes(id, kLongest), next - 1,
                          next - 1 == empty_after_ ? empty_number_ + 1 : 1));
      }
      empty_after_ = next - 1;
      empty_number_ = expected;
    } else {
      if (whole_number(id) != next) fail(base::format("ID {}, expected {}", in_quotes(id, kLongest), next));
      add_word(columns);
    }
  }

  bool begun() const { return !forms_.empty() || empty_after_ == 0; }

  // The text that a line stands for.
  void add_form(const Columns& columns) { forms_.push_back({columns[kForm], glued(columns[kMisc]), line_}); }

  void add_word(const Columns& columns) {
    const auto number = static_cast<std::int64_t>(sentence_.words.size()) + 1;
    const auto head = whole_number(columns[kHead]);
    if (!head) fail("HEAD " + in_quotes(columns[kHead], kLongest) + " is no word's ID and not 0");
    if (*head == number) fail(base::format("word {} is its own HEAD", number));
    const std::string_view relation = columns[kRelation];
    if (relation == "_" || relation.find(' ') != std::string_view::npos) {
      fail("DEPREL " + in_quotes(relation, kLongest) + " names no relation");
    }
    if ((relation == "root") != (*head == 0)) {
      fail(base::format("DEPREL {} with HEAD {}: root and 0 go together", in_quotes(relation, kLongest), *head));
    }
    if (number > multiword_end_) add_form(columns);
    lines_.push_back(line_);
    form_of_.push_back(forms_.size() - 1);
    sentence_.words.push_back({{}, *head - 1, std::string(relation)});
  }

  void end_sentence() {
    const auto count = static_cast<std::int64_t>(sentence_.words.size());
    if (count == 0) {
      if (begun()) fail("a sentence without words");
      if (text_) fail_at(text_line_, "\"# text =\" without a sentence");
      return;
    }
    if (count < multiword_end_) fail(base::format("the sentence ends before word {}", multiword_end_));
    check_tree();
    place_words();
    sentences_.push_back(std::move(sentence_));
    sentence_ = {};
    forms_.clear();
    form_of_.clear();
    lines_.clear();
    text_.reset();
    multiword_end_ = 0;
    empty_after_ = -1;
  }

  void check_tree() const {
    const std::vector<TreebankWord>& words = sentence_.words;
    std::optional<std::size_t> root;
    for (std::size_t i = 0; i < words.size(); ++i) {
      if (words[i].head >= static_cast<std::int64_t>(words.size())) {
        fail_at(lines_[i], base::format("HEAD {}, the sentence has {} words", words[i].head + 1, words.size()));
      }
      if (words[i].head >= 0) continue;
      if (root) fail_at(lines_[i], base::format("a second root beside word {}", *root + 1));
      root = i;
    }
    if (!root) fail_at(lines_[0], "the sentence has no root: no word has HEAD 0");
    // Each way up ends at a word whose own way is known, or meets itself.
    std::vector<std::size_t> seen(words.size());  // by which way, from 1
    for (std::size_t i = 0; i < words.size(); ++i) {
      std::size_t at = i;
      while (seen[at] == 0) {
        seen[at] = i + 1;
        if (words[at].head < 0) break;
        at = static_cast<std::size_t>(words[at].head);
        if (seen[at] == i + 1) fail_at(lines_[at], base::format("the heads of word {} lead in a circle", at + 1));
      }
    }
  }

  void place_words() {
    std::vector<std::array<std::int64_t, 2>> places;
    std::string& text = sentence_.text;
    if (text_) text = *text_;
    std::size_t at = 0;
    for (std::size_t i = 0; i < forms_.size(); ++i) {
      const Form& form = forms_[i];
      if (text_) {
        while (at < text.size() && text[at] == ' ' && text.compare(at, form.text.size(), form.text) != 0) ++at;
        if (text.compare(at, form.text.size(), form.text) != 0) {
          fail_at(form.line, base::format("FORM {} does not follow in the text of line {}, which goes on {}",
                                          in_quotes(form.text, kLongest), text_line_,
                                          in_quotes(std::string_view(text).substr(at), kLongest)));
        }
      } else {
        text += form.text;
        if (!form.glued && i + 1 < forms_.size()) text += ' ';
      }
      places.push_back({static_cast<std::int64_t>(at), static_cast<std::int64_t>(at + form.text.size())});
      at = text_ ? at + form.text.size() : text.size();
    }
    if (std::string_view(text).substr(at).find_first_not_of(' ') != std::string::npos) {
      fail_at(text_line_, "the text goes on behind the last word: " +
                              in_quotes(without_spaces(std::string_view(text).substr(at)), kLongest));
    }
    for (std::size_t i = 0; i < sentence_.words.size(); ++i) sentence_.words[i].offsets = places[form_of_[i]];
  }

  struct Form {
    std::string_view text;
    bool glued;
    std::int64_t line;
  };

  const std::filesystem::path& path_;
  std::string_view all_;
  std::int64_t line_ = 0;
  std::vector<TreebankSentence> sentences_;

  // Of the sentence that is being read.
  TreebankSentence sentence_;
  std::vector<Form> forms_;
  std::vector<std::size_t> form_of_;  // by word
  std::vector<std::int64_t> lines_;   // by word
  std::optional<std::string_view> text_;
  std::int64_t text_line_ = 0;
  std::int64_t multiword_end_ = 0;  // the last word of the latest token of several
  std::int64_t empty_after_ = -1;   // the word behind which the latest empty node stands
  std::int64_t empty_number_ = 0;
};

}  // namespace

std::vector<TreebankSentence> load_treebank(const std::filesystem::path& path) {
  const base::MappedFile file = base::map_file(path);
  return Reader(file.text(), path).read();
}

std::vector<TreebankSentence> parse_treebank(std::string_view text, const std::filesystem::path& name) {
  return Reader(text, name).read();
}

}  // namespace manyheads::lens
