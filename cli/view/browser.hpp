#pragma once

#include <string>

namespace manyheads::cli {

// Opens the link in the user's browser by xdg-open, where a display is there. Waits for nothing.
void open_browser(const std::string& link);

}  // namespace manyheads::cli
