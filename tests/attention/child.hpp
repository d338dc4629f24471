#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <functional>
#include <string>

#include "attention/call.hpp"
#include "sanitized.hpp"

// What tests share that take threads or memory away in a forked child.
namespace manyheads::test {

// What `work` returns in a forked child; -1 where it does not end by itself.
inline int in_a_child(const std::function<int()>& work) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(60);  // a child that waits for its parent's threads would wait for ever
    int status = 99;
    try {
      status = work();
    } catch (...) {
    }
    ::_exit(status);
  }
  int status = 0;
  if (child < 0 || ::waitpid(child, &status, 0) != child || !WIFEXITED(status)) return -1;
  return WEXITSTATUS(status);
}

// A number of /proc/self/status: "Threads", or "VmSize" in KiB.
inline std::size_t own_status(const std::string& name) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(name + ":")) return std::stoul(line.substr(name.size() + 1));
  }
  return 0;
}

// Decoding over so many keys that they are cut into blocks.
inline Call split_call(int threads) {
  Call call({.q_heads = 2, .kv_heads = 1, .tq = 1, .tk = 6000, .d = 64, .dv = 64});
  call.options.threads.num_threads = threads;
  return call;
}

}  // namespace manyheads::test
