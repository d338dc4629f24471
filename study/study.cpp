#include "study/study.hpp"

#include <time.h>

#include <algorithm>
#include <mutex>
#include <numeric>
#include <utility>

#include "base/file.hpp"
#include "base/parallel.hpp"
#include "study/adamw.hpp"

namespace manyheads::study {
namespace {

constexpr int kRateSeed = 1000;  // no seed of the results

const std::vector<int> kAll = {kVerb, kAdjective, kObject, kBefore};

// Processor time of this thread, which other programs do not lengthen.
double thread_seconds() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// Trains those that are missing.
bool run_some(const std::vector<Setting>& settings, const std::filesystem::path& folder, int threads,
              const std::function<bool()>& stop, const std::function<void(const Progress&)>& show, Progress progress,
              Results* results) {
  std::vector<const Setting*> missing;
  for (const Setting& setting : settings) {
    const std::filesystem::path path = folder / (setting.name() + ".json");
    if (std::filesystem::exists(path)) {
      results->insert_or_assign(setting.name(), read_result(path.string(), setting));
      ++progress.done;
      ++progress.resumed;
    } else {
      missing.push_back(&setting);
    }
  }
  show(progress);
  std::mutex mutex;
  const auto count = static_cast<std::int64_t>(missing.size());
  bool whole = true;
  if (count == 0) return true;
  base::parallel_for(count, base::worker_count(count, {.num_threads = threads}), nullptr, [&](std::int64_t i, int) {
    const Setting& setting = *missing[static_cast<std::size_t>(i)];
    const std::optional<Result> result = train(setting, stop);
    const std::lock_guard lock(mutex);
    if (!result) {
      whole = false;
      return;
    }
    base::FileWriter file(folder / (setting.name() + ".json"));
    file.write(to_json(*result).dump() + "\n");
    file.commit();
    results->insert_or_assign(setting.name(), *result);
    ++progress.done;
    show(progress);
  });
  return whole;
}

}  // namespace

Plan full_plan(std::uint64_t seed) {
  return {.quick = false,
          .seed = seed,
          .arms = {{1, 64}, {1, 128}, {2, 64}},
          .heads = {1, 2, 4, 8, 16},
          .rates = {0.003, 0.01, 0.03},
          .counts = {1, 2, 3},
          .seeds = 8,
          .steps = 600};
}

Plan quick_plan(std::uint64_t seed) {
  return {.quick = true,
          .seed = seed,
          .arms = {{1, 64}},
          .heads = {1, 2, 4},
          .rates = {0.003, 0.01},
          .counts = {1},
          .seeds = 2,
          .steps = 300};
}

Setting setting_of(const Plan& plan, const Arm& arm, int heads, double rate, int seed) {
  Setting setting;
  setting.size = {.layers = arm.layers, .d_model = arm.d_model, .heads = heads};
  setting.relations = kAll;
  setting.rate = rate;
  setting.steps = plan.steps;
  setting.study_seed = plan.seed;
  setting.seed = seed;
  setting.heads = true;
  return setting;
}

Setting rate_setting(const Plan& plan, const Arm& arm, int heads, double rate) {
  Setting setting = setting_of(plan, arm, heads, rate, kRateSeed);
  setting.heads = false;
  return setting;
}

std::vector<Setting> rate_trainings(const Plan& plan) {
  std::vector<Setting> settings;
  for (const Arm& arm : plan.arms) {
    for (const double rate : plan.rates) {
      for (const int heads : plan.heads) {
        settings.push_back(rate_setting(plan, arm, heads, rate));
      }
    }
  }
  return settings;
}

double chosen_rate(const Plan& plan, const Arm& arm, int heads, const Results& of_rates) {
  double best = 0, most = -1;
  for (const double rate : plan.rates) {
    const double accuracy = of_rates.at(rate_setting(plan, arm, heads, rate).name()).held_out();
    if (accuracy > most) {
      best = rate;
      most = accuracy;
    }
  }
  return best;
}

std::vector<Setting> trainings(const Plan& plan, const Results& of_rates) {
  std::vector<Setting> settings;
  for (const Arm& arm : plan.arms) {
    for (int seed = 0; seed < plan.seeds; ++seed) {
      for (const int heads : plan.heads) {
        settings.push_back(setting_of(plan, arm, heads, chosen_rate(plan, arm, heads, of_rates), seed));
      }
    }
    if (&arm != &plan.arms.front()) continue;
    for (const int count : plan.counts) {
      for (int seed = 0; seed < plan.seeds; ++seed) {
        for (const int heads : plan.heads) {
          Setting setting = setting_of(plan, arm, heads, chosen_rate(plan, arm, heads, of_rates), seed);
          setting.heads = false;
          setting.relations.clear();
          for (int i = 0; i < count; ++i) setting.relations.push_back((seed + i) % kRelations);
          settings.push_back(setting);
        }
      }
    }
  }
  return settings;
}

bool run_plan(const Plan& plan, const std::filesystem::path& folder, int threads, const std::function<bool()>& stop,
              const std::function<void(const Progress&)>& show, Results* results) {
  const std::filesystem::path files = folder / "trainings";
  std::filesystem::create_directories(files);
  const std::vector<Setting> of_rates = rate_trainings(plan);
  const std::size_t heads = plan.heads.size(), seeds = static_cast<std::size_t>(plan.seeds);
  Progress progress;
  progress.all = static_cast<int>(of_rates.size() + seeds * heads * (plan.arms.size() + plan.counts.size()));
  Progress last;
  const auto keep = [&](const Progress& now) {
    last = now;
    show(now);
  };
  if (!run_some(of_rates, files, threads, stop, keep, progress, results)) return false;
  return run_some(trainings(plan, *results), files, threads, stop, keep, last, results);
}

std::vector<StepTime> time_steps(const Plan& plan) {
  constexpr int kRounds = 30;
  struct Timed {
    StepTime time;
    Model model;
    AdamW optimizer;
  };
  Random random(plan.seed);
  std::vector<Sentence> sentences;
  const int count = setting_of(plan, plan.arms[0], 1, 0, 0).batch;
  std::array<double, kRelations> pairs{};
  for (int i = 0; i < count; ++i) {
    sentences.push_back(draw(random));
    for (std::size_t r = 0; r < kRelations; ++r) {
      const auto& partner = sentences.back().partner[r];
      pairs[r] +=
          static_cast<double>(std::count_if(partner.begin(), partner.end(), [](int p) { return p >= 0; })) / count;
    }
  }
  const Batch batch = batch_of(sentences);
  std::vector<StepTime> times;
  for (const Arm& arm : plan.arms) {
    std::vector<Timed> timed;
    for (const int heads : plan.heads) {
      const Setting setting = setting_of(plan, arm, heads, 0.001, 0);
      Model model(setting.size, 1);
      const std::size_t parameters = model.parameters().size();
      timed.push_back({{arm, heads, 1e9, flop_per_step(setting, static_cast<double>(batch.length), pairs)},
                       std::move(model),
                       AdamW(parameters)});
    }
    for (int round = 0; round < kRounds; ++round) {
      for (Timed& one : timed) {
        const double begin = thread_seconds();
        one.model.learn(batch, kAll);
        one.optimizer.step(one.model.parameters(), one.model.gradients(), 0.001);
        one.time.seconds = std::min(one.time.seconds, thread_seconds() - begin);
      }
    }
    for (const Timed& one : timed) times.push_back(one.time);
  }
  return times;
}

}  // namespace manyheads::study
