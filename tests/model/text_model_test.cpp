#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <manyheads/error.hpp>
#include <manyheads/model/text_model.hpp>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "io/malformed.hpp"
#include "support.hpp"

namespace manyheads::model {
namespace {

namespace fs = std::filesystem;
using test::error_of;

fs::path tiny() { return test::source_dir() / "tests/golden/embed/tiny"; }

TEST(TextModel, AFolderIsATokenizerAndAnEncoder) {
  const TextModel model(tiny());
  const Encoding one = model.encode("the cat"), pair = model.encode_pair("the cat", "the cat");
  EXPECT_GE(one.size(), 4u);  // with [CLS] and [SEP]
  EXPECT_TRUE(one.special.front());
  EXPECT_EQ(pair.type_ids.back(), 1);
  const Tensor hidden = model.encoder().run(TokenBatch::from_rows({one.ids}, {one.type_ids}));
  EXPECT_EQ(hidden.shape(), Dims({1, static_cast<std::int64_t>(one.size()), model.encoder().config().hidden_size}));
}

TEST(TextModel, IdsAreAText) {
  const TextModel model(tiny());
  const std::vector<std::int64_t> ids = model.encode("the cat").ids;
  EXPECT_EQ(model.decode(ids, false), "[CLS] the cat [SEP]");
  EXPECT_EQ(model.decode(ids), "the cat");
  EXPECT_TRUE(model.end_tokens().empty());
}

TEST(TextModel, NamesWhatIsWrong) {
  const TextModel model(tiny());
  EXPECT_NE(error_of([&] { model.encode("a\xff"); }).find("is not UTF-8 at byte 1"), std::string::npos);
  EXPECT_NE(error_of([] { TextModel("no_such_folder"); }, ErrorCode::kIo).find("no_such_folder"), std::string::npos);
}

TEST(TextModel, ATokenizerOfAnotherModelIsNamed) {
  const test::TemporaryFolder folder;
  fs::copy(tiny(), folder.path(), fs::copy_options::recursive | fs::copy_options::overwrite_existing);
  nlohmann::json tokenizer = nlohmann::json::parse(std::ifstream(tiny() / "tokenizer.json"));
  tokenizer["model"]["vocab"]["cat"] = 100'000;
  folder.write("tokenizer.json", tokenizer.dump());
  const TextModel model(folder.path());
  const std::string error = error_of([&] { model.encode("cat"); }, ErrorCode::kMalformedFile);
  EXPECT_NE(error.find("do not fit: token id 100000, vocab_size is "), std::string::npos) << error;
}

}  // namespace
}  // namespace manyheads::model
