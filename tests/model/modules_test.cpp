#include "model/modules.hpp"

#include <gtest/gtest.h>

#include <manyheads/error.hpp>
#include <nlohmann/json.hpp>
#include <string>

#include "io/malformed.hpp"

namespace manyheads::model {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using test::TemporaryFolder;

class ModuleFiles : public testing::Test {
 protected:
  ModuleFiles() { write("modules.json", Json::array({{{"type", "a.b.Transformer"}, {"path", ""}}})); }
  void write(const std::string& name, const Json& content) { folder_.write(name, content.dump()); }
  template <class Load>
  std::string error(const std::string& name, const Json& content, Load load) {
    write(name, content);
    try {
      load(folder_.path());
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }

  TemporaryFolder folder_;
};

TEST_F(ModuleFiles, ReadsTheTransformer) {
  EXPECT_EQ(load_transformer_module(folder_.path()).folder, folder_.path());
  EXPECT_EQ(load_transformer_module(folder_.path()).max_seq_length, std::nullopt);
  write("sentence_distilbert_config.json", {{"max_seq_length", 9}});
  write("sentence_bert_config.json", Json::object());  // an empty one is passed over
  EXPECT_EQ(load_transformer_module(folder_.path()).max_seq_length, 9);
  EXPECT_EQ(load_transformer_module(folder_.path()).max_seq_length_file, "sentence_distilbert_config.json");
  // All that changes no vector, in its old and its new names.
  write("sentence_bert_config.json",
        {{"max_seq_length", 7},
         {"do_lower_case", true},
         {"transformer_task", "feature-extraction"},
         {"modality_config", {{"text", {{"method", "forward"}, {"method_output_name", "last_hidden_state"}}}}},
         {"module_output_name", "token_embeddings"},
         {"processing_kwargs", Json::object()},
         {"unpad_inputs", false},
         {"query_length", 3},
         {"model_args", {{"trust_remote_code", true}, {"torch_dtype", "float16"}}},
         {"processor_kwargs", Json::object()},
         {"tokenizer_name_or_path", nullptr}});
  EXPECT_EQ(load_transformer_module(folder_.path()).max_seq_length, 7);
  EXPECT_TRUE(load_transformer_module(folder_.path()).do_lower_case);
  fs::remove(folder_.path() / "modules.json");
  EXPECT_EQ(load_transformer_module(folder_.path()).max_seq_length, std::nullopt);
}

TEST_F(ModuleFiles, RefusesByName) {
  const auto refused = [&](const Json& content, const std::string& says) {
    const std::string message = error("sentence_bert_config.json", content, load_transformer_module);
    EXPECT_NE(message.find(says), std::string::npos) << message;
    EXPECT_NE(message.find("sentence_bert_config.json"), std::string::npos) << message;
  };
  refused({{"max_seq_length", 0}}, "\"max_seq_length\" is 0");
  refused({{"max_seq_length", "256"}}, "max_seq_length");
  refused({{"do_lower_case", 1}}, "do_lower_case");
  refused({{"something_new", 1}}, "\"something_new\" is not known");
  refused({{"transformer_task", "fill-mask"}}, "transformer_task");
  refused({{"module_output_name", "sentence_embedding"}}, "module_output_name");
  refused({{"modality_config", {{"image", {}}}}}, "modality_config");
  refused({{"processing_kwargs", {{"text", {{"max_length", 3}}}}}}, "processing_kwargs");
  refused({{"tokenizer_name_or_path", "elsewhere"}}, "tokenizer_name_or_path");
  refused({{"tokenizer_args", {{"do_lower_case", false}}}}, "\"do_lower_case\" is not known");
  refused({{"model_kwargs", 1}}, "model_kwargs");
  refused({{"config_kwargs", {{"num_hidden_layers", 1}}}}, "\"num_hidden_layers\" is not known");
  refused(Json::array({1}), "a JSON object is needed");
}

TEST_F(ModuleFiles, Prompts) {
  const fs::path folder = folder_.path();
  EXPECT_EQ(load_sentence_settings(folder).prompt({}), "");
  EXPECT_EQ(load_sentence_settings(folder).prompt("query"), "");  // every model has these two
  EXPECT_EQ(load_sentence_settings(folder).prompt("document"), "");
  write("config_sentence_transformers.json", {{"prompts", {{"query", "q: "}, {"none", nullptr}}},
                                              {"default_prompt_name", "query"},
                                              {"similarity_fn_name", "dot"},
                                              {"truncate_dim", 5}});
  EXPECT_EQ(load_sentence_settings(folder).prompt({}), "q: ");
  EXPECT_EQ(load_sentence_settings(folder).prompt("none"), "");
  EXPECT_EQ(load_sentence_settings(folder).truncate_dim, 5);
  try {
    load_sentence_settings(folder).prompt("other");
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("no prompt \"other\""), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("\"document\", \"none\", \"query\""), std::string::npos) << error.what();
  }
  fs::remove(folder / "modules.json");
  EXPECT_EQ(load_sentence_settings(folder).prompt({}), "");
}

TEST_F(ModuleFiles, RefusesSettingsByName) {
  const auto refused = [&](const Json& content, const std::string& says) {
    const std::string message = error("config_sentence_transformers.json", content, load_sentence_settings);
    EXPECT_NE(message.find(says), std::string::npos) << message;
  };
  refused({{"default_prompt_name", "q"}}, "\"default_prompt_name\" is \"q\"");
  refused({{"prompts", {{"q", 1}}}}, "\"q\" is 1");
  refused({{"prompts", "q"}}, "prompts");
  refused({{"model_type", "SparseEncoder"}}, "\"model_type\" is \"SparseEncoder\"");
  refused({{"truncate_dim", 0}}, "truncate_dim");
  refused(Json::array(), "object");
}

}  // namespace
}  // namespace manyheads::model
