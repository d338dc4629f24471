#pragma once

#include <cstddef>
#include <cstdint>
#include <manyheads/lens/read_heads.hpp>
#include <manyheads/tensor.hpp>
#include <optional>
#include <string>
#include <vector>

// What `look` finds, and how it prints that as text and as JSON.
namespace manyheads::cli {

struct HeadName {
  std::size_t layer = 0;
  std::int64_t head = 0;
};

// What there is to show.
struct Findings {
  lens::Trace trace;
  std::size_t full_size = 0;  // tokens before truncation
  std::vector<lens::Word> words;
  std::vector<std::string> word_names;  // "the", and "the#2" for its second occurrence
  std::vector<lens::HeadReading> heads;
  std::vector<lens::LinkReading> links;
};

// "2.7": layer 2, head 7. Throws UsageError that names the option.
HeadName parse_head(const std::string& text, const char* option = "--head");
// Throws where the model has no such head.
const lens::HeadReading& find_head(const Findings& found, const HeadName& name);
// The weights of the first `rows` queries to all keys.
Tensor weights_of(const Findings& found, const HeadName& name, std::int64_t rows, int threads);

// What to show of it.
struct Shown {
  std::optional<HeadName> head;  // that head alone, and its weights
  bool all = false;              // as text: every head and every token
  bool legend = false;           // as text: how the roles are worked out
  int threads = 0;
};
void print_findings(const Findings& found, const Shown& shown);
void print_findings_json(const Findings& found, const Shown& shown);

// "29 heads rest on [CLS]: 1.0, 1.1, …": the heads of each role together, then the others by their strongest links, on
// about as many lines as that.
std::string heads_by_role(const Findings& found, int columns, int lines);
// What a head's score says, in plain words: "gives 0.60 to the next token".
std::string plain_words(const Findings& found, const lens::HeadReading& reading, const lens::ScoreRule& rule);

}  // namespace manyheads::cli
