#pragma once

#include <string>

namespace manyheads::cli {

// Opens the link in the user's browser by xdg-open, where a display is there. Waits for nothing.
void open_browser(const std::string& link);

// While it lives, the first Ctrl-C ends wait(), and a second one the program. One that is ignored from the start, as
// under nohup, stays so.
class Interrupt {
 public:
  Interrupt();
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;
  void wait();
};

}  // namespace manyheads::cli
