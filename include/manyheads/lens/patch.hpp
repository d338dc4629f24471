#pragma once

#include <cstddef>
#include <cstdint>
#include <manyheads/lens/trace.hpp>
#include <manyheads/parallel.hpp>
#include <manyheads/tensor.hpp>
#include <vector>

namespace manyheads::lens {

// Places [begin, end) of a sequence.
struct Range {
  std::int64_t begin = 0, end = 0;
  std::int64_t size() const { return end - begin; }
};

struct PatchOptions {
  // The head's own sums, as row_sums gives them: [Tq] F32. Undefined: those of the trace, where it has them.
  ConstTensorView row_sum{};
  Threads threads{};
};

struct PatchInfo {
  // Whether each row was divided by its own sum over all keys. Else by exp(lse) alone, whose rounding in F32 shows
  // where scores are large.
  bool exact = false;
  // The largest error that the rounding of lse adds to a weight; 0 where exact.
  double bound = 0;
};

// A patch: the weights of queries `rows` and keys `keys` of one head, to weights [rows,keys] F32, any strides.
//
//   p = exp(score - lse) / row_sum
//
// - Each row is divided by its sum over all keys, not over the patch: a weight has the same bits in every patch.
// - Costs one product for each weight, and no memory that grows with the text, whatever its length.
// - A row whose scores leave F32's range is computed whole, as trace_rows does.
// Throws Error (kInvalidArgument) that names the ranges where they do not fit the trace or `weights`; as trace_weights
// where lse is foreign, as far as the patch shows it: by a weight above 1.
PatchInfo patch(const Trace& trace, std::size_t layer, std::int64_t head, Range rows, Range keys, TensorView weights,
                const PatchOptions& options = {});

enum class Pool { kMean, kMax };

// The patch in cells of `side` queries by `side` keys, counted from its corner: [cells of rows, cells of keys] F32. The
// cells at the right and lower edge weigh by the places that the patch has in them. Memory does not grow with the
// patch, but for its cells. Throws Error as patch does, and where side is less than 1 or the patch is empty.
Tensor pooled_patch(const Trace& trace, std::size_t layer, std::int64_t head, Range rows, Range keys, std::int64_t side,
                    Pool pool, const PatchOptions& options = {});

// Each row's sum of exp(score - lse) over all keys, for queries `rows`: 1 but for the rounding of lse; 0 where a row
// sees no key or its scores leave F32's range. Costs one product for each of the rows' weights. Throws Error as
// trace_weights does where lse is foreign.
std::vector<float> row_sums(const Trace& trace, std::size_t layer, std::int64_t head, Range rows,
                            const Threads& threads = {});

// Sets the layer's row_sum for all of its heads.
void add_row_sums(Trace& trace, std::size_t layer, const Threads& threads = {});

}  // namespace manyheads::lens
