#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <manyheads/safetensors.hpp>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tiny_model.hpp"

// Decoder folders and disks that do not fit, through the program.
namespace manyheads::cli_test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// The random decoder of the golden files (2 layers, 4 heads on 2, 64 positions, a vocabulary of 96) with the tokenizer
// of 50 words.
class CliDecoderFolder : public TinyModel {
 protected:
  void SetUp() override {
    TinyModel::SetUp();
    restore();
  }
  static fs::path golden() { return fs::path(MANYHEADS_SOURCE_DIR) / "tests/golden/decoder/tiny_grouped"; }
  fs::path in_model(const std::string& name) const { return fs::path(model()) / name; }
  void restore() const {
    for (const char* name : {"config.json", "model.safetensors"}) {
      fs::remove_all(in_model(name));
      fs::copy_file(golden() / name, in_model(name));
    }
  }
  void configure(const json& changes) const {
    json config = json::parse(std::ifstream(golden() / "config.json"));
    config.update(changes);
    std::ofstream(in_model("config.json")) << config;
  }
  void tensors(const std::function<void(StateDict&)>& change) const {
    StateDict now = load_safetensors(golden() / "model.safetensors").tensors;
    change(now);
    save_safetensors(in_model("model.safetensors"), now);
  }
};

TEST_F(CliDecoderFolder, EachGivesOneLineAndNoFile) {
  struct Case {
    std::function<void()> spoil;
    std::string says;
  };
  const std::string q = "model.layers.1.self_attn.q_proj.weight";
  const std::vector<Case> cases = {
      {[&] { configure({{"model_type", "mistral"}}); }, "\"model_type\" is \"mistral\""},
      {[&] { configure({{"hidden_size", -1}}); }, "\"hidden_size\" is -1"},
      {[&] { configure({{"hidden_act", "gelu"}}); }, "\"hidden_act\" is \"gelu\""},
      {[&] { configure({{"rope_scaling", {{"rope_type", "yarn"}, {"factor", 2}}}}); }, "\"rope_type\" is \"yarn\""},
      {[&] { configure({{"sliding_window", 64}}); }, "\"sliding_window\" is 64"},
      {[&] { configure({{"quantization_config", json::object()}}); }, "\"quantization_config\""},
      {[&] { configure({{"num_key_value_heads", 3}}); }, "\"num_key_value_heads\" is 3"},
      {[&] { configure({{"num_hidden_layers", 4096}}); }, "tensor \"layers.2.self_attn.q_proj.weight\""},
      {[&] { configure({{"vocab_size", 1 << 30}}); }, "expected [1073741824,32]"},
      {[&] { configure({{"intermediate_size", 1 << 20}}); }, "expected [1048576,32]"},
      {[&] { configure({{"tie_word_embeddings", false}}); }, "tensor \"lm_head.weight\" [96,32] is missing"},
      {[&] { tensors([&](StateDict& t) { t.erase(q); }); }, "tensor \"layers.1.self_attn.q_proj.weight\" [32,32] is"},
      {[&] { tensors([&](StateDict& t) { t[q] = Tensor(DType::kF32, {32, 31}); }); }, q + "\" is [32,31]"},
      {[&] { tensors([&](StateDict& t) { t[q] = Tensor(DType::kI64, {32, 32}); }); }, q + "\" is I64"},
      {[&] { fs::remove(in_model("config.json")); }, "config.json\": No such file"},
      {[&] { fs::remove(in_model("model.safetensors")); }, "holds neither model.safetensors nor"},
      {[&] { fs::resize_file(in_model("model.safetensors"), 30000); }, "data ends at byte"},
      {[&] { fs::resize_file(in_model("model.safetensors"), 0); }, "model.safetensors"},
      {[&] { std::ofstream(in_model("config.json")) << "{"; }, "config.json\": not JSON"},
      // The word "sat" is token 7.
      {[&] {
         configure({{"vocab_size", 7}});
         tensors([](StateDict& t) { t["model.embed_tokens.weight"] = Tensor(DType::kF32, {7, 32}); });
       },
       "tokenizer.json and config.json of"},
  };
  for (const Case& one : cases) {
    restore();
    one.spoil();
    for (const std::vector<std::string>& verb :
         {std::vector<std::string>{"look", "the cat sat"}, {"trace", "the cat sat", "-o", path("t.safetensors")}}) {
      const Result result = program(verb);
      EXPECT_EQ(result.code, 1) << verb[0] << ": " << one.says;
      EXPECT_TRUE(is_one_line(result, one.says)) << verb[0];
      EXPECT_EQ(result.out, "");
      EXPECT_EQ(names(), std::vector<std::string>{"tiny"});
    }
  }
  fs::remove_all(model());
  fs::create_directory(model());
  const Result empty = program({"look", "the cat"});
  EXPECT_EQ(empty.code, 1);
  EXPECT_TRUE(is_one_line(empty, "No such file"));
}

TEST_F(CliDecoderFolder, APromptPastTheModelsLengthIsOneLine) {
  const Result result = program({"trace", many_words(70), "-o", path("t.safetensors")});
  EXPECT_EQ(result.code, 1);
  EXPECT_TRUE(is_one_line(result, "72 tokens, the model takes 64; --truncate cuts to that"));
  EXPECT_TRUE(is_one_line(program({"look", many_words(70)}), "72 tokens"));
  EXPECT_TRUE(is_one_line(program({"look", " \n"}), "TEXT is empty"));
  EXPECT_EQ(names(), std::vector<std::string>{"tiny"});
}

TEST_F(CliDecoderFolder, AFullDiskIsOneLineAndLeavesTheOldFile) {
  const Result device = program({"trace", "the cat", "-o", "/dev/full"});
  EXPECT_EQ(device.code, 1);
  EXPECT_TRUE(is_one_line(device, "No space left"));
  // A disk of 16 KiB with a file on it: the trace takes more.
  const std::string disk = path("disk"), error = path("error");
  fs::create_directory(disk);
  constexpr int kCannot = 77;
  const pid_t child = ::fork();
  if (child == 0) {
    if (::unshare(CLONE_NEWNS) != 0 || ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount("none", disk.c_str(), "tmpfs", 0, "size=16k") != 0) {
      std::_Exit(kCannot);
    }
    std::ofstream(disk + "/t") << "old";
    const Result result = program({"trace", many_words(60), "-o", disk + "/t"});
    std::ofstream(error) << result.err;
    std::string old;
    std::ifstream(disk + "/t") >> old;
    int files = 0;
    for ([[maybe_unused]] const auto& entry : fs::directory_iterator(disk)) ++files;
    std::_Exit(result.code != 1 ? 1 : old != "old" ? 2 : files != 1 ? 3 : 0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == kCannot) GTEST_SKIP() << "the tests may not mount a file system";
  EXPECT_EQ(WEXITSTATUS(status), 0);
  Result said;
  std::getline(std::ifstream(error), said.err);
  said.err += "\n";
  EXPECT_TRUE(is_one_line(said, "No space left"));
}

}  // namespace
}  // namespace manyheads::cli_test
