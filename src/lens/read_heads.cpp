#include <algorithm>
#include <atomic>
#include <manyheads/error.hpp>
#include <manyheads/lens/read_heads.hpp>
#include <string>

#include "base/lock.hpp"
#include "base/parallel.hpp"
#include "lens/each_row.hpp"
#include "lens/head_scorer.hpp"
#include "lens/link_reader.hpp"

namespace manyheads::lens {

std::vector<HeadReading> read_heads(const Trace& trace, const std::vector<Word>& words, const std::vector<Link>& links,
                                    std::size_t num_strongest, const Threads& threads,
                                    const std::function<bool(double)>& progress) {
  if (trace.num_queries() != trace.num_keys()) {
    throw Error(ErrorCode::kInvalidArgument, "read_heads: trace has " + std::to_string(trace.num_queries()) +
                                                 " queries and " + std::to_string(trace.num_keys()) +
                                                 " keys; scores need a text that attends to itself");
  }
  const TokenKinds kinds = token_kinds(trace);
  std::vector<HeadReading> readings;
  for (std::size_t layer = 0; layer < trace.layers.size(); ++layer) {
    for (std::int64_t head = 0; head < trace.num_heads(layer); ++head) readings.push_back({layer, head, {}, {}, {}});
  }
  const auto count = static_cast<std::int64_t>(readings.size());
  base::Lock lock;
  std::int64_t rows_done = 0;
  std::atomic<bool> cancelled = false;
  const double rows_of_all = static_cast<double>(count) * static_cast<double>(trace.key_length);
  const auto goes_on = [&](std::int64_t rows) {
    if (!progress) return true;
    const base::Lock::Guard guard(lock);
    rows_done += rows;
    if (!cancelled && !progress(static_cast<double>(rows_done) / rows_of_all)) cancelled = true;
    return !cancelled.load();
  };
  base::parallel_for(count, base::worker_count(count, threads), threads.executor, [&](std::int64_t i, int) {
    if (cancelled) return;
    HeadReading& reading = readings[static_cast<std::size_t>(i)];
    HeadScorer scorer(kinds);
    LinkReader reader(words, links, num_strongest, trace.causal);
    const auto add = [&](const float* row) {
      scorer.add(row);
      reader.add(row);
    };
    for_each_row(trace, reading.layer, reading.head, add, goes_on);
    if (cancelled) return;
    reading.scores = scorer.finish();
    reading.strongest = reader.strongest();
    reading.asked = reader.asked();
  });
  if (cancelled) readings.clear();
  return readings;
}

std::vector<LinkReading> rank_heads(const std::vector<HeadReading>& heads, const std::vector<Link>& links) {
  std::vector<LinkReading> result;
  for (std::size_t i = 0; i < links.size(); ++i) {
    LinkReading reading;
    reading.link = links[i];
    double sum = 0;
    for (const HeadReading& head : heads) {
      reading.best.push_back({head.layer, head.head, head.asked[i]});
      sum += head.asked[i].weight;
    }
    reading.mean = sum / static_cast<double>(heads.size());
    std::stable_sort(reading.best.begin(), reading.best.end(),
                     [](const auto& a, const auto& b) { return ranks_before(a.link, b.link); });
    result.push_back(std::move(reading));
  }
  return result;
}

}  // namespace manyheads::lens
