#pragma once

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "server/client.hpp"

namespace manyheads::cli_test {

// manyheads view while it runs.
class Running {
 public:
  explicit Running(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {MANYHEADS_PROGRAM, "view"});
    std::vector<char*> argv;
    for (std::string& word : arguments) argv.push_back(word.data());
    argv.push_back(nullptr);
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return;
    child_ = ::fork();
    if (child_ == 0) {
      // A shell starts what runs in the background with these ignored, and the program leaves that so.
      for (const int end : {SIGHUP, SIGINT, SIGTERM}) ::signal(end, SIG_DFL);
      ::dup2(ends[1], STDOUT_FILENO);
      ::execv(argv[0], argv.data());
      ::_exit(127);
    }
    ::close(ends[1]);
    char byte;
    while (::read(ends[0], &byte, 1) == 1 && byte != '\n') said_ += byte;
    ::close(ends[0]);
  }
  ~Running() { end(SIGKILL); }
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;

  // Its exit code; the negative signal where one ended it.
  int end(int signal) {
    if (child_ <= 0) return 0;
    ::kill(child_, signal);
    int status = 0;
    // One that does not end in 30 s is killed, and says so by its exit code.
    for (int tries = 0; ::waitpid(child_, &status, WNOHANG) == 0; ++tries) {
      if (tries == 3000) ::kill(child_, SIGKILL);
      ::usleep(10'000);
    }
    child_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

  const std::string& said() const { return said_; }  // its first line
  std::uint16_t port() const { return static_cast<std::uint16_t>(std::atoi(said_.substr(17).c_str())); }
  std::string path() const { return said_.substr(said_.find('/', 17)); }

 private:
  pid_t child_ = -1;
  std::string said_;
};

// Its answer to a question of the page.
inline nlohmann::json ask(const Running& view, const nlohmann::json& question) {
  const std::string request = test::post(view.port(), view.path() + "ask", question.dump());
  return nlohmann::json::parse(test::answer_to(view.port(), request).body);
}

}  // namespace manyheads::cli_test
