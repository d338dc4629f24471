#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <manyheads/lens/links.hpp>
#include <manyheads/lens/roles.hpp>
#include <manyheads/lens/trace.hpp>
#include <vector>

namespace manyheads::lens {

// What one head does with a text.
struct HeadReading {
  std::size_t layer = 0;
  std::int64_t head = 0;
  HeadScores scores;
  std::vector<WeighedLink> strongest;
  std::vector<WeighedLink> asked;
};

// What each head gives to one link.
struct LinkReading {
  Link link;
  struct Head {
    std::size_t layer = 0;
    std::int64_t head = 0;
    WeighedLink link;
  };
  std::vector<Head> best;  // all heads, in the order of ranks_before
  double mean = 0;         // the mean weight over all heads
};

// Reads every head of a trace: its scores, the `num_strongest` links that rank first, and the `links` asked for. The
// trace must be of a text with itself, as many queries as keys; else throws Error. Where tokens see no later ones,
// links to the first token are not among the strongest: heads rest on it when they look for nothing (Xiao et al. 2023).
// Each thread allocates 256 KiB of weights or 16 rows, and sums that grow with the number of tokens. num_threads 0:
// default_num_threads(). `progress` is called with the share that is done, from any thread, one call
// at a time. False cancels: empty then.
std::vector<HeadReading> read_heads(const Trace& trace, const std::vector<Word>& words, const std::vector<Link>& links,
                                    std::size_t num_strongest, const Threads& threads = {},
                                    const std::function<bool(double)>& progress = {});

// Ranks the heads for each of `links`, which read_heads was asked for.
std::vector<LinkReading> rank_heads(const std::vector<HeadReading>& heads, const std::vector<Link>& links);

}  // namespace manyheads::lens
