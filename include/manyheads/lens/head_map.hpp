#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <manyheads/lens/trace.hpp>
#include <manyheads/parallel.hpp>
#include <manyheads/tensor.hpp>
#include <optional>
#include <vector>

namespace manyheads::lens {

// A level of a head's pyramid: cells of `side` queries by `side` keys, fewer at the right and lower edge.
struct PyramidLevel {
  std::int64_t side = 0;
  Tensor mean;  // [cells of queries, cells of keys] F32: over the places of the cell that the matrix has
  Tensor max;   // the same shape

  std::int64_t rows() const { return mean.size(0); }
  std::int64_t keys() const { return mean.size(1); }
};

// What one pass tells beside the pyramid.
struct Tracks {
  std::vector<double> column_mass;  // [Tk]: what all queries give to a key
  std::vector<double> entropy;      // [Tq]: of each row, -sum of p ln p, in nats
  // What all queries give at each distance, place of the query less place of the key: from first_distance on.
  std::vector<double> distance_mass;
  std::int64_t first_distance = 0;
  double distance_mean = 0, distance_variance = 0;  // over all weights
  Tensor top_weights;  // [Tq,top] F32: the largest weights of each row, descending; of equal ones the first key; then 0
  Tensor top_keys;     // [Tq,top] I64: their keys; then -1
};

struct HeadMap {
  std::int64_t row_step = 1;         // every so many-th row was read; above 1 the map is an estimate, and has no tracks
  std::vector<PyramidLevel> levels;  // cells of 64 x 64, then twice as large, down to one cell
  std::optional<Tracks> tracks;
  std::vector<float> row_sum;  // [Tq], to the bit as row_sums gives them; empty in an estimate
};

struct HeadMapOptions {
  bool coarse = false;   // every 8th row alone: an eighth of the time
  std::int64_t top = 8;  // keys kept of each row
  // Called with the share that is done, from any thread, one call at a time. False cancels.
  std::function<bool(double)> progress{};
  Threads threads{};
};

// The pyramid and the tracks of one head from one pass over its weights, which never exist at once.
// - Costs one product for each weight; rows whose lse is too coarse take the pass twice.
// - Memory: about 11 bytes for each 64 x 64 cell and 170 for each token, and 16 bytes a token for each thread.
// - The same bits for any number of threads.
// Empty where progress cancelled it. Throws Error as trace_weights does where lse is foreign, and where a row has
// weights that are not numbers.
std::optional<HeadMap> map_head(const Trace& trace, std::size_t layer, std::int64_t head,
                                const HeadMapOptions& options = {});

}  // namespace manyheads::lens
