#include <algorithm>
#include <manyheads/error.hpp>
#include <numeric>
#include <optional>
#include <utility>

#include "base/file.hpp"
#include "base/format.hpp"
#include "base/index.hpp"
#include "findings.hpp"
#include "lens/scan.hpp"
#include "lens/scan_file.hpp"
#include "lens/scan_json.hpp"
#include "lens/unicode.hpp"
#include "scan.hpp"
#include "scan_texts.hpp"

namespace manyheads::cli {
namespace {

constexpr std::size_t kBestShown = 3;  // heads of a score in the overview
constexpr std::int64_t kShownTokens = 12;
constexpr std::size_t kLongestExample = 100;

using base::at;

// A scan and where its numbers lie.
class ShownScan {
 public:
  explicit ShownScan(const ScanRequest& request) : scan(lens::load_scan(request.show)) {
    if (!request.head.empty()) {
      const HeadName name = parse_head(request.head);
      if (name.layer >= at(scan.layers()) || name.head >= scan.heads()) {
        throw UsageError(base::format("--head {}: there are {} layers of {} heads, both counted from 0", request.head,
                                      scan.layers(), scan.heads()));
      }
      head = static_cast<std::int64_t>(name.layer) * scan.heads() + name.head;
    }
    if (!request.sort.empty()) {
      std::string names;
      for (std::size_t s = 0; s < scan.scores.size(); ++s) {
        names += (names.empty() ? "" : ", ") + scan.scores[s].name;
        if (scan.scores[s].name == request.sort) sort = static_cast<std::int64_t>(s);
      }
      if (!sort) throw UsageError("--sort " + base::in_quotes(request.sort) + ": the scores are " + names);
    }
  }

  std::int64_t heads() const { return scan.layers() * scan.heads(); }
  std::int64_t scores() const { return static_cast<std::int64_t>(scan.scores.size()); }
  double number(const char* tensor, std::int64_t i) const { return scan.tensors.at(tensor).as<double>()[i]; }
  std::int64_t whole(const char* tensor, std::int64_t i) const { return scan.tensors.at(tensor).as<std::int64_t>()[i]; }
  std::string name_of(std::int64_t h) const { return base::format("{}.{}", h / scan.heads(), h % scan.heads()); }
  double decile(std::int64_t i, std::int64_t d) const {
    return number("score_deciles", i * (lens::kScanDeciles - 1) + d - 1);
  }
  lens::ScanFile scan;
  std::optional<std::int64_t> head, sort;
};

std::string heading(const ShownScan& shown) {
  std::string files;
  for (const lens::ScanFile::File& file : shown.scan.files) {
    files += (files.empty() ? "" : ", ") + (file.name == "-" ? "standard input" : lens::printable(file.name));
  }
  return base::format("{} over {}: {} passages, {} tokens, {} layers of {} heads\n", lens::printable(shown.scan.model),
                      files, shown.scan.passages, shown.scan.tokens, shown.scan.layers(), shown.scan.heads());
}

std::string overview(const ShownScan& shown) {
  std::string out = heading(shown) + "Mean over the passages, the three largest of all heads:\n";
  for (std::int64_t s = 0; s < shown.scores(); ++s) {
    out += base::format("  {:<20}", lens::printable(shown.scan.scores[at(s)].name));
    const std::vector<std::int64_t> order = lens::heads_by_mean(shown.scan, s);
    for (std::size_t i = 0; i < std::min(kBestShown, order.size()); ++i) {
      out += base::format("  {:>6} {:>7.3f}", shown.name_of(order[i]),
                          shown.number("score_mean", order[i] * shown.scores() + s));
    }
    out += "\n";
  }
  return out + "--sort SCORE tells of all heads, --head L.H of one.\n";
}

std::string score_line(const ShownScan& shown, std::int64_t i) {
  if (shown.whole("score_count", i) == 0) return "  in no passage\n";
  std::string out = base::format("{:>8.3f} {:>8.3f}", shown.number("score_mean", i), shown.number("score_min", i));
  for (const std::int64_t d : {1, 5, 9}) out += base::format(" {:>8.3f}", shown.decile(i, d));
  return out + base::format(" {:>8.3f}\n", shown.number("score_max", i));
}

constexpr const char* kSpread = "    mean    least   10 %     50 %     90 %     most\n";

std::string sorted_heads(const ShownScan& shown) {
  const lens::ScanFile::ScoreName& score = shown.scan.scores[at(*shown.sort)];
  std::string out = heading(shown) + base::format("{}: {}\n  head  {}", lens::printable(score.name),
                                                  lens::printable(score.formula), kSpread);
  for (const std::int64_t h : lens::heads_by_mean(shown.scan, *shown.sort)) {
    out += base::format("  {:<6}{}", shown.name_of(h), score_line(shown, h * shown.scores() + *shown.sort));
  }
  return out;
}

std::string tokens_line(const ShownScan& shown, const std::string& which) {
  std::string out;
  for (std::int64_t i = 0; i < kShownTokens; ++i) {
    const std::int64_t place = *shown.head * lens::kScanTokens + i;
    const std::int64_t id = shown.whole((which + "_tokens").c_str(), place);
    if (id < 0) break;
    out += base::format("  {} {:.2f}", lens::printable(shown.scan.tokens_by_id.at(id)),
                        shown.number((which + "_mass").c_str(), place));
  }
  return out.empty() ? "  none stands often enough" : out;
}

std::string distances(const ShownScan& shown) {
  const auto& edges = lens::distance_edges();
  const auto bins = static_cast<std::int64_t>(edges.size()) - 1;
  double all = 0;
  std::vector<std::int64_t> order(at(bins));
  std::iota(order.begin(), order.end(), std::int64_t{0});
  const auto mass = [&](std::int64_t bin) { return shown.number("distance_mass", *shown.head * bins + bin); };
  for (const std::int64_t bin : order) all += mass(bin);
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) { return mass(a) > mass(b); });
  std::string out;
  for (std::size_t i = 0; i < 6 && all > 0 && mass(order[i]) > 0; ++i) {
    const std::int64_t first = edges[at(order[i])], last = edges[at(order[i] + 1)] - 1;
    // A key behind the query stands at a positive offset.
    out += first == last ? base::format("  {:+d}: {:.2f}", -first, mass(order[i]) / all)
                         : base::format("  {:+d} to {:+d}: {:.2f}", -last, -first, mass(order[i]) / all);
  }
  return out;
}

std::string components_line(const ShownScan& shown, const std::string& of) {
  std::string out;
  for (const double share : lens::component_shares(shown.scan, of, *shown.head))
    out += base::format(" {:.0f} %", 100 * share);
  return out;
}

std::string example_line(const ShownScan& shown, std::int64_t row, double value) {
  const std::optional<std::string> text = text_of(shown.scan, row);
  std::string quoted = text ? base::in_quotes(*text, kLongestExample) : "(its file cannot be read, or has changed)";
  const std::int64_t* const place = shown.scan.tensors.at("passages").as<std::int64_t>() + 6 * row;
  const std::string& file = shown.scan.files[at(place[1])].name;
  return base::format("  {:>8.3f}  {}:{}  {}\n", value, lens::printable(file), place[2] + place[4], quoted);
}

std::string examples(const ShownScan& shown) {
  const std::int64_t i = *shown.head * shown.scores() + *shown.sort;
  std::string out =
      base::format("\n{}, the largest (file:byte):\n", lens::printable(shown.scan.scores[at(*shown.sort)].name));
  for (std::int64_t e = i * lens::kScanTop; e < (i + 1) * lens::kScanTop; ++e) {
    const std::int64_t row = shown.whole("top_passages", e);
    if (row >= 0) out += example_line(shown, row, shown.number("top_values", e));
  }
  for (std::int64_t d = lens::kScanDeciles - 1; d >= 0; --d) {
    out += base::format("from {} to {} %:\n", d * 100 / lens::kScanDeciles, (d + 1) * 100 / lens::kScanDeciles);
    for (std::int64_t e = 0; e < lens::kScanSamples; ++e) {
      const std::int64_t place = (i * lens::kScanDeciles + d) * lens::kScanSamples + e;
      const std::int64_t row = shown.whole("sample_passages", place);
      if (row >= 0) out += example_line(shown, row, shown.number("sample_values", place));
    }
  }
  return out;
}

std::string one_head(const ShownScan& shown) {
  std::string out = heading(shown) + base::format("Head {}\n  {:<20}{}", shown.name_of(*shown.head), "", kSpread);
  for (std::int64_t s = 0; s < shown.scores(); ++s) {
    out += base::format("  {:<20}{}", lens::printable(shown.scan.scores[at(s)].name),
                        score_line(shown, *shown.head * shown.scores() + s));
  }
  out += "Keys at the offset, share of all weights:" + distances(shown) + "\n";
  out += "Ask most, what an occurrence gives to other text tokens:" + tokens_line(shown, "asking") + "\n";
  out += "Are asked most, what an occurrence receives from them:" + tokens_line(shown, "asked") + "\n";
  out += "Variance along the first components: queries" + components_line(shown, "query") + "; keys" +
         components_line(shown, "key") + "\n";
  return out + (shown.sort ? examples(shown) : "--sort SCORE adds the examples of a score.\n");
}

}  // namespace

void show_scan(const ScanRequest& request) {
  const ShownScan shown(request);
  if (request.common.json) {
    return print_json(lens::scan_json(shown.scan, {.head = shown.head, .score = shown.sort},
                                      [&](std::int64_t row) { return text_of(shown.scan, row); }));
  }
  print(shown.head ? one_head(shown) : shown.sort ? sorted_heads(shown) : overview(shown));
}

}  // namespace manyheads::cli
