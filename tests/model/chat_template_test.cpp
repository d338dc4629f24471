#include "model/chat_template.hpp"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "io/malformed.hpp"
#include "support.hpp"

namespace manyheads::model {
namespace {

using Json = nlohmann::json;
using test::error_of;
using test::TemporaryFolder;

// As SmolLM2's folder has it.
const std::string kSmolLM2 =
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou "
    "are "
    "a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + "
    "message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ "
    "'<|im_start|>assistant\n' }}{% endif %}";
const std::string kPlain =
    R"({% for message in messages %}{{"<|im_start|>" + message["role"] + "\n" + message["content"] + "<|im_end|>\n"}})"
    R"({% endfor %}{% if add_generation_prompt %}{{ "<|im_start|>assistant\n" }}{% endif %})";

ChatTemplate load(const std::string& text) {
  const TemporaryFolder folder;
  folder.write("tokenizer_config.json", Json{{"chat_template", text}}.dump());
  return load_chat_template(folder.path());
}

TEST(ChatTemplate, RendersAsTheTemplateSays) {
  const ChatTemplate chat = load(kSmolLM2);
  EXPECT_EQ(chat.render("Hi {{ 1 }}"),
            "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
            "<|im_start|>user\nHi {{ 1 }}<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(chat.render("Hi", "Be brief."),
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(chat.render("Hi", ""),
            "<|im_start|>system\n<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
  const ChatTemplate plain = load(kPlain);
  EXPECT_EQ(plain.render("Hi"), "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
}

TEST(ChatTemplate, AFileOfItsOwnGoesFirst) {
  const TemporaryFolder folder;
  folder.write("tokenizer_config.json", Json{{"chat_template", "{{ other }}"}}.dump());
  folder.write("chat_template.jinja", kPlain + "\n");
  EXPECT_EQ(load_chat_template(folder.path()).system, "");
  folder.write("chat_template.jinja", "{{- bos_token }}\nand more");
  EXPECT_NE(error_of([&] { load_chat_template(folder.path()); }, ErrorCode::kUnsupported)
                .find("chat_template.jinja\" is not the ChatML form, the only one that is known: it begins \"{{- "
                      "bos_token }}\""),
            std::string::npos);
}

TEST(ChatTemplate, AnotherFormIsRefused) {
  const auto error = [](const std::string& text) { return error_of([&] { load(text); }, ErrorCode::kUnsupported); };
  EXPECT_NE(error("{{ bos_token }}[INST]").find("tokenizer_config.json\": \"chat_template\" is not the ChatML form"),
            std::string::npos);
  // Each change of the template, however small, is another form, or changes nothing.
  int refused = 0;
  for (std::size_t i = 0; i < kSmolLM2.size(); ++i) {
    std::string changed = kSmolLM2;
    changed.erase(i, 1);
    try {
      const std::string text = load(changed).render("Hi", "Be brief.");
      EXPECT_EQ(text, load(kSmolLM2).render("Hi", "Be brief.")) << changed;
    } catch (const Error& problem) {
      EXPECT_EQ(problem.code(), ErrorCode::kUnsupported);
      ++refused;
    }
    if (i % 10 == 0) {
      EXPECT_NE(error(kSmolLM2.substr(0, i)).find("not the ChatML form"), std::string::npos) << i;
    }
  }
  EXPECT_GT(refused, 250);
  EXPECT_NE(error(kSmolLM2 + "{{ eos_token }}").find("not the ChatML form"), std::string::npos);
}

TEST(ChatTemplate, NoneAndMalformedOnes) {
  const TemporaryFolder folder;
  EXPECT_NE(error_of([&] { load_chat_template(folder.path()); }, ErrorCode::kUnsupported).find("has no chat template"),
            std::string::npos);
  folder.write("tokenizer_config.json", "{}");
  EXPECT_NE(error_of([&] { load_chat_template(folder.path()); }, ErrorCode::kUnsupported).find("has no chat template"),
            std::string::npos);
  folder.write("tokenizer_config.json", R"({"chat_template": [{"name": "default", "template": "x"}]})");
  EXPECT_NE(
      error_of([&] { load_chat_template(folder.path()); }, ErrorCode::kMalformedFile).find("\"chat_template\" is"),
      std::string::npos);
}

}  // namespace
}  // namespace manyheads::model
