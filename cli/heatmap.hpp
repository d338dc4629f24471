#pragma once

#include <string>
#include <vector>

#include "lens/roles.hpp"

namespace manyheads::cli {

// Columns of the terminal on standard output; 80 where it is none.
int terminal_columns();

// Cut to so many columns, with an ellipsis where something is missing, and filled up with spaces.
std::string fit(const std::string& text, int columns);

// One head's weights as a map: a row for each token that attends, a column for each token attended to. Cells are
// coloured percentages, coloured blocks or shades, as the width allows; tokens that do not fit are left out and a note
// says so. Ends with a key to the shades.
std::string heat_map(const lens::HeadWeights& weights, const std::vector<std::string>& labels, int columns,
                     bool colour);

}  // namespace manyheads::cli
