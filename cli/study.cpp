#include "study/study.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <manyheads/error.hpp>
#include <manyheads/safetensors.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "arguments.hpp"
#include "base/file.hpp"
#include "base/format.hpp"
#include "cli.hpp"
#include "scan.hpp"
#include "text.hpp"

namespace manyheads::cli {
namespace {

struct StudyRequest {
  Common common;
  std::string out = "study", data;
  std::int64_t seed = 1;
  bool quick = false;
};

// A line on a terminal's standard error that is written over, nothing in a pipe.
class StudyProgress {
 public:
  ~StudyProgress() { clear(); }
  void clear() {
    if (shown_) std::fputs("\r\x1b[K", stderr);
    shown_ = false;
  }
  void show(const study::Progress& progress) {
    if (!terminal_errors()) return;
    std::string line = base::format("\r\x1b[K{} of {} trainings", progress.done, progress.all);
    if (progress.resumed > 0) line += base::format(", {} of them done before", progress.resumed);
    const int here = progress.done - progress.resumed;
    if (here > 0) {
      const std::chrono::duration<double, std::ratio<60>> minutes = Clock::now() - started_;
      line += base::format(", about {:.0f} min left", minutes.count() / here * (progress.all - progress.done));
    }
    std::fputs(line.c_str(), stderr);
    shown_ = true;
  }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point started_ = Clock::now();
  bool shown_ = false;
};

void write_file(const std::filesystem::path& path, const std::string& text) {
  base::FileWriter file(path);
  file.write(text);
  file.commit();
}

// The sentences that seed 0 of the study learns from, for others to learn from.
void write_data(const StudyRequest& request) {
  check_output(request.data);
  const auto seed = static_cast<std::uint64_t>(request.seed);
  const study::Plan plan = request.quick ? study::quick_plan(seed) : study::full_plan(seed);
  const study::Setting setting = study::setting_of(plan, plan.arms[0], 1, 0, 0);
  const std::vector<study::Sentence> sentences = study::training_sentences(setting);
  const auto count = static_cast<std::int64_t>(sentences.size());
  StateDict tensors;
  const auto put = [&](const std::string& name, std::int32_t behind, const auto& row_of) {
    Tensor tensor(DType::kI32, {count, study::kMaxWords});
    std::int32_t* to = tensor.as<std::int32_t>();
    std::fill_n(to, tensor.elements(), behind);
    for (const study::Sentence& sentence : sentences) {
      const std::vector<int>& row = row_of(sentence);
      std::copy(row.begin(), row.end(), to);
      to += study::kMaxWords;
    }
    tensors[name] = std::move(tensor);
  };
  put("words", -1, [](const study::Sentence& sentence) -> const std::vector<int>& { return sentence.words; });
  for (std::size_t r = 0; r < study::kRelations; ++r) {
    put(study::name_of(static_cast<study::Relation>(r)), -1,
        [&](const study::Sentence& sentence) -> const std::vector<int>& { return sentence.partner[r]; });
  }
  save_safetensors(
      request.data, tensors,
      {{"vocabulary", nlohmann::json(study::vocabulary()).dump()}, {"batch", std::to_string(setting.batch)}});
  print(base::format("wrote {}: {} sentences, {} to a step\n", base::escaped(request.data), count, setting.batch));
}

void run(const StudyRequest& request) {
  if (!request.data.empty()) {
    write_data(request);
    return;
  }
  const auto seed = static_cast<std::uint64_t>(request.seed);
  const study::Plan plan = request.quick ? study::quick_plan(seed) : study::full_plan(seed);
  const std::filesystem::path folder = request.out;
  std::error_code problem;
  std::filesystem::create_directories(folder / "trainings", problem);
  if (problem) {
    throw Error(ErrorCode::kIo, base::format("cannot make the folder {}: {}",
                                             base::path_in_quotes(folder / "trainings"), problem.message()));
  }
  study::Results results;
  {
    const StopOnSignals signals;
    StudyProgress progress;
    const bool whole = study::run_plan(
        plan, folder, request.common.threads, StopOnSignals::stopped,
        [&](const study::Progress& now) { progress.show(now); }, &results);
    progress.clear();
    if (!whole) {
      complain("study", base::format("stopped behind {} trainings; the same command goes on from {}", results.size(),
                                     (folder / "trainings").string()));
      StopOnSignals::die();
    }
  }
  const nlohmann::ordered_json report = study::report_json(plan, results, study::time_steps(plan));
  write_file(folder / "study.json", report.dump(1) + "\n");
  write_file(folder / "study.html", study::report_html(report));
  if (request.common.json) {
    print_json(report);
  } else {
    print(study::report_text(report) + base::format("\nThe report: {}, its numbers: {}\n",
                                                    (folder / "study.html").string(),
                                                    (folder / "study.json").string()));
  }
}

}  // namespace

void add_study(CLI::App& app) {
  auto request = std::make_shared<StudyRequest>();
  CLI::App* verb = app.add_subcommand("study", "Why several heads: trains models that differ in their heads alone");
  verb->add_flag("--quick", request->quick, "Some trainings alone, under a minute");
  verb->add_option("-o,--out", request->out,
                   "Folder for the report study.html, study.json and the trainings (docs/study.md); default study. "
                   "Ctrl-C leaves those that are done, from which the same command goes on")
      ->type_name("DIR");
  verb->add_option("--seed", request->seed, "Draws weights and sentences")
      ->transform(whole_number(0))
      ->capture_default_str()
      ->type_name("N");
  verb->add_option("--data", request->data,
                   "Write the sentences of the study and train nothing: words and the partners' places, -1: none, each "
                   "[sentences,20] I32")
      ->type_name("FILE");
  add_common(*verb, request->common);
  verb->footer("Example: manyheads study --quick -o study");
  verb->callback([request, verb] {
    if (!request->data.empty() && (verb->count("--out") > 0 || request->common.json)) {
      throw UsageError("--data FILE trains nothing: it takes no --out and no --json");
    }
    run(*request);
  });
}

}  // namespace manyheads::cli
