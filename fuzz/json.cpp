// The JSON files of a model folder. The input: which, and its text.
#include "io/json.hpp"

#include <manyheads/model/pooling.hpp>

#include "harness.hpp"
#include "model/bert_config.hpp"

using namespace manyheads;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  static const fuzz::Folder folder;
  if (size < 1) return 0;
  const std::string text(reinterpret_cast<const char*>(bytes) + 1, size - 1);
  switch (bytes[0] % 3) {
    case 0: {
      io::Json value;
      if (!fuzz::taken([&] { value = io::parse_json(text, "text").value; })) break;
      fuzz::require(io::Json::parse(text) == value, "another value than the library's own parser gives");
      break;
    }
    case 1: {
      model::BertConfig config;
      folder.write("config.json", text);
      if (!fuzz::taken([&] { config = model::load_bert_config(folder.path()); })) break;
      fuzz::require(config.num_attention_heads > 0 && config.hidden_size % config.num_attention_heads == 0,
                    "heads that do not divide the model");
      break;
    }
    default: {
      const std::vector<std::string> parts = fuzz::split(text, 2);
      folder.write("modules.json", parts[0]);
      std::filesystem::create_directories(folder.path() / "1_Pooling");
      folder.write("1_Pooling/config.json", parts[1]);
      fuzz::taken([&] { model::load_pooling(folder.path()); });
    }
  }
  return 0;
}
