#include "attention/query_blocks.hpp"

#include <algorithm>

#include "kernels/tuning.hpp"

namespace manyheads::attention_detail {

bool cuts_documents(const kernels::QkvMask& params, std::int64_t block_rows) {
  return params.documents() && params.tq >= block_rows;
}

QueryBlocks::QueryBlocks(const kernels::QkvMask& params, const Plan& plan, const kernels::KernelTable& table,
                         float* memory)
    : params_(params), block_rows_(plan.block_rows), longest_folded_(table.attention(params).query_block_rows) {
  if (plan.entry_floats == 0) {
    if (plan.q_blocks > 0) every_ = EntryBlocks(params, block_rows_, longest_folded_, 0);
    return;
  }
  first_ = reinterpret_cast<std::int64_t*>(memory);
  first_[0] = 0;
  if (plan.cut) begins_ = first_ + params.batch + 1;
  std::int64_t* to = begins_;
  for (std::int64_t b = 0; b < params.batch; ++b) {
    std::int64_t count = 0;
    if (plan.cut) {
      const std::int64_t* const begins = to;
      each_cut(params, b, block_rows_, kernels::tuning().long_document, [&](std::int64_t begin) { *to++ = begin; });
      count = (to - begins) * params.q_heads;
      *to++ = params.tq;
    } else {
      count = EntryBlocks(params, block_rows_, longest_folded_, b).count;
    }
    first_[b + 1] = first_[b] + count;
  }
}

kernels::QueryBlock QueryBlocks::cut_block(std::int64_t b, std::int64_t i) const noexcept {
  const std::int64_t q_blocks = (first_[b + 1] - first_[b]) / params_.q_heads;
  const std::int64_t* const begin = begins_ + first_[b] / params_.q_heads + b + (q_blocks - 1 - i % q_blocks);
  const std::int64_t head = i / q_blocks;
  const std::int64_t group = params_.group();
  return {
      .batch = b, .kv_head = head / group, .row = head % group * params_.tq + begin[0], .rows = begin[1] - begin[0]};
}

kernels::QueryBlock QueryBlocks::operator()(std::int64_t i) const noexcept {
  std::int64_t b = 0;
  if (first_ != nullptr) {
    b = std::upper_bound(first_, first_ + params_.batch + 1, i) - first_ - 1;
    i -= first_[b];
    if (begins_ != nullptr) return cut_block(b, i);
  }
  const EntryBlocks entry = first_ == nullptr ? every_ : EntryBlocks(params_, block_rows_, longest_folded_, b);
  if (first_ == nullptr) {
    b = i / entry.count;
    i %= entry.count;
  }
  const std::int64_t begin = (entry.blocks_per_part - 1 - i % entry.blocks_per_part) * block_rows_;
  const std::int64_t part = i / entry.blocks_per_part % entry.parts;
  return {.batch = b,
          .kv_head = i / entry.blocks_per_part / entry.parts,
          .row = part * entry.rows_per_part + begin,
          .rows = std::min(block_rows_, entry.rows_per_part - begin)};
}

}  // namespace manyheads::attention_detail
