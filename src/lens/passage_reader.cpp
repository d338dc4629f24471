#include "lens/passage_reader.hpp"

#include "lens/each_row.hpp"
#include "lens/head_scorer.hpp"

namespace manyheads::lens {

PassageReader::PassageReader(const Trace& trace) : trace_(trace), kinds_(token_kinds(trace)) {
  for (std::size_t t = 0; t < kinds_.ids.size(); ++t) text_.push_back(trace.words.empty() || trace.words[t] >= 0);
}

void PassageReader::read(std::size_t layer, std::int64_t head, PassageReading& reading) const {
  const std::size_t n = kinds_.ids.size();
  reading.distance_mass.assign(n == 0 ? 0 : 2 * n - 1, 0);
  reading.given.assign(n, 0);
  reading.received.assign(n, 0);
  HeadScorer scorer(kinds_);
  std::size_t q = 0;
  for_each_row(trace_, layer, head, [&](const float* row) {
    scorer.add(row);
    for (std::size_t k = 0; k < n; ++k) {
      const auto weight = static_cast<double>(row[k]);
      reading.distance_mass[q + n - 1 - k] += weight;
      if (q == k || !text_[q] || !text_[k]) continue;
      reading.given[q] += weight;
      reading.received[k] += weight;
    }
    ++q;
  });
  reading.scores = scorer.finish().scores;
}

}  // namespace manyheads::lens
