#include <algorithm>
#include <limits>
#include <manyheads/error.hpp>

#include "base/fail.hpp"
#include "base/index.hpp"
#include "lens/scan.hpp"

namespace manyheads::lens {
namespace {

using base::at;

std::int64_t size_of(const auto& list) { return static_cast<std::int64_t>(list.size()); }

[[noreturn]] void refuse(const std::string& what) { base::fail("Scan::restore", what); }

// A tensor of that type and shape; size -1 is any.
const Tensor& take(const StateDict& state, const char* name, DType type, const Dims& shape) {
  const auto it = state.find(name);
  if (it == state.end()) refuse(std::string("the state has no ") + name);
  const Tensor& tensor = it->second;
  bool fits = tensor.dtype() == type && tensor.rank() == shape.rank();
  for (int axis = 0; fits && axis < shape.rank(); ++axis) fits = shape[axis] < 0 || tensor.size(axis) == shape[axis];
  if (!fits) {
    refuse(base::format("{} is {}, expected {} {}", name, base::describe(tensor.view()), name_of(type),
                        shape.to_string()));
  }
  return tensor;
}

template <class T>
void copy_row(const std::vector<T>& from, Tensor& to, std::size_t row) {
  std::copy(from.begin(), from.end(), to.as<T>() + row * from.size());
}
template <class T>
void copy_row(const Tensor& from, std::size_t row, std::vector<T>& to) {
  std::copy_n(from.as<T>() + row * to.size(), to.size(), to.begin());
}

}  // namespace

StateDict Scan::state() {
  forget_passages();
  const auto heads_count = size_of(heads_), scores = static_cast<std::int64_t>(scores_), all = heads_count * scores;
  StateDict out;
  Tensor totals(DType::kI64, {3}), counts(DType::kI64, {vocabulary_});
  totals.as<std::int64_t>()[0] = passages_;
  totals.as<std::int64_t>()[1] = tokens_;
  totals.as<std::int64_t>()[2] = seed_;
  copy_row(counts_, counts, 0);

  std::vector<std::int64_t> below_of;
  for (std::int64_t i = 0; i < all; ++i) {
    if (heads_[at(i / scores)].sketches[at(i % scores)].any_below()) below_of.push_back(i);
  }
  constexpr std::int64_t kBins = ScoreSketch::kBins;
  Tensor values(DType::kF64, {all, ScoreSketch::kStateValues}), counted(DType::kI64, {all}),
      above(DType::kI32, {all, kBins}), below(DType::kI32, {size_of(below_of), kBins}),
      with_below(DType::kI64, {size_of(below_of)});
  Tensor top(DType::kI64, {all, kScanTop}), top_values(DType::kF64, {all, kScanTop});
  std::fill_n(top.as<std::int64_t>(), top.elements(), -1);
  copy_row(below_of, with_below, 0);
  std::int64_t side = 0;
  for (std::int64_t i = 0; i < all; ++i) {
    const Head& head = heads_[at(i / scores)];
    const ScoreSketch& sketch = head.sketches[at(i % scores)];
    sketch.save(values.as<double>() + i * ScoreSketch::kStateValues, counted.as<std::int64_t>() + i,
                above.as<std::int32_t>() + i * kBins,
                sketch.any_below() ? below.as<std::int32_t>() + side++ * kBins : nullptr);
    const std::vector<Example>& best = head.top[at(i % scores)];
    for (std::size_t e = 0; e < best.size(); ++e) {
      top.as<std::int64_t>()[at(i * kScanTop) + e] = best[e].passage;
      top_values.as<double>()[at(i * kScanTop) + e] = best[e].value;
    }
  }

  const auto bins = size_of(distance_edges()) - 1;
  Tensor distances(DType::kF64, {heads_count, bins}), given(DType::kF64, {heads_count, vocabulary_}),
      received(DType::kF64, {heads_count, vocabulary_});
  for (std::size_t h = 0; h < heads(); ++h) {
    copy_row(heads_[h].distance_mass, distances, h);
    copy_row(heads_[h].given, given, h);
    copy_row(heads_[h].received, received, h);
  }
  const auto put_moments = [&](const std::string& name, std::int64_t rows, const auto& moments_of) {
    Tensor count(DType::kI64, {rows}), sum(DType::kF64, {rows, head_dim_}),
        products(DType::kF64, {rows, head_dim_, head_dim_});
    for (std::size_t i = 0; i < at(rows); ++i) {
      const Moments& moments = moments_of(i);
      count.as<std::int64_t>()[i] = moments.count;
      copy_row(moments.sum, sum, i);
      copy_row(moments.products, products, i);
    }
    out[name + "_count"] = count;
    out[name + "_sum"] = sum;
    out[name + "_products"] = products;
  };
  put_moments("query", heads_count, [this](std::size_t i) -> const Moments& { return heads_[i].queries; });
  put_moments("key", size_of(keys_), [this](std::size_t i) -> const Moments& { return keys_[i]; });

  Tensor kept(DType::kI64, {size_of(reservoir_)}), kept_values(DType::kF64, {size_of(reservoir_), all});
  for (std::size_t r = 0; r < reservoir_.size(); ++r) {
    kept.as<std::int64_t>()[r] = reservoir_[r].passage;
    std::copy_n(kept_values_.data() + place_of(reservoir_[r]), all, kept_values.as<double>() + at(all) * r);
  }
  std::vector<const ScanPassage*> table;
  for (const auto& [number, passage] : known_) table.push_back(&passage);
  put_passages(table, out);
  out["totals"] = totals;
  out["token_counts"] = counts;
  out["sketch_values"] = values;
  out["sketch_count"] = counted;
  out["sketch_above"] = above;
  out["sketch_below"] = below;
  out["sketch_with_below"] = with_below;
  out["top_passages"] = top;
  out["top_values"] = top_values;
  out["distance_mass"] = distances;
  out["given"] = given;
  out["received"] = received;
  out["kept_passages"] = kept;
  out["kept_values"] = kept_values;
  return out;
}

void Scan::restore(const StateDict& state) {
  const auto heads_count = size_of(heads_), scores = static_cast<std::int64_t>(scores_), all = heads_count * scores;
  const Tensor& totals = take(state, "totals", DType::kI64, {3});
  passages_ = totals.as<std::int64_t>()[0];
  tokens_ = totals.as<std::int64_t>()[1];
  if (passages_ < 0 || tokens_ < 0 || totals.as<std::int64_t>()[2] != seed_) refuse("totals are none of this scan");
  copy_row(take(state, "token_counts", DType::kI64, {vocabulary_}), 0, counts_);
  if (std::any_of(counts_.begin(), counts_.end(), [](std::int64_t n) { return n < 0; })) refuse("a count is below 0");

  const Tensor& table = take(state, "passages", DType::kI64, {-1, 6});
  const Tensor& texts = take(state, "passage_text", DType::kU8, {-1});
  const Tensor& ends = take(state, "passage_text_ends", DType::kI64, {table.size(0)});
  known_.clear();
  std::int64_t begin = 0;
  for (std::int64_t r = 0; r < table.size(0); ++r) {
    const std::int64_t* const row = table.as<std::int64_t>() + 6 * r;
    const std::int64_t end = ends.as<std::int64_t>()[r];
    if (row[0] < 0 || row[0] >= passages_ || end < begin || end > texts.size(0)) refuse("a passage is none of this scan");
    const char* const text = static_cast<const char*>(texts.bytes());
    known_[row[0]] = {row[0], row[1], row[2], row[3], row[4], row[5], std::string(text + begin, text + end)};
    begin = end;
  }
  const auto check_passage = [&](std::int64_t number) {
    if (known_.count(number) == 0) refuse("an example is no passage of its table");
    return number;
  };

  constexpr std::int64_t kBins = ScoreSketch::kBins;
  const Tensor& values = take(state, "sketch_values", DType::kF64, {all, ScoreSketch::kStateValues});
  const Tensor& counted = take(state, "sketch_count", DType::kI64, {all});
  const Tensor& above = take(state, "sketch_above", DType::kI32, {all, kBins});
  const Tensor& with_below = take(state, "sketch_with_below", DType::kI64, {-1});
  const Tensor& below = take(state, "sketch_below", DType::kI32, {with_below.size(0), kBins});
  const Tensor& top = take(state, "top_passages", DType::kI64, {all, kScanTop});
  const Tensor& top_values = take(state, "top_values", DType::kF64, {all, kScanTop});
  std::int64_t side = 0;
  for (std::int64_t i = 0; i < all; ++i) {
    Head& head = heads_[at(i / scores)];
    const bool has_below = side < with_below.size(0) && with_below.as<std::int64_t>()[side] == i;
    ScoreSketch sketch;
    if (!sketch.restore(values.as<double>() + i * ScoreSketch::kStateValues, counted.as<std::int64_t>()[i],
                        above.as<std::int32_t>() + i * kBins,
                        has_below ? below.as<std::int32_t>() + side * kBins : nullptr)) {
      refuse("the counts of a score do not add up");
    }
    if (has_below) ++side;
    head.sketches[at(i % scores)] = std::move(sketch);
    std::vector<Example>& best = head.top[at(i % scores)];
    best.clear();
    for (std::int64_t e = i * kScanTop; e < (i + 1) * kScanTop && top.as<std::int64_t>()[e] >= 0; ++e) {
      best.push_back({top_values.as<double>()[e], check_passage(top.as<std::int64_t>()[e])});
    }
  }
  if (side != with_below.size(0)) refuse("the counts of a score do not add up");

  const Tensor& distances =
      take(state, "distance_mass", DType::kF64, {heads_count, size_of(distance_edges()) - 1});
  const Tensor& given = take(state, "given", DType::kF64, {heads_count, vocabulary_});
  const Tensor& received = take(state, "received", DType::kF64, {heads_count, vocabulary_});
  for (std::size_t h = 0; h < heads(); ++h) {
    copy_row(distances, h, heads_[h].distance_mass);
    copy_row(given, h, heads_[h].given);
    copy_row(received, h, heads_[h].received);
  }
  const auto take_moments = [&](const std::string& name, std::int64_t rows, const auto& moments_of) {
    const Tensor& count = take(state, (name + "_count").c_str(), DType::kI64, {rows});
    const Tensor& sum = take(state, (name + "_sum").c_str(), DType::kF64, {rows, head_dim_});
    const Tensor& products = take(state, (name + "_products").c_str(), DType::kF64, {rows, head_dim_, head_dim_});
    for (std::size_t i = 0; i < at(rows); ++i) {
      Moments& moments = moments_of(i);
      moments.count = count.as<std::int64_t>()[i];
      if (moments.count < 0) refuse("a count is below 0");
      copy_row(sum, i, moments.sum);
      copy_row(products, i, moments.products);
    }
  };
  take_moments("query", heads_count, [this](std::size_t i) -> Moments& { return heads_[i].queries; });
  take_moments("key", size_of(keys_), [this](std::size_t i) -> Moments& { return keys_[i]; });

  const Tensor& kept = take(state, "kept_passages", DType::kI64, {-1});
  const Tensor& kept_values = take(state, "kept_values", DType::kF64, {kept.size(0), all});
  if (kept.size(0) > kScanReservoir) refuse("more passages are kept than a scan keeps");
  reservoir_.clear();
  for (std::int64_t r = 0; r < kept.size(0); ++r) {
    const std::int64_t passage = check_passage(kept.as<std::int64_t>()[r]);
    reservoir_.push_back({priority_of(passage), passage, at(r)});
  }
  std::copy_n(kept_values.as<double>(), kept_values.elements(), kept_values_.begin());
  std::make_heap(reservoir_.begin(), reservoir_.end());
}

}  // namespace manyheads::lens
