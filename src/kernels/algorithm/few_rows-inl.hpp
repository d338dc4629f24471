// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_FEW_ROWS_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_FEW_ROWS_INL_HPP
#undef MANYHEADS_FEW_ROWS_INL_HPP
#else
#define MANYHEADS_FEW_ROWS_INL_HPP
#endif

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "hwy/highway.h"
#include "kernels/algorithm/fetch-inl.hpp"
#include "kernels/algorithm/lanes-inl.hpp"
#include "kernels/algorithm/merge-inl.hpp"
#include "kernels/algorithm/quads-inl.hpp"
#include "kernels/algorithm/row_weights-inl.hpp"
#include "kernels/algorithm/scores-inl.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/kernel_table.hpp"

// The forward for a few rows, as in decoding: keys and values lie in the lanes, and the next run is fetched meanwhile. The
// chains of operations are those of ForwardLanes, and so are the bits.
HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Vectors of keys or values beside R broadcast rows, so that sums and operands fit the registers.
template <int R>
constexpr int VectorsBeside() {
  return R * 4 <= kTileRows * kTileVectors ? 4 : R * 2 <= kTileRows * kTileVectors ? 2 : 1;
}

// The most that a run can come to: a stretch for each row of keys and values.
constexpr std::size_t kMostStretches = 2 * static_cast<std::size_t>(kRunKeys);

// Rows of [begin, end), a run of keys or less, as stretches; returns how many. Beside the rows of a key those of the
// key `back` before it, which there is, are asked for again (0: none are).
HWY_INLINE std::size_t StretchesOf(const AttentionCall& call, const Tile& tile, const void* base, std::int64_t size,
                                   const std::int64_t* stride, std::int64_t width, std::int64_t begin, std::int64_t end,
                                   std::int64_t back, Stretch* to) {
  const bool dense = stride[2] == width;
  std::size_t count = 0;
  for (std::int64_t j = begin, keys = 0; j < end; j += keys) {
    keys = call.adjacent(j, end);
    if (back != 0) keys = call.adjacent(j - back, j - back + keys);
    const std::int64_t at = call.key_at(stride, tile.batch, tile.kv_head, j) * size;
    const std::ptrdiff_t again = back == 0 ? 0 : call.key_at(stride, tile.batch, tile.kv_head, j - back) * size - at;
    const char* from = static_cast<const char*>(base) + at;
    const std::int64_t bytes = ((dense ? keys : 1) * width * size + 63) / 64 * 64;
    for (std::int64_t row = 0; row < (dense ? 1 : keys); ++row, from += stride[2] * size) {
      to[count++] = {from, from + bytes, again};
    }
  }
  return count;
}

// The keys of [begin, end), or the values. Not what scales them: crossing to it costs more than it saves.
HWY_INLINE std::size_t StretchesAhead(const AttentionCall& call, const Tile& tile, bool values, std::int64_t begin,
                                      std::int64_t end, std::int64_t back, Stretch* to) {
  const std::int64_t* stride = values ? call.v_stride : call.k_stride;
  std::size_t count = 0;
  if (stride[3] == 1) {
    count = StretchesOf(call, tile, values ? call.v : call.k, static_cast<std::int64_t>(size_of(call.kv_type)), stride,
                        values ? call.dv : call.d, begin, end, back, to);
  }
  return count;
}

// Vectors of keys that R rows of queries are multiplied with at a time: enough chains of sums to keep the multipliers
// busy, and a query's word is loaded once for all of them. No more: each is sixteen rows to read from and, at a word, a
// line to fetch.
template <int R>
constexpr int KeysBeside() {
#if HWY_TARGET == HWY_AVX3
  return 2;
#else
  return R <= 2 ? 2 : 1;  // half as many registers
#endif
}

// Keys whose values are multiplied between two calls of what is done meanwhile, and how many fetches that is beside so
// many vectors of values: a few lines at a time. A burst fills the queue of lines that are missing, and holds up what
// the rows read.
template <class Unit>
constexpr std::size_t kKeysAFetch = HWY_TARGET == HWY_AVX3 ? Unit::kTerms : 4;
template <int NV>
constexpr std::size_t kFetches = HWY_TARGET == HWY_AVX3 ? (NV + 1) / 2 : 1;

// Products of R rows of queries with K vectors of keys, word by word as they come, in the order of Products.
template <class Unit, int R, int K>
struct WordProducts {
  WordProducts(const TileState& state, const float* rows, std::size_t width, std::size_t words_of_row)
      : queries(rows), words(words_of_row), run(DepthRun(width)) {
    for (int r = 0; r < R; ++r) {
      for (int k = 0; k < K; ++k) {
        chain[r][k] = Unit::Begin(state, r);
        total[r][k] = hn::Zero(DF());
      }
    }
  }
  HWY_INLINE void operator()(std::size_t word, const VF (&vectors)[K]) {
    if (Unit::kChains && (word & (run - 1)) == 0 && word > 0) {  // a power of two
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
        for (int k = 0; k < K; ++k) {
          total[r][k] = word == run ? chain[r][k] : hn::Add(total[r][k], chain[r][k]);
          chain[r][k] = hn::Zero(DF());
        }
      }
    }
    VF key[K];
#pragma GCC unroll 4
    for (int k = 0; k < K; ++k) key[k] = Unit::Key(vectors[k]);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const float* at = queries + word * R + static_cast<std::size_t>(r);
      const VF query = hn::Set(DF(), Unit::kTerms == 1 ? *at : WordAt(at));
#pragma GCC unroll 4
      for (int k = 0; k < K; ++k) chain[r][k] = Unit::MulAdd(key[k], query, chain[r][k]);
    }
  }
  HWY_INLINE VF sum(int r, int k) const {
    return !Unit::kChains || words <= run ? chain[r][k] : hn::Add(total[r][k], chain[r][k]);
  }

  const float* queries;
  std::size_t words, run;
  VF chain[R][K], total[R][K];
};

// To scores[row][64], of K vectors of keys. The keys are multiplied on their way into the lanes: on their way through
// memory loads wait for stores that merely have the same low bits of address.
template <class Unit, int R, int K, class Meanwhile>
HWY_INLINE void ScoreRows(const AttentionCall& call, const TileState& state, const LaneRows (&keys)[K],
                          const float* HWY_RESTRICT queries, std::size_t words, float* HWY_RESTRICT packed,
                          float* HWY_RESTRICT scores, Meanwhile&& meanwhile) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  const std::size_t width = static_cast<std::size_t>(call.d);
  if (InDouble<Unit>(width)) {
    for (std::size_t k = 0; k < K; ++k) {
      VF sum[R][1];
      PackLanes<Unit>(call.kv_type, call.k, keys[k], call.k_stride[3], call.d, n, packed, [](VF x) { return x; });
      Products<Unit>(queries, 1, R, packed, n, width, state.sum_factor, sum);
      for (int r = 0; r < R; ++r) hn::StoreU(sum[r][0], d, scores + r * kRunKeys + k * n);
    }
    return;
  }
  WordProducts<Unit, R, K> products(state, queries, width, words);
  EachWord<Unit>(call.kv_type, call.k, keys, call.k_stride[3], call.d, products, meanwhile);
  for (int r = 0; r < R; ++r) {
    for (int k = 0; k < K; ++k) {
      hn::StoreU(Unit::Score(state, r, products.sum(r, k)), d, scores + r * kRunKeys + static_cast<std::size_t>(k) * n);
    }
  }
}

// Weights as words, in place: each row's packed at its begin.
template <class Unit, int R>
HWY_INLINE void PackWeights(float* HWY_RESTRICT scores) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  constexpr std::size_t kRun = static_cast<std::size_t>(kRunKeys);
  for (std::size_t i = 0; i < R * kRun; i += 2 * n) {
    hn::StoreU(Unit::Pack(hn::LoadU(d, scores + i), hn::LoadU(d, scores + i + n)), d,
               scores + i / kRun * kRun + i % kRun / 2);
  }
}

// Values of a run as they lie in the caller's memory: where the keys of each chain begin, that of place 0 first,
// `stride` values apart.
template <class Element>
struct ValuesInPlace {
  std::size_t chain_end(std::size_t key) const {
    constexpr std::size_t kChain = static_cast<std::size_t>(kChainKeys);
    return std::min(keys, ((place + key) / kChain + 1) * kChain - place);
  }
  const Element* chain(std::size_t key) const { return chains[(place + key) / static_cast<std::size_t>(kChainKeys)]; }

  const Element* chains[kRunKeys / kChainKeys];
  std::size_t stride, place, keys;
};

// Adds the values from `from` on of keys [key, last), times the weights of R rows, to NV vectors of sums. They become
// the unit's words on their way into the registers.
template <class Unit, class Values, int NV, int R, class Meanwhile>
HWY_INLINE void AddChain(const float* HWY_RESTRICT weights, const typename Values::Element* from, std::size_t stride,
                         std::size_t key, std::size_t last, VF (&sum)[R][NV], Meanwhile&& meanwhile) {
  constexpr std::size_t kRun = static_cast<std::size_t>(kRunKeys);
  constexpr std::size_t kTerms = Unit::kTerms;
  while (key < last) {
    meanwhile(nullptr);
    for (const std::size_t stop = std::min(last, key + kKeysAFetch<Unit>); key < stop; key += kTerms) {
      VF value[NV];
      if constexpr (kTerms == 1) {
        LoadVectors<Values>(from, value);
      } else {
        LoadPairs<NV>(from, from + stride, value);
      }
      from += kTerms * stride;
#pragma GCC unroll 8
      for (std::size_t r = 0; r < R; ++r) {
        const float* at = weights + r * kRun + key / kTerms;
        const VF weight = hn::Set(DF(), kTerms == 1 ? *at : WordAt(at));
#pragma GCC unroll 4
        for (std::size_t v = 0; v < NV; ++v) sum[r][v] = Unit::MulAdd(weight, value[v], sum[r][v]);
      }
    }
  }
}

// AddValues of NV vectors by one chain; `total` holds the sums of the run's chains before it. Chain by chain and not
// vector by vector: what was fetched first is read first, before what comes after it takes its place in the first
// cache.
template <class Unit, class Values, int NV, int R, class Meanwhile>
HWY_INLINE void AddChainInPlace(const float* HWY_RESTRICT weights,
                                const ValuesInPlace<typename Values::Element>& values, std::size_t key, std::size_t i,
                                bool fresh, std::size_t width, float* HWY_RESTRICT total, float* HWY_RESTRICT output,
                                Meanwhile&& meanwhile) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  const std::size_t last = values.chain_end(key);
  VF sum[R][NV];
  Clear(sum);
  AddChain<Unit, Values, NV, R>(weights, values.chain(key) + i, values.stride, key, last, sum, meanwhile);
#pragma GCC unroll 8
  for (std::size_t r = 0; r < R; ++r) {
    float* so_far = total + r * width;
    float* to = output + r * width;
    if (key > 0) {
#pragma GCC unroll 4
      for (std::size_t v = 0; v < NV; ++v) sum[r][v] = hn::Add(hn::LoadU(d, so_far + v * n), sum[r][v]);
    }
    if (last < values.keys) {
#pragma GCC unroll 4
      for (std::size_t v = 0; v < NV; ++v) hn::StoreU(sum[r][v], d, so_far + v * n);
      continue;
    }
    InOrder<Values>(sum[r]);
#pragma GCC unroll 4
    for (std::size_t v = 0; v < NV; ++v) {
      hn::StoreU(fresh ? sum[r][v] : hn::Add(hn::LoadU(d, to + v * n), sum[r][v]), d, to + v * n);
    }
  }
}

#if HWY_TARGET != HWY_SCALAR
// AddValues of NV vectors for pairs: an even number of keys from an even place on, and weights as words.
template <class Unit, class Values, int NV, int R, class Meanwhile>
HWY_INLINE void AddPairsInPlace(const float* HWY_RESTRICT weights,
                                const ValuesInPlace<typename Values::Element>& values, std::size_t i, bool fresh,
                                std::size_t width, float* HWY_RESTRICT output, Meanwhile&& meanwhile) {
  constexpr bool kInBlocks = std::is_same_v<typename Unit::Element, bfloat16>;
  const DF d;
  const std::size_t n = hn::Lanes(d);
  VF sum[R][NV];
#pragma GCC unroll 8
  for (std::size_t r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (std::size_t v = 0; v < NV; ++v) sum[r][v] = fresh ? hn::Zero(d) : hn::LoadU(d, output + r * width + v * n);
#pragma GCC unroll 4
    for (std::size_t v = 0; kInBlocks && v < NV; v += 2) SplitBlocks(sum[r][v], sum[r][v + 1]);
  }
  for (std::size_t key = 0; key < values.keys; key = values.chain_end(key)) {
    AddChain<Unit, Values, NV, R>(weights, values.chain(key) + i, values.stride, key, values.chain_end(key), sum,
                                  meanwhile);
  }
#pragma GCC unroll 8
  for (std::size_t r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (std::size_t v = 0; kInBlocks && v < NV; v += 2) JoinBlocks(sum[r][v], sum[r][v + 1]);
#pragma GCC unroll 4
    for (std::size_t v = 0; v < NV; ++v) hn::StoreU(sum[r][v], d, output + r * width + v * n);
  }
}
#endif

// Calls f(vectors, i) for columns i of `width`, kMost vectors at a time and the rest kLeast at a time.
template <int kMost, int kLeast, class F>
HWY_INLINE void EachColumns(std::size_t width, F&& f) {
  const std::size_t n = LaneCount();
  std::size_t i = 0;
  for (; i + kMost * n <= width; i += kMost * n) f(std::integral_constant<int, kMost>(), i);
  for (; i < width; i += kLeast * n) f(std::integral_constant<int, kLeast>(), i);
}

// AddValues over the whole width, where the values can be read as they lie: dense, in whole vectors, of a type that the
// target converts or multiplies as it is, and nothing to guard against. False: nothing was done. A chain lies in one
// page, since pages hold whole chains. The weights are lost; `total` has room for R rows.
template <class Unit, int R, class Meanwhile>
HWY_INLINE bool AddInPlace(const AttentionCall& call, const Tile& tile, std::int64_t begin, std::size_t keys,
                           float* HWY_RESTRICT weights, bool fresh, float* HWY_RESTRICT total,
                           float* HWY_RESTRICT output, Meanwhile&& meanwhile) {
  constexpr int kVectors = VectorsBeside<R>();
  constexpr int kLeast = std::is_same_v<typename Unit::Element, bfloat16> ? 2 : 1;  // vectors at a time
  const std::size_t width = static_cast<std::size_t>(call.dv);
  if (kVectors < kLeast || call.value_words != nullptr || call.v_stride[3] != 1 ||
      width % (kLeast * LaneCount()) != 0 || keys % Unit::kTerms != 0)
    return false;
  bool done = false;
  WithType(call.kv_type, [&]<class Values>(Values) HWY_ATTR {
    using Element = typename Values::Element;
    constexpr bool kPairs = Unit::kTerms == 2 && std::is_same_v<Element, typename Unit::Element>;
    if constexpr (kVectors >= kLeast && (kPairs || (Unit::kTerms == 1 && Values::kWhole))) {
      ValuesInPlace<Element> values{
          {}, static_cast<std::size_t>(call.v_stride[2]), static_cast<std::size_t>(begin % kRunKeys), keys};
      for (std::int64_t key = begin; key < begin + static_cast<std::int64_t>(keys);
           key = (key / kChainKeys + 1) * kChainKeys) {
        values.chains[key % kRunKeys / kChainKeys] =
            static_cast<const Element*>(call.v) + call.v_at(tile.batch, tile.kv_head, key);
      }
      if constexpr (kPairs) {
        PackWeights<Unit, R>(weights);
        EachColumns<kVectors, kLeast>(
            width, [&]<int kSome>(std::integral_constant<int, kSome>, std::size_t i) HWY_ATTR {
              AddPairsInPlace<Unit, Values, kSome, R>(weights, values, i, fresh, width, output + i, meanwhile);
            });
      } else {
        for (std::size_t key = 0; key < keys; key = values.chain_end(key)) {
          EachColumns<kVectors, 1>(width, [&]<int kSome>(std::integral_constant<int, kSome>, std::size_t i) HWY_ATTR {
            AddChainInPlace<Unit, Values, kSome, R>(weights, values, key, i, fresh, width, total + i, output + i,
                                                    meanwhile);
          });
        }
      }
      done = true;
    }
  });
  return done;
}

// The queries' words, [word][row]. `copy` holds a row.
template <class Unit, int R>
HWY_INLINE void RowQueries(const AttentionCall& call, const Tile& tile, float* HWY_RESTRICT copy,
                           float* HWY_RESTRICT queries, TileState& state) {
  const DF d;
  const std::size_t width = static_cast<std::size_t>(call.d);
  const std::size_t words = Words<Unit>(width);
  for (std::size_t r = 0; r < R; ++r) {
    const std::int64_t at = call.q_at(tile.batch, state.head[r], state.query[r]);
    if constexpr (Unit::kBytes) {
      ByteQuery(call, at, r, copy, state);
      for (std::size_t i = 0; i < words; ++i) queries[i * R + r] = WordAt(copy + i);
    } else {
      const QueryFactor<Unit> change(state);
      const float* row = Unit::Row(call.type, call.q, at, call.q_stride[3], call.d, copy);
      for (std::size_t i = 0; i < words; ++i) queries[i * R + r] = hn::GetLane(change(hn::Set(d, WordAt(row + i))));
    }
  }
}

// The weights of a run in scores[row][64], of keys from `place` in it on, with its values as words: output[row] (+)=
// weights[row] * values, `width` wide. The weights are lost. `guard` as for LaneWeights.
template <class Unit, int R, class Meanwhile>
HWY_INLINE void AddRows(const Rows& values, std::size_t place, std::size_t count, bool guard, bool fresh,
                        std::size_t width, float* HWY_RESTRICT scores, float* HWY_RESTRICT output,
                        Meanwhile&& meanwhile) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  constexpr std::size_t kRun = static_cast<std::size_t>(kRunKeys);
  constexpr int kVectors = VectorsBeside<R>();
  if constexpr (Unit::kTerms == 2) PackWeights<Unit, R>(scores);
  const auto add = [&]<class U>(U) HWY_ATTR {
    const std::size_t words = Words<Unit>(count);
    std::size_t i = 0;
    for (; i + kVectors * n <= width; i += kVectors * n) {
      AddValues<U, kVectors, R>(scores, kRun, 1, values.data + i, values.stride, place, words, fresh, width, output + i,
                                meanwhile);
    }
    for (; i < width; i += n) {
      AddValues<U, 1, R>(scores, kRun, 1, values.data + i, values.stride, place, words, fresh, width, output + i,
                         meanwhile);
    }
  };
  if (guard) {
    add(WeightsFirst<Unit>());
  } else {
    add(Unit());
  }
}

template <class Unit, int R>
HWY_NOINLINE float* ForwardRows(const AttentionCall& call, const Tile& tile, const KeyPart& part, float* scratch,
                                TileState& state) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  constexpr std::size_t kRun = static_cast<std::size_t>(kRunKeys);
  constexpr int kVectors = VectorsBeside<R>();
  const ForwardScratch at(call, tile);
  const std::size_t width = OutputWidth<Unit>(call, tile);
  const std::size_t d_words = Words<Unit>(static_cast<std::size_t>(call.d));
  const std::size_t key_words = static_cast<std::size_t>(call.d) * size_of(call.kv_type) / sizeof(float);

  float* queries = scratch + at.packed;
  RowQueries<Unit, R>(call, tile, scratch + at.keys, queries, state);
  float* scores = scratch + at.scores;  // [row][64]
  float* added = scratch + at.added;
  // Sums of weights are taken by chains, a lane each: rows up to a whole vector.
  for (std::size_t i = R * kRun; i < kFewRows * kRun; ++i) scores[i] = 0.0f;

  MergeTree<RowNodes> tree({width, static_cast<std::size_t>(tile.rows)}, at.tree(scratch), part.first);
  std::int64_t chunk = tree.chunk();
  float* node = tree.node();

  const bool second = fetches_into_second_cache();
  const std::int64_t back = second ? kRunKeys / 2 : 0;
  const TileRange range = Within(state.range, part);
  for_each_run(call, tile, range, [&](std::int64_t begin, std::int64_t end, bool some) HWY_ATTR {
    some = TakesOthers<Unit>(call, begin, end) || some;
    const std::int64_t run = begin / kRunKeys * kRunKeys;
    const bool masked = some || call.bias != nullptr;
    const bool fresh = begin / kChunkKeys != chunk;
    if (fresh) {
      chunk = begin / kChunkKeys;
      node = tree.open(chunk);
      std::fill_n(node, kFewRows, kNoMaximum);
      std::fill_n(node + kFewRows, kFewRows, 0.0f);
    }
    float* output = node + 2 * kFewRows;
    const std::size_t place = static_cast<std::size_t>(begin - run);
    const std::size_t count = static_cast<std::size_t>(end - begin);

    // The next run's keys are fetched while this one's are multiplied, and values beside values: the other way round
    // memory was slower.
    Stretch ahead[kMostStretches];
    const std::int64_t next = std::min(run + kRunKeys, range.any.end), after = std::min(next + kRunKeys, range.any.end);
    const std::size_t keys_ahead = StretchesAhead(call, tile, false, next, after, back, ahead);
    const std::size_t values_ahead = StretchesAhead(call, tile, true, next, after, back, ahead + keys_ahead);
    Fetcher<true> fetch_keys(ahead, keys_ahead, kRun / (KeysBeside<R>() * n) * (key_words / 4) * kMeanwhileABlock,
                             second);
    Fetcher<true> values_fetcher(
        ahead + keys_ahead, values_ahead,
        (width + kVectors * n - 1) / (kVectors * n) * (kRun / kKeysAFetch<Unit>)*kFetches<kVectors>, second);
    const auto fetch_values = [&](const float*) HWY_ATTR {
#pragma GCC unroll 4
      for (std::size_t i = 0; i < kFetches<kVectors>; ++i) values_fetcher(nullptr);
    };

    constexpr int kKeys = KeysBeside<R>();
    for (std::size_t first = 0; first < kRun; first += kKeys * n) {
      LaneRows rows[kKeys];
      for (std::size_t k = 0; k < kKeys && first + k * n < count; ++k) {
        const std::int64_t from = begin + static_cast<std::int64_t>(first + k * n);
        rows[k].count = std::min(n, count - first - k * n);
        if (call.all_adjacent(from, from + static_cast<std::int64_t>(rows[k].count))) {
          const std::int64_t at_first = call.k_at(tile.batch, tile.kv_head, from);
          for (std::size_t l = 0; l < n; ++l)
            rows[k].at[l] = at_first + static_cast<std::int64_t>(l) * call.k_stride[2];
          rows[k].stride = rows[k].count == n ? call.k_stride[2] : 0;
        } else {
          for (std::size_t l = 0; l < rows[k].count; ++l) {
            rows[k].at[l] = call.k_at(tile.batch, tile.kv_head, from + static_cast<std::int64_t>(l));
          }
        }
      }
      ScoreRows<Unit, R, kKeys>(call, state, rows, queries, d_words, scratch + at.keys, scores + first, fetch_keys);
    }

    if (some || state.rich) {
      RowScores(call, tile, state, R, begin, end, added, scores);
    } else if (state.scaled_keys) {
      ScaleRows(call, tile, R, begin, end, scores);
    }

    HWY_ALIGN float scales[kRun] = {};
    const float* value_scales = ValueScales(call, tile, begin, count, scales);
    Rows values{};
    bool guard = masked && !ScalesFinite(value_scales, count);
    if constexpr (!Unit::kBytes) {  // integers are finite
      if (masked) {
        values = ValueRows<Unit>(call, tile, begin, end, n, scratch + at.values);
        guard = guard || !AllFinite<Unit>(values, Words<Unit>(count), static_cast<std::size_t>(call.dv));
      }
    }
    RowWeights<Unit>(state, R, place, count, guard, fresh, value_scales, width, node, scores);

    if constexpr (Unit::kBytes) {
      values = QuadRows(call, tile, begin, end, n, scratch + at.values);
      AddByteRows<Unit, R, kVectors>(values, Words<Unit>(count), fresh, width, scores, output, fetch_values);
    } else {
      if (!masked &&
          AddInPlace<Unit, R>(call, tile, begin, count, scores, fresh, scratch + at.values, output, fetch_values))
        return;
      if (!masked) values = ValueRows<Unit>(call, tile, begin, end, n, scratch + at.values);
      AddRows<Unit, R>(values, place, count, guard, fresh, width, scores, output, fetch_values);
    }
  });
  return part.last ? tree.close() : nullptr;
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
