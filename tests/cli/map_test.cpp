#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <manyheads/lens/trace.hpp>
#include <manyheads/safetensors.hpp>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "lens/random_trace.hpp"
#include "tiny_model.hpp"

namespace manyheads::cli_test {
namespace {

using nlohmann::json;

std::string text_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::uint32_t big_endian(const std::string& bytes, std::size_t at) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < 4; ++i) value = value << 8 | static_cast<std::uint8_t>(bytes[at + i]);
  return value;
}

// The checks of PNG chunks and of zlib streams, as their standards write them: a polynomial division bit by bit, and
// two sums modulo 65521.
std::uint32_t crc32(const std::string& bytes) {
  std::uint32_t crc = 0xffffffffu;
  for (const char byte : bytes) {
    for (int bit = 0; bit < 8; ++bit) {
      const bool one = ((crc ^ (static_cast<std::uint8_t>(byte) >> bit)) & 1) != 0;
      crc = crc >> 1 ^ (one ? 0xedb88320u : 0u);
    }
  }
  return crc ^ 0xffffffffu;
}
std::uint32_t adler32(const std::string& bytes) {
  std::uint64_t a = 1, b = 0;
  for (const char byte : bytes) {
    a += static_cast<std::uint8_t>(byte);
    b += a;
  }
  return static_cast<std::uint32_t>(b % 65521 << 16 | a % 65521);
}

// An indexed PNG of stored blocks, taken apart by its chunks.
struct Png {
  explicit Png(const std::string& file) {
    EXPECT_EQ(file.substr(0, 8), "\x89PNG\r\n\x1a\n");
    std::string stream;
    for (std::size_t at = 8; at + 12 <= file.size();) {
      const std::size_t size = big_endian(file, at);
      const std::string type = file.substr(at + 4, 4), data = file.substr(at + 8, size);
      types.push_back(type);
      EXPECT_EQ(big_endian(file, at + 8 + size), crc32(type + data)) << type;
      if (type == "IHDR") width = big_endian(data, 0), height = big_endian(data, 4);
      if (type == "PLTE") palette = data;
      if (type == "IDAT") stream += data;
      at += 12 + size;
    }
    EXPECT_EQ(types, (std::vector<std::string>{"IHDR", "PLTE", "IDAT", "IEND"}));
    std::string lines;
    for (std::size_t at = 2; at + 5 < stream.size();) {
      const std::size_t size = static_cast<std::uint8_t>(stream[at + 1]) | static_cast<std::uint8_t>(stream[at + 2])
                                                                               << 8;
      lines += stream.substr(at + 5, size);
      at += 5 + size;
      if (stream[at - 5 - size] == 1) break;
    }
    EXPECT_EQ(lines.size(), height * (width + 1));
    EXPECT_EQ(big_endian(stream, stream.size() - 4), adler32(lines));
    for (std::size_t y = 0; y < height; ++y) pixels += lines.substr(y * (width + 1) + 1, width);
  }
  std::size_t count(char place) const {
    return static_cast<std::size_t>(std::count(pixels.begin(), pixels.end(), place));
  }

  std::size_t width = 0, height = 0;
  std::vector<std::string> types;
  std::string palette, pixels;
};

TEST(PngChecks, OfTheStandardsExamples) {
  EXPECT_EQ(crc32("123456789"), 0xcbf43926u);
  EXPECT_EQ(crc32("IEND"), 0xae426082u);
  EXPECT_EQ(adler32("Wikipedia"), 0x11e60398u);
}

class CliMap : public Folder {
 protected:
  void SetUp() override {
    Folder::SetUp();
    trace_ = lens::random_trace({2, 1, 16, 16, 4}, [](lens::Trace& t) { t.causal = true; });
    lens::save_trace(path("t"), trace_);
  }
  Result map(const std::vector<std::string>& more, const std::string& out) {
    std::vector<std::string> arguments = {"map", path("t"), "--head", "1.1", "-o", path(out)};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run(arguments);
  }
  float weight(std::int64_t i, std::int64_t j) const {
    const std::vector<double> scores = lens::row_scores(trace_, 1, 1, i);
    return static_cast<float>(std::exp(scores[static_cast<std::size_t>(j)] - lens::row_lse(trace_, 1, 1, scores)));
  }

  lens::Trace trace_;
};

TEST_F(CliMap, NumbersOfAWholeHeadComeWithItsTracks) {
  const Result result = map({}, "m.safetensors");
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_NE(result.out.find("layer 1, head 1 of tiny, queries 0 to 15, keys 0 to 15: exact weights, 16 x 16 numbers"),
            std::string::npos)
      << result.out;
  const SafetensorsFile file = load_safetensors(path("m.safetensors"));
  EXPECT_EQ(file.metadata.at("pool"), "exact");
  EXPECT_EQ(file.metadata.at("cell"), "1");
  EXPECT_EQ(json::parse(file.metadata.at("rows")), json({0, 16}));
  ASSERT_EQ(file.at("weights").shape(), Dims({16, 16}));
  double mass = 0;
  for (std::int64_t i = 0; i < 16; ++i) {
    mass += file.at("column_mass").as<double>()[i];
    for (std::int64_t j = 0; j < 16; ++j) {
      EXPECT_NEAR(file.at("weights").as<float>()[i * 16 + j], weight(i, j), 1e-6);
    }
  }
  EXPECT_NEAR(mass, 16, 1e-5);
  EXPECT_EQ(file.at("entropy").shape(), Dims({16}));
  EXPECT_EQ(file.at("distance_mass").shape(), Dims({31}));
  EXPECT_EQ(file.metadata.at("first_distance"), "-15");
  EXPECT_EQ(file.at("top_keys").shape(), Dims({16, 8}));
  EXPECT_EQ(file.at("top_keys").as<std::int64_t>()[1], -1);  // row 0 sees one key
}

TEST_F(CliMap, APartHasNoTracks) {
  ASSERT_EQ(map({"--rows", "4:9", "--keys", ":7"}, "m.safetensors").code, 0);
  const SafetensorsFile file = load_safetensors(path("m.safetensors"));
  EXPECT_EQ(file.tensors.size(), 1u);
  ASSERT_EQ(file.at("weights").shape(), Dims({5, 7}));
  for (std::int64_t i = 0; i < 35; ++i) {
    EXPECT_NEAR(file.at("weights").as<float>()[i], weight(4 + i / 7, i % 7), 1e-6);
  }
}

TEST_F(CliMap, PoolsWhatDoesNotFitAndSaysSo) {
  for (const bool mean : {true, false}) {
    const Result result = map({"--size", "4", "--pool", mean ? "mean" : "max"}, "m.safetensors");
    ASSERT_EQ(result.code, 0) << result.err;
    EXPECT_NE(result.out.find((mean ? "mean" : "max") + std::string(" of 4 x 4 weights")), std::string::npos);
    const SafetensorsFile file = load_safetensors(path("m.safetensors"));
    EXPECT_EQ(file.metadata.at("pool"), mean ? "mean" : "max");
    EXPECT_EQ(file.metadata.at("cell"), "4");
    ASSERT_EQ(file.at("weights").shape(), Dims({4, 4}));
    float sum = 0, largest = 0;
    for (std::int64_t i = 8; i < 12; ++i) {
      for (std::int64_t j = 4; j < 8; ++j) sum += weight(i, j), largest = std::max(largest, weight(i, j));
    }
    EXPECT_NEAR(file.at("weights").as<float>()[2 * 4 + 1], mean ? sum / 16 : largest, 1e-6);
  }
}

TEST_F(CliMap, AnSvgNamesHeadPoolingScaleAndTokens) {
  ASSERT_EQ(map({}, "m.svg").code, 0);
  const std::string svg = text_of(path("m.svg"));
  float largest = 0;
  for (std::int64_t i = 0; i < 256; ++i) largest = std::max(largest, weight(i / 16, i % 16));
  std::ostringstream scale;
  scale.precision(4);
  scale << largest;
  for (const std::string& part : {std::string("<svg "), std::string("layer 1, head 1 of tiny"),
                                  std::string("queries 0 to 15, keys 0 to 15: exact weights"), std::string(">p</text>"),
                                  ">" + scale.str() + "</text>", std::string("data:image/png;base64,iVBORw0KGgo")}) {
    EXPECT_NE(svg.find(part), std::string::npos) << part;
  }
  ASSERT_EQ(map({"--size", "5", "--pool", "max"}, "p.svg").code, 0);
  const std::string pooled = text_of(path("p.svg"));
  EXPECT_NE(pooled.find("max of 4 x 4 weights"), std::string::npos);
  EXPECT_EQ(pooled.find(">p</text>"), std::string::npos);
}

TEST_F(CliMap, APngHasACellOfTheLargestWeightInTheLastColour) {
  ASSERT_EQ(map({}, "m.png").code, 0);
  const Png png(text_of(path("m.png")));
  ASSERT_EQ(png.palette.size(), 768u);
  EXPECT_EQ(png.palette.substr(253 * 3, 3), "\xfd\xe7\x25");
  // Row 0 sees one key, whose weight is 1: a cell of 24 x 24, and the end of the scale.
  EXPECT_GE(png.count('\xfd'), 24u * 24u + 12u);
  EXPECT_GT(png.count('\xff'), 500u);  // letters
  ASSERT_EQ(map({"--size", "4"}, "p.png").code, 0);
  EXPECT_NE(text_of(path("p.png")), text_of(path("m.png")));
}

// Row 0's one weight is the first pixel of the last colour; the others stand by their query and key from there.
TEST_F(CliMap, APngHasQueriesDownAndKeysAcross) {
  ASSERT_EQ(map({}, "m.png").code, 0);
  const Png png(text_of(path("m.png")));
  const std::size_t corner = png.pixels.find('\xfd');
  for (const auto& [i, j] : {std::pair{15, 0}, {0, 15}, {9, 4}, {4, 9}, {15, 15}}) {
    const std::size_t at = corner + static_cast<std::size_t>(i) * 24 * png.width + static_cast<std::size_t>(j) * 24;
    const float expected = j <= i ? weight(i, j) : 0;
    EXPECT_NEAR(static_cast<std::uint8_t>(png.pixels[at]), expected * 253, 1) << i << "," << j;
  }
}

TEST_F(CliMap, TokensStandBesideTheirOwnLinesAndAreEscaped) {
  trace_.tokens[5] = std::string("<&>\"");
  lens::save_trace(path("t"), trace_);
  ASSERT_EQ(map({"--rows", "4:9", "--keys", ":4"}, "m.svg").code, 0);
  const std::string svg = text_of(path("m.svg"));
  const auto count = [&](const std::string& name) {
    std::size_t found = 0;
    for (std::size_t at = svg.find(name); at != std::string::npos; at = svg.find(name, at + 1)) ++found;
    return found;
  };
  EXPECT_EQ(count(">a</text>"), 1u);  // a key, and no query
  EXPECT_EQ(count(">e</text>"), 1u);
  EXPECT_EQ(count(">i</text>"), 1u);
  EXPECT_EQ(count(">j</text>"), 0u);
  EXPECT_EQ(count(">&lt;&amp;&gt;&quot;</text>"), 1u);
}

// Of many tokens a level of the pyramid.
TEST_F(CliMap, CellsOfMoreThan64AreThoseOfThePyramid) {
  trace_ = lens::random_trace({2, 1, 200, 200, 4}, [](lens::Trace& t) {
    for (std::string& token : t.tokens) token = "x";
    t.text = std::string(200, 'x');
  });
  lens::save_trace(path("t"), trace_);
  double largest = 0;
  for (std::int64_t i = 0; i < 200 * 200; ++i) {
    largest = std::max(largest, static_cast<double>(weight(i / 200, i % 200)));
  }
  for (const bool mean : {true, false}) {
    ASSERT_EQ(map({"--size", "1", "--pool", mean ? "mean" : "max"}, "m.safetensors").code, 0);
    const SafetensorsFile file = load_safetensors(path("m.safetensors"));
    EXPECT_EQ(file.metadata.at("cell"), "256");
    ASSERT_EQ(file.at("weights").shape(), Dims({1, 1}));
    EXPECT_NEAR(file.at("weights").as<float>()[0], mean ? 1.0 / 200 : largest, 1e-5);
  }
}

// Where lse is coarse, rows add up to 1 by their own sums, in a part as in the whole.
TEST_F(CliMap, RowsAreOverTheirOwnSums) {
  trace_ = lens::random_trace({2, 1, 16, 16, 4}, [](lens::Trace& t) { t.scale = 300; });
  lens::save_trace(path("t"), trace_);
  for (const std::vector<std::string>& rows : std::vector<std::vector<std::string>>{{}, {"--rows", "4:16"}}) {
    ASSERT_EQ(map(rows, "m.safetensors").code, 0);
    const SafetensorsFile file = load_safetensors(path("m.safetensors"));
    const Tensor& weights = file.at("weights");
    for (std::int64_t r = 0; r < weights.size(0); ++r) {
      double sum = 0;
      for (std::int64_t j = 0; j < 16; ++j) sum += static_cast<double>(weights.as<float>()[r * 16 + j]);
      EXPECT_NEAR(sum, 1, 1e-6) << r;
    }
  }
}

TEST_F(CliMap, JsonSaysWhatWasWritten) {
  const json said = json::parse(map({"--json", "--rows", "2:5"}, "m.svg").out);
  EXPECT_EQ(said.at("rows"), json({2, 5}));
  EXPECT_EQ(said.at("keys"), json({0, 16}));
  EXPECT_EQ(said.at("pool"), "exact");
  EXPECT_EQ(said.at("cell"), 1);
  EXPECT_EQ(said.at("shape"), json({3, 16}));
  EXPECT_EQ(said.at("tracks"), false);
}

TEST_F(CliMap, BadRequestsLeaveNoFile) {
  lens::Trace foreign = trace_;
  foreign.layers[1].storage[2].as<float>()[16 + 3] = 0;
  lens::save_trace(path("foreign"), foreign);
  const std::string out = path("m.png");
  struct Case {
    std::vector<std::string> arguments;
    int code;
    std::string says;
  };
  const std::vector<Case> cases = {
      {{"map", path("t"), "-o", out}, 2, "--head is required"},
      {{"map", "--head", "1.1", "-o", out}, 2, "FILE is required"},
      {{"map", path("t"), "--head", "1.1"}, 2, "--out is required"},
      {{"map", path("t"), "--head", "2.0", "-o", out}, 2, "there are 2 layers of 2 heads"},
      {{"map", path("t"), "--head", "1.2", "-o", out}, 2, "there are 2 layers of 2 heads"},
      {{"map", path("t"), "--head", "11", "-o", out}, 2, "--head takes LAYER.HEAD"},
      {{"map", path("t"), "--head", "1.1", "-o", path("m.gif")}, 2, "ends in .safetensors, .png or .svg"},
      {{"map", path("t"), "--head", "1.1", "-o", "-"}, 2, "ends in .safetensors, .png or .svg"},
      {{"map", path("t"), "--head", "1.1", "-o", path("none/m.png")}, 1, "there is no folder"},
      {{"map", path("t"), "--head", "1.1", "-o", out, "--rows", "3"}, 2, "--rows takes A:B"},
      {{"map", path("t"), "--head", "1.1", "-o", out, "--rows", "3:x"}, 2, "--rows takes A:B"},
      {{"map", path("t"), "--head", "1.1", "-o", out, "--rows", "0:17"}, 2, "which are 0:16"},
      {{"map", path("t"), "--head", "1.1", "-o", out, "--rows", "5:5"}, 2, "which are 0:16"},
      {{"map", path("t"), "--head", "1.1", "-o", out, "--keys", "9:3"}, 2, "which are 0:16"},
      {{"map", path("t"), "--head", "1.1", "-o", out, "--keys", "-1:3"}, 2, "which are 0:16"},
      {{"map", path("t"), "--head", "1.1", "-o", out, "--pool", "sum"}, 2, "--pool"},
      {{"map", path("t"), "--head", "1.1", "-o", out, "--size", "0"}, 2, "--size"},
      {{"map", path("none"), "--head", "1.1", "-o", out}, 1, "none"},
      {{"map", path("t"), "--head", "1.1", "-o", out, "--pair", "a"}, 2, "--model"},
      {{"map", path("t"), "--head", "1.1", "-o", out, "--truncate"}, 2, "--model"},
      {{"map", path("t"), "--head", "1.1", "-o", out, "--bits", "f32-fma-1"}, 2, "--model"},
      {{"map", "the cat", "--head", "1.1", "-o", out, "--model", path("none")}, 1, "there is no folder"},
      {{"map", path("foreign"), "--head", "1.1", "-o", out}, 1, "layers.1.lse of head 1, row 3 is 0"},
  };
  for (const Case& test : cases) {
    const Result result = run(test.arguments);
    EXPECT_EQ(result.code, test.code) << test.says;
    EXPECT_TRUE(is_one_line(result, test.says)) << result.err;
    EXPECT_EQ(names(), (std::vector<std::string>{"foreign", "t"})) << test.says;
  }
}

class CliMapOfText : public TinyModel {};

TEST_F(CliMapOfText, IsTheMapOfItsTrace) {
  const auto map = [&](const std::vector<std::string>& of, const std::string& out) {
    std::vector<std::string> arguments = {"map", "--head", "1.3", "-o", path(out)};
    arguments.insert(arguments.end(), of.begin(), of.end());
    return run(arguments);
  };
  ASSERT_EQ(program({"trace", "The black cat sat.", "--pair", "The dog", "-o", path("t")}).code, 0);
  ASSERT_EQ(map({path("t")}, "file.safetensors").code, 0);
  const Result result = map({"The black cat sat.", "--pair", "The dog", "--model", model()}, "text.safetensors");
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_NE(result.out.find("layer 1, head 3 of tiny, queries 0 to 9, keys 0 to 9: exact weights"), std::string::npos)
      << result.out;
  const SafetensorsFile file = load_safetensors(path("file.safetensors")),
                        text = load_safetensors(path("text.safetensors"));
  ASSERT_EQ(text.at("weights").shape(), Dims({10, 10}));
  EXPECT_EQ(text.tensors.size(), file.tensors.size());
  for (std::int64_t i = 0; i < 100; ++i) {
    EXPECT_NEAR(text.at("weights").as<float>()[i], file.at("weights").as<float>()[i], 1e-6);
  }
  EXPECT_TRUE(
      is_one_line(map({many_words(70), "--model", model()}, "m.png"), "TEXT has 72 tokens, the model takes 40"));
  EXPECT_EQ(map({many_words(70), "--model", model(), "--truncate"}, "m.png").code, 0);
  EXPECT_TRUE(is_one_line(map({" ", "--model", model()}, "m.png"), "TEXT is empty"));
}

}  // namespace
}  // namespace manyheads::cli_test
