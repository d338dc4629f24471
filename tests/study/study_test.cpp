#include "study/study.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <manyheads/error.hpp>
#include <map>
#include <string>
#include <vector>

#include "support.hpp"

namespace manyheads::study {
namespace {

std::map<std::string, std::string> contents(const std::filesystem::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    std::ifstream file(entry.path(), std::ios::binary);
    files[entry.path().filename().string()] = {std::istreambuf_iterator<char>(file), {}};
  }
  return files;
}

class Study : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() / ("manyheads-study-" + std::to_string(::getpid()));
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::filesystem::path folder(const std::string& name) const { return folder_ / name; }

  static Plan tiny() {
    return {.quick = true,
            .seed = 3,
            .arms = {{1, 16}, {2, 16}},
            .heads = {1, 4},
            .rates = {0.003, 0.01},
            .counts = {2},
            .seeds = 2,
            .steps = 20};
  }
  static bool run(const std::filesystem::path& where, int threads, const std::function<bool()>& stop = {},
                  Results* results = nullptr) {
    Results own;
    return run_plan(tiny(), where, threads, stop, [](const Progress&) {}, results != nullptr ? results : &own);
  }

 private:
  std::filesystem::path folder_;
};

// One head is enough for one relation.
TEST(StudyTraining, OneRelationAloneIsFound) {
  for (const Relation relation : {kVerb, kAdjective, kObject, kBefore}) {
    Setting setting;
    setting.size = {1, 64, 1};
    setting.relations = {relation};
    setting.rate = 0.01;
    setting.steps = 900;
    const Result result = *train(setting);
    EXPECT_GT(result.accuracy(), 0.99) << name_of(relation);
    for (const int other : {0, 1, 2, 3}) {
      if (other != relation) {
        EXPECT_EQ(result.test[static_cast<std::size_t>(other)].pairs, 0);
      }
    }
  }
}

// A shuffled partner is any of the n places alike, whatever the sentence: an answer that knows the sentence names a
// place's word with probability c / n, with c the places of the word it names. The commonest word, ",", "the" or
// "very", is at most all places that hold it; the best answer of all names the word that the sentence has most often.
// So the expected share is at most the mean of max c / n, and a sum of N independent trials exceeds it by 5 sigma,
// sqrt(N) / 2 each, with a probability below 3e-7.
TEST(StudyTraining, ShuffledPartnersStayAtChance) {
  Setting setting;
  setting.size = {1, 64, 4};
  setting.relations = {kVerb, kAdjective, kObject, kBefore};
  setting.rate = 0.01;
  setting.steps = 200;
  setting.shuffled = true;
  const Result result = *train(setting);
  const Examples examples(setting.study_seed, true);
  for (std::size_t r = 0; r < kRelations; ++r) {
    double most = 0, pairs = 0;
    for (const Sentence& sentence : examples.test) {
      std::map<int, int> counts;
      int commonest = 0;
      for (const int word : sentence.words) commonest = std::max(commonest, ++counts[word]);
      for (const int partner : sentence.partner[r]) {
        if (partner < 0) continue;
        most += static_cast<double>(commonest) / static_cast<double>(sentence.words.size());
        ++pairs;
      }
    }
    EXPECT_EQ(static_cast<double>(result.test[r].pairs), pairs);
    EXPECT_LT(static_cast<double>(result.test[r].right), most + 2.5 * std::sqrt(pairs))
        << name_of(static_cast<Relation>(r));
    EXPECT_GT(result.test[r].right, 0);
  }
}

TEST_F(Study, ThreadsAndInterruptionsChangeNoBit) {
  ASSERT_TRUE(run(folder("whole"), 1));
  ASSERT_TRUE(run(folder("two"), 2));
  const auto whole = contents(folder("whole") / "trainings");
  EXPECT_EQ(whole.size(), 8U + 12U);
  EXPECT_TRUE(contents(folder("two") / "trainings") == whole);

  // Stops within the trainings, again and again.
  int stops = 0;
  for (;;) {
    std::atomic<int> left = 130;
    if (run(folder("stopped"), 2, [&] { return --left < 0; })) break;
    ASSERT_LT(++stops, 20);
    for (const auto& [name, text] : contents(folder("stopped") / "trainings"))
      EXPECT_TRUE(text == whole.at(name)) << name;
  }
  EXPECT_GT(stops, 1);
  EXPECT_TRUE(contents(folder("stopped") / "trainings") == whole);
}

TEST_F(Study, ResultsAreReadAsTheyWere) {
  Results first, again;
  ASSERT_TRUE(run(folder("a"), 2, {}, &first));
  ASSERT_TRUE(run(folder("a"), 1, [] { return true; }, &again));  // nothing is left to be stopped
  EXPECT_EQ(report_json(tiny(), first, {}).dump(), report_json(tiny(), again, {}).dump());

  const nlohmann::ordered_json report = report_json(tiny(), first, time_steps(tiny()));
  EXPECT_EQ(report["arms"].size(), 2U);
  EXPECT_EQ(report["heads"].size(), 4U);
  EXPECT_EQ(report["control"].size(), 2U);
  EXPECT_EQ(report["times"].size(), 4U);
  EXPECT_TRUE(report["verdicts"].empty());
  EXPECT_EQ(report["times"][0]["flop_a_step"], report["times"][1]["flop_a_step"]);
  const std::string html = report_html(report);
  EXPECT_EQ(html.rfind("<!doctype html>", 0), 0U);
  EXPECT_EQ(html.find("<script"), std::string::npos);
  EXPECT_EQ(html.find("http"), std::string::npos);
  EXPECT_EQ(html.find("nan"), std::string::npos);
  EXPECT_NE(html.find("<svg"), std::string::npos);
  EXPECT_NE(html.find("Partners missed"), std::string::npos);
}

TEST_F(Study, AnotherFileInAResultsPlaceIsRefused) {
  ASSERT_TRUE(run(folder("a"), 2));
  const std::vector<Setting> settings = rate_trainings(tiny());
  const std::filesystem::path files = folder("a") / "trainings";
  const std::string name = settings[0].name() + ".json";
  std::filesystem::copy_file(files / (settings[1].name() + ".json"), files / name,
                             std::filesystem::copy_options::overwrite_existing);
  const auto problem = [&] { return test::error_of([&] { run(folder("a"), 1); }, ErrorCode::kMalformedFile); };
  EXPECT_NE(problem().find(name + "\": this is no result of the training"), std::string::npos) << problem();
  std::ofstream(files / name, std::ios::trunc) << "{\"format\": 1}";
  EXPECT_NE(problem().find("this is no result of a training"), std::string::npos) << problem();
  std::ofstream(files / name, std::ios::trunc) << "{\"format\"";
  EXPECT_NE(problem().find(name), std::string::npos) << problem();
}

TEST(StudyPlan, TheRateIsTheOneOfTheBestHeldOutAccuracy) {
  const Plan plan{.quick = true,
                  .seed = 1,
                  .arms = {{1, 16}},
                  .heads = {2},
                  .rates = {0.1, 0.2, 0.3},
                  .counts = {},
                  .seeds = 1,
                  .steps = 5};
  Results results;
  const auto put = [&](double rate, std::int64_t right) {
    Result result;
    result.setting = rate_setting(plan, plan.arms[0], 2, rate);
    CurvePoint point;
    for (Score& score : point.held_out) score = {right, 100};
    result.curve.push_back(point);
    results[result.setting.name()] = result;
  };
  put(0.1, 50);
  put(0.2, 80);
  put(0.3, 80);
  EXPECT_EQ(chosen_rate(plan, plan.arms[0], 2, results), 0.2);
}

TEST(StudyPlan, TheControlTurnsThroughTheRelations) {
  Plan plan = full_plan(1);
  Results results;
  for (const Setting& setting : rate_trainings(plan)) {
    Result result;
    result.setting = setting;
    results[setting.name()] = result;
  }
  std::map<std::vector<int>, int> asked;
  std::map<std::string, int> names;
  for (const Setting& setting : trainings(plan, results)) {
    ++names[setting.name()];
    if (setting.size.heads == 1 && setting.size.d_model == 64 && setting.size.layers == 1) ++asked[setting.relations];
  }
  for (const auto& [name, count] : names) EXPECT_EQ(count, 1) << name;
  EXPECT_EQ(asked.size(), 4U + 4U + 4U + 1U);
  for (const auto& [relations, count] : asked) EXPECT_EQ(count, relations.size() == 4 ? 8 : 2);
}

}  // namespace
}  // namespace manyheads::study
