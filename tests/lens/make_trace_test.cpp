#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "lens/trace.hpp"

namespace manyheads::lens {
namespace {

class CountingExecutor : public Executor {
 public:
  void run(std::int64_t count, Task task, void* context) override {
    ++calls;
    for (std::int64_t i = 0; i < count; ++i) task(context, i);
  }
  int calls = 0;
};

// No number of threads means all of them, in every step: the sums in double are one step of each layer.
TEST(MakeTrace, NoNumberOfThreadsMeansAll) {
  const auto model = std::filesystem::path(MANYHEADS_SOURCE_DIR) / "tests/golden/embed/tiny";
  const model::BertEncoder encoder = model::BertEncoder::load(model);
  const model::Encoding encoding = model::Tokenizer(model / "tokenizer.json").encode("the cat sat");
  ASSERT_EQ(::setenv("MANYHEADS_NUM_THREADS", "3", 1), 0);
  const auto calls = [&](bool in_double) {
    CountingExecutor executor;
    TraceOptions options;
    options.lse_in_double = in_double;
    options.executor = &executor;
    make_trace(encoder, encoding, "tiny", "the cat sat", options);
    return executor.calls;
  };
  EXPECT_EQ(calls(true), calls(false) + 2);
  ::unsetenv("MANYHEADS_NUM_THREADS");
}

}  // namespace
}  // namespace manyheads::lens
