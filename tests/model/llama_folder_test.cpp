#include <gtest/gtest.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <manyheads/error.hpp>
#include <manyheads/model/decoder.hpp>
#include <manyheads/safetensors.hpp>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "allocations.hpp"
#include "io/malformed.hpp"
#include "model/checkpoint.hpp"
#include "support.hpp"

namespace manyheads::model {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kFile = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";

fs::path golden(const std::string& name) { return test::source_dir() / "tests/golden/decoder" / name; }

std::string bytes_of(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// A safetensors file of 8 bytes of size, a header and data.
struct RawFile {
  explicit RawFile(const fs::path& path) {
    const std::string all = bytes_of(path);
    std::uint64_t size = 0;
    std::memcpy(&size, all.data(), sizeof size);
    header = json::parse(all.substr(sizeof size, size));
    data = all.substr(sizeof size + size);
  }
  std::string bytes() const {
    const std::string text = header.dump();
    const std::uint64_t size = text.size();
    return std::string(reinterpret_cast<const char*>(&size), sizeof size) + text + data;
  }
  json header;
  std::string data;
};

// A decoder's folder that a case spoils.
class LlamaFolder : public testing::Test {
 protected:
  // A folder like that of tests/golden/decoder/`name`.
  void copy(const std::string& name) {
    for (const auto& entry : fs::directory_iterator(folder_.path())) fs::remove_all(entry);
    for (const auto& entry : fs::directory_iterator(golden(name))) {
      if (entry.path().filename() != "expected.safetensors") fs::copy(entry, folder_.path());
    }
  }
  void write(const char* name, const std::string& bytes) { folder_.write(name, bytes); }
  fs::path path(const std::string& name) const { return folder_.path() / name; }
  json config() const { return json::parse(bytes_of(path("config.json"))); }
  void configure(const json& changes) {
    json now = config();
    now.update(changes);
    write("config.json", now.dump());
  }
  // The tensors, changed.
  void tensors(const std::function<void(StateDict&)>& change) {
    StateDict now = load_checkpoint(folder_.path()).tensors;
    change(now);
    save_safetensors(path(kFile), now);
  }
  void index(const std::function<void(json&)>& change) {
    json now = json::parse(bytes_of(path(kIndex)));
    change(now["weight_map"]);
    write(kIndex, now.dump());
  }

  // Loading gives one line that says all of `says`.
  void refused(const std::vector<std::string>& says) {
    ++refused_;
    try {
      load_decoder(folder_.path());
      ADD_FAILURE() << "accepted; expected: " << says[0];
    } catch (const Error& error) {
      const std::string what = error.what();
      EXPECT_TRUE(error.code() == ErrorCode::kMalformedFile || error.code() == ErrorCode::kIo) << what;
      for (const std::string& part : says) EXPECT_NE(what.find(part), std::string::npos) << what << "\n" << part;
      EXPECT_EQ(what.find_first_of("\n\r\t\x1b"), std::string::npos) << what;
      EXPECT_LT(what.size(), 600U) << what;
    }
  }
  void TearDown() override { std::printf("malformed: %d decoder folders of %s\n", refused_, test_name().c_str()); }
  static std::string test_name() { return testing::UnitTest::GetInstance()->current_test_info()->name(); }

  test::TemporaryFolder folder_;
  int refused_ = 0;
};

std::string quoted(const std::string& name) { return "\"" + name + "\""; }

TEST_F(LlamaFolder, EveryTensorIsAskedForByItsName) {
  for (const char* model : {"tiny_grouped", "tiny_untied", "tiny_bf16"}) {
    copy(model);
    const StateDict good = load_checkpoint(folder_.path()).tensors;
    const RawFile raw(path(kFile));
    for (const auto& [name, tensor] : good) {
      SCOPED_TRACE(std::string(model) + " " + name);
      const std::string shape = tensor.shape().to_string();
      const auto with = [&](const Tensor& other) {
        StateDict now = good;
        now[name] = other;
        save_safetensors(path(kFile), now);
      };
      StateDict without = good;
      without.erase(name);
      save_safetensors(path(kFile), without);
      const std::string asked = name.starts_with("model.") ? name.substr(6) : name;
      refused({path(kFile).string(), quoted(asked), shape + " is missing", "the prefix model."});
      // One more row, one less, the axes swapped, one axis more.
      std::vector<std::int64_t> sizes(tensor.shape().begin(), tensor.shape().end());
      std::vector<std::vector<std::int64_t>> others(3, sizes);
      ++others[0][0];
      --others[1].back();
      others[2].insert(others[2].begin(), 1);
      if (sizes.size() == 2 && sizes[0] != sizes[1]) others.push_back({sizes[1], sizes[0]});
      for (const auto& other : others) {
        with(Tensor(DType::kF32, Dims(other)));
        refused({path(kFile).string(), quoted(name) + " is " + Dims(other).to_string(), "expected " + shape});
      }
      with(Tensor(DType::kI64, tensor.shape()));
      refused({path(kFile).string(), quoted(name) + " is I64", "expected F32, BF16 or F16"});
      with(Tensor(DType::kF64, tensor.shape()));
      refused({path(kFile).string(), quoted(name) + " is F64", "expected F32, BF16 or F16"});
      // A type that no tensor holds.
      RawFile f8 = raw;
      json& entry = f8.header[name];
      entry["shape"][0] = tensor.shape()[0] * static_cast<std::int64_t>(size_of(tensor.dtype()));
      entry["dtype"] = "F8_E4M3";
      write(kFile, f8.bytes());
      refused({path(kFile).string(), quoted(name) + " is F8_E4M3", "expected F32, BF16 or F16 " + shape});
    }
    save_safetensors(path(kFile), good);
    load_decoder(folder_.path());
  }
  EXPECT_GE(refused_, 400);
}

TEST_F(LlamaFolder, BiasesThatConfigJsonSpeaksOfAreNeeded) {
  copy("tiny_grouped");
  configure({{"attention_bias", true}});
  refused({kFile, quoted("layers.0.self_attn.q_proj.bias"), "[32] is missing"});
  tensors([](StateDict& t) {
    for (const char* part : {"q", "k", "v"}) {
      for (const char* layer : {"0", "1"}) {
        const std::string name = std::string("model.layers.") + layer + ".self_attn." + part + "_proj.bias";
        Tensor bias(DType::kF32, {*part == 'q' ? 32 : 16});
        std::memset(bias.as<float>(), 0, static_cast<std::size_t>(bias.elements()) * sizeof(float));
        t[name] = bias;
      }
    }
  });
  refused({kFile, quoted("layers.0.self_attn.o_proj.bias"), "[32] is missing"});
  configure({{"attention_bias", false}, {"mlp_bias", true}});
  refused({kFile, quoted("layers.0.mlp.gate_proj.bias"), "[48] is missing"});
  tensors([](StateDict& t) { t["model.layers.0.mlp.gate_proj.bias"] = Tensor(DType::kF32, {47}); });
  refused({kFile, quoted("model.layers.0.mlp.gate_proj.bias") + " is [47], expected [48]"});
}

TEST_F(LlamaFolder, SizesOfConfigJsonThatTheTensorsDoNotHaveTakeNoMemory) {
  const std::vector<std::pair<json, std::vector<std::string>>> cases = {
      {{{"vocab_size", 1 << 30}}, {"embed_tokens.weight", "is [96,32], expected [1073741824,32]"}},
      {{{"vocab_size", 95}}, {"embed_tokens.weight", "is [96,32], expected [95,32]"}},
      {{{"hidden_size", 1 << 20}}, {"embed_tokens.weight", "is [96,32], expected [96,1048576]"}},
      {{{"hidden_size", 1 << 20}, {"vocab_size", 1 << 30}}, {"embed_tokens.weight", "[1073741824,1048576]"}},
      {{{"intermediate_size", 1 << 20}}, {"layers.0.mlp.gate_proj.weight", "expected [1048576,32]"}},
      {{{"head_dim", 1 << 18}}, {"layers.0.self_attn.q_proj.weight", "expected [1048576,32]"}},
      {{{"head_dim", 4}}, {"layers.0.self_attn.q_proj.weight", "is [32,32], expected [16,32]"}},
      {{{"num_attention_heads", 1 << 19}, {"head_dim", 2}}, {"layers.0.self_attn.q_proj.weight", "[1048576,32]"}},
      {{{"num_attention_heads", 2}, {"head_dim", 8}}, {"layers.0.self_attn.q_proj.weight", "expected [16,32]"}},
      {{{"num_key_value_heads", 4}}, {"layers.0.self_attn.k_proj.weight", "is [16,32], expected [32,32]"}},
      {{{"num_key_value_heads", 1}}, {"layers.0.self_attn.k_proj.weight", "is [16,32], expected [8,32]"}},
      {{{"num_key_value_heads", nullptr}}, {"layers.0.self_attn.k_proj.weight", "expected [32,32]"}},
      {{{"num_hidden_layers", 4096}}, {"layers.2.self_attn.q_proj.weight", "is missing"}},
      {{{"num_hidden_layers", 3}}, {"layers.2.self_attn.q_proj.weight", "is missing"}},
      {{{"tie_word_embeddings", false}}, {"lm_head.weight", "[96,32] is missing"}},
      {{{"tie_word_embeddings", nullptr}}, {"lm_head.weight", "[96,32] is missing"}},
  };
  for (const auto& [changes, says] : cases) {
    SCOPED_TRACE(changes.dump());
    copy("tiny_grouped");
    configure(changes);
    std::vector<std::string> all = says;
    all.push_back(path(kFile).string());
    EXPECT_LE(test::most_bytes([&] { refused(all); }), 1 << 20);
  }
}

TEST_F(LlamaFolder, FilesThatAreNotThereOrNotWhole) {
  const auto spoil = [&](const std::string& model, const std::function<void()>& change,
                         const std::vector<std::string>& says) {
    SCOPED_TRACE(says[0]);
    copy(model);
    change();
    refused(says);
  };
  spoil("tiny_grouped", [&] { fs::remove(path("config.json")); }, {path("config.json").string(), "No such file"});
  spoil("tiny_grouped", [&] { write("config.json", ""); }, {path("config.json").string(), "empty"});
  spoil("tiny_grouped", [&] { fs::remove(path(kFile)); }, {"holds neither model.safetensors nor", kIndex});
  spoil("tiny_grouped",
        [&] {
          fs::remove(path("config.json"));
          fs::remove(path(kFile));
        },
        {path("config.json").string(), "No such file"});
  spoil("tiny_grouped",
        [&] {
          fs::remove(path("config.json"));
          fs::create_directory(path("config.json"));
        },
        {path("config.json").string()});
  spoil("tiny_grouped",
        [&] {
          fs::remove(path(kFile));
          fs::create_directory(path(kFile));
        },
        {path(kFile).string()});
  spoil("tiny_grouped", [&] { configure({{"model_type", "bert"}}); }, {"\"model_type\"", "\"llama\" is needed"});

  // Cut at each kind of place, and with a byte too many.
  copy("tiny_grouped");
  const std::string whole = bytes_of(path(kFile));
  const std::size_t header = whole.size() - RawFile(path(kFile)).data.size();
  for (const std::size_t size : {std::size_t{0}, std::size_t{1}, std::size_t{7}, std::size_t{8}, std::size_t{9},
                                 header / 2, header - 1, header, header + 1, whole.size() / 2, whole.size() - 1}) {
    write(kFile, whole.substr(0, size));
    refused({path(kFile).string()});
  }
  write(kFile, whole + "x");
  refused({path(kFile).string()});
  write(kFile, std::string(whole.size(), '\0'));
  refused({path(kFile).string()});
  write(kFile, std::string(whole.size(), '\xff'));
  refused({path(kFile).string()});
  write(kFile, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 538090408\n");
  refused({path(kFile).string()});

  // A header that speaks of other data.
  const std::string q = "model.layers.0.self_attn.q_proj.weight";
  const std::vector<std::function<void(json&)>> headers = {
      [](json& entry) { entry["data_offsets"] = {0, 1}; },
      [](json& entry) { entry["data_offsets"][1] = std::int64_t{1} << 60; },
      [](json& entry) { entry["data_offsets"] = {-4096, 0}; },
      [](json& entry) { entry["shape"] = {32, 33}; },
      [](json& entry) { entry["shape"] = {-32, -32}; },
      [](json& entry) { entry["shape"] = {std::int64_t{1} << 40, std::int64_t{1} << 40}; },
      [](json& entry) { entry["shape"] = "32,32"; },
      [](json& entry) { entry["dtype"] = "F33"; },
      [](json& entry) { entry["dtype"] = 32; },
      [](json& entry) { entry.erase("dtype"); },
      [](json& entry) { entry.erase("shape"); },
      [](json& entry) { entry.erase("data_offsets"); },
      [](json& entry) { entry = nullptr; },
  };
  copy("tiny_grouped");
  const RawFile good(path(kFile));
  for (const auto& change : headers) {
    RawFile raw = good;
    change(raw.header[q]);
    SCOPED_TRACE(raw.header[q].dump());
    write(kFile, raw.bytes());
    refused({path(kFile).string(), q});
  }
}

TEST_F(LlamaFolder, ShardsThatAreNotThereOrNotTheirs) {
  const std::string first = "model-00001-of-00002.safetensors", second = "model-00002-of-00002.safetensors";
  const std::string q = "model.layers.1.self_attn.q_proj.weight";
  const auto spoil = [&](const std::function<void()>& change, const std::vector<std::string>& says) {
    SCOPED_TRACE(says[0]);
    copy("tiny_shards");
    change();
    refused(says);
  };
  for (const std::string& shard : {first, second}) {
    spoil([&] { fs::remove(path(shard)); }, {path(shard).string(), "No such file"});
    spoil([&] { write(shard.c_str(), ""); }, {path(shard).string()});
    spoil([&] { write(shard.c_str(), bytes_of(path(shard)).substr(0, 5000)); },
          {path(shard).string(), "data ends at byte"});
  }
  spoil([&] { fs::remove(path(kIndex)); }, {"holds neither", kIndex});
  spoil([&] { write(kIndex, "{"); }, {path(kIndex).string(), "not JSON"});
  spoil([&] { write(kIndex, "[]"); }, {path(kIndex).string(), "a JSON object is needed"});
  spoil([&] { write(kIndex, "{\"weight_map\":{}}"); }, {path(kIndex).string(), "embed_tokens.weight", "is missing"});
  // In another folder, though the shard lies there.
  const test::TemporaryFolder other;
  fs::copy_file(golden("tiny_shards") / second, other.path() / second);
  for (const std::string& name :
       {(other.path() / second).string(), "../" + other.path().filename().string() + "/" + second, "./" + second,
        std::string(".."), std::string(), "/etc/passwd" + std::string()}) {
    spoil([&] { index([&](json& map) { map[q] = name; }); },
          {path(kIndex).string(), quoted(q), "the name of a file in the same folder is needed"});
  }
  spoil([&] { index([&](json& map) { map[q] = 2; }); }, {path(kIndex).string(), quoted(q), "a string is needed"});
  spoil([&] { index([&](json& map) { map[q] = first; }); }, {path(first).string(), quoted(q), "is missing"});
  spoil([&] { index([&](json& map) { map[q] = "config.json"; }); }, {path("config.json").string()});
  spoil([&] { index([&](json& map) { map[q] = kIndex; }); }, {path(kIndex).string()});
  spoil([&] { index([&](json& map) { map.erase(q); }); },
        {path(kIndex).string(), quoted("layers.1.self_attn.q_proj.weight"), "is missing"});
  spoil([&] { index([&](json& map) { map["more"] = second; }); },
        {path(second).string(), quoted("more"), "is missing"});
  spoil([&] { index([&](json& map) { map["more"] = "model-00003-of-00003.safetensors"; }); },
        {path("model-00003-of-00003.safetensors").string(), "No such file"});
  spoil([&] { configure({{"num_hidden_layers", 3}}); }, {path(kIndex).string(), "layers.2.", "is missing"});
}

TEST_F(LlamaFolder, AFolderThatIsEmptyOrNone) {
  refused({(folder_.path() / "config.json").string(), "No such file"});
  const auto error = [](const fs::path& folder) {
    return test::error_of([&] { load_decoder(folder); }, ErrorCode::kIo);
  };
  EXPECT_NE(error(path("none")).find("No such file"), std::string::npos);
  write("file", "");
  EXPECT_NE(error(path("file")).find("Not a directory"), std::string::npos);
  EXPECT_NE(error("").find("config.json"), std::string::npos);
}

}  // namespace
}  // namespace manyheads::model
