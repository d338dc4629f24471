#include <algorithm>
#include <manyheads/cpu.hpp>
#include <manyheads/version.hpp>

#include "base/format.hpp"
#include "study/statistics.hpp"
#include "study/study.hpp"

namespace manyheads::study {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kShownSentences = 6;

Json interval_json(const std::vector<double>& values) {
  const Interval interval = interval_of(values);
  return {{"mean", interval.mean}, {"low", interval.low}, {"high", interval.high}, {"seeds", values}};
}

const char* relation_name(std::size_t r) { return name_of(static_cast<Relation>(r)); }

class Report {
 public:
  Report(const Plan& plan, const Results& results) : plan_(plan), results_(results) {}

  Json write(const std::vector<StepTime>& times) const {
    Json json = {{"manyheads_study", 1},  {"version", version()},
                 {"bits", active_bits()}, {"quick", plan_.quick},
                 {"seed", plan_.seed},    {"seeds", plan_.seeds},
                 {"steps", plan_.steps},  {"batch", setting_of(plan_, plan_.arms[0], 1, 0, 0).batch},
                 {"words", kVocabulary},  {"longest_sentence", kMaxWords}};
    add_grammar(json);
    json["verdicts"] = Json::array();
    for (const Arm& arm : plan_.arms) {
      if (arm.layers == 1) add_verdicts(arm, json["verdicts"]);
    }
    for (const Arm& arm : plan_.arms) json["arms"].push_back(arm_json(arm));
    json["control"] = control_json();
    for (const Arm& arm : plan_.arms) {
      for (const int heads : plan_.heads) json["heads"].push_back(heads_json(arm, heads));
    }
    json["times"] = times_json(times);
    return json;
  }

 private:
  const Result& result(const Arm& arm, int heads, int seed) const {
    return results_.at(setting_of(plan_, arm, heads, chosen_rate(plan_, arm, heads, results_), seed).name());
  }
  const Result& control(int count, int heads, int seed) const {
    if (count == kRelations) return result(plan_.arms[0], heads, seed);
    Setting setting = result(plan_.arms[0], heads, seed).setting;
    setting.heads = false;
    setting.relations.clear();
    for (int i = 0; i < count; ++i) setting.relations.push_back((seed + i) % kRelations);
    return results_.at(setting.name());
  }
  template <class Value>
  std::vector<double> over_seeds(const Value& value) const {
    std::vector<double> values;
    for (int seed = 0; seed < plan_.seeds; ++seed) values.push_back(value(seed));
    return values;
  }

  void add_grammar(Json& json) const {
    const Examples examples(plan_.seed);
    json["sentences"] = Json::array();
    for (std::size_t i = 0; i < kShownSentences; ++i) json["sentences"].push_back(text_of(examples.test[i]));
    const auto baselines = offset_baselines(examples.test);
    for (std::size_t r = 0; r < kRelations; ++r) {
      json["relations"].push_back({{"name", relation_name(r)},
                                   {"meaning", meaning_of(static_cast<Relation>(r))},
                                   {"test_pairs", baselines[r].pairs},
                                   {"best_offset", baselines[r].offset},
                                   {"offset_accuracy", baselines[r].one},
                                   {"offset_accuracy_by_class", baselines[r].each}});
    }
  }

  // How far a relation falls without a head, and the head without which it falls the most.
  static double fall(const Result& result, std::size_t head, std::size_t r) {
    return result.test[r].accuracy() - result.heads[head].without[r].accuracy();
  }
  static std::size_t serving(const Result& result, std::size_t r) {
    std::size_t best = 0;
    for (std::size_t h = 1; h < result.heads.size(); ++h) {
      if (fall(result, h, r) > fall(result, best, r)) best = h;
    }
    return best;
  }
  // How much more the head that serves r costs r than the other relations.
  static double share_of_work(const Result& result, std::size_t r) {
    const std::size_t head = serving(result, r);
    double others = 0;
    for (std::size_t other = 0; other < kRelations; ++other) others += other == r ? 0 : fall(result, head, other);
    return fall(result, head, r) - others / (kRelations - 1);
  }

  std::vector<double> gain(int count, int heads) const {
    return over_seeds([&](int s) { return control(count, heads, s).accuracy() - control(count, 1, s).accuracy(); });
  }

  // What docs/study.md says before the run.
  void add_verdicts(const Arm& arm, Json& verdicts) const {
    if (plan_.quick) return;  // two seeds judge nothing
    const auto more = over_seeds([&](int s) { return result(arm, 4, s).accuracy() - result(arm, 1, s).accuracy(); });
    const Interval gained = interval_of(more);
    verdicts.push_back({{"claim", "several heads name more"},
                        {"d_model", arm.d_model},
                        {"measure", "accuracy of 4 heads less that of 1, paired by seed"},
                        {"value", interval_json(more)},
                        {"outcome", gained.low <= 0      ? "refuted"
                                    : gained.mean < 0.02 ? "weak"
                                                         : "holds"}});
    if (arm.d_model == plan_.arms[0].d_model) {
      const auto alone = over_seeds([&](int s) { return control(1, 1, s).accuracy(); });
      const double gain_alone = interval_of(gain(1, 4)).mean;
      const bool holds = interval_of(alone).mean >= 0.99 && gain_alone <= gained.mean / 3;
      verdicts.push_back({{"claim", "it is the number of relations"},
                          {"d_model", arm.d_model},
                          {"measure", "accuracy of 1 head with one relation alone"},
                          {"value", interval_json(alone)},
                          {"gain_of_4_heads_alone", gain_alone},
                          {"gain_of_4_heads_with_all", gained.mean},
                          {"outcome", holds ? "holds" : "refuted"}});
    }
    const auto shared = over_seeds([&](int s) {
      double sum = 0;
      for (std::size_t r = 0; r < kRelations; ++r) sum += share_of_work(result(arm, 4, s), r) / kRelations;
      return sum;
    });
    verdicts.push_back(
        {{"claim", "heads share the work"},
         {"d_model", arm.d_model},
         {"measure", "fall of a relation without the head that serves it, less that of the others, 4 heads"},
         {"value", interval_json(shared)},
         {"outcome", interval_of(shared).mean >= 0.1 ? "holds" : "refuted"}});
  }

  Json arm_json(const Arm& arm) const {
    Json json = {
        {"layers", arm.layers}, {"d_model", arm.d_model}, {"parameters", result(arm, plan_.heads[0], 0).parameters}};
    for (const int heads : plan_.heads) {
      Json one = {{"heads", heads}, {"d_k", arm.d_model / heads}, {"rate", chosen_rate(plan_, arm, heads, results_)}};
      for (const double rate : plan_.rates) {
        one["held_out_of_rates"].push_back(
            {{"rate", rate}, {"accuracy", results_.at(rate_setting(plan_, arm, heads, rate).name()).held_out()}});
      }
      one["accuracy"] = interval_json(over_seeds([&](int s) { return result(arm, heads, s).accuracy(); }));
      for (std::size_t r = 0; r < kRelations; ++r) {
        one["relations"][relation_name(r)] =
            interval_json(over_seeds([&](int s) { return result(arm, heads, s).test[r].accuracy(); }));
      }
      one["over_one_head"] = interval_json(over_seeds(
          [&](int s) { return result(arm, heads, s).accuracy() - result(arm, plan_.heads[0], s).accuracy(); }));
      const auto& first = result(arm, heads, 0).curve;
      for (std::size_t i = 0; i < first.size(); ++i) {
        Json point = interval_json(over_seeds([&](int s) {
          const Result& of = result(arm, heads, s);
          return mean_accuracy(of.curve[i].held_out, of.setting.relations);
        }));
        point["step"] = first[i].step;
        one["curve"].push_back(point);
      }
      json["heads"].push_back(one);
    }
    return json;
  }

  Json control_json() const {
    Json json = Json::array();
    std::vector<int> counts = plan_.counts;
    counts.push_back(kRelations);
    for (const int count : counts) {
      Json row = {{"relations", count}};
      for (const int heads : plan_.heads) {
        Json one = interval_json(over_seeds([&](int s) { return control(count, heads, s).accuracy(); }));
        one["heads"] = heads;
        row["accuracy"].push_back(one);
      }
      json.push_back(row);
    }
    return json;
  }

  Json heads_json(const Arm& arm, int heads) const {
    Json json = {{"layers", arm.layers}, {"d_model", arm.d_model}, {"heads", heads}};
    const auto serving_heads = over_seeds([&](int s) {
      std::vector<std::size_t> found;
      for (std::size_t r = 0; r < kRelations; ++r) found.push_back(serving(result(arm, heads, s), r));
      std::sort(found.begin(), found.end());
      return static_cast<double>(std::unique(found.begin(), found.end()) - found.begin());
    });
    json["heads_that_serve"] = interval_json(serving_heads);
    for (std::size_t r = 0; r < kRelations; ++r) {
      const auto reading = [&](int s) -> const HeadReading& {
        const Result& of = result(arm, heads, s);
        return of.heads[serving(of, r)].readings[r];
      };
      json["served"][relation_name(r)] = {
          {"fall", interval_json(over_seeds([&](int s) {
             const Result& of = result(arm, heads, s);
             return fall(of, serving(of, r), r);
           }))},
          {"fall_less_others",
           interval_json(over_seeds([&](int s) { return share_of_work(result(arm, heads, s), r); }))},
          {"largest_weight_on_partner", interval_json(over_seeds([&](int s) { return reading(s).argmax.accuracy(); }))},
          {"mean_weight_on_partner", interval_json(over_seeds([&](int s) {
             return reading(s).mass / static_cast<double>(reading(s).argmax.pairs);
           }))}};
    }
    const Result& first = result(arm, heads, 0);
    for (std::size_t h = 0; h < first.heads.size(); ++h) {
      Json head = {
          {"head", base::format("{}.{}", h / static_cast<std::size_t>(heads), h % static_cast<std::size_t>(heads))}};
      for (std::size_t r = 0; r < kRelations; ++r) {
        const HeadReading& reading = first.heads[h].readings[r];
        head["relations"][relation_name(r)] = {
            {"fall", fall(first, h, r)},
            {"serves", serving(first, r) == h},
            {"largest_weight_on_partner", reading.argmax.accuracy()},
            {"mean_weight_on_partner", reading.mass / static_cast<double>(reading.argmax.pairs)}};
      }
      json["of_seed_0"].push_back(head);
    }
    return json;
  }

  Json times_json(const std::vector<StepTime>& times) const {
    Json json = Json::array();
    double single = 0;
    for (const StepTime& time : times) {
      if (time.heads == plan_.heads[0]) single = time.seconds;
      json.push_back({{"layers", time.arm.layers},
                      {"d_model", time.arm.d_model},
                      {"heads", time.heads},
                      {"seconds_a_step", time.seconds},
                      {"over_one_head", time.seconds / single},
                      {"flop_a_step", time.flop}});
    }
    return json;
  }

  const Plan& plan_;
  const Results& results_;
};

}  // namespace

Json report_json(const Plan& plan, const Results& results, const std::vector<StepTime>& times) {
  return Report(plan, results).write(times);
}

}  // namespace manyheads::study
