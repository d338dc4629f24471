// KVCache against sequences in plain vectors. The input: the cache's options, and what is done to it step by step. A
// step that is refused must leave the cache as it was, and each must do what it does to a cache that never saw those.
#include <cmath>
#include <cstring>
#include <manyheads/half.hpp>
#include <manyheads/kv_cache.hpp>
#include <map>
#include <optional>

#include "harness.hpp"

using namespace manyheads;

namespace {

enum class Kind { kAdd, kFork, kRemove, kTruncate, kAppend, kMove, kLast = kMove };

struct Step {
  Kind kind = Kind::kAdd;
  std::int64_t sequence = 0;
  std::int64_t count = 0;   // tokens, or the length to keep
  std::int64_t heads = 1;   // of what is appended
  std::int64_t stride = 0;  // between its tokens, beyond their width
  DType dtype = DType::kF32;
  float first = 0;  // numbers go up from here
};

struct Token {
  std::vector<float> key, value;  // as they came
};
using Tokens = std::vector<Token>;

std::size_t size_in(DType type) { return type == DType::kF32 ? 4 : 2; }

// What is appended: [Hkv,T,width] in memory of `stride` elements more a token, and what its elements are.
struct Rows {
  std::vector<unsigned char> memory;
  ConstTensorView view;
  std::vector<float> values;

  Rows(const Step& step, std::int64_t width, float sign) {
    const std::int64_t row = width + step.stride;
    memory.resize(static_cast<std::size_t>(step.heads * step.count * row) * size_in(step.dtype) + 1);
    for (std::int64_t i = 0; i < step.heads * step.count; ++i) {
      for (std::int64_t x = 0; x < width; ++x) {
        const float number = sign * (step.first + static_cast<float>((i * width + x) % 251) * 0.37f);
        const auto at = static_cast<std::size_t>(i * row + x);
        float stored = number;
        if (step.dtype == DType::kF32) {
          std::memcpy(memory.data() + 4 * at, &number, 4);
        } else if (step.dtype == DType::kBF16) {
          const bfloat16 half(number);
          std::memcpy(memory.data() + 2 * at, &half, 2);
          stored = static_cast<float>(half);
        } else {
          const float16 half(number);
          std::memcpy(memory.data() + 2 * at, &half, 2);
          stored = static_cast<float>(half);
        }
        values.push_back(stored);
      }
    }
    view = ConstTensorView(memory.data(), step.dtype, Dims{step.heads, step.count, width},
                           Dims{step.count * row, row, 1});
  }
};

// Does the step; true where it is not refused.
bool apply(KVCache& cache, const Step& step, const Rows* k, const Rows* v) {
  return fuzz::taken([&] {
    switch (step.kind) {
      case Kind::kAdd: cache.add(); break;
      case Kind::kFork: cache.fork(step.sequence); break;
      case Kind::kRemove: cache.remove(step.sequence); break;
      case Kind::kTruncate: cache.truncate(step.sequence, step.count); break;
      case Kind::kAppend: cache.append(step.sequence, k->view, v->view); break;
      case Kind::kMove: cache = KVCache(std::move(cache)); break;
    }
  });
}

struct Model {
  std::map<std::int64_t, Tokens> sequences;
  std::int64_t next = 0;

  void apply(const Step& step, const KVCacheOptions& options, const Rows* k, const Rows* v) {
    if (step.kind == Kind::kAdd) sequences[next++];
    if (step.kind == Kind::kFork) {
      Tokens copy = sequences.at(step.sequence);
      sequences[next++] = std::move(copy);
    }
    if (step.kind == Kind::kRemove) sequences.erase(step.sequence);
    if (step.kind == Kind::kTruncate) sequences.at(step.sequence).resize(static_cast<std::size_t>(step.count));
    if (step.kind != Kind::kAppend) return;
    Tokens& tokens = sequences.at(step.sequence);
    for (std::int64_t t = 0; t < step.count; ++t) {
      Token token;
      for (std::int64_t h = 0; h < step.heads; ++h) {
        const auto copy = [&](const Rows& rows, std::int64_t width, std::vector<float>& to) {
          const auto at = rows.values.begin() + (h * step.count + t) * width;
          to.insert(to.end(), at, at + width);
        };
        copy(*k, options.head_dim, token.key);
        copy(*v, options.value_dim, token.value);
      }
      tokens.push_back(std::move(token));
    }
  }
};

float stored(const ConstTensorView& view, std::int64_t at) {
  switch (view.dtype()) {
    case DType::kBF16: return static_cast<float>(static_cast<const bfloat16*>(view.data())[at]);
    case DType::kF16: return static_cast<float>(static_cast<const float16*>(view.data())[at]);
    case DType::kI8: return static_cast<float>(static_cast<const std::int8_t*>(view.data())[at]);
    default: return static_cast<const float*>(view.data())[at];
  }
}

// What a number becomes in the cache, within the error allowed for I8.
void check_number(float found, float came, DType type, float scale) {
  if (type == DType::kBF16) came = static_cast<float>(bfloat16(came));
  if (type == DType::kF16) came = static_cast<float>(float16(came));
  if (type == DType::kI8) {
    const float error = std::fabs(found * scale - came);
    fuzz::require(error <= 0.501f * scale + 1e-6f * std::fabs(came), "a number of I8 that is not the nearest");
  } else {
    fuzz::require(found == came, "another number than was appended");
  }
}

void compare(const KVCache& cache, const Model& model) {
  const KVCacheOptions& o = cache.options();
  std::vector<KVCache::Sequence> ids;
  for (const auto& [id, tokens] : model.sequences) {
    ids.push_back(id);
    fuzz::require(cache.length(id) == static_cast<std::int64_t>(tokens.size()), "another length");
  }
  if (ids.empty()) return;
  KVBatch batch;
  cache.gather(ids, batch);
  const std::int64_t columns = batch.page_table.size(1);
  for (std::size_t b = 0; b < ids.size(); ++b) {
    const Tokens& tokens = model.sequences.at(ids[b]);
    fuzz::require(batch.key_lengths.as<std::int64_t>()[b] == static_cast<std::int64_t>(tokens.size()), "a key length");
    for (std::size_t t = 0; t < tokens.size(); ++t) {
      const std::int64_t size = batch.k.size(2), at = static_cast<std::int64_t>(t);
      fuzz::require(at / size < columns, "no page for a token");
      const std::int64_t page = batch.page_table.as<std::int64_t>()[static_cast<std::int64_t>(b) * columns + at / size];
      fuzz::require(page >= 0 && page < batch.k.size(0), "a page that is not there");
      for (std::int64_t h = 0; h < o.num_kv_heads; ++h) {
        const auto check = [&](const ConstTensorView& view, const ConstTensorView& scales, std::int64_t width,
                               const std::vector<float>& came) {
          float scale = 1;
          if (scales.defined()) {
            scale = stored(scales, page * scales.stride(0) + h * scales.stride(1) + at % size * scales.stride(2));
          }
          for (std::int64_t x = 0; x < width; ++x) {
            const std::int64_t place = page * view.stride(0) + h * view.stride(1) + at % size * view.stride(2) +
                                       x * view.stride(3);
            check_number(stored(view, place), came[static_cast<std::size_t>(h * width + x)], o.dtype, scale);
          }
        };
        check(batch.k, batch.k_scales, o.head_dim, tokens[t].key);
        check(batch.v, batch.v_scales, o.value_dim, tokens[t].value);
      }
    }
  }
}

Step read_step(FuzzedDataProvider& input, std::int64_t next) {
  static constexpr Kind kKinds[] = {Kind::kAdd,    Kind::kFork,   Kind::kRemove, Kind::kTruncate, Kind::kMove,
                                    Kind::kAppend, Kind::kAppend, Kind::kAppend, Kind::kAppend};
  static constexpr DType kTypes[] = {DType::kF32, DType::kBF16, DType::kF16};
  Step step;
  step.kind = input.PickValueInArray(kKinds);
  step.sequence = input.ConsumeIntegralInRange<std::int64_t>(-1, next);
  step.count = input.ConsumeIntegralInRange<std::int64_t>(0, 100);
  step.heads = input.ConsumeIntegralInRange<std::int64_t>(1, 2);
  step.stride = input.ConsumeIntegralInRange<std::int64_t>(0, 3);
  step.dtype = input.PickValueInArray(kTypes);
  step.first = static_cast<float>(input.ConsumeIntegral<std::int8_t>());
  return step;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  static constexpr DType kTypes[] = {DType::kF32, DType::kBF16, DType::kF16, DType::kI8};
  FuzzedDataProvider input(bytes, size);
  KVCacheOptions options;
  options.num_kv_heads = input.ConsumeIntegralInRange<std::int64_t>(1, 2);
  options.head_dim = input.ConsumeIntegralInRange<std::int64_t>(1, 3);
  options.value_dim = input.ConsumeIntegralInRange<std::int64_t>(1, 3);
  options.dtype = input.PickValueInArray(kTypes);
  options.page_size = 16 * input.ConsumeIntegralInRange<std::int64_t>(0, 3);
  options.max_tokens = input.ConsumeIntegralInRange<std::int64_t>(0, 250);

  KVCache cache(options);
  Model model;
  std::vector<Step> done;  // what was not refused
  bool refused = false;
  for (int i = 0; i < 24 && input.remaining_bytes() > 0; ++i) {
    const Step step = read_step(input, model.next);
    std::optional<Rows> k, v;
    const auto rows_of = [&](const Step& s) {
      k.reset();
      v.reset();
      if (s.kind != Kind::kAppend) return;
      k.emplace(s, options.head_dim, 1.0f);
      v.emplace(s, options.value_dim, -1.0f);
    };
    const std::size_t memory = cache.bytes();
    const std::int64_t pages = cache.pages_in_use();
    rows_of(step);
    const bool taken = apply(cache, step, k ? &*k : nullptr, v ? &*v : nullptr);
    if (taken) {
      model.apply(step, options, k ? &*k : nullptr, v ? &*v : nullptr);
    } else {
      fuzz::require(cache.bytes() == memory && cache.pages_in_use() == pages, "a refused step changed the memory");
    }
    compare(cache, model);

    if (refused) {  // until then another cache would come to the same by itself
      KVCache other(options);
      for (const Step& before : done) {
        rows_of(before);
        fuzz::require(apply(other, before, k ? &*k : nullptr, v ? &*v : nullptr), "a step is refused the second time");
      }
      rows_of(step);
      fuzz::require(apply(other, step, k ? &*k : nullptr, v ? &*v : nullptr) == taken,
                    "a refused step before it decides whether this one is");
      fuzz::require(!taken || (other.bytes() == cache.bytes() && other.pages_in_use() == cache.pages_in_use()),
                    "memory depends on refused steps");
    }
    refused = refused || !taken;
    if (taken) done.push_back(step);
  }
  return 0;
}
