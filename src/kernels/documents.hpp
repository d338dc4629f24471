#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/params.hpp"

// Document ids of keys and queries. They are read, and keys never, to tell what a query block may see.
namespace manyheads::kernels {

struct KeyRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;  // <= begin: no key at all
};

// The lowest and the highest of some document ids.
struct IdRange {
  std::int64_t low = 0;
  std::int64_t high = 0;
  bool one() const noexcept { return low == high; }
  bool meets(const IdRange& other) const noexcept { return other.high >= low && high >= other.low; }
};

// Calls with the ids from [b, begin] on, as they lie, and the step between them.
template <class Visit>
auto with_ids(const IntegerView& ids, std::int64_t b, std::int64_t begin, Visit&& visit) noexcept {
  const std::int64_t at = b * ids.stride[0] + begin * ids.stride[1];
  return ids.wide ? visit(static_cast<const std::int64_t*>(ids.data) + at, ids.stride[1])
                  : visit(static_cast<const std::int32_t*>(ids.data) + at, ids.stride[1]);
}
// The same with the ids of the keys, from key `begin` on.
template <class Visit>
auto with_key_ids(const QkvMask& params, std::int64_t b, std::int64_t begin, Visit&& visit) noexcept {
  return with_ids(params.k_documents, b, params.key_start(b) + begin, visit);
}

inline IdRange id_range(const IntegerView& ids, std::int64_t b, std::int64_t begin, std::int64_t end) noexcept {
  return with_ids(ids, b, begin, [&](const auto* id, std::int64_t step) noexcept {
    auto low = *id;
    auto high = *id;
    if (step == 1) {  // by itself, so that it becomes vectors
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

// The ids of keys [begin, end), from the call's table where it has them.
inline IdRange key_ids(const QkvMask& params, std::int64_t b, std::int64_t begin, std::int64_t end) noexcept {
  const std::int64_t start = params.key_start(b);
  const bool whole = begin % kRunKeys == 0 && (end - begin == kRunKeys || end == params.tk - start);
  if (params.run_documents == nullptr || !whole) return id_range(params.k_documents, b, start + begin, start + end);
  const std::int64_t* run = params.run_documents + 2 * (b * runs_of(params.tk) + begin / kRunKeys);
  return {run[0], run[1]};
}

// Fills such a table, [B][runs of Tk][2].
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

// From the first to the last of keys [begin, end) whose ids lie in `ids`.
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
