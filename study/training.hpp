#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "study/model.hpp"

namespace manyheads::study {

// What a training is determined by, to the bit on one instruction set.
struct Setting {
  ModelSize size;
  std::vector<int> relations;
  double rate = 0.01;
  int steps = 0;
  int batch = 32;
  std::uint64_t study_seed = 1;
  int seed = 0;           // of the weights and the sentences: the same for all head counts
  bool shuffled = false;  // partners drawn at random: nothing to learn
  bool heads = false;     // asks afterwards what each head serves

  std::string name() const;  // a file name, one for each setting
};

// Sentences that no training sees: rates are chosen on the held-out ones, results are of the test.
struct Examples {
  std::vector<Sentence> held_out, test;
  explicit Examples(std::uint64_t study_seed, bool shuffled = false);
};
constexpr int kHeldOut = 256, kTest = 1024;

struct HeadResult {
  Scores without;  // of the test with this head off
  std::array<HeadReading, kRelations> readings;
};

struct CurvePoint {
  int step = 0;
  double loss = 0;  // of the step's batch
  Scores held_out;
};

struct Result {
  Setting setting;
  std::int64_t parameters = 0;
  std::vector<CurvePoint> curve;  // the last one is of the trained model
  Scores test;
  std::vector<HeadResult> heads;  // layer by layer; empty unless asked for

  // The mean over the setting's relations.
  double accuracy() const;
  double held_out() const;
};

double mean_accuracy(const Scores& scores, const std::vector<int>& relations);

// What a setting trains on: all sentences of its steps, in order.
std::vector<Sentence> training_sentences(const Setting& setting);

// Trains. None where `stop`, asked before each step, says so.
std::optional<Result> train(const Setting& setting, const std::function<bool()>& stop = {});

nlohmann::ordered_json to_json(const Result& result);
// Throws Error where the file holds no result of this setting, or one of another instruction set, whose bits differ.
Result read_result(const std::string& path, const Setting& setting);

// FLOP of a step, forward and backward of the layers and the readout: sentences padded to `length` words, so many
// pairs of each relation in one.
double flop_per_step(const Setting& setting, double length, const std::array<double, kRelations>& pairs);

}  // namespace manyheads::study
