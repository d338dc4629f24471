#pragma once

#include <atomic>

namespace manyheads::base {

// Lets one piece at a time through, wherever std::atomic is: WebAssembly's std::mutex needs threads.
class Lock {
 public:
  class Guard {
   public:
    explicit Guard(Lock& lock) : flag_(lock.flag_) {
      while (flag_.test_and_set(std::memory_order_acquire)) flag_.wait(true, std::memory_order_relaxed);
    }
    ~Guard() {
      flag_.clear(std::memory_order_release);
      flag_.notify_one();
    }
    Guard(const Guard&) = delete;
    Guard& operator=(const Guard&) = delete;

   private:
    std::atomic_flag& flag_;
  };

 private:
  std::atomic_flag flag_;
};

}  // namespace manyheads::base
