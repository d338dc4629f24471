#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/params.hpp"

// Document ids of keys and queries. The ids alone, and no key, tell what a query block may see.
namespace manyheads::kernels {

struct KeyRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;  // <= begin: no key
};

// The lowest and the highest of some document ids.
struct IdRange {
  std::int64_t low = 0;
  std::int64_t high = 0;
  bool one() const noexcept { return low == high; }
  bool meets(const IdRange& other) const noexcept { return other.high >= low && high >= other.low; }
};

// Calls visit(ids, step) with the ids from [b, begin] on, as they lie in memory.
template <class Visit>
auto with_ids(const IntegerView& ids, std::int64_t b, std::int64_t begin, Visit&& visit) noexcept {
  const std::int64_t at = b * ids.stride[0] + begin * ids.stride[1];
  return ids.wide ? visit(static_cast<const std::int64_t*>(ids.data) + at, ids.stride[1])
                  : visit(static_cast<const std::int32_t*>(ids.data) + at, ids.stride[1]);
}
// The same for the ids of the keys, from key `begin` on.
template <class Visit>
auto with_key_ids(const QkvMask& params, std::int64_t b, std::int64_t begin, Visit&& visit) noexcept {
  return with_ids(params.k_documents, b, params.key_start(b) + begin, visit);
}

inline IdRange id_range(const IntegerView& ids, std::int64_t b, std::int64_t begin, std::int64_t end) noexcept {
  return with_ids(ids, b, begin, [&](const auto* id, std::int64_t step) noexcept {
    auto low = *id;
    auto high = *id;
    if (step == 1) {  // a loop of its own, which becomes vectors
      for (std::int64_t j = 0; j < end - begin; ++j) {
        low = id[j] < low ? id[j] : low;
        high = id[j] > high ? id[j] : high;
      }
    } else {
      for (std::int64_t j = 0; j < end - begin; ++j) {
        low = std::min(low, id[j * step]);
        high = std::max(high, id[j * step]);
      }
    }
    return IdRange{low, high};
  });
}

// The ids of keys [begin, end), from QkvMask::run_documents where the call has it.
inline IdRange key_ids(const QkvMask& params, std::int64_t b, std::int64_t begin, std::int64_t end) noexcept {
  const std::int64_t start = params.key_start(b);
  const bool whole = begin % kRunKeys == 0 && (end - begin == kRunKeys || end == params.tk - start);
  if (params.run_documents == nullptr || !whole) return id_range(params.k_documents, b, start + begin, start + end);
  const std::int64_t* run = params.run_documents + 2 * (b * runs_of(params.tk) + begin / kRunKeys);
  return {run[0], run[1]};
}

// Fills QkvMask::run_documents, [B][runs of Tk][2].
inline void tabulate_documents(const QkvMask& params, std::int64_t* to) noexcept {
  for (std::int64_t b = 0; b < params.batch; ++b, to += 2 * runs_of(params.tk)) {
    const std::int64_t start = params.key_start(b);
    const std::int64_t keys = params.tk - start;
    for (std::int64_t begin = 0; begin < keys; begin += kRunKeys) {
      const std::int64_t end = std::min(begin + kRunKeys, keys);
      const IdRange ids = id_range(params.k_documents, b, start + begin, start + end);
      to[2 * (begin / kRunKeys)] = ids.low;
      to[2 * (begin / kRunKeys) + 1] = ids.high;
    }
  }
}

// The keys of [begin, end) from the first to the last whose id lies in `ids`.
inline KeyRange keys_with_ids(const QkvMask& params, std::int64_t b, const IdRange& ids, std::int64_t begin,
                              std::int64_t end) noexcept {
  return with_key_ids(params, b, 0, [&](const auto* id, std::int64_t step) noexcept {
    const auto outside = [&](std::int64_t j) { return id[j * step] < ids.low || id[j * step] > ids.high; };
    while (begin < end && outside(begin)) ++begin;
    while (begin < end && outside(end - 1)) --end;
    return KeyRange{begin, end};
  });
}

}  // namespace manyheads::kernels
