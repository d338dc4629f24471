#include <gtest/gtest.h>

#include <CLI/CLI.hpp>
#include <manyheads/error.hpp>
#include <string>

#include "cli.hpp"

// The verb view as a build with -DMANYHEADS_VIEWER=OFF has it: tests/CMakeLists.txt compiles it a second time so.
namespace manyheads::cli_test {
namespace {

void view(const std::string& arguments) {
  CLI::App app;
  cli::add_view(app);
  app.parse("manyheads view " + arguments, true);
}

TEST(CliNoViewer, ViewSaysThatThisBuildHasNoPageAndHowToGetOne) {
  for (const char* arguments : {"cat --model any", "any.safetensors", "any.scan", "cat --model any --export a.html",
                                "cat --model any --head 1.2 --export a.svg", "cat --model any --export-site any"}) {
    try {
      view(arguments);
      FAIL() << arguments;
    } catch (const Error& error) {  // exit code 1
      EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
      const std::string says = error.what();
      EXPECT_EQ(says.rfind("this build has no page. Install ", 0), 0u) << says;
      EXPECT_NE(says.find("-DMANYHEADS_VIEWER=ON"), std::string::npos) << says;
      EXPECT_EQ(says.find('\n'), std::string::npos) << says;
    }
  }
  EXPECT_THROW(view("cat"), cli::UsageError);
}

}  // namespace
}  // namespace manyheads::cli_test
