#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "tiny_model.hpp"

namespace manyheads::cli_test {
namespace {

// embed with both its streams in pipes, written and read while it runs.
class CliEmbedStream : public TinyModel {
 protected:
  void start(const std::vector<std::string>& options, bool blocking = true, rlim_t stack = RLIM_INFINITY) {
    int in[2], out[2];
    ASSERT_EQ(::pipe2(in, O_CLOEXEC), 0);
    ASSERT_EQ(::pipe2(out, O_CLOEXEC), 0);
    if (!blocking) ::fcntl(in[0], F_SETFL, ::fcntl(in[0], F_GETFL) | O_NONBLOCK);
    const char* named = std::getenv("MANYHEADS_PROGRAM");
    std::vector<std::string> words = {named != nullptr ? named : MANYHEADS_PROGRAM, "embed", "--model", model()};
    words.insert(words.end(), options.begin(), options.end());
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    child_ = ::fork();
    if (child_ == 0) {
      ::dup2(in[0], STDIN_FILENO);
      ::dup2(out[1], STDOUT_FILENO);
      if (stack != RLIM_INFINITY) {
        const rlimit limit{stack, stack};
        ::setrlimit(RLIMIT_STACK, &limit);
      }
      ::execv(argv[0], argv.data());
      ::_exit(127);
    }
    ::close(in[0]);
    ::close(out[1]);
    in_ = in[1];
    out_ = out[0];
  }
  void TearDown() override {
    finish();
    TinyModel::TearDown();
  }

  void say(const std::string& text) {
    ASSERT_EQ(::write(in_, text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }
  // What has come when `lines` of them have, or nothing more comes for `seconds`.
  std::string hear(std::size_t lines, int seconds = 20) {
    std::string text;
    pollfd poll{out_, POLLIN, 0};
    while (lines > 0 && ::poll(&poll, 1, seconds * 1000) > 0) {
      char c;
      if (::read(out_, &c, 1) != 1) break;
      text += c;
      if (c == '\n') --lines;
    }
    return text;
  }
  int finish() {
    if (child_ <= 0) return -1;
    ::close(in_);
    while (!hear(1).empty()) {
    }
    ::close(out_);
    int status = 0;
    ::waitpid(child_, &status, 0);
    child_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

 private:
  pid_t child_ = -1;
  int in_ = -1, out_ = -1;
};

TEST_F(CliEmbedStream, EachLineIsAnsweredWhenItComes) {
  for (const bool blocking : {true, false}) {
    start({}, blocking);
    say("the cat\n");
    ASSERT_EQ(hear(1).rfind("{\"text\":\"the cat\",", 0), 0u);
    say("dog\nsat\nmat");  // the last one has not ended yet
    EXPECT_EQ(hear(1).rfind("{\"text\":\"dog\",", 0), 0u);
    EXPECT_EQ(hear(1).rfind("{\"text\":\"sat\",", 0), 0u);
    EXPECT_EQ(hear(1, 0), "");
    say(" on\n");
    EXPECT_EQ(hear(1).rfind("{\"text\":\"mat on\",", 0), 0u);
    EXPECT_EQ(finish(), 0);
  }
}

TEST_F(CliEmbedStream, ALastLineWithoutAnEndIsAnsweredAtTheEnd) {
  start({}, false);
  say("\xef\xbb\xbfthe cat\nsat");
  EXPECT_EQ(hear(1).rfind("{\"text\":\"the cat\",", 0), 0u);
  EXPECT_EQ(finish(), 0);
}

TEST_F(CliEmbedStream, SmallStacks) {
  for (const rlim_t kib : {64, 96}) {
    start({}, true, kib * 1024);
    say("the cat\n");
    EXPECT_NE(hear(1), "") << kib;
    EXPECT_EQ(finish(), 0) << kib;
  }
}

}  // namespace
}  // namespace manyheads::cli_test
