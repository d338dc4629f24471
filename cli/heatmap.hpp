#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace manyheads::cli {

// Columns of the terminal on standard output; 80 where it is none.
int terminal_columns();

// The text cut to so many columns, with an ellipsis where something is missing, or padded with spaces.
std::string fit(const std::string& text, int columns);

// One head's weights as a map: a row for each query, a column for each key. Cells are coloured percentages, coloured
// blocks or shades, as the width allows. The map shows the first heat_map_size tokens, and a note says so where there
// are more; without a token there is no map. Ends with a key to the shades.
std::int64_t heat_map_size(const std::vector<std::string>& labels, int columns);

// `weights` has that many rows, one behind the other every `row_stride`.
std::string heat_map(const float* weights, std::int64_t row_stride, const std::vector<std::string>& labels, int columns,
                     bool colour);

}  // namespace manyheads::cli
