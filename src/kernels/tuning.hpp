#pragma once

#include <cstdint>
#include <string>

// The figures that depend on the machine: the sizes of its caches, and from which size on more threads or a copy pay.
// They decide who computes what and when, never a bit of a result.
namespace manyheads::kernels {

struct Tuning {
  // Caches in bytes: L1 and L2 of one core, the whole L3.
  std::int64_t l1_bytes = std::int64_t{32} << 10;
  std::int64_t l2_bytes = std::int64_t{1} << 20;
  std::int64_t l3_bytes = std::int64_t{32} << 20;

  // Threads: below so much work one more costs more than it brings, so that small calls wake none. To wake a sleeping
  // thread takes some 5 us. A core reads 200,000 bytes in that time, and computes 500,000 FLOP: a share is as many
  // bytes, and four times the FLOP, since query blocks of small calls do not come out even.
  std::int64_t flop_per_worker = 2'000'000;         // of attention
  std::int64_t key_bytes_per_worker = 200'000;      // keys and values that attention reads
  std::int64_t linear_flop_per_worker = 4'000'000;  // of a projection
  std::int64_t linear_bytes_per_worker = 400'000;   // of its weights: few rows read them once and compute little
  std::int64_t tasks_per_worker = 4;                // with fewer, some workers idle at the end: keys are split too

  // Packed K and V: query blocks of a head for each worker from which on packing pays, and the most bytes of one packed
  // head.
  std::int64_t blocks_per_packed_head = 4;
  std::int64_t packed_kv_bytes = std::int64_t{8} << 20;

  // Query blocks that pass over each part of a head's keys and values together.
  // - alone_bytes: keys and values of a head up to which each block passes over them by itself.
  // - blocks_together: the most blocks together, where a head comes to more than twice that; else two. Their own memory
  //   leaves room for keys_together_bytes in L2.
  // - keys_together_bytes: keys and values of one part.
  // - groups_per_worker: the fewest groups of blocks that each worker is left with.
  std::int64_t alone_bytes = 0;          // 0: 2 L2
  std::int64_t keys_together_bytes = 0;  // 0: a quarter of L2
  std::int64_t blocks_together = 8;
  std::int64_t groups_per_worker = 8;

  // Queries of one document in a row from which on query blocks of its own pay: more than lie in a vector. At 20 such
  // blocks are 1.2 to 1.3 times as fast as shared ones; at 17 they are slower.
  std::int64_t long_document = 20;

  // Projections.
  // - linear_depth: inputs summed before the next panel is read; a panel of so many and the rows beside it stay in L2.
  // - linear_bf16_depth: the same for rows that are rounded to BF16 first.
  // - linear_prefetch_words: words between the prefetch of a weight and its use.
  // - linear_blocks_per_task: register tiles of rows in a task, whose inputs stay in L2.
  std::int64_t linear_depth = 2048;
  std::int64_t linear_bf16_depth = 1536;
  std::int64_t linear_prefetch_words = 2048;
  std::int64_t linear_blocks_per_task = 12;

  // Encoders.
  // - encoder_block_rows: rows of a block that goes through a whole layer; its widest activations stay in L2.
  // - encoder_least_rows: the fewest rows that pay for a thread.
  // - encoder_packed_tokens: the most tokens of a text whose batch is one packed call of attention.
  std::int64_t encoder_block_rows = 144;
  std::int64_t encoder_least_rows = 36;
  std::int64_t encoder_packed_tokens = 256;

  // Bytes of a layer's masks that are written out at a time.
  std::int64_t written_mask_bytes = std::int64_t{4} << 20;

  // Whether decode and projections of few rows prefetch far ahead into L2, each line twice. It pays where few missing
  // lines can be on their way to L1, since more would hold up what is read: on AMD before Zen 5. Zen 4 decodes F32 and
  // BF16 in a sixth to two fifths less time; Zen 5 takes up to a sixth more.
  std::int64_t prefetch_to_l2 = 0;

  // "l1_bytes=49152,l2_bytes=...", as MANYHEADS_TUNING takes it.
  std::string to_string() const;
};

// The detected tuning, overridden by `text` in the form of MANYHEADS_TUNING; null: nothing is overridden.
Tuning tuned(const char* text);

// The tuning of this machine and process: detected, then overridden by MANYHEADS_TUNING="name=value,...", which is for
// experiments. Read once. Throws Error on an unknown name or a value that is no whole number.
const Tuning& tuning();

}  // namespace manyheads::kernels
