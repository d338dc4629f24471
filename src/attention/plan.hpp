#pragma once

#include <cstddef>
#include <cstdint>

#include <manyheads/attention.hpp>

#include "kernels/dispatch.hpp"

namespace manyheads::attention_detail {

// How a call is cut into tiles of queries, and who computes them. It decides only who computes what and when.
struct Plan {
  std::int64_t tasks = 0;
  int workers = 1;
  std::size_t scratch_floats = 0;  // for one worker

  std::size_t workspace_bytes() const noexcept {
    return static_cast<std::size_t>(workers) * scratch_floats * sizeof(float);
  }
  // Task i of the plan. Tiles of one head follow each other, its last queries first: under a causal mask they have the
  // most keys.
  kernels::Tile tile(std::int64_t task) const noexcept;

  std::int64_t kv_heads = 0;
  std::int64_t rows_per_part = 0;  // a part is one head's queries, or a whole group's where they are few
  std::int64_t parts = 0;          // parts of a group
  std::int64_t tiles_per_part = 0;
  std::int64_t tile_rows = 0;
};

Plan plan(const kernels::AttentionCall& call, const kernels::KernelTable& table, const AttentionOptions& options);

}  // namespace manyheads::attention_detail
