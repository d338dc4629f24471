// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_LANES_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_LANES_INL_HPP
#undef MANYHEADS_LANES_INL_HPP
#else
#define MANYHEADS_LANES_INL_HPP
#endif

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "hwy/highway.h"
#include "kernels/algorithm/ahead-inl.hpp"
#include "kernels/algorithm/merge-inl.hpp"
#include "kernels/algorithm/scores-inl.hpp"
#include "kernels/algorithm/weigh-inl.hpp"
#include "kernels/kernel_table.hpp"

// The forward with many rows in the vector lanes: weights of a run of keys, and their products with the values.
HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// output[dv][lane] (+)= sum over the run's keys, ascending, of values[key][dv] * p[key][lane]. `place` is the first
// key's place in its run; `keys` counts words.
template <class Unit, int NV, int M, class Meanwhile = Nothing>
HWY_INLINE void AddValues(const float* HWY_RESTRICT a, std::size_t a_m, std::size_t a_i, const float* HWY_RESTRICT b,
                          std::size_t b_i, std::size_t place, std::size_t words, bool fresh, std::size_t out_step,
                          float* HWY_RESTRICT output, Meanwhile&& meanwhile = {}) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  VF acc[M][NV];
  const auto at = [&](int m, int v) HWY_ATTR {
    return output + static_cast<std::size_t>(m) * out_step + static_cast<std::size_t>(v) * n;
  };
  if constexpr (Unit::kChains) {
    SumInRuns<Unit>(a, a_m, a_i, b, b_i, place, words, kChainKeys, acc, meanwhile);
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) {
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) {
        hn::StoreU(fresh ? acc[m][v] : hn::Add(hn::LoadU(d, at(m, v)), acc[m][v]), d, at(m, v));
      }
    }
  } else {
    if (fresh) {
      Clear(acc);
    } else {
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) {
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) acc[m][v] = hn::LoadU(d, at(m, v));
      }
    }
    Accumulate<Unit>(a, a_m, a_i, b, b_i, words, acc, meanwhile);
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) {
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) hn::StoreU(acc[m][v], d, at(m, v));
    }
  }
}

// AddValues over `width` values, those of an index side by side.
template <class Unit, int NV>
HWY_INLINE void AddAllValues(const Rows& values, const float* HWY_RESTRICT weights, std::size_t place,
                             std::size_t words, bool fresh, std::size_t width, std::size_t lanes,
                             float* HWY_RESTRICT output) {
  constexpr int kRows = RowsBeside<NV>();
  std::size_t i = 0;
  for (; i + kRows <= width; i += kRows) {
    AddValues<Unit, NV, kRows>(values.data + i, 1, values.stride, weights, lanes, place, words, fresh, lanes,
                               output + i * lanes);
  }
  for (; i < width; ++i) {
    AddValues<Unit, NV, 1>(values.data + i, 1, values.stride, weights, lanes, place, words, fresh, lanes,
                           output + i * lanes);
  }
}

// The same as a function: beside the code of masks the compiler would keep sums in memory.
template <class Unit, int NV>
HWY_NOINLINE void AddAllValuesApart(const Rows& values, const float* HWY_RESTRICT weights, std::size_t place,
                                    std::size_t words, bool fresh, std::size_t width, std::size_t lanes,
                                    float* HWY_RESTRICT output) {
  AddAllValues<Unit, NV>(values, weights, place, words, fresh, width, lanes, output);
}

// The factors of a run's values where they are I8; null for other types.
HWY_INLINE const float* ValueScales(const AttentionCall& call, const Tile& tile, std::int64_t begin, std::size_t keys,
                                    float* HWY_RESTRICT to) {
  if (call.v_scales == nullptr) return nullptr;
  call.copy_v_scales(tile.batch, tile.kv_head, begin, begin + static_cast<std::int64_t>(keys), to);
  return to;
}
HWY_INLINE bool ScalesFinite(const float* scales, std::size_t keys) {
  bool finite = true;
  for (std::size_t j = 0; scales != nullptr && j < keys; ++j) finite = finite && scales[j] * 0.0f == 0.0f;
  return finite;
}

// Weights in place of a run's scores, p[word][lane], for the maxima m of NV vectors; adds them to l. Not kPlain, they
// take the values' scales, if any, with them, and a forbidden key's weight is -0 where `guard` asks for it.
template <class Unit, int NV, bool kPlain>
HWY_INLINE void LaneWeights(const VF* m, float late_factor, const float* value_scales, std::size_t place,
                            std::size_t keys, bool guard, std::size_t lanes, float* HWY_RESTRICT scores, VF* l) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  Weigher<Unit> weigh[NV];
  VF sum[NV], chain[NV];
  bool far = false;
  for (int v = 0; v < NV; ++v) {
    sum[v] = hn::Zero(d);
    weigh[v] = {m[v], hn::Set(d, late_factor)};
    far = far || weigh[v].far();
  }
  for (std::size_t key = 0; far && key < keys; ++key) {
    for (std::size_t v = 0; v < NV; ++v) {
      float* at = scores + key * lanes + v * n;
      hn::StoreU(weigh[v].Nearer(hn::LoadU(d, at)), d, at);
    }
  }
  const auto weight = [&](std::size_t key, std::size_t v) HWY_ATTR {
    const VF x = hn::LoadU(d, scores + key * lanes + v * n);
    VF p = weigh[v](x);
    chain[v] = hn::Add(chain[v], p);
    if constexpr (!kPlain) {
      if (value_scales != nullptr) p = hn::Mul(p, hn::Set(d, value_scales[key]));
      if (guard) p = hn::IfThenElse(hn::Eq(x, hn::Set(d, kForbidden)), hn::Neg(hn::Zero(d)), p);
    }
    return p;
  };
  for (std::size_t j = 0; j < keys;) {
    const std::size_t end = std::min(keys, j + kChainKeys - (place + j) % kChainKeys);
    for (int v = 0; v < NV; ++v) chain[v] = hn::Zero(d);
    for (; j + Unit::kTerms <= end; j += Unit::kTerms) {
#pragma GCC unroll 8
      for (std::size_t v = 0; v < NV; ++v) {
        float* to = scores + j / Unit::kTerms * lanes + v * n;
        if constexpr (Unit::kTerms == 1) {
          hn::StoreU(weight(j, v), d, to);
        } else {
          const VF first = weight(j, v);
          hn::StoreU(Unit::Zip(first, weight(j + 1, v)), d, to);
        }
      }
    }
    if constexpr (Unit::kTerms == 2) {
      for (std::size_t v = 0; j < end && v < NV; ++v) {
        // A key behind the last may be another vector's, and not finite.
        const VF none = guard ? hn::Neg(hn::Zero(d)) : hn::Zero(d);
        hn::StoreU(Unit::Zip(weight(j, v), none), d, scores + j / 2 * lanes + v * n);
      }
      j = end;
    }
    for (int v = 0; v < NV; ++v) sum[v] = hn::Add(sum[v], chain[v]);
  }
  for (int v = 0; v < NV; ++v) l[v] = hn::Add(l[v], sum[v]);
}

// What a call of the kernel covers of a tile's keys.
HWY_INLINE TileRange Within(TileRange range, const KeyPart& part) {
  range.any.begin = std::max(range.any.begin, part.begin);
  if (part.end >= 0) range.any.end = std::min(range.any.end, part.end);
  return range;
}

// A run of keys as ForwardLanes hands it to its vectors.
struct LaneRun {
  std::int64_t begin, end;
  bool some;   // some lane may not see some key
  bool guard;  // values that are not finite beside forbidden keys
  bool fresh;  // the chunk's first
  Rows keys, values;
  const float* value_scales;
  float* scores;
  float* tiles;
  float* output;  // of the chunk's node
  TileAhead& ahead;
};

// Keys [begin, end) of a run, at the begin of a word, for NV vectors from `vector` on: scores, weights, and their products
// with the values. Lanes outside keep what they hold.
template <class Unit, int NV, bool kWhole>
HWY_INLINE void AddRun(const AttentionCall& call, const Tile& tile, const TileState& state, const LaneRun& run,
                       std::size_t lanes, std::size_t vector, std::int64_t begin, std::int64_t end, VF* m, VF* l) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  const std::size_t row = vector * n;
  const std::size_t dv = static_cast<std::size_t>(call.dv);
  const std::size_t keys = static_cast<std::size_t>(end - begin);
  const std::size_t words = Words<Unit>(keys);
  const std::size_t skipped = static_cast<std::size_t>(begin - run.begin);
  const std::size_t place = static_cast<std::size_t>(begin % kRunKeys);
  const float* values = run.values.data + skipped / Unit::kTerms * run.values.stride;
  float* scores = run.scores + row;
  float* output = run.output + row;
  m += vector;
  l += vector;

  VF top[NV];
  ScoreRun<Unit, NV>(call, tile, state, lanes, row, {run.keys.data + skipped * run.keys.stride, run.keys.stride}, begin,
                     end, run.some, scores, top, run.ahead);
  for (std::size_t v = 0; v < NV; ++v) {
    const auto moves = hn::Gt(top[v], hn::Add(m[v], hn::Set(d, kMaxSlack)));
    if (hn::AllFalse(d, moves)) continue;
    const VF next = hn::IfThenElse(moves, hn::Round(top[v]), m[v]);
    if (!run.fresh) {
      const VF factor = PowerOfTwo(d, hn::Sub(m[v], next));
      l[v] = hn::Mul(l[v], factor);
      for (std::size_t i = 0; i < OutputWidth<Unit>(call, tile); ++i) {
        float* o = output + i * lanes + v * n;
        hn::StoreU(hn::Mul(hn::LoadU(d, o), factor), d, o);
      }
    }
    m[v] = next;
  }
  const float* scales = run.value_scales != nullptr ? run.value_scales + skipped : nullptr;
  if (scales == nullptr && !run.guard) {
    LaneWeights<Unit, NV, true>(m, state.late_factor, nullptr, place, keys, false, lanes, scores, l);
  } else {
    LaneWeights<Unit, NV, false>(m, state.late_factor, scales, place, keys, run.guard, lanes, scores, l);
  }

  if constexpr (Unit::kTiles) {
    const std::size_t width = OutputWidth<Unit>(call, tile);
    const Rows rows = TileValues({values, run.values.stride}, words, dv, run.tiles);
    std::fill(scores + words * lanes, scores + rows.stride * lanes, 0.0f);
    if (run.guard) {
      EmulatedProducts<true>(rows.data, rows.stride, scores, lanes, rows.stride / kTileSide, output, lanes, width, lanes,
                             run.fresh);
    } else {
      TileProducts<Unit>(rows.data, rows.stride, scores, lanes, rows.stride / kTileSide, output, lanes, width, lanes,
                         run.fresh);
    }
  } else {
    const Rows rows{values, run.values.stride};
    if (run.guard) {
      AddAllValuesApart<WeightsSecond<Unit>, NV>(rows, scores, place, words, run.fresh, dv, lanes, output);
    } else if constexpr (!kWhole) {
      AddAllValuesApart<Unit, NV>(rows, scores, place, words, run.fresh, dv, lanes, output);
    } else {
      AddAllValues<Unit, NV>(rows, scores, place, words, run.fresh, dv, lanes, output);
    }
  }
}

// The keys that any of vectors [first, last) needs of a run.
HWY_INLINE KeyRange Together(const KeyRange* part, int first, int last) {
  KeyRange all{0, 0};
  for (int v = first; v < last; ++v) {
    if (part[v].begin >= part[v].end) continue;
    all = all.begin == all.end ? part[v] : KeyRange{std::min(all.begin, part[v].begin), std::max(all.end, part[v].end)};
  }
  return all;
}

// A run of which each vector needs another part. A key forbidden to all the rows of a vector would add 0: skipping it
// changes no bit, and fewer vectors at a time skip more, but keep the multipliers less busy.
template <class Unit, int NV>
HWY_INLINE void AddParts(const AttentionCall& call, const Tile& tile, const TileState& state, const LaneRun& run,
                         std::size_t lanes, const KeyRange (&part)[NV], VF* m, VF* l) {
  const auto steps = [&](int vectors, std::int64_t percent) {
    std::int64_t sum = 0;
    for (int v = 0; v < NV; v += vectors) {
      const KeyRange keys = Together(part, v, std::min(v + vectors, NV));
      sum += (keys.end - keys.begin) * std::min(vectors, NV - v);
    }
    return sum * percent;
  };
  const auto add = [&]<int kVectors>(std::integral_constant<int, kVectors>, int vector) HWY_ATTR {
    const KeyRange keys = Together(part, vector, vector + kVectors);
    const std::size_t first = static_cast<std::size_t>(vector);
    if (keys.begin < keys.end) {
      AddRun<Unit, kVectors, false>(call, tile, state, run, lanes, first, keys.begin, keys.end, m, l);
    } else if (run.fresh) {
      const std::size_t n = LaneCount();
      for (std::size_t i = 0; i < OutputWidth<Unit>(call, tile); ++i) {
        std::fill_n(run.output + i * lanes + first * n, kVectors * n, 0.0f);
      }
    }
  };
  constexpr std::integral_constant<int, 1> kOne;
  constexpr std::integral_constant<int, 2> kTwo;
  const std::int64_t in_ones = steps(1, 122);
  const std::int64_t in_twos = steps(2, NV > 2 ? 105 : 100);
  if constexpr (NV > 2) {
    if (steps(NV, 100) <= std::min(in_ones, in_twos)) return add(std::integral_constant<int, NV>(), 0);
  }
  if (in_ones < in_twos) {
    for (int v = 0; v < NV; ++v) add(kOne, v);
    return;
  }
  for (int v = 0; v + 2 <= NV; v += 2) add(kTwo, v);
  if constexpr (NV % 2 != 0) add(kOne, NV - 1);
}

template <class Unit, int NV>
HWY_NOINLINE float* ForwardLanes(const AttentionCall& call, const Tile& tile, const KeyPart& part, float* scratch,
                                 TileState& state, const Tile& next, bool writes) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  const std::size_t lanes = NV * n;
  const std::size_t dv = static_cast<std::size_t>(call.dv);
  const ForwardScratch at(call, tile);
  state.packed = scratch + at.packed;
  if (part.first) PackQueries<Unit>(call, tile, lanes, scratch + at.packed, state);
  const TileRange range = Within(state.range, part);
  TileAhead ahead(call, tile, range, next, state, writes, NV);
  MergeTree<LaneNodes> tree({lanes, OutputWidth<Unit>(call, tile)}, at.tree(scratch), part.first);

  std::int64_t chunk = tree.chunk();
  float* node = tree.node();  // of the chunk under way
  VF m[NV], l[NV];
  for (int v = 0; node != nullptr && v < NV; ++v) {
    m[v] = hn::LoadU(d, node + static_cast<std::size_t>(v) * n);
    l[v] = hn::LoadU(d, node + lanes + static_cast<std::size_t>(v) * n);
  }
  const auto end_chunk = [&]() HWY_ATTR {
    if (node == nullptr) return;
    for (int v = 0; v < NV; ++v) {
      hn::StoreU(m[v], d, node + static_cast<std::size_t>(v) * n);
      hn::StoreU(l[v], d, node + lanes + static_cast<std::size_t>(v) * n);
    }
  };

  for_each_run(call, tile, range, [&](std::int64_t begin, std::int64_t end, bool some) HWY_ATTR {
    some = TakesOthers<Unit>(call, begin, end) || some;
    const bool fresh = begin / kChunkKeys != chunk;
    if (fresh) {
      end_chunk();
      chunk = begin / kChunkKeys;
      node = tree.open(chunk);
      for (int v = 0; v < NV; ++v) {
        m[v] = hn::Set(d, kNoMaximum);
        l[v] = hn::Zero(d);
      }
    }
    const std::size_t keys = static_cast<std::size_t>(end - begin);
    const Rows values = ValueRows<Unit>(call, tile, begin, end, 1, scratch + at.values);
    float scales[kRunKeys];
    const float* value_scales = ValueScales(call, tile, begin, keys, scales);
    const bool guard = (some || call.bias != nullptr) &&
                       !(AllFinite<Unit>(values, Words<Unit>(keys), dv) && ScalesFinite(value_scales, keys));
    const LaneRun run{begin,
                      end,
                      some,
                      guard,
                      fresh,
                      KeyRows<Unit>(call, tile, begin, end, scratch + at.keys),
                      values,
                      value_scales,
                      scratch + at.scores,
                      scratch + at.tiles,
                      node + 2 * lanes,
                      ahead};

    if constexpr (!Unit::kTiles && NV > 1) {
      if (some) {
        KeyRange keys_of_vector[NV];
        for (int v = 0; v < NV; ++v) {
          KeyRange& of = keys_of_vector[v];
          of = {std::max(begin, state.vector_keys[v].begin), std::min(end, state.vector_keys[v].end)};
          if (of.begin < of.end && call.q_documents.data != nullptr) {
            of = keys_of(call, tile.batch, state.vector_ids[v], of.begin, of.end);
          }
          of.begin -= (of.begin - begin) % kKeysTogether<Unit>;
        }
        AddParts<Unit, NV>(call, tile, state, run, lanes, keys_of_vector, m, l);
        return;
      }
    }
    AddRun<Unit, NV, true>(call, tile, state, run, lanes, 0, begin, end, m, l);
  });
  end_chunk();
  return part.last ? tree.close() : nullptr;
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
