#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "model/byte_level.hpp"
#include "support.hpp"
#include "tiny_model.hpp"

namespace manyheads::cli_test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

const std::string kChatML =
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + "
    "'\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

// The random decoder of the golden files (2 layers, 64 positions) with a tokenizer of single ASCII characters. Its end
// token is <|im_end|>, 2.
class CliGenerate : public Folder {
 protected:
  void SetUp() override {
    Folder::SetUp();
    const fs::path golden = test::source_dir() / "tests/golden/decoder/tiny_grouped";
    fs::create_directories(model());
    for (const char* name : {"config.json", "model.safetensors"}) fs::copy_file(golden / name, model() + "/" + name);
    std::string characters = "\n";
    for (char c = ' '; c <= '{'; ++c) characters += c;
    setting("tokenizer.json", test::byte_level_tokenizer(characters).dump());
    setting("tokenizer_config.json", json{{"tokenizer_class", "GPT2Tokenizer"}, {"chat_template", kChatML}}.dump());
  }

  std::string model() const { return path("tiny"); }
  void setting(const std::string& name, const std::string& text) { std::ofstream(model() + "/" + name) << text; }
  std::string write(const std::string& name, const std::string& text) {
    std::ofstream(path(name), std::ios::binary) << text;
    return path(name);
  }
  Result generate(std::vector<std::string> arguments, const How& how = {}) const {
    arguments.insert(arguments.begin(), "generate");
    arguments.insert(arguments.end(), {"--model", model()});
    return run(arguments, how);
  }
  // The lines of JSON.
  std::vector<json> lines(std::vector<std::string> arguments, const How& how = {}) const {
    arguments.push_back("--json");
    const Result result = generate(std::move(arguments), how);
    EXPECT_EQ(result.code, 0) << result.err;
    EXPECT_EQ(result.err, "");
    std::vector<json> all;
    std::istringstream in(result.out);
    for (std::string line; std::getline(in, line);) all.push_back(json::parse(line));
    return all;
  }
};

TEST_F(CliGenerate, WritesTheTextAndNothingElse) {
  const json line = lines({"The cat", "--tokens", "30"}).at(0);
  const Result result = generate({"The cat", "--tokens", "30"});
  EXPECT_EQ(result.code, 0);
  EXPECT_EQ(result.err, "");
  EXPECT_EQ(result.out, line.at("text").get<std::string>() + "\n");
  EXPECT_EQ(line.at("prompt"), "The cat");
  EXPECT_EQ(line.at("prompt_ids").size(), 7u);
  EXPECT_EQ(line.at("ids").size(), 30u);
  EXPECT_EQ(line.at("tokens").size(), 30u);
  EXPECT_EQ(line.at("stop"), "max_tokens");
  EXPECT_FALSE(line.contains("looked_at"));
  ASSERT_EQ(line.at("log_probabilities").size(), 30u);
  for (const json& value : line.at("log_probabilities")) EXPECT_LT(value.get<double>(), 0);
  EXPECT_EQ(lines({"The cat", "--tokens", "5"}).at(0).at("ids"),
            json(std::vector<int>(line.at("ids").begin(), line.at("ids").begin() + 5)));
  EXPECT_EQ(generate({"-", "--tokens", "30"}, {.in = "The cat\n"}).out, result.out);
  EXPECT_EQ(generate({"-", "--tokens", "30"}, {.in = "\xef\xbb\xbfThe cat"}).out, result.out);
  EXPECT_NE(generate({"-", "--tokens", "30"}, {.in = "The cat\n\n"}).out, result.out);  // only one end of line goes
}

TEST_F(CliGenerate, StopsAtEndTokensAndAtTheModelsLength) {
  const json all = lines({"The cat"}).at(0);
  EXPECT_EQ(all.at("stop"), "model_length");
  EXPECT_EQ(all.at("ids").size(), 64u - 7 + 1);
  const json::const_reference end = all.at("ids").at(9);
  setting("generation_config.json", json{{"eos_token_id", {1, end}}}.dump());
  const json cut = lines({"The cat"}).at(0);
  EXPECT_EQ(cut.at("stop"), "end_token");
  EXPECT_EQ(cut.at("ids").back(), end);
  EXPECT_LE(cut.at("ids").size(), 10u);
  setting("generation_config.json", json{{"eos_token_id", 96}}.dump());
  EXPECT_TRUE(is_one_line(generate({"The cat"}), "\"eos_token_id\" is 96"));
}

TEST_F(CliGenerate, AFileIsOneBatch) {
  std::string texts, alone, together;
  for (int i = 0; i < 40; ++i) {
    const std::string text = std::string(static_cast<std::size_t>(1 + i * 7 % 50), static_cast<char>('a' + i % 26));
    texts += text + "\n";
    if (i % 8 != 0) continue;
    alone += generate({text, "--tokens", "12"}).out;
  }
  const std::string file = write("prompts", texts);
  const std::vector<json> all = lines({"--file", file, "--tokens", "12", "--threads", "1"});
  ASSERT_EQ(all.size(), 40u);
  std::string plain;
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (i > 0) plain += "\n";
    plain += all[i].at("text").get<std::string>() + "\n";
    if (i % 8 == 0) together += all[i].at("text").get<std::string>() + "\n";
  }
  EXPECT_EQ(together, alone);
  EXPECT_EQ(generate({"--file", file, "--tokens", "12", "--threads", "3"}).out, plain);
  EXPECT_EQ(generate({"--file", "-", "--tokens", "12"}, {.in = texts}).out, plain);
}

TEST_F(CliGenerate, DrawsBySeed) {
  const auto text = [&](std::vector<std::string> options) {
    options.insert(options.begin(), "The cat");
    return lines(options).at(0).at("ids");
  };
  const json greedy = text({});
  EXPECT_EQ(text({"--temperature", "0"}), greedy);
  const json drawn = text({"--temperature", "1.5"});
  EXPECT_NE(drawn, greedy);
  EXPECT_EQ(text({"--temperature", "1.5", "--seed", "0", "--threads", "2", "--top-p", "1"}), drawn);
  EXPECT_NE(text({"--temperature", "1.5", "--seed", "1"}), drawn);
  EXPECT_EQ(text({"--temperature", "1.5", "--top-p", "1e-9"}), greedy);
}

TEST_F(CliGenerate, WeightsAndCachesOfOtherTypes) {
  for (const char* dtype : {"f32", "bf16", "f16", "i8"}) {
    const Result result = generate({"The cat", "--tokens", "8", "--cache-dtype", dtype});
    EXPECT_EQ(result.code, 0) << result.err;
    EXPECT_EQ(generate({"The cat", "--tokens", "8", "--cache-dtype", dtype, "--threads", "1"}).out, result.out);
  }
  EXPECT_EQ(generate({"The cat", "--weights-dtype", "bf16"}).code, 0);
  EXPECT_EQ(generate({"The cat", "--weights-dtype", "f16"}).code, 2);
  EXPECT_EQ(generate({"The cat", "--cache-dtype", "i4"}).code, 2);
  EXPECT_EQ(generate({"The cat", "--bits", "no-such"}).code, 1);
}

TEST_F(CliGenerate, AChatIsChatML) {
  const json chat = lines({"Hi", "--chat", "--tokens", "3"}).at(0);
  // <|im_start|> user \n Hi <|im_end|> \n <|im_start|> assistant \n
  EXPECT_EQ(chat.at("prompt_ids").size(), 1u + 4 + 1 + 2 + 1 + 1 + 1 + 9 + 1);
  EXPECT_EQ(chat.at("prompt_ids").at(0), 1);
  EXPECT_EQ(chat.at("prompt_ids").at(8), 2);
  EXPECT_EQ(chat.at("prompt"), "Hi");
  const json with_system = lines({"Hi", "--chat", "--system", "Be", "--tokens", "3"}).at(0);
  EXPECT_EQ(with_system.at("prompt_ids").size(), chat.at("prompt_ids").size() + 1 + 6 + 1 + 2 + 1 + 1);
  // A text that is no chat has no such tokens, unless it spells them.
  EXPECT_EQ(lines({"<|im_start|>a", "--tokens", "1"}).at(0).at("prompt_ids").at(0), 1);

  EXPECT_TRUE(is_one_line(generate({"Hi", "--system", "Be"}), "--system needs --chat"));
  setting("tokenizer_config.json", json{{"tokenizer_class", "GPT2Tokenizer"}, {"chat_template", "[INST]"}}.dump());
  const Result other = generate({"Hi", "--chat"});
  EXPECT_EQ(other.code, 1);
  EXPECT_TRUE(is_one_line(other, "not the ChatML form, the only one that is known: it begins \"[INST]\""));
  setting("tokenizer_config.json", R"({"tokenizer_class": "GPT2Tokenizer"})");
  EXPECT_TRUE(is_one_line(generate({"Hi", "--chat"}), "has no chat template"));
}

TEST_F(CliGenerate, LookbackTellsALineForEachToken) {
  const Result result = generate({"The cat sat", "--lookback", "--tokens", "9"});
  ASSERT_EQ(result.code, 0) << result.err;
  std::vector<std::string> rows;
  std::istringstream in(result.out);
  for (std::string line; std::getline(in, line);) rows.push_back(line);
  ASSERT_GE(rows.size(), 12u);
  EXPECT_EQ(rows[0], "token         looked at, by head and weight");
  EXPECT_EQ(rows[10], "");

  const json line = lines({"The cat sat", "--lookback", "--tokens", "9"}).at(0);
  EXPECT_EQ(result.out.substr(result.out.find("\n\n") + 2), line.at("text").get<std::string>() + "\n");
  ASSERT_EQ(line.at("looked_at").size(), 9u);
  for (std::size_t i = 0; i < 9; ++i) {
    const json& looked_at = line.at("looked_at")[i];
    ASSERT_EQ(looked_at.size(), 3u);
    double before = 1;
    for (const json& looked : looked_at) {
      EXPECT_GE(looked.at("token").get<int>(), 1);
      EXPECT_LT(looked.at("token").get<int>(), 11 + static_cast<int>(i));
      const json& head = looked.at("heads").at(0);
      const double rise = head.at("weight").get<double>() - head.at("usual").get<double>();
      EXPECT_GT(rise, 0);
      EXPECT_LE(rise, before);
      before = rise;
      char shown[40];
      std::snprintf(shown, sizeof shown, " %d.%d %.2f", head.at("layer").get<int>(), head.at("head").get<int>(),
                    head.at("weight").get<double>());
      EXPECT_NE(rows[i + 1].find(shown), std::string::npos) << rows[i + 1] << shown;
    }
  }
  // The one token of the prompt that is left out is all there is.
  EXPECT_EQ(lines({"T", "--lookback", "--tokens", "1"}).at(0).at("looked_at"), json::parse("[[]]"));
  EXPECT_EQ(generate({"--file", write("p", "a\n"), "--lookback"}).code, 2);
}

TEST_F(CliGenerate, NamesWhatIsWrong) {
  const auto refused = [&](const std::vector<std::string>& arguments, int code, const std::string& contains,
                           const How& how = {}) {
    const Result result = generate(arguments, how);
    EXPECT_EQ(result.code, code);
    EXPECT_EQ(result.out, "");
    EXPECT_TRUE(is_one_line(result, contains));
  };
  refused({}, 2, "TEXT is required, or --file");
  refused({"a", "--file", "b"}, 2, "TEXT and --file exclude each other");
  refused({"a", "--tokens", "0"}, 2, "--tokens");
  refused({"a", "--temperature", "nan"}, 2, "--temperature");
  refused({"a", "--temperature", "-0.5"}, 2, "--temperature takes 0 or more, got -0.5");
  for (const char* p : {"0", "-1", "1.5"}) {
    refused({"a", "--temperature", "1", "--top-p", p}, 2, "--top-p takes a number above 0 and up to 1");
  }
  refused({"a", "--top-p", "0.9"}, 2, "--top-p needs a --temperature above 0");
  refused({"a", "--seed", "1", "--temperature", "0"}, 2, "--seed needs a --temperature above 0");
  refused({"a", "--seed", "-1"}, 2, "--seed");

  refused({" \n"}, 1, "TEXT is empty");
  refused({"a\xff"}, 1, "TEXT is not UTF-8 (byte 1)");
  refused({"a", "--chat", "--system", "\xff"}, 1, "--system is not UTF-8 (byte 0)");
  refused({std::string(65, 'a')}, 1, "TEXT has 65 tokens, the model takes 64");
  refused({"-"}, 1, "standard input is empty");
  refused({"--file", "-"}, 1, "standard input holds no text");
  refused({"--file", write("p", "a\n\nb\n")}, 1, "line 2 of \"" + path("p") + "\" is empty");
  refused({"--file", write("q", "a\n" + std::string(70, 'b'))}, 1, "line 2 of \"" + path("q") + "\" has 70 tokens");
  refused({"--file", path("none")}, 1, "none");
  refused({"~"}, 1, "TEXT is empty: it has no tokens");  // no token spells it

  setting("tokenizer.json", test::byte_level_tokenizer("abcdefghijklmnopqrstuvwxyz" + std::string(80, '\x7f')).dump());
  const Result gone = run({"generate", "a", "--model", path("nowhere")});
  EXPECT_EQ(gone.code, 1);
  EXPECT_TRUE(is_one_line(gone, "--model: there is no folder"));
  EXPECT_EQ(run({"generate", "a"}).code, 2);
}

using CliGenerateEncoder = TinyModel;
TEST_F(CliGenerateEncoder, AnEncoderWritesNoText) {
  const Result result = program({"generate", "the cat"});
  EXPECT_EQ(result.code, 1);
  EXPECT_TRUE(is_one_line(result, "holds an encoder, which writes no text; generate takes a decoder"));
}

TEST_F(CliGenerate, WhereTheOutputGoes) {
  std::string texts;
  for (int i = 0; i < 3000; ++i) texts += "cat\n";
  const Result closed = generate({"--file", "-"}, {.out = Stdout::kClosedPipe, .in = texts});
  EXPECT_EQ(closed.code, 0);
  EXPECT_EQ(closed.err, "");
  EXPECT_LT(closed.cpu_seconds, 20);
  const Result full = generate({"cat"}, {.out = Stdout::kFull});
  EXPECT_EQ(full.code, 1);
  EXPECT_TRUE(is_one_line(full, "cannot write to standard output: No space left on device"));
}

// The program with its output in a pipe, interrupted when the first of it has come.
Result interrupted(std::vector<std::string> arguments) {
  int out[2];
  EXPECT_EQ(::pipe2(out, O_CLOEXEC), 0);
  const char* named = std::getenv("MANYHEADS_PROGRAM");
  arguments.insert(arguments.begin(), named != nullptr ? named : MANYHEADS_PROGRAM);
  std::vector<char*> argv;
  for (std::string& word : arguments) argv.push_back(word.data());
  argv.push_back(nullptr);
  const pid_t child = ::fork();
  if (child == 0) {
    std::signal(SIGINT, SIG_DFL);
    ::dup2(out[1], STDOUT_FILENO);
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }
  ::close(out[1]);
  Result result;
  char buffer[4096];
  for (ssize_t n = 0; (n = ::read(out[0], buffer, sizeof buffer)) > 0;) {
    if (result.out.empty()) ::kill(child, SIGINT);
    result.out.append(buffer, static_cast<std::size_t>(n));
  }
  ::close(out[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  if (WIFEXITED(status)) result.code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) result.signal = WTERMSIG(status);
  return result;
}

TEST_F(CliGenerate, CtrlCEndsAfterTheToken) {
  std::string texts;
  for (int i = 0; i < 20'000; ++i) texts += "the cat sat on\n";
  const std::string file = write("prompts", texts);
  const Result text = interrupted({"generate", "--file", file, "--model", model()});
  EXPECT_EQ(text.signal, SIGINT);  // a shell says 130, and ends its loop
  EXPECT_EQ(text.out.back(), '\n');
  const Result as_json = interrupted({"generate", "--file", file, "--model", model(), "--json"});
  EXPECT_EQ(as_json.signal, SIGINT);
  std::size_t whole = 0, cut = 0;
  std::istringstream in(as_json.out);
  for (std::string line; std::getline(in, line);) {
    const json parsed = json::parse(line);
    (parsed.at("stop") == "interrupted" ? cut : whole) += 1;
  }
  EXPECT_GE(whole, 1u);
  EXPECT_LE(cut, 32u);  // those that were being written
  EXPECT_LT(whole + cut, 20'000u);
}

TEST(CliGenerateSmolLM2, TheCapitalOfFrance) {
  const fs::path folder = test::source_dir() / "models/SmolLM2-135M-Instruct";
  if (!fs::exists(folder)) GTEST_SKIP() << "models/SmolLM2-135M-Instruct is not here: scripts/fetch-model smollm2";
  const Result result = run({"generate", "The capital of France is", "--tokens", "2", "--model", folder.string()});
  EXPECT_EQ(result.out, " Paris.\n") << result.err;
  const Result chat =
      run({"generate", "Who are you?", "--chat", "--tokens", "1", "--json", "--model", folder.string()});
  // As transformers renders and encodes it.
  EXPECT_EQ(
      json::parse(chat.out).at("prompt_ids"),
      json::parse("[1,9690,198,2683,359,253,5356,5646,11173,3365,3511,308,34519,28,7018,411,407,19712,8182,2,198,1,"
                  "4093,198,10576,359,346,47,2,198,1,520,9531,198]"));
}

}  // namespace
}  // namespace manyheads::cli_test
