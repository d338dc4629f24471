#include <gtest/gtest.h>
#include <zlib.h>

#include <csignal>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <manyheads/lens/trace.hpp>
#include <manyheads/safetensors.hpp>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "running.hpp"
#include "server/client.hpp"
#include "tiny_model.hpp"

namespace manyheads::cli_test {
namespace {

using nlohmann::json;
using test::answer_to;
using test::Reply;

std::string text_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

void write(const std::string& path, const std::string& text) { std::ofstream(path, std::ios::binary) << text; }

// What a page starts from, or what it draws first from.
std::string start_of(const std::string& page, const std::string& name = "start") {
  const std::string before = "<script id=\"" + name + "\" type=\"application/json\">";
  const std::size_t at = page.find(before);
  if (at == std::string::npos) return "";
  const std::size_t begin = at + before.size();
  return page.substr(begin, page.find('<', begin) - begin);
}

std::string from_base64(const std::string& text) {
  std::string bytes;
  std::uint32_t word = 0;
  int bits = 0;
  for (const char c : text) {
    const std::size_t digit = std::string("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/").find(c);
    if (digit == std::string::npos) break;
    word = word << 6 | static_cast<std::uint32_t>(digit);
    if ((bits += 6) >= 8) bytes += static_cast<char>(word >> (bits -= 8) & 255);
  }
  return bytes;
}

// What a gzip file holds: its length stands in its last four bytes.
std::string unzipped(const std::string& packed) {
  if (packed.size() < 18) return "";
  std::uint32_t size = 0;
  for (std::size_t i = 4; i > 0; --i) size = size << 8 | static_cast<unsigned char>(packed[packed.size() - 5 + i]);
  std::string bytes(size, '\0');
  z_stream stream = {};
  inflateInit2(&stream, 16 + MAX_WBITS);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data()));
  stream.avail_in = static_cast<uInt>(packed.size());
  stream.next_out = reinterpret_cast<Bytef*>(bytes.data());
  stream.avail_out = size;
  const int end = inflate(&stream, Z_FINISH);
  inflateEnd(&stream);
  return end == Z_STREAM_END ? bytes : "";
}

// Of a file whose words of 4 bytes lie byte by byte.
std::string unpacked(const std::string& packed) {
  const std::string planes = unzipped(packed);
  std::string bytes = planes;
  const std::size_t words = planes.size() / 4;
  for (std::size_t i = 0; i < 4 * words; ++i) bytes[i] = planes[i % 4 * words + i / 4];
  return bytes;
}

class CliView : public TinyModel {
 protected:
  // Whether this build's page has an engine inside, without which there is nothing to export.
  bool computes() {
    const Result result = program({"view", "cat", "--export", path("any.html")});
    std::filesystem::remove(path("any.html"));
    return result.code == 0 || !is_one_line(result, "this build's page has no engine inside");
  }
  lens::Trace trace_in(const std::string& page) {
    write(path("inside.safetensors"), unpacked(from_base64(json::parse(start_of(page)).at("traces").at(0))));
    return lens::load_trace(path("inside.safetensors"));
  }
};

TEST_F(CliView, ServesThePageUntilCtrlC) {
  Running view({"the black cat", "--model", model(), "--no-browser"});
  ASSERT_EQ(view.said().rfind("http://127.0.0.1:", 0), 0u) << view.said();
  const Reply page = answer_to(view.port(), test::get(view.port(), view.path()));
  ASSERT_EQ(page.status, 200);
  EXPECT_EQ(json::parse(start_of(page.body)).at("mode"), "server");
  const std::string policy = page.fields.at("content-security-policy");
  EXPECT_NE(policy.find("default-src 'none'"), std::string::npos) << policy;
  EXPECT_NE(policy.find("; frame-ancestors 'self'"), std::string::npos) << policy;
  EXPECT_EQ(policy.find("http"), std::string::npos) << policy;
  EXPECT_EQ(answer_to(view.port(), test::get(view.port(), "/")).status, 404);
  test::Client open(view.port());  // does not hold it back
  EXPECT_EQ(view.end(SIGINT), 0);
}

TEST_F(CliView, ServesWhereAskedAndSaysSoInJson) {
  Running any({"--model", model(), "--no-browser"});
  const std::string port = std::to_string(any.port());
  const Result taken = program({"view", "--no-browser", "--port", port});
  EXPECT_EQ(taken.code, 1);
  EXPECT_TRUE(is_one_line(taken, "cannot listen on 127.0.0.1:" + port));
  any.end(SIGINT);
  Running again({"--model", model(), "--no-browser", "--port", port, "--json"});
  EXPECT_EQ(json::parse(again.said()).at("port"), std::stoi(port));
  EXPECT_EQ(again.end(SIGTERM), 0);
}

TEST_F(CliView, AnswersThePagesQuestions) {
  Running view({"the black cat", "--model", model(), "--no-browser"});
  const auto ask = [&](const json& question) {
    return answer_to(view.port(), test::post(view.port(), view.path() + "ask", question.dump()));
  };
  const json about = json::parse(ask({{"ask", "about"}}).body);
  EXPECT_EQ(about.at("computes"), "native");
  EXPECT_EQ(about.at("traces").at(0).at("text"), "the black cat");
  EXPECT_EQ(about.at("models").at(0).at("name"), "tiny");

  // The numbers of a head are those that map writes.
  const json first = about.at("traces").at(0).at("id");
  const Reply patch = ask({{"ask", "patch"}, {"trace", first}, {"layer", 1}, {"head", 2}});
  EXPECT_EQ(patch.fields.at("content-type"), "application/octet-stream");
  write(path("patch.safetensors"), patch.body);
  ASSERT_EQ(program({"map", "the black cat", "--head", "1.2", "-o", path("map.safetensors")}).code, 0);
  const SafetensorsFile asked = load_safetensors(path("patch.safetensors"));
  const SafetensorsFile written = load_safetensors(path("map.safetensors"));
  ASSERT_EQ(asked.at("weights").shape(), Dims({5, 5}));
  for (int i = 0; i < 25; ++i) {
    EXPECT_NEAR(asked.at("weights").as<float>()[i], written.at("weights").as<float>()[i], 1e-6);
  }

  // A text gets its tokens from the model's own tokenizer. Of the traces so opened the last 16 stay.
  const json question = {{"ask", "encode"}, {"model", about.at("models").at(0).at("id")}, {"text", "the embed"}};
  json encoded;
  for (int i = 0; i < 20; ++i) encoded = json::parse(ask(question).body);
  const json trace = json::parse(ask({{"ask", "trace"}, {"trace", encoded.at("trace")}}).body);
  EXPECT_EQ(trace.at("tokens"), json({"[CLS]", "the", "em", "##bed", "[SEP]"}));
  EXPECT_EQ(trace.at("text"), "the embed");
  EXPECT_EQ(json::parse(ask({{"ask", "about"}}).body).at("traces").size(), 17u);
  EXPECT_EQ(ask({{"ask", "trace"}, {"trace", first}}).status, 200);

  for (const auto& [bad, says] : std::vector<std::pair<json, std::string>>{
           {{{"ask", "none"}}, "one of about"},
           {{{"ask", "encode"}, {"model", 99}, {"text", "cat"}}, "the number of an open model"},
           {{{"ask", "encode"}, {"model", question.at("model")}, {"text", 3}}, "text"},
           {{{"ask", "encode"}, {"model", question.at("model")}, {"text", " "}}, "text is empty"},
           {{{"ask", "encode"}, {"model", question.at("model")}, {"text", many_words(60)}}, "62 tokens"},
           {json::array(), "a JSON object is needed"}}) {
    const Reply refused = ask(bad);
    EXPECT_EQ(refused.status, 400) << bad;
    EXPECT_NE(json::parse(refused.body).at("error").get<std::string>().find(says), std::string::npos) << refused.body;
  }
  EXPECT_EQ(answer_to(view.port(), test::post(view.port(), view.path() + "ask", "{\"ask\":")).status, 400);
}

TEST_F(CliView, ATreebankIsReadAsRolesDoes) {
  std::string trees;
  for (int i = 0; i < 30; ++i) {
    trees +=
        "# text = the black cat\n1\tthe\t_\tDET\t_\t_\t3\tdet\t_\t_\n2\tblack\t_\tADJ\t_\t_\t3\tamod\t_\t_\n"
        "3\tcat\t_\tNOUN\t_\t_\t0\troot\t_\t_\n\n";
  }
  write(path("trees.conllu"), trees);
  const Result roles = program({"roles", "--treebank", path("trees.conllu"), "--json"});
  ASSERT_EQ(roles.code, 0) << roles.err;
  const auto asked = [](const Running& view) {
    return answer_to(view.port(), test::post(view.port(), view.path() + "ask", R"({"ask":"treebank"})"));
  };
  const Running with({"the black cat", "--model", model(), "--treebank", path("trees.conllu"), "--no-browser"});
  const Reply found = asked(with);
  ASSERT_EQ(found.status, 200) << found.body;
  EXPECT_EQ(json::parse(found.body), json::parse(roles.out));
  const Reply none = asked(Running({"the black cat", "--model", model(), "--no-browser"}));
  EXPECT_EQ(none.status, 400);
  EXPECT_NE(none.body.find("--treebank FILE"), std::string::npos) << none.body;
}

TEST_F(CliView, OpensAScanWithOrWithoutAModel) {
  write(path("texts"), "the black cat sat on the mat.\nthe dog sat.\n");
  const std::string scan = path("a.scan");
  ASSERT_EQ(program({"scan", path("texts"), "-o", scan}).code, 0);
  for (const bool with_model : {false, true}) {
    std::vector<std::string> arguments = {scan, "--no-browser"};
    if (with_model) arguments.insert(arguments.end(), {"--model", model()});
    Running view(arguments);
    const auto ask = [&](const json& question) {
      return json::parse(answer_to(view.port(), test::post(view.port(), view.path() + "ask", question.dump())).body);
    };
    const json about = ask({{"ask", "about"}});
    ASSERT_EQ(about.at("scans").size(), 1u) << about;
    EXPECT_EQ(about.at("traces").size(), with_model ? 1u : 0u);
    const json head = ask({{"ask", "scan"}, {"scan", about.at("scans").at(0).at("id")}, {"head", {1, 2}}});
    EXPECT_NE(head.dump().find("the dog sat."), std::string::npos) << head;  // an example
    EXPECT_EQ(view.end(SIGINT), 0);
  }
}

TEST_F(CliView, AScanStandsBesideAText) {
  write(path("texts"), "the black cat sat on the mat.\nthe dog sat.\n");
  const std::string scan = path("a.scan");
  ASSERT_EQ(program({"scan", path("texts"), "-o", scan}).code, 0);
  Running view({"the dog sat.", "--model", model(), "--scan", scan, "--no-browser"});
  const auto ask = [&](const json& question) {
    return json::parse(answer_to(view.port(), test::post(view.port(), view.path() + "ask", question.dump())).body);
  };
  const json about = ask({{"ask", "about"}});
  EXPECT_EQ(about.at("traces").at(0).at("text"), "the dog sat.");
  const json found = ask({{"ask", "scan"}, {"scan", about.at("scans").at(0).at("id")}});
  const Result shown = run({"scan", "--show", scan, "--json"});
  EXPECT_EQ(found, json::parse(shown.out));
}

TEST_F(CliView, AnExportHoldsTheTrace) {
  if (!computes()) GTEST_SKIP() << "the page has no engine inside";
  const std::string out = path("page.html");
  const Result result = program({"view", "the black cat", "--export", out});
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(result.out.rfind("Writing " + out + ": ", 0), 0u) << result.out;
  const std::string page = text_of(out);
  EXPECT_EQ(json::parse(start_of(page)).at("mode"), "file");
  const lens::Trace trace = trace_in(page);
  EXPECT_EQ(trace.text, "the black cat");
  EXPECT_EQ(trace.tokens, (std::vector<std::string>{"[CLS]", "the", "black", "cat", "[SEP]"}));
  EXPECT_TRUE(trace.layers.at(1).v.defined());
  EXPECT_TRUE(trace.layers.at(1).row_sum.defined());
  // Around the two heads of the tour it holds what a trace alone cannot give, and around those asked for.
  const json answers = json::parse(start_of(page)).at("answers");
  ASSERT_EQ(answers.size(), 4u);
  EXPECT_EQ(answers.at(0).at("question").at("ask"), "pipeline");
  // What the tour asks of the model.
  EXPECT_EQ(answers.at(2).at("question"), json({{"ask", "relations"}}));
  const json relations = json::parse(unzipped(from_base64(answers.at(2).at("base64"))));
  EXPECT_EQ(relations.at("relations").at(0).at("heads").size(), 8u);
  EXPECT_EQ(relations.at("texts").size(), 60u);
  EXPECT_EQ(answers.at(3).at("question"), json({{"ask", "ablations"}, {"text", "the black cat"}}));
  EXPECT_EQ(json::parse(unzipped(from_base64(answers.at(3).at("base64")))).at("in_order").size(), 8u);
  EXPECT_EQ(answers.at(0).at("question").size(), 4u);
  write(path("pipeline.safetensors"), unpacked(from_base64(answers.at(0).at("base64"))));
  EXPECT_EQ(load_safetensors(path("pipeline.safetensors")).at("x").size(0), 5);
  ASSERT_EQ(program({"view", "the black cat", "--export", out, "--heads", "0.0,0.1,0.2,0.3,1.0"}).code, 0);
  EXPECT_GE(json::parse(start_of(text_of(out))).at("answers").size(), 5u);

  ASSERT_EQ(program({"trace", "the black cat", "--values", "-o", path("t.safetensors")}).code, 0);
  const json said = json::parse(run({"view", path("t.safetensors"), "--json", "--export", out}).out);
  EXPECT_EQ(said.at("bytes"), std::filesystem::file_size(out));
  EXPECT_EQ(text_of(path("t.safetensors")),
            unpacked(from_base64(json::parse(start_of(text_of(out))).at("traces").at(0))));
  EXPECT_EQ(trace_in(text_of(out)).text, "the black cat");
}

// To seven digits what the engine says of the same.
TEST_F(CliView, AnExportHoldsTheNumbersOfItsFirstPicture) {
  if (!computes()) GTEST_SKIP() << "the page has no engine inside";
  ASSERT_EQ(program({"view", "the black cat", "--export", path("page.html")}).code, 0);
  const json first = json::parse(start_of(text_of(path("page.html")), "first"));
  EXPECT_EQ(first.at("mode"), "file");
  ASSERT_EQ(first.at("answers").size(), 2u);
  EXPECT_EQ(first.at("answers").at(0).at("question"), json({{"ask", "trace"}, {"trace", 1}}));
  EXPECT_EQ(first.at("answers").at(0).at("answer").at("id"), 1);
  EXPECT_EQ(first.at("answers").at(1).at("question"), json({{"ask", "links"}, {"trace", 1}, {"pairs", {{1, 2}}}}));
  const json link = first.at("answers").at(1).at("answer").at("links").at(0);
  for (int head = 0; head < 4; ++head) {
    ASSERT_EQ(
        program({"map", "the black cat", "--head", "1." + std::to_string(head), "-o", path("map.safetensors")}).code,
        0);
    const SafetensorsFile map = load_safetensors(path("map.safetensors"));
    const float* const weights = map.at("weights").as<float>();
    EXPECT_NEAR(link.at("heads").at(1).at(static_cast<std::size_t>(head)).at("weight").get<double>(),
                static_cast<double>(weights[2 * 5 + 3]), 1e-6);
  }
  // A text without a link has the rest.
  ASSERT_EQ(program({"view", "cat", "--export", path("page.html")}).code, 0);
  EXPECT_EQ(json::parse(start_of(text_of(path("page.html")), "first")).at("answers").size(), 1u);
}

TEST_F(CliView, NoTextEndsTheScriptThatHoldsIt) {
  if (!computes()) GTEST_SKIP() << "the page has no engine inside";
  const std::string hostile = "</script><script>alert(1)</script><!-- <script> cat";
  ASSERT_EQ(program({"trace", hostile, "-o", path("t.safetensors")}).code, 0);
  ASSERT_EQ(run({"view", path("t.safetensors"), "--export", path("page.html")}).code, 0);
  const std::string page = text_of(path("page.html"));
  EXPECT_EQ(page.find("<script>alert(1)"), std::string::npos);
  EXPECT_EQ(page.find("</script>\\u003c"), std::string::npos);
  EXPECT_EQ(trace_in(page).text, hostile);
  EXPECT_EQ(json::parse(start_of(page, "first")).at("answers").at(0).at("answer").at("text"), hostile);
}

TEST_F(CliView, ASiteHoldsThePageAndTheModel) {
  if (!computes()) GTEST_SKIP() << "the page has no engine inside";
  const std::string site = path("site/of");
  const Result result = program({"view", "the black cat", "--export-site", site});
  ASSERT_EQ(result.code, 0) << result.err;
  const std::string page = text_of(site + "/index.html");
  const json start = json::parse(start_of(page));
  EXPECT_EQ(start.at("mode"), "site");
  EXPECT_EQ(start.at("model").at("name"), "tiny");
  EXPECT_EQ(start.at("model").at("dtype"), "BF16");
  EXPECT_EQ(start.at("model").at("files"), json({"config.json", "tokenizer.json", "model.safetensors"}));
  EXPECT_EQ(start.at("model").at("bytes"), std::filesystem::file_size(site + "/model/model.safetensors"));
  for (const std::string name : start.at("model").at("files")) {
    EXPECT_TRUE(std::filesystem::exists(site + "/model/" + name)) << name;
  }
  const SafetensorsFile whole = load_safetensors(model() + "/model.safetensors");
  for (const auto& [name, tensor] : load_safetensors(site + "/model/model.safetensors").tensors) {
    ASSERT_EQ(tensor.dtype(), DType::kBF16) << name;
    for (std::int64_t i = 0; i < tensor.elements(); ++i) {
      EXPECT_EQ(tensor.as<bfloat16>()[i].bits, bfloat16(whole.at(name).as<float>()[i]).bits) << name;
    }
  }
  EXPECT_EQ(run({"look", "the black cat", "--model", site + "/model"}).code, 0);
  // The projections lie beside the page, which fetches them when they are shown.
  const json& first = start.at("answers").at(0);
  EXPECT_EQ(first.at("question").at("ask"), "pipeline");
  EXPECT_FALSE(first.contains("base64"));
  write(path("pipeline.safetensors"), unpacked(text_of(site + "/" + first.at("file").get<std::string>())));
  EXPECT_EQ(load_safetensors(path("pipeline.safetensors")).at("x").size(0), 5);

  ASSERT_EQ(program({"view", "the black cat", "--export-site", site, "--site-dtype", "f32"}).code, 0);
  EXPECT_EQ(load_safetensors(site + "/model/model.safetensors").tensors.begin()->second.dtype(), DType::kF32);
  EXPECT_EQ(json::parse(start_of(text_of(site + "/index.html"))).at("model").at("dtype"), "F32");
}

TEST_F(CliView, NoNameEndsTheScriptThatHoldsIt) {
  if (!computes()) GTEST_SKIP() << "the page has no engine inside";
  const std::string hostile = path("a<script>b");
  std::filesystem::copy(model(), hostile);
  ASSERT_EQ(run({"view", "cat", "--model", hostile, "--export-site", path("site")}).code, 0);
  const std::string page = text_of(path("site/index.html"));
  EXPECT_EQ(page.find("a<script>b"), std::string::npos);
  EXPECT_EQ(json::parse(start_of(page)).at("model").at("name"), "a<script>b");
}

TEST_F(CliView, AFigureIsTheMapOfItsHead) {
  ASSERT_EQ(program({"view", "the black cat", "--head", "1.2", "--export", path("a.svg")}).code, 0);
  ASSERT_EQ(program({"trace", "the black cat", "-o", path("t.safetensors")}).code, 0);
  ASSERT_EQ(run({"map", path("t.safetensors"), "--head", "1.2", "-o", path("b.svg")}).code, 0);
  EXPECT_EQ(text_of(path("a.svg")), text_of(path("b.svg")));
  ASSERT_EQ(run({"view", path("t.safetensors"), "--head", "1.2", "--export", path("a.png")}).code, 0);
  EXPECT_EQ(text_of(path("a.png")).substr(1, 3), "PNG");
}

struct Case {
  std::vector<std::string> arguments;
  int code;
  std::string says;
};

void expect_refused(const std::vector<Case>& cases) {
  for (Case c : cases) {
    c.arguments.insert(c.arguments.begin(), {"view", "--no-browser"});
    const Result result = run(c.arguments);
    EXPECT_EQ(result.code, c.code) << result.err;
    EXPECT_TRUE(is_one_line(result, c.says));
  }
}

TEST_F(CliView, BadRequestsSayWhat) {
  write(path("broken.safetensors"), "not a trace");
  write(path("file"), "");
  expect_refused({
      {{}, 2, "a text with --model DIR, or a trace FILE, is required"},
      {{"cat"}, 2, "--model is required for a text"},
      {{"cat", "--model", path("none")}, 1, "there is no folder"},
      {{"", "--model", model()}, 1, "TEXT is empty"},
      {{"\xff", "--model", model()}, 1, "TEXT is not UTF-8"},
      {{many_words(60), "--model", model()}, 1, "--truncate cuts to that"},
      {{path("none.safetensors")}, 1, "none.safetensors"},
      {{path("broken.safetensors")}, 1, "broken.safetensors"},
      {{path("broken.safetensors"), "--pair", "cat"}, 2, "--pair, --truncate and --bits are for a text, and a file"},
      {{"cat", "--model", model(), "--export", path("a.pdf")}, 2, "ends in .html, .svg or .png"},
      {{"cat", "--model", model(), "--export", path("a.html"), "--export-site", path("s")},
       2,
       "leave out one of the two"},
      {{"cat", "--model", model(), "--head", "0.1"}, 2, "--view and --head are of a figure"},
      {{"cat", "--model", model(), "--head", "0.9", "--export", path("a.svg")}, 2, "there are 2 layers of 4 heads"},
      {{"cat", "--model", model(), "--heads", "0.1"}, 2, "--heads goes with --export NAME.html"},
      {{"cat", "--model", model(), "--study", "a.txt"}, 2, "--study takes a report, NAME.html; got \"a.txt\""},
      {{"cat", "--model", model(), "--study", "/s.html", "--export", path("a.html")},
       2,
       "put \"/s.html\" into the folder"},
      {{"cat", "--model", model(), "--study", path("a.html"), "--export", path("a.html")},
       2,
       "links the report beside it"},
      {{"cat", "--model", model(), "--study", path("none.html"), "--export", path("a.html")}, 1, "none.html"},
      {{"cat", "--study", path("s.html"), "--model", model(), "--head", "0.1", "--export", path("a.svg")},
       2,
       "--study goes with a page, not a figure"},
      {{"cat", "--model", model(), "--export", path("none/a.html")}, 1, "there is no folder"},
      {{path("broken.safetensors"), "--export-site", path("s")}, 2, "--export-site needs --model"},
      {{path("none.scan")}, 1, "none.scan"},
      {{path("none.safetensors"), "--treebank", path("file")}, 2, "--treebank needs --model"},
      {{"cat", "--model", model(), "--treebank", path("none.conllu")}, 1, "none.conllu"},
      {{path("none.scan"), "--export", path("a.html")}, 2, "a scan is served alone"},
      {{"cat", "--model", model(), "--scan", path("none.scan"), "--export", path("a.html")},
       2,
       "a scan is served alone"},
      {{"cat", "--model", model(), "--scan", path("none.scan")}, 1, "none.scan"},
      {{path("none.scan"), "--scan", path("none.scan")}, 2, "--scan goes beside a text or a trace"},
      {{"cat", "--model", model(), "--port", "0"}, 2, "--port"},
      {{"cat", "--model", model(), "--port", "65536"}, 2, "--port"},
  });
  EXPECT_EQ(names(), (std::vector<std::string>{"broken.safetensors", "file", "tiny"}));
}

TEST_F(CliView, BadExportsSayWhat) {
  if (!computes()) GTEST_SKIP() << "the page has no engine inside";
  write(path("file"), "");
  expect_refused({
      {{"cat", "--model", model(), "--heads", "0.1,", "--export", path("a.html")}, 2, "--heads takes LAYER.HEAD"},
      {{"cat", "--model", model(), "--heads", "2.0", "--export", path("a.html")}, 2, "there are 2 layers of 4 heads"},
      {{"cat", "--model", model(), "--export-site", path("file")}, 1, "cannot make the folder"},
  });
  EXPECT_EQ(names(), (std::vector<std::string>{"file", "tiny"}));
}

}  // namespace
}  // namespace manyheads::cli_test
