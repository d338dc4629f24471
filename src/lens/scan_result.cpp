#include <algorithm>
#include <cmath>

#include "base/index.hpp"
#include "lens/scan.hpp"

namespace manyheads::lens {
namespace {

using base::at;

}  // namespace

StateDict Scan::finish() {
  forget_passages();
  StateDict out;
  put_scores(out);
  put_examples(out);
  put_tokens(out);
  put_components(out);
  return out;
}

void Scan::put_scores(StateDict& out) const {
  const auto scores = static_cast<std::int64_t>(scores_);
  const Dims each{layers_, num_heads_, scores};
  Tensor count(DType::kI64, each), mean(DType::kF64, each), least(DType::kF64, each), most(DType::kF64, each),
      width(DType::kF64, each), deciles(DType::kF64, {layers_, num_heads_, scores, kScanDeciles - 1}),
      ranges(DType::kF64, {layers_, num_heads_, scores, 2}),
      histogram(DType::kI64, {layers_, num_heads_, scores, ScoreSketch::kParts});
  const auto& edges = distance_edges();
  const auto bins = static_cast<std::int64_t>(edges.size()) - 1;
  Tensor distances(DType::kF64, {layers_, num_heads_, bins});
  Tensor distance_ends(DType::kI64, {bins + 1});
  std::copy(edges.begin(), edges.end(), distance_ends.as<std::int64_t>());
  for (std::size_t h = 0; h < heads(); ++h) {
    const Head& head = heads_[h];
    std::copy(head.distance_mass.begin(), head.distance_mass.end(),
              distances.as<double>() + static_cast<std::int64_t>(h) * bins);
    for (std::size_t s = 0; s < scores_; ++s) {
      const ScoreSketch& sketch = head.sketches[s];
      const std::size_t i = h * scores_ + s;
      count.as<std::int64_t>()[i] = sketch.count();
      mean.as<double>()[i] = sketch.mean();
      least.as<double>()[i] = sketch.min();
      most.as<double>()[i] = sketch.max();
      width.as<double>()[i] = sketch.bin_width();
      for (std::int64_t d = 1; d < kScanDeciles; ++d) {
        deciles.as<double>()[i * at(kScanDeciles - 1) + at(d - 1)] = sketch.quantile(d, kScanDeciles);
      }
      const ScoreSketch::Histogram parts = sketch.histogram();
      ranges.as<double>()[2 * i] = parts.first;
      ranges.as<double>()[2 * i + 1] = parts.last;
      std::copy(parts.counts.begin(), parts.counts.end(),
                histogram.as<std::int64_t>() + i * at(ScoreSketch::kParts));
    }
  }
  out["score_count"] = count;
  out["score_mean"] = mean;
  out["score_min"] = least;
  out["score_max"] = most;
  out["score_deciles"] = deciles;
  out["score_error"] = width;
  out["score_histogram"] = histogram;
  out["score_range"] = ranges;
  out["distance_mass"] = distances;
  out["distance_edges"] = distance_ends;
}

void Scan::put_examples(StateDict& out) const {
  const auto scores = static_cast<std::int64_t>(scores_);
  // Rows of the table of passages, in the order of the corpus.
  std::map<std::int64_t, std::int64_t> row_of;
  const Dims top_shape{layers_, num_heads_, scores, kScanTop};
  const Dims sample_shape{layers_, num_heads_, scores, kScanDeciles, kScanSamples};
  Tensor top(DType::kI64, top_shape), top_values(DType::kF64, top_shape);
  Tensor samples(DType::kI64, sample_shape), sample_values(DType::kF64, sample_shape);
  std::fill_n(top.as<std::int64_t>(), top.elements(), -1);
  std::fill_n(samples.as<std::int64_t>(), samples.elements(), -1);
  std::vector<const Kept*> by_priority;
  for (const Kept& kept : reservoir_) by_priority.push_back(&kept);
  std::sort(by_priority.begin(), by_priority.end(), [](const Kept* a, const Kept* b) { return *a < *b; });
  const auto put = [&](Tensor& passages, Tensor& values, std::size_t place, std::int64_t passage, double value) {
    passages.as<std::int64_t>()[place] = passage;
    values.as<double>()[place] = value;
    row_of.emplace(passage, 0);
  };
  for (std::size_t i = 0; i < heads() * scores_; ++i) {
    const Head& head = heads_[i / scores_];
    const std::vector<Example>& best = head.top[i % scores_];
    for (std::size_t e = 0; e < best.size(); ++e) {
      put(top, top_values, i * at(kScanTop) + e, best[e].passage, best[e].value);
    }
    const ScoreSketch& sketch = head.sketches[i % scores_];
    if (sketch.count() == 0) continue;
    std::vector<bool> used(by_priority.size());
    for (std::int64_t d = 0; d < kScanDeciles; ++d) {
      const std::int64_t first = sketch.quantile_bin(d, kScanDeciles), last = sketch.quantile_bin(d + 1, kScanDeciles);
      std::int64_t found = 0;
      for (std::size_t r = 0; r < by_priority.size() && found < kScanSamples; ++r) {
        const double value = kept_values_[place_of(*by_priority[r]) + i];
        if (used[r] || std::isnan(value)) continue;
        const std::int64_t bin = sketch.bin_of(value);
        if (bin < first || bin > last) continue;
        used[r] = true;
        put(samples, sample_values, (i * at(kScanDeciles) + at(d)) * at(kScanSamples) + at(found),
            by_priority[r]->passage, value);
        ++found;
      }
    }
  }
  std::int64_t rows = 0;
  for (auto& [passage, row] : row_of) row = rows++;
  for (Tensor* tensor : {&top, &samples}) {
    for (std::int64_t i = 0; i < tensor->elements(); ++i) {
      std::int64_t& passage = tensor->as<std::int64_t>()[i];
      if (passage >= 0) passage = row_of.at(passage);
    }
  }
  std::vector<const ScanPassage*> table;
  for (const auto& [passage, row] : row_of) table.push_back(&known_.at(passage));
  put_passages(table, out);
  out["top_passages"] = top;
  out["top_values"] = top_values;
  out["sample_passages"] = samples;
  out["sample_values"] = sample_values;
}

void Scan::put_passages(const std::vector<const ScanPassage*>& table, StateDict& out) {
  const auto rows = static_cast<std::int64_t>(table.size());
  Tensor passages(DType::kI64, {rows, 6}), ends(DType::kI64, {rows});
  std::string all;
  for (std::size_t r = 0; r < table.size(); ++r) {
    const ScanPassage& passage = *table[r];
    const std::int64_t row[] = {passage.number, passage.file,  passage.offset,
                                passage.length, passage.begin, passage.end};
    std::copy(std::begin(row), std::end(row), passages.as<std::int64_t>() + 6 * r);
    all += passage.text;
    ends.as<std::int64_t>()[r] = static_cast<std::int64_t>(all.size());
  }
  Tensor text(DType::kU8, {static_cast<std::int64_t>(all.size())});
  std::copy(all.begin(), all.end(), text.as<std::uint8_t>());
  out["passages"] = passages;
  out["passage_text"] = text;
  out["passage_text_ends"] = ends;
}

void Scan::put_tokens(StateDict& out) const {
  const Dims shape{layers_, num_heads_, kScanTokens};
  const auto put = [&](const char* name, std::vector<double> Head::* sums) {
    Tensor ids(DType::kI64, shape), masses(DType::kF64, shape), counts(DType::kI64, shape);
    std::fill_n(ids.as<std::int64_t>(), ids.elements(), -1);
    std::vector<std::pair<double, std::int64_t>> ranked;
    for (std::size_t h = 0; h < heads(); ++h) {
      ranked.clear();
      for (std::int64_t id = 0; id < vocabulary_; ++id) {
        if (counts_[at(id)] < kScanFewest) continue;
        ranked.emplace_back((heads_[h].*sums)[at(id)] / static_cast<double>(counts_[at(id)]), id);
      }
      const std::size_t kept = std::min(ranked.size(), at(kScanTokens));
      std::partial_sort(ranked.begin(), ranked.begin() + static_cast<std::ptrdiff_t>(kept), ranked.end(),
                        [](const auto& a, const auto& b) {
                          return a.first != b.first ? a.first > b.first : a.second < b.second;
                        });
      for (std::size_t i = 0; i < kept; ++i) {
        const std::size_t place = h * at(kScanTokens) + i;
        ids.as<std::int64_t>()[place] = ranked[i].second;
        masses.as<double>()[place] = ranked[i].first;
        counts.as<std::int64_t>()[place] = counts_[at(ranked[i].second)];
      }
    }
    out[std::string(name) + "_tokens"] = ids;
    out[std::string(name) + "_mass"] = masses;
    out[std::string(name) + "_count"] = counts;
  };
  put("asking", &Head::given);
  put("asked", &Head::received);
}

void Scan::put_components(StateDict& out) const {
  const std::int64_t kept = std::min(kScanComponents, head_dim_);
  const auto put = [&](const std::string& name, std::int64_t of_layer, const auto& moments_of) {
    Tensor mean(DType::kF64, {layers_, of_layer, head_dim_}), total(DType::kF64, {layers_, of_layer}),
        variance(DType::kF64, {layers_, of_layer, kept}), vectors(DType::kF64, {layers_, of_layer, kept, head_dim_});
    for (std::int64_t i = 0; i < layers_ * of_layer; ++i) {
      const Components found = principal_components(moments_of(at(i)), kept);
      std::copy(found.mean.begin(), found.mean.end(), mean.as<double>() + i * head_dim_);
      total.as<double>()[i] = found.total_variance;
      std::copy(found.variance.begin(), found.variance.end(), variance.as<double>() + i * kept);
      std::copy(found.vectors.begin(), found.vectors.end(), vectors.as<double>() + i * kept * head_dim_);
    }
    out[name + "_mean"] = mean;
    out[name + "_total_variance"] = total;
    out[name + "_variance"] = variance;
    out[name + "_components"] = vectors;
  };
  put("query", num_heads_, [this](std::size_t i) -> const Moments& { return heads_[i].queries; });
  put("key", num_kv_heads_, [this](std::size_t i) -> const Moments& { return keys_[i]; });
}

}  // namespace manyheads::lens
