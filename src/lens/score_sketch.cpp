#include "lens/score_sketch.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <manyheads/error.hpp>

#include "base/format.hpp"
#include "base/index.hpp"

namespace manyheads::lens {
namespace {

constexpr double kMost = 0x1p64;

using base::at;

// The bin of a magnitude: the last end belongs to it.
std::int64_t bin_of_magnitude(double magnitude, int exponent) {
  return std::max<std::int64_t>(0, static_cast<std::int64_t>(std::ceil(std::ldexp(magnitude, -exponent))) - 1);
}

}  // namespace

double ScoreSketch::bin_width() const { return std::ldexp(1.0, exponent_); }

void ScoreSketch::widen() {
  ++exponent_;
  for (std::vector<std::int32_t>* side : {&above_, &below_}) {
    if (side->empty()) continue;
    for (std::int64_t b = 0; b < kBins / 2; ++b) (*side)[at(b)] = (*side)[at(2 * b)] + (*side)[at(2 * b + 1)];
    std::fill(side->begin() + kBins / 2, side->end(), 0);
  }
}

void ScoreSketch::add(double value) {
  if (!(std::fabs(value) < kMost)) {
    throw Error(ErrorCode::kInvalidArgument, base::format("ScoreSketch::add: the value is {}", value));
  }
  while (std::fabs(value) > std::ldexp(1.0, exponent_ + 12)) widen();
  std::vector<std::int32_t>& side = value < 0 ? below_ : above_;
  if (side.empty()) side.resize(at(kBins));
  std::int32_t& count = side[at(bin_of_magnitude(std::fabs(value), exponent_))];
  if (count == std::numeric_limits<std::int32_t>::max()) {
    throw Error(ErrorCode::kInvalidArgument, "ScoreSketch::add: 2^31 passages have one score");
  }
  ++count;
  min_ = count_ == 0 ? value : std::min(min_, value);
  max_ = count_ == 0 ? value : std::max(max_, value);
  sum_ += value;
  ++count_;
}

std::int64_t ScoreSketch::bin_of(double value) const {
  const std::int64_t bin = bin_of_magnitude(std::fabs(value), exponent_);
  return value < 0 ? -1 - bin : bin;
}

std::int64_t ScoreSketch::quantile_bin(std::int64_t part, std::int64_t parts) const {
  // ceil(count part / parts) without leaving 63 bits.
  const std::int64_t whole = count_ / parts, rest = count_ % parts;
  const std::int64_t rank = std::max<std::int64_t>(1, whole * part + (rest * part + parts - 1) / parts);
  std::int64_t seen = 0;
  for (std::int64_t b = below_.empty() ? -1 : kBins - 1; b >= 0; --b) {
    seen += below_[at(b)];
    if (seen >= rank) return -1 - b;
  }
  for (std::int64_t b = 0; b < kBins - 1; ++b) {
    seen += above_[at(b)];
    if (seen >= rank) return b;
  }
  return kBins - 1;
}

double ScoreSketch::quantile(std::int64_t part, std::int64_t parts) const {
  if (count_ == 0) return 0;
  const std::int64_t bin = quantile_bin(part, parts);
  const double end = bin_width() * static_cast<double>(bin + 1);
  return std::clamp(end, min_, max_);
}

ScoreSketch::Histogram ScoreSketch::histogram() const {
  Histogram out;
  out.last = bin_width() * static_cast<double>(kBins);
  out.first = below_.empty() ? 0 : -out.last;
  const std::int64_t bins = (below_.empty() ? kBins : 2 * kBins) / kParts;
  const std::int64_t first = below_.empty() ? 0 : -kBins;
  for (std::int64_t b = first; b < kBins; ++b) {
    out.counts[at((b - first) / bins)] += b < 0 ? below_[at(-1 - b)] : above_[at(b)];
  }
  return out;
}

void ScoreSketch::save(double* values, std::int64_t* count, std::int32_t* above, std::int32_t* below) const {
  values[0] = static_cast<double>(exponent_);
  values[1] = sum_;
  values[2] = min_;
  values[3] = max_;
  *count = count_;
  std::copy(above_.begin(), above_.end(), above);
  if (below != nullptr) std::copy(below_.begin(), below_.end(), below);
}

bool ScoreSketch::restore(const double* values, std::int64_t count, const std::int32_t* above,
                          const std::int32_t* below) {
  if (!(values[0] >= -12 && values[0] <= 52) || values[0] != std::floor(values[0]) || count < 0) return false;
  exponent_ = static_cast<int>(values[0]);
  sum_ = values[1];
  min_ = values[2];
  max_ = values[3];
  count_ = count;
  const auto side = [&](const std::int32_t* from, std::vector<std::int32_t>* to) {
    std::int64_t sum = 0;
    for (std::int64_t b = 0; from != nullptr && b < kBins; ++b) {
      if (from[b] < 0) return std::int64_t{-1};
      sum += from[b];
    }
    if (sum > 0) to->assign(from, from + kBins);
    return sum;
  };
  const std::int64_t all_above = side(above, &above_), all_below = side(below, &below_);
  return all_above >= 0 && all_below >= 0 && all_above + all_below == count_;
}

}  // namespace manyheads::lens
