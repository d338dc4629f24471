#pragma once

#include <string>
#include <vector>

#include "findings.hpp"

// Sets words and numbers in lines.
namespace manyheads::cli {

// Pieces set in lines of so many columns, each after `indent` spaces.
std::string flow(const std::vector<std::string>& pieces, int columns, int indent);
// The same of the words of a text.
std::string paragraph(const std::string& text, int columns, int indent);
int num_lines(const std::string& text);
// At most so many lines of the text, and the note where some are left out.
std::string cut_lines(const std::string& text, int lines, const std::string& note);

// A word's name cut to so many columns; "embeddings#2" keeps its number.
std::string short_name(const Findings& found, std::size_t word, int columns);
// "black → cat 0.60 (0.02)", each word cut to so many columns; the weight and, in brackets, the mean at its offset.
std::string link_text(const Findings& found, const lens::WeighedLink& link, int columns);
std::string weight_text(const lens::WeighedLink& link);

}  // namespace manyheads::cli
