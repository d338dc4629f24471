#include "lens/scan.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <manyheads/error.hpp>
#include <manyheads/safetensors.hpp>
#include <random>
#include <set>

#include "allocations.hpp"
#include "lens/constructed_text.hpp"
#include "lens/random_text.hpp"
#include "lens/scan_file.hpp"

namespace manyheads::lens {
namespace {

model::EncoderConfig config_of(std::int64_t layers, std::int64_t heads, std::int64_t kv_heads, std::int64_t head_dim,
                               std::int64_t vocabulary = 200) {
  model::EncoderConfig config;
  config.num_layers = layers;
  config.num_heads = heads;
  config.num_kv_heads = kv_heads;
  config.head_dim = head_dim;
  config.vocab_size = vocabulary;
  return config;
}
const model::EncoderConfig kRandom = config_of(2, 4, 2, 8);

std::vector<BatchText> random_texts(std::size_t count) {
  std::vector<BatchText> texts;
  for (std::size_t i = 0; i < count; ++i) {
    texts.push_back(random_text({.tokens = 3 + static_cast<std::int64_t>(i * 7 % 40), .seed = static_cast<unsigned>(i)}));
  }
  return texts;
}

std::vector<ScanPassage> places_of(std::size_t first, std::size_t count) {
  std::vector<ScanPassage> places(count);
  for (std::size_t i = 0; i < count; ++i) {
    const auto n = static_cast<std::int64_t>(first + i);
    places[i] = {0, n % 3, 100 * n, 50, n, n + 10, n % 2 == 0 ? "text " + std::to_string(n) : ""};
  }
  return places;
}

void add(Scan& scan, const std::vector<BatchText>& texts, std::size_t begin, std::size_t end, int threads = 1) {
  scan.add(std::span(texts).subspan(begin, end - begin), places_of(begin, end - begin), {.num_threads = threads});
}

void expect_same(const StateDict& a, const StateDict& b, const std::string& what) {
  ASSERT_EQ(a.size(), b.size()) << what;
  for (const auto& [name, tensor] : a) {
    const Tensor& other = b.at(name);
    ASSERT_EQ(tensor.shape(), other.shape()) << what << " " << name;
    EXPECT_EQ(std::memcmp(tensor.bytes(), other.bytes(), static_cast<std::size_t>(tensor.elements()) * size_of(tensor.dtype())), 0)
        << what << " " << name;
  }
}

std::size_t score_named(const std::string& name) {
  for (const ScoreRule& rule : score_rules()) {
    if (rule.name == name) return static_cast<std::size_t>(&rule - score_rules().data());
  }
  throw std::runtime_error(name);
}

// Head 0 gives e / (e + n - 1) of each row to the token before, head 1 all to the first token.
TEST(Scan, TellsWhatConstructedHeadsDo) {
  std::vector<BatchText> texts;
  for (const std::int64_t words : {3, 5, 8}) {
    texts.push_back(test::constructed_text(0, words));
    test::add_layer(texts.back().trace, 2, [](std::int64_t h, std::int64_t q, std::int64_t k) {
      return h == 0 ? (k == q - 1 ? 30.0 : 0.0) : (k == 0 ? 30.0 : 0.0);
    });
  }
  // D is n there: one scan takes texts of one length.
  for (const BatchText& text : texts) {
    const std::int64_t n = text.trace.key_length;
    Scan scan(config_of(1, 2, 2, n), 1);
    const ScanPassage place;
    scan.add({&text, 1}, {&place, 1}, {.num_threads = 1});
    const StateDict found = scan.finish();
    const auto scores = score_rules().size();
    const double* const mean = found.at("score_mean").as<double>();
    EXPECT_NEAR(mean[score_named("previous")], 1, 1e-6);
    EXPECT_NEAR(mean[scores + score_named("first")], 1, 1e-6);
    EXPECT_EQ(scan.tokens(), n);
    // Distances: n - 1 rows at 1; the first spreads over all.
    const auto& edges = distance_edges();
    const std::int64_t* const ends = found.at("distance_edges").as<std::int64_t>();
    ASSERT_TRUE(std::equal(edges.begin(), edges.end(), ends));
    for (std::size_t bin = 0; bin + 1 < edges.size(); ++bin) {
      const double expected = edges[bin] == 1 ? static_cast<double>(n) - 1 : edges[bin] <= 0 && edges[bin] > -n ? 1.0 / static_cast<double>(n) : 0;
      EXPECT_NEAR(found.at("distance_mass").as<double>()[bin], expected, 1e-5) << edges[bin];
    }
    // "w" stands n - 2 times: all but the first occurrence give 1 to another, the last receives nothing from "w".
    const auto w = static_cast<double>(n - 2);
    if (n - 2 < kScanFewest) {
      EXPECT_EQ(found.at("asking_tokens").as<std::int64_t>()[0], -1);
      continue;
    }
    EXPECT_EQ(found.at("asking_tokens").as<std::int64_t>()[0], 5);
    EXPECT_EQ(found.at("asking_tokens").as<std::int64_t>()[1], -1);
    EXPECT_NEAR(found.at("asking_mass").as<double>()[0], (w - 1) / w, 1e-5);
    EXPECT_NEAR(found.at("asked_mass").as<double>()[0], (w - 1) / w, 1e-5);
    EXPECT_EQ(found.at("asked_count").as<std::int64_t>()[0], n - 2);
    EXPECT_NEAR(found.at("asking_mass").as<double>()[kScanTokens], 0, 1e-5);
  }
}

TEST(Scan, DependsOnNeitherBatchesNorThreads) {
  const std::vector<BatchText> texts = random_texts(60);
  Scan whole(kRandom, 7);
  add(whole, texts, 0, 60);
  const StateDict expected = whole.finish();
  for (const int threads : {1, 2, 8}) {
    for (const std::size_t size : {1, 13, 60}) {
      Scan scan(kRandom, 7);
      for (std::size_t i = 0; i < 60; i += size) add(scan, texts, i, std::min<std::size_t>(60, i + size), threads);
      expect_same(scan.finish(), expected, std::to_string(threads) + " threads, batches of " + std::to_string(size));
    }
  }
}

// Beyond where its last passages stand.
TEST(Scan, HoldsFromItsFirstPassagesWhatItHoldsInTheEnd) {
  const std::vector<BatchText> texts = random_texts(12);
  Scan scan(kRandom, 7);
  add(scan, texts, 0, 12);
  const std::int64_t most = test::most_bytes([&] {
    for (int round = 1; round < 100; ++round) add(scan, texts, 0, 12);
  });
  EXPECT_EQ(scan.passages(), 1200);
  EXPECT_LT(most, 500'000);  // 1,024 passages' scores are 1.2 MB
}

TEST(Scan, GoesOnFromItsStateAtAnyPlace) {
  const std::vector<BatchText> texts = random_texts(30);
  Scan whole(kRandom, 7);
  add(whole, texts, 0, 30);
  const StateDict expected = whole.finish();
  for (std::size_t stop = 0; stop <= 30; stop += 6) {
    Scan first(kRandom, 7);
    add(first, texts, 0, stop);
    Scan second(kRandom, 7);
    second.restore(first.state());
    EXPECT_EQ(second.passages(), static_cast<std::int64_t>(stop));
    add(second, texts, stop, 30);
    expect_same(second.finish(), expected, "stopped at " + std::to_string(stop));
  }
}

TEST(Scan, ItsExamplesAreTheLargestAndStandInTheirDeciles) {
  constexpr std::size_t kTexts = 300;
  const std::vector<BatchText> texts = random_texts(kTexts);
  Scan scan(kRandom, 7);
  add(scan, texts, 0, kTexts);
  const StateDict found = scan.finish();
  const auto scores = static_cast<std::int64_t>(score_rules().size());
  const std::int64_t* const table = found.at("passages").as<std::int64_t>();
  for (std::int64_t r = 1; r < found.at("passages").size(0); ++r) EXPECT_LT(table[6 * (r - 1)], table[6 * r]);
  for (const auto& [layer, head, score] : {std::array<std::int64_t, 3>{0, 0, 0}, {1, 2, 6}, {1, 3, 16}}) {
    std::vector<double> values;
    for (const BatchText& text : texts) {
      PassageReader::Memory memory;
      PassageReading reading;
      PassageReader(text.trace).read(static_cast<std::size_t>(layer), head, memory, reading);
      values.push_back(*reading.scores[static_cast<std::size_t>(score)].value);
    }
    const std::int64_t i = (layer * 4 + head) * scores + score;
    std::vector<double> sorted = values;
    std::sort(sorted.begin(), sorted.end());
    EXPECT_EQ(found.at("score_count").as<std::int64_t>()[i], static_cast<std::int64_t>(kTexts));
    std::set<std::int64_t> used;
    for (std::int64_t e = 0; e < kScanTop; ++e) {
      const std::int64_t row = found.at("top_passages").as<std::int64_t>()[i * kScanTop + e];
      EXPECT_EQ(found.at("top_values").as<double>()[i * kScanTop + e], sorted[kTexts - 1 - static_cast<std::size_t>(e)]);
      const std::int64_t number = table[6 * row];
      EXPECT_EQ(values[static_cast<std::size_t>(number)], sorted[kTexts - 1 - static_cast<std::size_t>(e)]);
      EXPECT_EQ(table[6 * row + 2], 100 * number);
    }
    const double error = found.at("score_error").as<double>()[i];
    for (std::int64_t d = 0; d < kScanDeciles; ++d) {
      for (std::int64_t e = 0; e < kScanSamples; ++e) {
        const std::int64_t place = (i * kScanDeciles + d) * kScanSamples + e;
        const std::int64_t row = found.at("sample_passages").as<std::int64_t>()[place];
        ASSERT_GE(row, 0) << d;
        const double value = found.at("sample_values").as<double>()[place];
        EXPECT_EQ(value, values[static_cast<std::size_t>(table[6 * row])]);
        EXPECT_TRUE(used.insert(row).second) << "a passage stands twice";
        const auto rank = [&](std::int64_t part) { return std::max<std::size_t>(1, kTexts * static_cast<std::size_t>(part) / 10) - 1; };
        EXPECT_GE(value, sorted[rank(d)] - error) << d;
        EXPECT_LE(value, sorted[rank(d + 1)] + error) << d;
      }
    }
  }
}

TEST(Scan, AnotherSeedTakesOtherSamples) {
  const std::vector<BatchText> texts = random_texts(200);
  std::vector<std::vector<std::int64_t>> samples;
  for (const std::int64_t seed : {1, 2}) {
    Scan scan(kRandom, seed);
    add(scan, texts, 0, 200);
    const StateDict found = scan.finish();
    const Tensor& rows = found.at("sample_passages");
    std::vector<std::int64_t>& numbers = samples.emplace_back();
    for (std::int64_t i = 0; i < rows.elements(); ++i) {
      const std::int64_t row = rows.as<std::int64_t>()[i];
      numbers.push_back(row < 0 ? -1 : found.at("passages").as<std::int64_t>()[6 * row]);
    }
  }
  EXPECT_NE(samples[0], samples[1]);
}

// Only passages that an example may need are kept, however many there were.
TEST(Scan, ItsStateDoesNotGrowWithTheCorpus) {
  const std::vector<BatchText> texts = random_texts(12);
  Scan scan(config_of(2, 4, 2, 8), 1);
  for (int i = 0; i < 600; ++i) add(scan, texts, 0, 12);
  const auto most = kScanReservoir + 8 * static_cast<std::int64_t>(score_rules().size()) * kScanTop;
  const StateDict state = scan.state();
  EXPECT_LE(state.at("passages").size(0), most);
  EXPECT_EQ(state.at("kept_passages").size(0), kScanReservoir);
}

TEST(Scan, RefusesAStateThatIsNone) {
  const std::vector<BatchText> texts = random_texts(5);
  Scan scan(kRandom, 1);
  add(scan, texts, 0, 5);
  const StateDict good = scan.state();
  const auto refuses = [&](StateDict state, const std::string& what) {
    Scan other(kRandom, 1);
    EXPECT_THROW(other.restore(state), Error) << what;
  };
  for (const auto& [name, tensor] : good) {
    StateDict missing = good;
    missing.erase(name);
    refuses(missing, "without " + name);
    StateDict other_type = good;
    other_type[name] = Tensor(DType::kF32, tensor.shape());
    refuses(other_type, name + " in F32");
    if (tensor.rank() > 0 && name != "passage_text") {
      Dims shape = tensor.shape();
      shape[0] += 1;
      StateDict longer = good;
      longer[name] = Tensor(tensor.dtype(), shape);
      refuses(longer, name + " too long");
    }
  }
  for (const char* name : {"totals", "token_counts", "passages", "passage_text_ends", "sketch_count", "query_count",
                           "top_passages", "kept_passages"}) {
    StateDict changed = good;
    Tensor copy(DType::kI64, good.at(name).shape());
    std::copy_n(good.at(name).as<std::int64_t>(), copy.elements(), copy.as<std::int64_t>());
    copy.as<std::int64_t>()[0] = std::string(name) == "top_passages" || std::string(name) == "kept_passages" ? 77 : -5;
    changed[name] = copy;
    refuses(changed, name);
  }
  Scan of_another_seed(kRandom, 2);
  EXPECT_THROW(of_another_seed.restore(good), Error);
}

TEST(Scan, RefusesAsManyPlacesAsTextsAreNot) {
  const std::vector<BatchText> texts = random_texts(2);
  Scan scan(kRandom, 1);
  EXPECT_THROW(scan.add(texts, places_of(0, 1), {}), Error);
}

class ScanFiles : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "manyheads-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
    const std::vector<BatchText> texts = random_texts(9);
    Scan scan(kRandom, 1);
    add(scan, texts, 0, 9);
    file_.model = "tiny";
    file_.bits = "f32-fma-1";
    file_.max_tokens = 40;
    file_.passages = 9;
    file_.tokens = scan.tokens();
    file_.seed = 1;
    file_.files = {{"a.txt", false}, {"b.jsonl", true}, {"-", false}};
    for (const ScoreRule& rule : score_rules()) file_.scores.push_back({rule.name, rule.formula, rule.source});
    file_.tensors = scan.finish();
    for (std::int64_t id = 0; id < 20; ++id) file_.tokens_by_id[id] = "t" + std::to_string(id);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string path() const { return (folder_ / "a.scan").string(); }
  // What load_scan says, empty where it loads.
  std::string problem() const {
    try {
      load_scan(path());
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }

  std::filesystem::path folder_;
  ScanFile file_;
};

TEST_F(ScanFiles, ComeBackAsTheyWere) {
  save_scan(path(), file_);
  const ScanFile found = load_scan(path());
  EXPECT_EQ(found.model, "tiny");
  EXPECT_EQ(found.max_tokens, 40);
  EXPECT_EQ(found.passages, 9);
  EXPECT_EQ(found.files[1].name, "b.jsonl");
  EXPECT_TRUE(found.files[1].json_lines);
  EXPECT_EQ(found.scores.size(), score_rules().size());
  EXPECT_EQ(found.tokens_by_id, file_.tokens_by_id);
  EXPECT_EQ(found.layers(), 2);
  EXPECT_EQ(found.heads(), 4);
  expect_same(found.tensors, file_.tensors, "read");
  const std::int64_t* const table = found.tensors.at("passages").as<std::int64_t>();
  for (std::int64_t r = 0; r < found.tensors.at("passages").size(0); ++r) {
    const std::int64_t n = table[6 * r];
    EXPECT_EQ(found.kept_text(r), n % 2 == 0 ? "text " + std::to_string(n) : "");
  }
}

TEST_F(ScanFiles, EachThatIsMalformedIsNamed) {
  save_scan(path(), file_);
  const SafetensorsFile good = load_safetensors(path());
  int cases = 0;
  const auto refused = [&](const StateDict& tensors, const std::map<std::string, std::string>& metadata,
                           const std::string& what) {
    save_safetensors(path(), tensors, metadata);
    const std::string said = problem();
    EXPECT_NE(said, "") << what;
    EXPECT_NE(said.find("a.scan"), std::string::npos) << what << ": " << said;
    EXPECT_EQ(said.find('\n'), std::string::npos) << said;
    ++cases;
  };
  // The mapped tensors must outlive the file that is overwritten: a rename leaves them.
  for (const auto& [name, tensor] : good.tensors) {
    StateDict changed = good.tensors;
    changed.erase(name);
    refused(changed, good.metadata, "without " + name);
    changed[name] = Tensor(DType::kF32, tensor.shape());
    refused(changed, good.metadata, name + " in F32");
    for (int axis = 0; axis < tensor.rank(); ++axis) {
      if (name == "passage_text") continue;
      Dims shape = tensor.shape();
      shape[axis] += 1;
      changed[name] = Tensor(tensor.dtype(), shape);
      refused(changed, good.metadata, name + " longer in axis " + std::to_string(axis));
    }
    for (const double bad : {-7.0, 1e9, static_cast<double>(NAN), static_cast<double>(INFINITY)}) {
      const bool index = name == "top_passages" || name == "sample_passages" || name.ends_with("_tokens");
      if (tensor.elements() == 0 || tensor.dtype() == DType::kU8) continue;
      if (tensor.dtype() == DType::kI64 && (!std::isfinite(bad) || (bad > 0 && !index))) continue;
      if (tensor.dtype() == DType::kF64 && std::isfinite(bad)) continue;
      Tensor copy(tensor.dtype(), tensor.shape());
      std::memcpy(copy.view().data(), tensor.bytes(), static_cast<std::size_t>(tensor.elements()) * 8);
      if (tensor.dtype() == DType::kF64) {
        copy.as<double>()[tensor.elements() / 2] = bad;
      } else {
        copy.as<std::int64_t>()[tensor.elements() / 2] = static_cast<std::int64_t>(bad);
      }
      changed[name] = copy;
      refused(changed, good.metadata, name + " with " + std::to_string(bad));
    }
  }
  for (const auto& [key, value] : good.metadata) {
    std::map<std::string, std::string> changed = good.metadata;
    changed.erase(key);
    refused(good.tensors, changed, "without " + key);
    for (const char* bad : {"", "{", "null", "[1]", "{\"a\":1}", "-3", "\"\\ud800\"", "[[[[", "1e999", "[{\"name\":1}]",
                            "[{\"name\":\"a\",\"format\":\"b\"}]", "[{}]", "true"}) {
      const std::string text = bad;
      if ((key == "causal" && text == "true")) continue;
      changed[key] = bad;
      refused(good.tensors, changed, key + " = " + bad);
    }
  }
  EXPECT_GT(cases, 300);
}

TEST_F(ScanFiles, AFileThatIsCutIsNamed) {
  save_scan(path(), file_);
  const auto size = std::filesystem::file_size(path());
  for (const std::uintmax_t cut : {std::uintmax_t{0}, std::uintmax_t{7}, std::uintmax_t{100}, size / 2, size - 1}) {
    std::filesystem::resize_file(path(), cut);
    EXPECT_NE(problem(), "") << cut;
    save_scan(path(), file_);
  }
}

}  // namespace
}  // namespace manyheads::lens
