#include <algorithm>
#include <cmath>
#include <manyheads/error.hpp>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <utility>

#include "base/file.hpp"
#include "base/format.hpp"
#include "findings.hpp"
#include "lens/scan.hpp"
#include "lens/scan_file.hpp"
#include "lens/unicode.hpp"
#include "scan.hpp"
#include "scan_texts.hpp"

namespace manyheads::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kBest = 3;         // heads of a score in the overview
constexpr std::int64_t kShownTokens = 12;
constexpr std::size_t kLongestExample = 100;

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

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
  // Heads that have the score, the largest mean first.
  std::vector<std::int64_t> by_mean(std::int64_t score) const {
    std::vector<std::int64_t> order;
    for (std::int64_t h = 0; h < heads(); ++h) {
      if (whole("score_count", h * scores() + score) > 0) order.push_back(h);
    }
    std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
      return number("score_mean", a * scores() + score) > number("score_mean", b * scores() + score);
    });
    return order;
  }

  lens::ScanFile scan;
  std::optional<std::int64_t> head, sort;
};

// An example's text, or none where it cannot be opened.
std::optional<std::string> text_of(const ShownScan& shown, std::int64_t row) {
  const std::int64_t* const place = shown.scan.tensors.at("passages").as<std::int64_t>() + 6 * row;
  const lens::ScanFile::File& file = shown.scan.files[at(place[1])];
  if (std::string kept = shown.scan.kept_text(row); !kept.empty()) return kept;
  try {
    return open_passage(file.name, file.json_lines, place[2], place[3], place[4], place[5]);
  } catch (const Error&) {
    return std::nullopt;
  }
}

std::string heading(const ShownScan& shown) {
  std::string files;
  for (const lens::ScanFile::File& file : shown.scan.files) {
    files += (files.empty() ? "" : ", ") + (file.name == "-" ? "standard input" : lens::printable(file.name));
  }
  return base::format("{} over {}: {} passages, {} tokens, {} layers of {} heads\n",
                      lens::printable(shown.scan.model), files, shown.scan.passages, shown.scan.tokens,
                      shown.scan.layers(), shown.scan.heads());
}

std::string overview(const ShownScan& shown) {
  std::string out = heading(shown) + "Mean over the passages, the three largest of all heads:\n";
  for (std::int64_t s = 0; s < shown.scores(); ++s) {
    out += base::format("  {:<20}", lens::printable(shown.scan.scores[at(s)].name));
    const std::vector<std::int64_t> order = shown.by_mean(s);
    for (std::size_t i = 0; i < std::min(kBest, order.size()); ++i) {
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

constexpr const char* kColumns = "    mean    least   10 %     50 %     90 %     most\n";

std::string sorted_heads(const ShownScan& shown) {
  const lens::ScanFile::ScoreName& score = shown.scan.scores[at(*shown.sort)];
  std::string out = heading(shown) + base::format("{}: {}\n  head  {}", lens::printable(score.name),
                                                  lens::printable(score.formula), kColumns);
  for (const std::int64_t h : shown.by_mean(*shown.sort)) {
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

std::string components_line(const ShownScan& shown, const std::string& of, std::int64_t index) {
  const Tensor& variance = shown.scan.tensors.at(of + "_variance");
  const std::int64_t count = variance.size(2);
  const double total = shown.number((of + "_total_variance").c_str(), index);
  std::string out;
  for (std::int64_t c = 0; c < count; ++c) {
    out += base::format(" {:.0f} %", total > 0 ? 100 * variance.as<double>()[index * count + c] / total : 0.0);
  }
  return out;
}

std::string example_line(const ShownScan& shown, std::int64_t row, double value) {
  const std::optional<std::string> text = text_of(shown, row);
  std::string quoted = text ? base::in_quotes(*text, kLongestExample) : "(its file cannot be read, or has changed)";
  const std::int64_t* const place = shown.scan.tensors.at("passages").as<std::int64_t>() + 6 * row;
  const std::string& file = shown.scan.files[at(place[1])].name;
  return base::format("  {:>8.3f}  {}:{}  {}\n", value, lens::printable(file), place[2] + place[4], quoted);
}

std::string examples(const ShownScan& shown) {
  const std::int64_t i = *shown.head * shown.scores() + *shown.sort;
  std::string out = base::format("\n{}, the largest (file:byte):\n", lens::printable(shown.scan.scores[at(*shown.sort)].name));
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
  std::string out = heading(shown) + base::format("Head {}\n  {:<20}{}", shown.name_of(*shown.head), "", kColumns);
  for (std::int64_t s = 0; s < shown.scores(); ++s) {
    out += base::format("  {:<20}{}", lens::printable(shown.scan.scores[at(s)].name),
                        score_line(shown, *shown.head * shown.scores() + s));
  }
  const Tensor& keys = shown.scan.tensors.at("key_variance");
  const std::int64_t group = shown.scan.heads() / std::max<std::int64_t>(1, keys.size(1));
  const std::int64_t layer = *shown.head / shown.scan.heads(), number = *shown.head % shown.scan.heads();
  out += "Keys at the offset, share of all weights:" + distances(shown) + "\n";
  out += "Ask most, what an occurrence gives to other text tokens:" + tokens_line(shown, "asking") + "\n";
  out += "Are asked most, what an occurrence receives from them:" + tokens_line(shown, "asked") + "\n";
  out += "Variance along the first components: queries" + components_line(shown, "query", *shown.head) + "; keys" +
         components_line(shown, "key", layer * keys.size(1) + std::min(keys.size(1) - 1, number / std::max<std::int64_t>(1, group))) + "\n";
  return out + (shown.sort ? examples(shown) : "--sort SCORE adds the examples of a score.\n");
}

Json example_json(const ShownScan& shown, std::int64_t row, double value) {
  const std::int64_t* const place = shown.scan.tensors.at("passages").as<std::int64_t>() + 6 * row;
  const std::optional<std::string> text = text_of(shown, row);
  return {{"value", value},
          {"passage", place[0]},
          {"file", shown.scan.files[at(place[1])].name},
          {"offset", place[2]},
          {"length", place[3]},
          {"begin", place[4]},
          {"end", place[5]},
          {"text", text ? Json(*text) : Json(nullptr)}};
}

Json score_json(const ShownScan& shown, std::int64_t h, std::int64_t s) {
  const std::int64_t i = h * shown.scores() + s;
  Json deciles = Json::array(), histogram = Json::array(), top = Json::array(), samples = Json::array();
  for (std::int64_t d = 1; d < lens::kScanDeciles; ++d) deciles.push_back(shown.decile(i, d));
  for (std::int64_t b = 0; b < lens::ScoreSketch::kParts; ++b) {
    histogram.push_back(shown.whole("score_histogram", i * lens::ScoreSketch::kParts + b));
  }
  Json out = {{"name", shown.scan.scores[at(s)].name},
              {"count", shown.whole("score_count", i)},
              {"mean", shown.number("score_mean", i)},
              {"min", shown.number("score_min", i)},
              {"max", shown.number("score_max", i)},
              {"error", shown.number("score_error", i)},
              {"deciles", deciles},
              {"range", {shown.number("score_range", 2 * i), shown.number("score_range", 2 * i + 1)}},
              {"histogram", histogram}};
  if (!shown.head) return out;
  for (std::int64_t e = i * lens::kScanTop; e < (i + 1) * lens::kScanTop; ++e) {
    const std::int64_t row = shown.whole("top_passages", e);
    if (row >= 0) top.push_back(example_json(shown, row, shown.number("top_values", e)));
  }
  for (std::int64_t d = 0; d < lens::kScanDeciles; ++d) {
    Json of_decile = Json::array();
    for (std::int64_t e = 0; e < lens::kScanSamples; ++e) {
      const std::int64_t place = (i * lens::kScanDeciles + d) * lens::kScanSamples + e;
      const std::int64_t row = shown.whole("sample_passages", place);
      if (row >= 0) of_decile.push_back(example_json(shown, row, shown.number("sample_values", place)));
    }
    samples.push_back(of_decile);
  }
  out["top"] = top;
  out["samples"] = samples;
  return out;
}

void print_as_json(const ShownScan& shown) {
  Json heads = Json::array();
  std::vector<std::int64_t> order;
  if (shown.head) {
    order = {*shown.head};
  } else if (shown.sort) {
    order = shown.by_mean(*shown.sort);
  } else {
    for (std::int64_t h = 0; h < shown.heads(); ++h) order.push_back(h);
  }
  for (const std::int64_t h : order) {
    Json scores = Json::array();
    for (std::int64_t s = 0; s < shown.scores(); ++s) {
      if (!shown.sort || *shown.sort == s) scores.push_back(score_json(shown, h, s));
    }
    Json head = {{"layer", h / shown.scan.heads()}, {"head", h % shown.scan.heads()}, {"scores", scores}};
    for (const std::string which : {"asking", "asked"}) {
      Json tokens = Json::array();
      for (std::int64_t i = h * lens::kScanTokens; i < (h + 1) * lens::kScanTokens && shown.head; ++i) {
        const std::int64_t id = shown.whole((which + "_tokens").c_str(), i);
        if (id < 0) break;
        tokens.push_back({{"token", shown.scan.tokens_by_id.at(id)},
                          {"id", id},
                          {"mass", shown.number((which + "_mass").c_str(), i)},
                          {"count", shown.whole((which + "_count").c_str(), i)}});
      }
      if (shown.head) head[which] = tokens;
    }
    heads.push_back(head);
  }
  Json files = Json::array();
  for (const lens::ScanFile::File& file : shown.scan.files) files.push_back(file.name);
  print_json({{"model", shown.scan.model},
              {"files", files},
              {"passages", shown.scan.passages},
              {"tokens", shown.scan.tokens},
              {"seed", shown.scan.seed},
              {"heads", heads}});
}

}  // namespace

void show_scan(const ScanRequest& request) {
  const ShownScan shown(request);
  if (request.common.json) return print_as_json(shown);
  print(shown.head ? one_head(shown) : shown.sort ? sorted_heads(shown) : overview(shown));
}

}  // namespace manyheads::cli
