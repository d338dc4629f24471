#include "scan.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>
#include <manyheads/cpu.hpp>
#include <manyheads/error.hpp>
#include <manyheads/version.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "arguments.hpp"
#include "base/file.hpp"
#include "base/format.hpp"
#include "base/parallel.hpp"
#include "lens/scan.hpp"
#include "lens/scan_file.hpp"
#include "lens/windows.hpp"
#include "model/text_model.hpp"
#include "scan_texts.hpp"
#include "text.hpp"

namespace manyheads::cli {
namespace {

// Texts are read and tokenized so many bytes, then run so many tokens at a time.
constexpr std::size_t kReadBytes = std::size_t{1} << 18;
constexpr std::size_t kReadParts = 1024;
constexpr std::size_t kBatchTokens = 2048;

// Shows how far a scan is on a terminal's standard error, and nothing in a pipe.
class ScanProgress {
 public:
  explicit ScanProgress(std::int64_t bytes) : bytes_(bytes) {}
  ~ScanProgress() { clear(); }
  void clear() {
    if (shown_) std::fputs("\r\x1b[K", stderr);
    shown_ = false;
  }
  // From here on time counts: what an earlier run did is no work of this one.
  void begin(std::int64_t tokens, std::int64_t bytes) {
    first_tokens_ = tokens;
    first_bytes_ = bytes;
    started_ = Clock::now();
  }
  void show(std::int64_t passages, std::int64_t tokens, std::int64_t bytes) {
    if (!terminal_errors()) return;
    const double seconds = elapsed();
    std::string line = base::format("\r\x1b[K{} passages, {} tokens, {:.0f} tokens/s", passages, tokens,
                                    static_cast<double>(tokens - first_tokens_) / std::max(seconds, 1e-3));
    if (bytes_ > 0 && bytes > first_bytes_) {
      const auto done = static_cast<double>(bytes - first_bytes_), left = static_cast<double>(bytes_ - bytes);
      line += base::format(", {:.0f} %, {:.0f} s left",
                           100 * static_cast<double>(bytes) / static_cast<double>(bytes_), seconds * left / done);
    }
    std::fputs(line.c_str(), stderr);
    shown_ = true;
  }
  double elapsed() const { return std::chrono::duration<double>(Clock::now() - started_).count(); }

 private:
  using Clock = std::chrono::steady_clock;
  std::int64_t bytes_;  // of all texts; 0: not known
  std::int64_t first_tokens_ = 0, first_bytes_ = 0;
  Clock::time_point started_ = Clock::now();
  bool shown_ = false;
};

class Scanner {
 public:
  explicit Scanner(const ScanRequest& request)
      : request_(request),
        model_(request.model),
        texts_(request.texts, request.json_lines, model_.parts().configured.tokenizer.breaks()),
        scan_(model_.encoder().config(), request.seed),
        progress_(all_bytes()) {}

  void run() {
    settings_ = settings();
    done_.texts_hash = texts_.hash();
    const StopOnSignals signals;
    resume();
    progress_.begin(scan_.tokens(), texts_.bytes_read());
    while (!StopOnSignals::stopped() && read()) {
      while (ready_tokens_ >= kBatchTokens && !StopOnSignals::stopped()) run_batch();
    }
    while (!ready_.empty() && !StopOnSignals::stopped()) run_batch();
    progress_.clear();
    if (StopOnSignals::stopped()) stop();
    if (scan_.passages() == 0) {
      throw Error(ErrorCode::kInvalidArgument, "there is no text in " + texts_of_request());
    }
    save();
  }

 private:
  // A window that waits for its run.
  struct Ready {
    lens::BatchText text;
    lens::ScanPassage passage;
    std::size_t part = 0;       // of the texts
    std::int64_t windows = 0;   // of the part, with this one
    std::uint64_t texts_hash = 0;  // of what was read up to the part's line
  };

  std::int64_t all_bytes() const {
    std::int64_t bytes = 0;
    for (const ScanTexts::Source& source : texts_.sources()) {
      if (source.bytes == 0) return 0;
      bytes += source.bytes;
    }
    return bytes;
  }

  std::string texts_of_request() const {
    std::string names;
    for (const ScanTexts::Source& source : texts_.sources()) {
      names += (names.empty() ? "" : ", ") + (source.name == "-" ? "standard input" : base::path_in_quotes(source.name));
    }
    return names;
  }

  std::map<std::string, std::string> settings() const {
    std::string files, scores;
    for (const ScanTexts::Source& source : texts_.sources()) {
      files += (source.json_lines ? "jsonl " : "text ") + source.name + "\n";
    }
    for (const lens::ScoreRule& rule : lens::score_rules()) scores += std::string(rule.name) + " ";
    return {{"program", version()},           {"instruction set", active_isa()},
            {"--bits", request_.common.bits}, {"model", model_hash(request_.model)},
            {"list of texts", files},         {"list of scores", scores},
            {"--seed", std::to_string(request_.seed)}};
  }

  // Goes on from what a stopped run left.
  void resume() {
    const std::filesystem::path path = part_path(request_.out);
    std::optional<ScanPart> part = load_part(path, settings_);
    if (!part) return;
    const auto other = [&] {
      throw Error(ErrorCode::kInvalidArgument, base::path_in_quotes(path) +
                                                   " belongs to a scan of other texts; remove it to begin anew");
    };
    scan_.restore(part->state);
    ScanTexts::Part text;
    while (texts_.parts() < static_cast<std::size_t>(part->parts)) {
      if (!texts_.next(&text, StopOnSignals::stopped)) {
        if (StopOnSignals::stopped()) StopOnSignals::die();
        other();
      }
    }
    if (texts_.hash() != part->texts_hash) other();
    done_ = *part;
    done_.state.clear();
    if (part->parts > 0) tokenize({text}, {texts_.hash()}, texts_.parts(), part->windows);
    resumed_at_ = scan_.passages();
    if (terminal_errors()) std::fprintf(stderr, "goes on behind %lld passages\n", static_cast<long long>(resumed_at_));
  }

  // Reads some texts and tokenizes them. False at the end.
  bool read() {
    std::vector<ScanTexts::Part> parts;
    std::vector<std::uint64_t> hashes;
    const std::size_t first = texts_.parts() + 1;
    std::size_t bytes = 0;
    ScanTexts::Part part;
    while (bytes < kReadBytes && parts.size() < kReadParts && texts_.next(&part, StopOnSignals::stopped)) {
      bytes += part.text.size();
      hashes.push_back(texts_.hash());
      parts.push_back(std::move(part));
    }
    if (parts.empty()) return false;
    tokenize(parts, hashes, first, 0);
    return true;
  }

  // Cuts texts into windows; of the first, leaves out `skip`.
  void tokenize(const std::vector<ScanTexts::Part>& parts, const std::vector<std::uint64_t>& hashes, std::size_t first,
                std::int64_t skip) {
    std::vector<std::vector<lens::Window>> windows(parts.size());
    std::vector<std::exception_ptr> problems(parts.size());
    const auto count = static_cast<std::int64_t>(parts.size());
    const auto most = static_cast<std::size_t>(model_.encoder().config().max_position_embeddings);
    base::parallel_for(count, base::worker_count(count, threads()), nullptr, [&](std::int64_t i, int) {
      const auto p = static_cast<std::size_t>(i);
      try {
        const model::Encoding encoding = model_.parts().configured.tokenizer.encode(parts[p].text);
        model::check_ids(parts[p].subject, encoding.ids, encoding.type_ids, model_);
        windows[p] = lens::windows_of(encoding, most);
      } catch (...) {
        problems[p] = std::current_exception();
      }
    });
    // The first of several bad lines is named, whichever thread was faster.
    for (const std::exception_ptr& problem : problems) {
      if (problem) std::rethrow_exception(problem);
    }
    for (std::size_t p = 0; p < parts.size(); ++p) {
      for (std::size_t w = p == 0 ? static_cast<std::size_t>(skip) : 0; w < windows[p].size(); ++w) {
        lens::Window& window = windows[p][w];
        Ready ready;
        ready.part = first + p;
        ready.windows = static_cast<std::int64_t>(w) + 1;
        ready.texts_hash = hashes[p];
        ready.passage = parts[p].passage;
        ready.passage.end = ready.passage.begin + window.bytes[1];
        ready.passage.begin += window.bytes[0];
        ready.text.encoding = std::move(window.encoding);
        ready.text.trace.text = parts[p].text.substr(static_cast<std::size_t>(window.bytes[0]),
                                                     static_cast<std::size_t>(window.bytes[1] - window.bytes[0]));
        if (parts_name(ready.passage.file) == "-") ready.passage.text = ready.text.trace.text;
        ready_tokens_ += ready.text.encoding.size();
        ready_.push_back(std::move(ready));
      }
    }
  }

  const std::string& parts_name(std::int64_t file) const {
    return texts_.sources()[static_cast<std::size_t>(file)].name;
  }

  void run_batch() {
    std::vector<lens::BatchText> texts;
    std::vector<lens::ScanPassage> passages;
    std::size_t tokens = 0, taken = 0;
    for (; taken < ready_.size(); ++taken) {
      const std::size_t more = ready_[taken].text.encoding.size();
      if (taken > 0 && tokens + more > kBatchTokens) break;
      tokens += more;
      texts.push_back(std::move(ready_[taken].text));
      passages.push_back(std::move(ready_[taken].passage));
    }
    lens::run_batch(model_.encoder(), texts, {threads(), request_.common.bits});
    scan_.add(texts, passages, threads());
    const Ready& last = ready_[taken - 1];
    done_.texts_hash = last.texts_hash;
    done_.parts = static_cast<std::int64_t>(last.part);
    done_.windows = last.windows;
    ready_.erase(ready_.begin(), ready_.begin() + static_cast<std::ptrdiff_t>(taken));
    ready_tokens_ -= tokens;
    progress_.show(scan_.passages(), scan_.tokens(), texts_.bytes_read());
  }

  // Writes what a later run goes on from, and ends as the signal asked.
  [[noreturn]] void stop() {
    if (scan_.passages() == 0) StopOnSignals::die();
    const std::filesystem::path path = part_path(request_.out);
    done_.settings = settings_;
    done_.state = scan_.state();
    save_part(path, done_);
    complain("scan", base::format("stopped behind {} passages; the same command goes on from {}", scan_.passages(),
                                  path.string()));
    StopOnSignals::die();
  }

  void save() {
    const model::EncoderConfig& config = model_.encoder().config();
    lens::ScanFile file;
    file.model = model_name(request_.model);
    file.bits = request_.common.bits.empty() ? active_bits() : request_.common.bits;
    file.causal = config.causal;
    file.max_tokens = config.max_position_embeddings;
    file.passages = scan_.passages();
    file.tokens = scan_.tokens();
    file.seed = request_.seed;
    for (const ScanTexts::Source& source : texts_.sources()) file.files.push_back({source.name, source.json_lines});
    for (const lens::ScoreRule& rule : lens::score_rules()) {
      file.scores.push_back({rule.name, rule.formula, rule.source});
    }
    file.tensors = scan_.finish();
    for (const char* name : {"asking_tokens", "asked_tokens"}) {
      const Tensor& ids = file.tensors.at(name);
      for (std::int64_t i = 0; i < ids.elements(); ++i) {
        const std::int64_t id = ids.as<std::int64_t>()[i];
        if (id < 0 || file.tokens_by_id.count(id) != 0) continue;
        const auto token = model_.parts().configured.tokenizer.token(id);
        file.tokens_by_id[id] = token ? token->text : "";
      }
    }
    lens::save_scan(request_.out, file);
    std::error_code gone;
    std::filesystem::remove(part_path(request_.out), gone);
    if (request_.common.json) {
      print_json({{"out", request_.out},
                  {"model", file.model},
                  {"passages", file.passages},
                  {"tokens", file.tokens},
                  {"resumed_at", resumed_at_},
                  {"seconds", progress_.elapsed()}});
    } else {
      print(base::format("Wrote {}: {} passages, {} tokens, {} heads, {} scores\n", base::escaped(request_.out),
                         file.passages, file.tokens, config.num_layers * config.num_heads, file.scores.size()));
    }
  }

  Threads threads() const { return {.num_threads = request_.common.threads}; }

  const ScanRequest& request_;
  model::TextModel model_;
  ScanTexts texts_;
  lens::Scan scan_;
  ScanProgress progress_;
  std::map<std::string, std::string> settings_;
  std::vector<Ready> ready_;
  std::size_t ready_tokens_ = 0;
  ScanPart done_;  // without settings and state
  std::int64_t resumed_at_ = 0;
};

}  // namespace

void scan_texts(const ScanRequest& request) {
  check_model(request.model);
  check_output(request.out);
  Scanner(request).run();
}

void add_scan(CLI::App& app) {
  auto request = std::make_shared<ScanRequest>();
  CLI::App* verb = app.add_subcommand("scan", "What each head does over a corpus");
  verb->add_option("TEXTS", request->texts,
                   "Files with one passage a line, or JSON lines (*.jsonl, *.ndjson: the field \"text\"); - is standard "
                   "input")
      ->type_name("");
  verb->add_option("--model", request->model, "Folder with config.json, model.safetensors and tokenizer.json")
      ->type_name("DIR");
  verb->add_option("-o,--out", request->out,
                   "The file to write (docs/scan.md). Ctrl-C leaves OUT.part, from which the same command goes on")
      ->type_name("SCAN");
  verb->add_flag("--jsonl", request->json_lines, "All TEXTS are JSON lines");
  verb->add_option("--seed", request->seed, "Chooses the examples from each decile")
      ->transform(whole_number(0))
      ->capture_default_str()
      ->type_name("N");
  verb->add_option("--show", request->show, "Read a scan instead")->type_name("SCAN");
  verb->add_option("--head", request->head, "With --show: this head alone, such as 2.7")->type_name("L.H");
  verb->add_option("--sort", request->sort, "With --show: the heads by this score; with --head its examples")
      ->type_name("SCORE");
  add_bits(*verb, request->common);
  add_common(*verb, request->common);
  verb->footer(
      "Examples:\n  manyheads scan book.txt --model models/all-MiniLM-L6-v2 -o book.scan\n"
      "  manyheads scan --show book.scan --head 2.8 --sort previous");
  verb->callback([request] {
    if (request->show.empty()) {
      if (!request->head.empty() || !request->sort.empty()) throw UsageError("--head and --sort need --show SCAN");
      if (request->texts.empty()) throw UsageError("TEXTS is missing: files with one passage a line, or -");
      if (request->model.empty()) throw UsageError("--model is required");
      if (request->out.empty()) throw UsageError("--out is required");
      scan_texts(*request);
      return;
    }
    if (!request->texts.empty() || !request->model.empty() || !request->out.empty()) {
      throw UsageError("--show SCAN takes no TEXTS, --model or --out");
    }
    show_scan(*request);
  });
}

}  // namespace manyheads::cli
