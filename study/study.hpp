#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "study/training.hpp"

namespace manyheads::study {

// Models of one size that differ in their heads alone.
struct Arm {
  int layers = 1;
  int d_model = 64;
};

struct Plan {
  bool quick = false;
  std::uint64_t seed = 1;
  std::vector<Arm> arms;  // of all relations; the first one is the control's too
  std::vector<int> heads;
  std::vector<double> rates;
  std::vector<int> counts;  // of relations at once, in the control; all of them are the first arm itself
  int seeds = 8;
  int steps = 600;
};
Plan full_plan(std::uint64_t seed);
Plan quick_plan(std::uint64_t seed);  // under a minute

// What --out DIR holds: trainings/NAME.json, one for each finished training, and the reports study.json and study.html.
struct Progress {
  int done = 0;     // finished trainings, earlier ones too
  int resumed = 0;  // of them, found finished
  int all = 0;
};

using Results = std::map<std::string, Result>;  // by Setting::name()

// The trainings of a plan.
// - Those that choose a rate use a seed of their own, and the held-out sentences.
// - The control with k relations asks seed s for relations s, s + 1, ... s + k - 1, modulo their number.
std::vector<Setting> rate_trainings(const Plan& plan);
std::vector<Setting> trainings(const Plan& plan, const Results& of_rates);
Setting setting_of(const Plan& plan, const Arm& arm, int heads, double rate, int seed);
Setting rate_setting(const Plan& plan, const Arm& arm, int heads, double rate);
// The rate with the best held-out accuracy; of equal ones the smallest.
double chosen_rate(const Plan& plan, const Arm& arm, int heads, const Results& of_rates);

// Trains what `folder`/trainings does not hold yet, each training on one thread. A file appears whole, when its
// training ends: the results are the same to the bit for any `threads` and wherever a run was stopped. False where
// `stop` said so.
bool run_plan(const Plan& plan, const std::filesystem::path& folder, int threads, const std::function<bool()>& stop,
              const std::function<void(const Progress&)>& show, Results* results);

// Processor time of the fastest of some steps for each head count, in turn.
struct StepTime {
  Arm arm;
  int heads = 1;
  double seconds = 0, flop = 0;
};
std::vector<StepTime> time_steps(const Plan& plan);

// Every number of the study. `times` alone differ from run to run.
nlohmann::ordered_json report_json(const Plan& plan, const Results& results, const std::vector<StepTime>& times);
// The report as one HTML file without scripts, from these numbers.
std::string report_html(const nlohmann::ordered_json& report);
// What a terminal shows of it.
std::string report_text(const nlohmann::ordered_json& report);

}  // namespace manyheads::study
