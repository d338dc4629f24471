#pragma once

#include <cstdint>

#include "attention/plan.hpp"
#include "kernels/documents.hpp"
#include "kernels/params.hpp"

namespace manyheads::attention_detail {

// The query blocks of a batch entry. A part is one head's queries, or those of a whole group where they are few.
struct EntryBlocks {
  EntryBlocks() = default;
  EntryBlocks(const kernels::QkvMask& params, std::int64_t block_rows, std::int64_t longest_folded, std::int64_t b) {
    const std::int64_t queries = params.queries(b);
    const bool fold = queries < longest_folded;
    parts = fold ? 1 : params.group();
    rows_per_part = fold ? params.group() * queries : queries;
    blocks_per_part = (rows_per_part + block_rows - 1) / block_rows;
    count = params.kv_heads * parts * blocks_per_part;
  }
  std::int64_t parts = 0, rows_per_part = 0, blocks_per_part = 0, count = 0;
};

// Whether query blocks end where documents do. Else rows of two documents share a vector, and each passes over the keys
// of both.
bool cuts_documents(const kernels::QkvMask& params, std::int64_t block_rows);

// Calls visit with the first query of each block of a part of entry b, ascending. A block holds queries of one long
// document, or of the short ones between two long ones.
template <class Visit>
void each_cut(const kernels::QkvMask& params, std::int64_t b, std::int64_t block_rows, std::int64_t long_document,
              Visit&& visit) {
  std::int64_t begin = 0;
  const auto end_at = [&](std::int64_t end) {
    for (; begin < end; begin += block_rows) visit(begin);
    begin = end;
  };
  kernels::with_ids(params.q_documents, b, 0, [&](const auto* ids, std::int64_t step) {
    for (std::int64_t first = 0, next = 0; first < params.tq; first = next) {
      for (next = first + 1; next < params.tq && ids[next * step] == ids[first * step];) ++next;
      if (next - first < long_document) continue;
      end_at(first);
      end_at(next);
    }
  });
  end_at(params.tq);
}

// Query block i of a call. Blocks of one head follow each other, its last queries first: under a causal mask they have
// the most keys.
class QueryBlocks {
 public:
  // `memory` holds plan.entry_floats floats and outlives the object.
  QueryBlocks(const kernels::QkvMask& params, const Plan& plan, const kernels::KernelTable& table, float* memory);
  kernels::QueryBlock operator()(std::int64_t i) const noexcept;

 private:
  kernels::QueryBlock cut_block(std::int64_t b, std::int64_t i) const noexcept;

  const kernels::QkvMask& params_;
  std::int64_t block_rows_, longest_folded_;
  EntryBlocks every_;               // the blocks of each entry, where entries are alike
  std::int64_t* first_ = nullptr;   // first block of each entry, where entries differ
  std::int64_t* begins_ = nullptr;  // first query of each block of an entry, where blocks are cut; then Tq
};

}  // namespace manyheads::attention_detail
