#pragma once

#include <cstddef>
#include <cstdint>
#include <manyheads/tensor.hpp>
#include <optional>
#include <string>
#include <vector>

#include "lens/read_heads.hpp"

// What `look` found, and the two ways to print it.
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

// Throws where the model has no such head.
const lens::HeadReading& find_head(const Findings& found, const HeadName& name);
Tensor weights_of(const Findings& found, const HeadName& name, int threads);

// With a head, that head alone and its weights.
void print_findings(const Findings& found, const std::optional<HeadName>& head, int threads);
void print_findings_json(const Findings& found, const std::optional<HeadName>& head, int threads);

}  // namespace manyheads::cli
