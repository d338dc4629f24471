// Dropout: which of a block's weights stay, by the counters of src/kernels/dropout.hpp.
//
//   weight = 0 where the uniform number of its place is below p, else weight / (1 - p)
//
// Contract: with queries in the lanes and with keys in them, the same weights go.
// Cost: some 30 instructions a vector of weights: ten rounds of two products, a shift and an exclusive or of three
// each, for four keys and half a vector of rows.

// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_ALGORITHM_DROPOUT_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_ALGORITHM_DROPOUT_INL_HPP
#undef MANYHEADS_ALGORITHM_DROPOUT_INL_HPP
#else
#define MANYHEADS_ALGORITHM_DROPOUT_INL_HPP
#endif

#include <algorithm>
#include <array>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/algorithm/block_info-inl.hpp"
#include "kernels/dropout.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

#if HWY_TARGET == HWY_SCALAR
// A counter.
struct Counters {
  using DWord = hn::RebindToUnsigned<DF>;
  using VWord = hn::Vec<DWord>;
  std::array<std::uint32_t, 4> words;

  void set(int word, VWord of_lane) { set(word, hn::GetLane(of_lane)); }
  void set(int word, std::uint32_t of_all) { words[static_cast<std::size_t>(word)] = of_all; }
  VWord get(int word) const { return hn::Set(DWord(), words[static_cast<std::size_t>(word)]); }
  void philox(const std::uint32_t* key) { words = kernels::philox(words, key[0], key[1]); }
};
#else
// A counter for each lane, as the words of even lanes and of odd ones: a product of two words fills 64 bits. Only the
// lower half of each 64 counts.
struct Counters {
  using DWord = hn::RebindToUnsigned<DF>;
  using DPair = hn::Repartition<std::uint64_t, DF>;
  using VWord = hn::Vec<DWord>;
  using VPair = hn::Vec<DPair>;
  VPair words[2][4];

  HWY_INLINE Counters() {}  // GCC gives an implicit one another target than NEON's vectors have
  HWY_INLINE void set(int word, VWord of_lanes) {
    const VPair pairs = hn::BitCast(DPair(), of_lanes);
    words[0][word] = pairs;
    words[1][word] = hn::ShiftRight<32>(pairs);
  }
  HWY_INLINE void set(int word, std::uint32_t of_all) {
    words[0][word] = words[1][word] = hn::Set(DPair(), std::uint64_t{of_all});
  }
  HWY_INLINE VWord get(int word) const {
    const DWord d;
    return hn::OddEven(hn::BitCast(d, hn::ShiftLeft<32>(words[1][word])), hn::BitCast(d, words[0][word]));
  }
  // Replaces the counters by their random words.
  HWY_INLINE void philox(const std::uint32_t* key) {
    const DPair d;
    const DWord word;
    const VWord factors[2] = {hn::Set(word, kPhiloxFactors[0]), hn::Set(word, kPhiloxFactors[1])};
    std::uint32_t keys[2] = {key[0], key[1]};
    for (int round = 0; round < kPhiloxRounds; ++round) {
      for (VPair(&c)[4] : words) {
        const VPair first = hn::MulEven(hn::BitCast(word, c[0]), factors[0]);
        const VPair second = hn::MulEven(hn::BitCast(word, c[2]), factors[1]);
        c[0] = hn::Xor3(hn::ShiftRight<32>(second), c[1], hn::Set(d, std::uint64_t{keys[0]}));
        c[2] = hn::Xor3(hn::ShiftRight<32>(first), c[3], hn::Set(d, std::uint64_t{keys[1]}));
        c[1] = second;
        c[3] = first;
      }
      keys[0] += kPhiloxSteps[0];
      keys[1] += kPhiloxSteps[1];
    }
  }
};

#endif

// Where a vector of random words keeps its weights.
HWY_INLINE auto Keeps(const Dropout& dropout, Counters::VWord words) {
  const hn::RebindToSigned<DF> d;  // 24 bits: signed comparisons serve
  const auto uniform = hn::BitCast(d, hn::ShiftRight<8>(words));
  return hn::RebindMask(DF(), hn::Not(hn::Lt(uniform, hn::Set(d, static_cast<std::int32_t>(dropout.dropped)))));
}

// What a block keeps of a run, with queries in the lanes: bits for each key and vector of rows.
class KeptInLanes {
 public:
  // For rows [row, row + vectors * lanes) and keys [begin, end), at most a run of them.
  HWY_NOINLINE void fill(const QkvMask& params, const QueryBlock& q_block, const BlockInfo& info, std::size_t row,
                         std::size_t vectors, std::int64_t begin, std::int64_t end) {
    const Dropout& dropout = params.dropout;
    const Counters::DWord d;
    const std::size_t n = hn::Lanes(d);
    const std::int64_t before = params.first_chunk * kChunkKeys;  // of the sequence
    vectors_ = vectors;
    factor_ = static_cast<float>(dropout.factor);
    for (std::size_t v = 0; v < vectors; ++v, row += n) {
      HWY_ALIGN std::uint32_t queries[kMaxLanes], heads[kMaxLanes];
      for (std::size_t l = 0; l < n; ++l) {
        queries[l] = static_cast<std::uint32_t>(dropout.first_query + info.query[row + l]);
        heads[l] = static_cast<std::uint32_t>(dropout.first_head + info.head[row + l]);
      }
      const auto query = hn::Load(d, queries), head = hn::Load(d, heads);
      for (std::int64_t four = begin / kDropoutKeys * kDropoutKeys; four < end; four += kDropoutKeys) {
        Counters counters;
        counters.set(0, query);
        counters.set(1, static_cast<std::uint32_t>((before + four) / kDropoutKeys));
        counters.set(2, head);
        counters.set(3, static_cast<std::uint32_t>(dropout.first_entry + q_block.batch));
        counters.philox(dropout.key);
        for (int word = 0; word < kDropoutKeys; ++word) {
          if (four + word < begin || four + word >= end) continue;
          hn::StoreMaskBits(DF(), Keeps(dropout, counters.get(word)),
                            at(static_cast<std::size_t>(four + word - begin), v));
        }
      }
    }
  }
  // The weights of key `key` from the begin on and vector v of rows.
  HWY_INLINE VF operator()(VF weight, std::size_t key, std::size_t v) const {
    const DF d;
    return hn::IfThenElseZero(hn::LoadMaskBits(d, at(key, v)), hn::Mul(weight, hn::Set(d, factor_)));
  }

 private:
  static constexpr std::size_t kBytes = kMaxLanes / 8;  // of a vector
  HWY_INLINE std::uint8_t* at(std::size_t key, std::size_t v) { return bits_ + (key * vectors_ + v) * kBytes; }
  HWY_INLINE const std::uint8_t* at(std::size_t key, std::size_t v) const {
    return bits_ + (key * vectors_ + v) * kBytes;
  }

  std::size_t vectors_ = 0;
  float factor_ = 1;
  // LoadMaskBits reads eight bytes.
  HWY_ALIGN std::uint8_t bits_[static_cast<std::size_t>(kRunKeys) * BlockInfo::kMaxVectors * kBytes + 8];
};

// Drops weights of one row, of keys [begin, begin + count), at most a run of them. -0, which says "forbidden", stays.
HWY_INLINE void DropInRow(const QkvMask& params, std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t begin,
                          std::size_t count, float* HWY_RESTRICT weights) {
  const Dropout& dropout = params.dropout;
  const Counters::DWord d;
  const DF df;
  const std::size_t n = hn::Lanes(d);
  constexpr std::size_t kFours = static_cast<std::size_t>(kRunKeys / kDropoutKeys) + 1;
  HWY_ALIGN std::uint32_t words[(kFours + kMaxLanes) * static_cast<std::size_t>(kDropoutKeys) + kMaxLanes];
  const std::size_t skipped = static_cast<std::size_t>(begin % kDropoutKeys);
  const std::uint32_t four = static_cast<std::uint32_t>((params.first_chunk * kChunkKeys + begin) / kDropoutKeys);
  for (std::size_t at = 0; at * kDropoutKeys < skipped + count; at += n) {
    Counters counters;
    counters.set(0, static_cast<std::uint32_t>(dropout.first_query + i));
    counters.set(1, hn::Iota(d, four + static_cast<std::uint32_t>(at)));
    counters.set(2, static_cast<std::uint32_t>(dropout.first_head + h));
    counters.set(3, static_cast<std::uint32_t>(dropout.first_entry + b));
    counters.philox(dropout.key);
    hn::StoreInterleaved4(counters.get(0), counters.get(1), counters.get(2), counters.get(3), d,
                          words + at * kDropoutKeys);
  }
  const VF factor = hn::Set(df, static_cast<float>(dropout.factor)), sign = hn::Neg(hn::Zero(df));
  for (std::size_t j = 0; j < count; j += n) {
    const VF x = hn::LoadU(df, weights + j);
    const VF y =
        hn::IfThenElse(Keeps(dropout, hn::LoadU(d, words + skipped + j)), hn::Mul(x, factor), hn::And(x, sign));
    if (j + n <= count) {
      hn::StoreU(y, df, weights + j);
    } else {
      HWY_ALIGN float lanes[kMaxLanes];
      hn::Store(y, df, lanes);
      std::copy_n(lanes, count - j, weights + j);
    }
  }
}

// The same for decode's rows, [row][64].
inline HWY_NOINLINE void DropInRows(const QkvMask& params, const QueryBlock& q_block, const BlockInfo& info,
                                    std::size_t rows, std::int64_t begin, std::size_t count,
                                    float* HWY_RESTRICT weights) {
  for (std::size_t r = 0; r < rows; ++r) {
    DropInRow(params, q_block.batch, info.head[r], info.query[r], begin, count,
              weights + r * static_cast<std::size_t>(kRunKeys));
  }
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
