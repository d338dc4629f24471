#include "study/training.hpp"

#include <algorithm>
#include <cmath>
#include <manyheads/cpu.hpp>
#include <manyheads/error.hpp>
#include <utility>

#include "base/format.hpp"
#include "base/file.hpp"
#include "io/json.hpp"
#include "study/adamw.hpp"

namespace manyheads::study {
namespace {

enum Purpose : std::uint64_t { kWeights = 1, kSentences, kHeldOutSentences, kTestSentences, kShuffled };

constexpr int kCurvePoints = 20;
constexpr int kEvaluationBatch = 64;
constexpr std::uint64_t kFormat = 1;

std::vector<Sentence> draw_many(int count, Random random, bool shuffle, Random shuffling) {
  std::vector<Sentence> sentences;
  for (int i = 0; i < count; ++i) {
    sentences.push_back(draw(random));
    if (shuffle) sentences.back() = shuffled(std::move(sentences.back()), shuffling);
  }
  return sentences;
}

std::vector<Batch> batches_of(const std::vector<Sentence>& sentences) {
  std::vector<Batch> batches;
  for (std::size_t i = 0; i < sentences.size(); i += kEvaluationBatch) {
    batches.push_back(
        batch_of(std::span(sentences).subspan(i, std::min<std::size_t>(kEvaluationBatch, sentences.size() - i))));
  }
  return batches;
}

Scores evaluate(Model& model, const std::vector<Batch>& batches, const std::vector<int>& relations, int off = -1,
                std::span<HeadReading> readings = {}) {
  Scores scores{};
  for (const Batch& batch : batches) model.evaluate(batch, relations, scores, off, readings);
  return scores;
}

// Rises over the first tenth, then falls to 0 in a line.
double rate_at(const Setting& setting, int step) {
  const double warm = std::max(1.0, setting.steps / 10.0), done = step + 1.0;
  return setting.rate * std::min(done / warm, (setting.steps - step) / std::max(1.0, setting.steps - warm));
}

// The sentences of a setting's steps.
class Drawing {
 public:
  explicit Drawing(const Setting& setting)
      : setting_(setting),
        sentences_(setting.study_seed, kSentences, static_cast<std::uint64_t>(setting.seed)),
        shuffling_(setting.study_seed, kShuffled, 3 + static_cast<std::uint64_t>(setting.seed)) {}

  std::vector<Sentence> step() {
    std::vector<Sentence> drawn;
    for (int i = 0; i < setting_.batch; ++i) {
      drawn.push_back(draw(sentences_));
      if (setting_.shuffled) drawn.back() = shuffled(std::move(drawn.back()), shuffling_);
    }
    return drawn;
  }

 private:
  const Setting& setting_;
  Random sentences_, shuffling_;
};

nlohmann::ordered_json scores_json(const Scores& scores) {
  nlohmann::ordered_json json = nlohmann::ordered_json::array();
  for (const Score& score : scores) json.push_back({score.right, score.pairs});
  return json;
}

Scores scores_from(const nlohmann::json& json) {
  Scores scores{};
  for (std::size_t r = 0; r < kRelations; ++r) scores[r] = {json.at(r).at(0), json.at(r).at(1)};
  return scores;
}

nlohmann::ordered_json setting_json(const Setting& setting) {
  return {{"layers", setting.size.layers}, {"d_model", setting.size.d_model},
          {"heads", setting.size.heads},   {"relations", setting.relations},
          {"rate", setting.rate},          {"steps", setting.steps},
          {"batch", setting.batch},        {"study_seed", setting.study_seed},
          {"seed", setting.seed},          {"shuffled", setting.shuffled},
          {"read_heads", setting.heads}};
}

}  // namespace

std::string Setting::name() const {
  std::string asked;
  for (const int r : relations) asked += name_of(static_cast<Relation>(r))[0];
  return base::format("l{}-d{}-h{}-{}-r{}-n{}-b{}-s{}.{}{}{}", size.layers, size.d_model, size.heads, asked, rate,
                      steps, batch, study_seed, seed, shuffled ? "-shuffled" : "", heads ? "-heads" : "");
}

Examples::Examples(std::uint64_t study_seed, bool shuffle)
    : held_out(draw_many(kHeldOut, {study_seed, kHeldOutSentences, 0}, shuffle, {study_seed, kShuffled, 1})),
      test(draw_many(kTest, {study_seed, kTestSentences, 0}, shuffle, {study_seed, kShuffled, 2})) {}

double mean_accuracy(const Scores& scores, const std::vector<int>& relations) {
  double sum = 0;
  for (const int r : relations) sum += scores[static_cast<std::size_t>(r)].accuracy();
  return relations.empty() ? 0 : sum / static_cast<double>(relations.size());
}

double Result::accuracy() const { return mean_accuracy(test, setting.relations); }
double Result::held_out() const { return curve.empty() ? 0 : mean_accuracy(curve.back().held_out, setting.relations); }

std::vector<Sentence> training_sentences(const Setting& setting) {
  Drawing drawing(setting);
  std::vector<Sentence> all;
  for (int step = 0; step < setting.steps; ++step) {
    for (Sentence& sentence : drawing.step()) all.push_back(std::move(sentence));
  }
  return all;
}

std::optional<Result> train(const Setting& setting, const std::function<bool()>& stop) {
  const auto seed = static_cast<std::uint64_t>(setting.seed);
  const Examples examples(setting.study_seed, setting.shuffled);
  const std::vector<Batch> held_out = batches_of(examples.held_out), test = batches_of(examples.test);
  Model model(setting.size, Random(setting.study_seed, kWeights, seed).next());
  AdamW optimizer(model.parameters().size());
  Drawing drawing(setting);

  Result result;
  result.setting = setting;
  result.parameters = static_cast<std::int64_t>(model.parameters().size());
  const int every = std::max(1, setting.steps / kCurvePoints);
  for (int step = 0; step < setting.steps; ++step) {
    if (stop && stop()) return std::nullopt;
    const double loss = model.learn(batch_of(drawing.step()), setting.relations);
    optimizer.step(model.parameters(), model.gradients(), rate_at(setting, step));
    if ((step + 1) % every == 0 || step + 1 == setting.steps) {
      result.curve.push_back({step + 1, loss, evaluate(model, held_out, setting.relations)});
    }
  }
  if (!setting.heads) {
    result.test = evaluate(model, test, setting.relations);
    return result;
  }
  const std::size_t heads = static_cast<std::size_t>(setting.size.layers * setting.size.heads);
  std::vector<HeadReading> readings(heads * kRelations);
  result.test = evaluate(model, test, setting.relations, -1, readings);
  result.heads.resize(heads);
  for (std::size_t h = 0; h < heads; ++h) {
    result.heads[h].without = evaluate(model, test, setting.relations, static_cast<int>(h));
    std::copy_n(readings.begin() + static_cast<std::ptrdiff_t>(h * kRelations), kRelations,
                result.heads[h].readings.begin());
  }
  return result;
}

nlohmann::ordered_json to_json(const Result& result) {
  nlohmann::ordered_json json = {{"format", kFormat},
                                 {"bits", active_bits()},
                                 {"setting", setting_json(result.setting)},
                                 {"parameters", result.parameters},
                                 {"test", scores_json(result.test)}};
  json["curve"] = nlohmann::ordered_json::array();
  for (const CurvePoint& point : result.curve) {
    json["curve"].push_back({{"step", point.step}, {"loss", point.loss}, {"held_out", scores_json(point.held_out)}});
  }
  json["heads"] = nlohmann::ordered_json::array();
  for (const HeadResult& head : result.heads) {
    nlohmann::ordered_json argmax = nlohmann::ordered_json::array(), mass = nlohmann::ordered_json::array();
    for (const HeadReading& reading : head.readings) {
      argmax.push_back({reading.argmax.right, reading.argmax.pairs});
      mass.push_back(reading.mass);
    }
    json["heads"].push_back({{"without", scores_json(head.without)}, {"argmax", argmax}, {"mass", mass}});
  }
  return json;
}

Result read_result(const std::string& path, const Setting& setting) {
  const io::JsonDocument file = io::read_json(path);
  const auto refuse = [&] [[noreturn]] (const std::string& why) {
    throw Error(ErrorCode::kMalformedFile, base::path_in_quotes(path) + ": " + why);
  };
  try {
    const nlohmann::json& json = file.value;
    if (json.at("format") != kFormat || json.at("setting") != nlohmann::json(setting_json(setting))) {
      refuse("this is no result of the training " + setting.name() + "; remove it to train anew");
    }
    if (json.at("bits") != active_bits()) {
      refuse("it is of an instruction set with other bits; remove it to train anew");
    }
    Result result;
    result.setting = setting;
    result.parameters = json.at("parameters");
    result.test = scores_from(json.at("test"));
    for (const auto& point : json.at("curve")) {
      result.curve.push_back({point.at("step"), point.at("loss"), scores_from(point.at("held_out"))});
    }
    for (const auto& entry : json.at("heads")) {
      HeadResult head;
      head.without = scores_from(entry.at("without"));
      const Scores argmax = scores_from(entry.at("argmax"));
      for (std::size_t r = 0; r < kRelations; ++r) head.readings[r] = {argmax[r], entry.at("mass").at(r)};
      result.heads.push_back(head);
    }
    return result;
  } catch (const nlohmann::json::exception& problem) {
    refuse(std::string("this is no result of a training: ") + problem.what());
  }
}

double flop_per_step(const Setting& setting, double length, const std::array<double, kRelations>& pairs) {
  const double d = setting.size.d_model, n = length, sentences = setting.batch;
  // Forward 2 FLOP a multiply-add. The backward of products takes twice the forward; attention's 2.5 times.
  const double projections = 2 * 4 * n * d * d, attention = 2 * 2 * n * n * d;
  double readout = 0;
  for (const int r : setting.relations) {
    readout += 2 * pairs[static_cast<std::size_t>(r)] * d * kVocabulary;
  }
  return sentences * (setting.size.layers * (3 * projections + 3.5 * attention) + 3 * readout);
}

}  // namespace manyheads::study
