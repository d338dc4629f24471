#pragma once

#include <cstdint>
#include <string>

// The figures that depend on the machine: what its caches hold, and from which size on more threads or a copy pay. They
// decide who computes what and when, never a bit of a result.
namespace manyheads::kernels {

struct Tuning {
  // Caches, in bytes, of one core; L3 whole.
  std::int64_t l1_bytes = std::int64_t{32} << 10;
  std::int64_t l2_bytes = std::int64_t{1} << 20;
  std::int64_t l3_bytes = std::int64_t{32} << 20;

  // Threads. Below so much work a further one costs more than it brings.
  std::int64_t flop_per_worker = 2'000'000;         // of attention
  std::int64_t key_bytes_per_worker = 100'000;      // keys and values read, likewise
  std::int64_t linear_flop_per_worker = 4'000'000;  // of a projection
  std::int64_t tasks_per_worker = 4;                // fewer leave some without work at the end: keys are split too

  // Packed K and V: query blocks of a head for each worker that pay for a packed copy, and the most bytes of one.
  std::int64_t blocks_per_packed_head = 4;
  std::int64_t packed_kv_bytes = std::int64_t{8} << 20;

  // Query blocks that pass over a head's keys and values part by part, together, where these are more than
  // `alone_bytes`: two of them up to twice as much, else the most, whose own memory leaves room for
  // `keys_together_bytes` in L2.
  std::int64_t alone_bytes = 0;          // 0: 2 L2
  std::int64_t keys_together_bytes = 0;  // 0: a quarter of L2
  std::int64_t blocks_together = 8;
  std::int64_t groups_per_worker = 8;

  // Queries of one document, one after the other, from which on query blocks of its own pay: more than lie in a vector.
  // At 20 such blocks take 1 / 1.2 to 1 / 1.3 of the time of shared ones, at 17 more.
  std::int64_t long_document = 20;

  // Projections: inputs summed before the next panel is read, a panel of which and the rows beside it stay in L2; of
  // rows that are rounded to BF16 first; and words between a weight's prefetch and its use.
  std::int64_t linear_depth = 2048;
  std::int64_t linear_bf16_depth = 1536;
  std::int64_t linear_prefetch_words = 2048;
  std::int64_t linear_blocks_per_task = 12;  // register tiles of rows in a task, whose inputs stay in L2

  // Encoders: rows of a block that goes through a whole layer, in its wide form in L2, and the fewest that pay for a thread;
  // and the most tokens of a text whose batch is one packed call of attention.
  std::int64_t encoder_block_rows = 144;
  std::int64_t encoder_least_rows = 36;
  std::int64_t encoder_packed_tokens = 256;

  // Bytes of a layer's masks that are written out at a time.
  std::int64_t written_mask_bytes = std::int64_t{4} << 20;

  // Whether what is far ahead of few rows, keys or weights, is prefetched into L2, each line asked for twice: where
  // only few missing lines can be on their way to L1, asking for more holds up what is read. So it is on AMD before Zen
  // 5 (Zen 4: decoding of F32 and BF16 takes a sixth to two fifths less time; on Zen 5 up to a sixth more).
  std::int64_t prefetch_to_l2 = 0;

  // "l1_bytes=49152, l2_bytes=..."; MANYHEADS_TUNING takes the same.
  std::string to_string() const;
};

// What is detected here, overridden by `text` as MANYHEADS_TUNING has it; null: nothing is.
Tuning tuned(const char* text);

// The tuning of this machine and process: detected, then overridden by MANYHEADS_TUNING="name=value,...", which is for
// experiments. Read once. Throws Error on a name that is unknown or a value that is no whole number.
const Tuning& tuning();

}  // namespace manyheads::kernels
