#include <manyheads/kv_cache.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <map>
#include <new>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <manyheads/error.hpp>

#include "base/aligned_buffer.hpp"
#include "base/checked.hpp"
#include "base/fail.hpp"
#include "base/growing_memory.hpp"
#include "base/parallel.hpp"
#include "kernels/dispatch.hpp"

namespace manyheads {
namespace {

using base::describe;
using base::GrowingMemory;

[[noreturn]] void fail_cache(const char* function, const std::string& what,
                             ErrorCode code = ErrorCode::kInvalidArgument) {
  base::fail(base::format("KVCache::{}", function).c_str(), what, code);
}

// Reserves room for `count` numbers. Throws Error (kOutOfMemory).
void reserve(const char* function, std::vector<std::int64_t>& numbers, std::int64_t count) {
  try {
    numbers.reserve(static_cast<std::size_t>(count));
  } catch (const std::bad_alloc&) {
    fail_cache(function, base::format("cannot allocate the list of {} pages", count), ErrorCode::kOutOfMemory);
  }
}

// The first room of a sequence in one piece; it doubles.
constexpr std::int64_t kFirstRoom = 64;
// The most tokens of a sequence: sizes and doubled room cannot wrap. Views with strides of 0 may be longer.
constexpr std::int64_t kMostTokens = std::int64_t{1} << 48;

constexpr std::int64_t kLine = static_cast<std::int64_t>(base::kAlignment);

// Pages of `size` tokens, each with its keys [Hkv,size,D], its values [Hkv,size,Dv], and for I8 the scales of both
// [Hkv,size]. All lie in one block of memory, so that a pool grows as a whole or not at all, and without a copy.
class Pool {
 public:
  enum Part { kKeys, kValues };

  Pool(const KVCacheOptions& options, std::int64_t page_size)
      : heads_(options.num_kv_heads),
        widths_{options.head_dim, options.value_dim},
        type_(options.dtype),
        size_(page_size) {
    std::int64_t end = 0;
    const auto take = [&](std::int64_t width, std::int64_t element_bytes) {
      const std::int64_t begin = end;
      std::int64_t bytes = element_bytes;
      for (const std::int64_t factor : {heads_, size_, width}) fits_ = fits_ && base::multiply(bytes, factor, &bytes);
      fits_ = fits_ && base::add(bytes, kLine - 1, &bytes) && base::add(begin, bytes / kLine * kLine, &end);
      return begin;
    };
    const auto element = static_cast<std::int64_t>(size_of(type_));
    for (const Part part : {kKeys, kValues}) places_[part] = take(widths_[part], element);
    if (type_ == DType::kI8) {
      for (const Part part : {kKeys, kValues}) scale_places_[part] = take(1, sizeof(float));
    }
    page_bytes_ = end;
  }

  std::int64_t pages() const noexcept { return pages_; }
  std::int64_t size() const noexcept { return size_; }
  std::size_t bytes() const noexcept { return static_cast<std::size_t>(pages_ * page_bytes_); }
  const GrowingMemory& memory() const noexcept { return memory_; }
  bool can_be() const noexcept { return fits_; }  // a page is no more than 2^63 bytes

  // Grows to `pages` pages. Throws Error (kOutOfMemory) and changes nothing then.
  void grow(const char* function, std::int64_t pages) {
    std::int64_t bytes = 0;
    if (!fits_ || !base::multiply(page_bytes_, pages, &bytes)) {
      fail_cache(function, base::format("{} pages of {} tokens are more than memory holds", pages, size_),
                 ErrorCode::kOutOfMemory);
    }
    memory_.grow(static_cast<std::size_t>(bytes));
    pages_ = pages;
  }

  ConstTensorView view(Part part) const {
    const std::int64_t element = static_cast<std::int64_t>(size_of(type_)), width = widths_[part];
    return ConstTensorView(pages_ > 0 ? memory_.data() + places_[part] : nullptr, type_, {pages_, heads_, size_, width},
                           {page_bytes_ / element, size_ * width, width, 1});
  }
  ConstTensorView scales(Part part) const {
    if (type_ != DType::kI8) return {};
    return ConstTensorView(pages_ > 0 ? memory_.data() + scale_places_[part] : nullptr, DType::kF32,
                           {pages_, heads_, size_}, {page_bytes_ / static_cast<std::int64_t>(sizeof(float)), size_, 1});
  }

  // Copies the first tokens of a page of `from`, which may be this pool.
  void copy_page(std::int64_t page, const Pool& from, std::int64_t from_page, std::int64_t tokens) {
    for (const Part part : {kKeys, kValues}) {
      for (std::int64_t h = 0; h < heads_; ++h) {
        std::memcpy(row(part, page, h, 0), from.row(part, from_page, h, 0),
                    static_cast<std::size_t>(tokens * widths_[part]) * size_of(type_));
        if (type_ != DType::kI8) continue;
        std::copy_n(from.scale(part, from_page, h, 0), tokens, scale(part, page, h, 0));
      }
    }
  }

  // Stores one head of a token: rounded once, or scaled by its largest magnitude.
  void put(kernels::CacheRowKernel store, Part part, std::int64_t page, std::int64_t h, std::int64_t token,
           const ConstTensorView& from, std::int64_t t) {
    std::byte* const to = row(part, page, h, token);
    const std::int64_t at = h * from.stride(0) + t * from.stride(1);
    if (from.dtype() == type_ && from.stride(2) == 1) {  // may overlap: a row of this very cache
      std::memmove(to, static_cast<const char*>(from.data()) + at * static_cast<std::int64_t>(size_of(type_)),
                   static_cast<std::size_t>(widths_[part]) * size_of(type_));
      return;
    }
    store({.from = from.data(),
           .type = from.dtype(),
           .from_at = at,
           .from_stride = from.stride(2),
           .width = widths_[part],
           .to = to,
           .to_type = type_,
           .scale = type_ == DType::kI8 ? scale(part, page, h, token) : nullptr});
  }

 private:
  std::byte* row(Part part, std::int64_t page, std::int64_t h, std::int64_t token) const {
    const std::int64_t element = static_cast<std::int64_t>(size_of(type_));
    return memory_.data() + page * page_bytes_ + places_[part] + (h * size_ + token) * widths_[part] * element;
  }
  float* scale(Part part, std::int64_t page, std::int64_t h, std::int64_t token) const {
    return reinterpret_cast<float*>(memory_.data() + page * page_bytes_ + scale_places_[part]) + h * size_ + token;
  }

  std::int64_t heads_, widths_[2];
  DType type_;
  std::int64_t size_, pages_ = 0;
  std::int64_t places_[2] = {}, scale_places_[2] = {}, page_bytes_ = 0;  // offsets in a page, in bytes
  bool fits_ = true;
  GrowingMemory memory_;
};

}  // namespace

struct KVCache::State {
  struct Tokens {
    std::int64_t length = 0;
    std::vector<std::int64_t> pages;
  };

  explicit State(const KVCacheOptions& checked)
      : options(checked), pool(checked, checked.page_size > 0 ? checked.page_size : kFirstRoom) {}

  KVCacheOptions options;
  Pool pool;
  std::vector<std::int64_t> users;  // users of each page
  std::vector<std::int64_t> free;   // pages without a user
  std::map<Sequence, Tokens> sequences;
  Sequence next = 0;

  bool in_one_piece() const { return options.page_size == 0; }
  std::int64_t pages_in_use() const { return pool.pages() - static_cast<std::int64_t>(free.size()); }

  Tokens& find(const char* function, Sequence sequence) {
    const auto at = sequences.find(sequence);
    if (at == sequences.end()) fail_cache(function, base::format("there is no sequence {}", sequence));
    return at->second;
  }

  [[noreturn]] void exceeds(const char* function, std::int64_t pages, std::int64_t size) const {
    fail_cache(function, base::format("{} pages of {} tokens exceed max_tokens = {}", pages, size, options.max_tokens),
               ErrorCode::kOutOfMemory);
  }

  // Makes sure of `count` pages without a user. On an error nothing has changed.
  void need_pages(const char* function, std::int64_t count) {
    const std::int64_t missing = count - static_cast<std::int64_t>(free.size());
    if (missing <= 0) return;
    const std::int64_t least = pool.pages() + missing;
    std::int64_t pages = std::max(least, 2 * pool.pages());
    if (options.max_tokens > 0) pages = std::max(least, std::min(pages, options.max_tokens / pool.size()));
    if (options.max_tokens > 0 && pages > options.max_tokens / pool.size()) exceeds(function, pages, pool.size());
    // What can fail comes first, the pool last of it.
    reserve(function, users, pages);
    reserve(function, free, pages);
    const std::int64_t first = pool.pages();
    pool.grow(function, pages);
    for (std::int64_t page = pages; page-- > first;) free.push_back(page);
    users.resize(static_cast<std::size_t>(pages), 0);
  }

  // In one piece: makes room for `length` tokens in each sequence's page, and a page without a user where `another`
  // wants one. Where the room is too small, all tokens move to new memory. Returns the old pool, else one without
  // pages. On an error nothing has changed.
  Pool need_room(const char* function, bool another, std::int64_t length) {
    for (const auto& [sequence, tokens] : sequences) length = std::max(length, tokens.length);
    const std::int64_t pages = pages_in_use() + (another ? 1 : 0);
    std::int64_t room = pool.size();
    while (room < length) room *= 2;
    if (options.max_tokens > 0) {
      const std::int64_t most = options.max_tokens / pages / 16 * 16;
      if (most < std::max<std::int64_t>(length, 1)) exceeds(function, pages, (length + 15) / 16 * 16);
      room = std::min(room, most);
    }
    Pool other(options, room);
    if (room == pool.size()) {
      need_pages(function, another ? 1 : 0);
      return other;
    }
    std::vector<std::int64_t> new_users, new_free;
    reserve(function, new_users, pages);
    reserve(function, new_free, pages);
    other.grow(function, pages);
    std::int64_t page = 0;
    for (auto& [sequence, tokens] : sequences) {
      if (tokens.pages.empty()) continue;
      other.copy_page(page, pool, tokens.pages[0], tokens.length);
      tokens.pages[0] = page++;
      new_users.push_back(1);
    }
    if (another) {
      new_users.push_back(0);
      new_free.push_back(page);
    }
    users.swap(new_users);
    free.swap(new_free);
    std::swap(pool, other);
    return other;
  }

  std::int64_t take_page() {
    const std::int64_t page = free.back();
    free.pop_back();
    users[static_cast<std::size_t>(page)] = 1;
    return page;
  }

  void give_back(std::int64_t page) {
    if (--users[static_cast<std::size_t>(page)] == 0) free.push_back(page);
  }
};

KVCache::KVCache(const KVCacheOptions& options) {
  const std::int64_t value_dim = options.value_dim == 0 ? options.head_dim : options.value_dim;
  if (options.num_kv_heads < 1 || options.head_dim < 1 || value_dim < 1) {
    fail_cache("KVCache", base::format("num_kv_heads is {}, head_dim {}, value_dim {}: expected 1 or more",
                                       options.num_kv_heads, options.head_dim, value_dim));
  }
  if (!base::is_float(options.dtype) && options.dtype != DType::kI8) {
    fail_cache("KVCache", base::format("dtype is {}, expected F32, BF16, F16 or I8", name_of(options.dtype)));
  }
  if (options.page_size < 0 || options.page_size % 16 != 0) {
    fail_cache("KVCache", base::format("page_size is {}, expected 0 or a multiple of 16", options.page_size));
  }
  if (options.max_tokens < 0)
    fail_cache("KVCache", base::format("max_tokens is {}, expected 0 or more", options.max_tokens));
  KVCacheOptions checked = options;
  checked.value_dim = value_dim;
  if (options.page_size > kMostTokens || !Pool(checked, std::max(options.page_size, kFirstRoom)).can_be()) {
    fail_cache(
        "KVCache",
        base::format("num_kv_heads {}, head_dim {}, value_dim {}, page_size {}: a page is more than memory holds",
                     options.num_kv_heads, options.head_dim, value_dim, options.page_size),
        ErrorCode::kOutOfMemory);
  }
  state_ = std::make_unique<State>(checked);
}

KVCache::~KVCache() = default;
KVCache::KVCache(KVCache&&) noexcept = default;
KVCache& KVCache::operator=(KVCache&&) noexcept = default;

const KVCacheOptions& KVCache::options() const noexcept { return state_->options; }

KVCache::Sequence KVCache::add() {
  state_->sequences.emplace(state_->next, State::Tokens{});
  return state_->next++;
}

KVCache::Sequence KVCache::fork(Sequence sequence) {
  State& s = *state_;
  // The entry comes before its pages: joining it to the others cannot fail.
  std::map<Sequence, State::Tokens> entry;
  State::Tokens& copy = entry.emplace(s.next, s.find("fork", sequence)).first->second;
  if (s.in_one_piece() && !copy.pages.empty()) {
    s.need_room("fork", true, 0);
    copy.pages[0] = s.take_page();
    s.pool.copy_page(copy.pages[0], s.pool, s.find("fork", sequence).pages[0], copy.length);
  } else {
    for (const std::int64_t page : copy.pages) ++s.users[static_cast<std::size_t>(page)];
  }
  s.sequences.merge(entry);
  return s.next++;
}

void KVCache::remove(Sequence sequence) {
  for (const std::int64_t page : state_->find("remove", sequence).pages) state_->give_back(page);
  state_->sequences.erase(sequence);
}

std::int64_t KVCache::length(Sequence sequence) const { return state_->find("length", sequence).length; }

void KVCache::truncate(Sequence sequence, std::int64_t length) {
  State& s = *state_;
  State::Tokens& tokens = s.find("truncate", sequence);
  if (length < 0 || length > tokens.length) {
    fail_cache("truncate", base::format("length is {}, sequence {} has {} tokens", length, sequence, tokens.length));
  }
  tokens.length = length;
  const std::size_t pages = static_cast<std::size_t>((length + s.pool.size() - 1) / s.pool.size());
  while (tokens.pages.size() > pages) {
    s.give_back(tokens.pages.back());
    tokens.pages.pop_back();
  }
}

void KVCache::append(Sequence sequence, ConstTensorView k, ConstTensorView v, const Threads& threads) {
  static constexpr const char* kName = "append";
  State& s = *state_;
  State::Tokens& tokens = s.find(kName, sequence);
  const std::int64_t count = k.defined() && k.rank() == 3 ? k.size(1) : 0;
  const auto check = [&](const char* name, const ConstTensorView& view, std::int64_t width) {
    const Dims expected{s.options.num_kv_heads, count, width};
    if (!view.defined() || !base::is_float(view.dtype()) || !(view.shape() == expected)) {
      fail_cache(kName, base::format("{} is {}, expected F32, BF16 or F16 [Hkv,T,{}] = {}", name, describe(view),
                                     name[0] == 'k' ? "D" : "Dv", expected.to_string()));
    }
  };
  check("k", k, s.options.head_dim);
  check("v", v, s.options.value_dim);
  if (count == 0) return;
  if (count > kMostTokens - tokens.length) {
    fail_cache(kName, base::format("{} tokens behind {} are more than memory holds", count, tokens.length),
               ErrorCode::kOutOfMemory);
  }

  const std::int64_t length = tokens.length + count;
  // The tokens may lie in this very cache, as those of a KVBatch do. Memory that grows takes them along. Memory that it
  // replaces lives until they are copied.
  const std::byte* const before = s.pool.memory().data();
  const std::size_t bytes_before = s.pool.memory().size();
  std::optional<Pool> replaced;
  if (s.in_one_piece()) {
    reserve(kName, tokens.pages, 1);
    replaced = s.need_room(kName, tokens.pages.empty(), length);
    if (tokens.pages.empty()) tokens.pages.push_back(s.take_page());
  } else {
    const std::int64_t size = s.pool.size();
    const std::size_t pages = static_cast<std::size_t>((length + size - 1) / size);
    // A last page with other users is copied before it is written to.
    const bool shared = tokens.length % size != 0 && s.users[static_cast<std::size_t>(tokens.pages.back())] > 1;
    reserve(kName, tokens.pages, static_cast<std::int64_t>(pages));
    s.need_pages(kName, static_cast<std::int64_t>(pages - tokens.pages.size()) + (shared ? 1 : 0));
    if (shared) {
      const std::int64_t from = tokens.pages.back();
      tokens.pages.back() = s.take_page();
      s.pool.copy_page(tokens.pages.back(), s.pool, from, tokens.length % size);
      s.give_back(from);
    }
    while (tokens.pages.size() < pages) tokens.pages.push_back(s.take_page());
  }
  if (!replaced || replaced->pages() == 0) {
    for (ConstTensorView* view : {&k, &v}) {
      const std::uintptr_t place =
          reinterpret_cast<std::uintptr_t>(view->data()) - reinterpret_cast<std::uintptr_t>(before);
      if (place >= bytes_before) continue;
      *view = ConstTensorView(s.pool.memory().data() + place, view->dtype(), view->shape(), view->strides());
    }
  }
  const kernels::CacheRowKernel store = kernels::active_table().cache_row;
  const std::int64_t heads = s.options.num_kv_heads;
  base::parallel_for_rows(count * heads, s.options.head_dim + s.options.value_dim, threads,
                          [&](std::int64_t begin, std::int64_t end) {
                            for (std::int64_t row = begin; row < end; ++row) {
                              const std::int64_t t = row / heads, h = row % heads, token = tokens.length + t;
                              const std::int64_t page = tokens.pages[static_cast<std::size_t>(token / s.pool.size())];
                              s.pool.put(store, Pool::kKeys, page, h, token % s.pool.size(), k, t);
                              s.pool.put(store, Pool::kValues, page, h, token % s.pool.size(), v, t);
                            }
                          });
  tokens.length = length;
}

void KVCache::gather(std::span<const Sequence> sequences, KVBatch& batch) const {
  State& s = *state_;
  const std::int64_t entries = static_cast<std::int64_t>(sequences.size());
  std::size_t columns = 1;
  for (const Sequence sequence : sequences) columns = std::max(columns, s.find("gather", sequence).pages.size());
  const Dims table{entries, static_cast<std::int64_t>(columns)};
  const auto fits = [](const Tensor& tensor, const Dims& shape) {
    return tensor.defined() && tensor.dtype() == DType::kI64 && tensor.shape() == shape;
  };
  // Both tensors change or none.
  Tensor page_table = fits(batch.page_table, table) ? batch.page_table : Tensor(DType::kI64, table);
  Tensor key_lengths = fits(batch.key_lengths, {entries}) ? batch.key_lengths : Tensor(DType::kI64, {entries});
  batch.page_table = std::move(page_table);
  batch.key_lengths = std::move(key_lengths);
  for (std::size_t b = 0; b < sequences.size(); ++b) {
    const State::Tokens& tokens = s.find("gather", sequences[b]);
    std::int64_t* row = batch.page_table.as<std::int64_t>() + b * columns;
    std::copy(tokens.pages.begin(), tokens.pages.end(), row);
    std::fill(row + tokens.pages.size(), row + columns, std::int64_t{-1});
    batch.key_lengths.as<std::int64_t>()[b] = tokens.length;
  }
  batch.k = s.pool.view(Pool::kKeys);
  batch.v = s.pool.view(Pool::kValues);
  batch.k_scales = s.pool.scales(Pool::kKeys);
  batch.v_scales = s.pool.scales(Pool::kValues);
}

std::size_t KVCache::bytes() const noexcept { return state_->pool.bytes(); }

std::int64_t KVCache::pages_in_use() const noexcept { return state_->pages_in_use(); }

void KVBatch::apply(AttentionOptions& options) const {
  options.page_table = page_table.cview();
  options.mask.key_lengths = key_lengths.cview();
  options.k_scales = k_scales;
  options.v_scales = v_scales;
}

void attention(ConstTensorView q, const KVCache& cache, std::span<const KVCache::Sequence> sequences, TensorView out,
               AttentionOptions options) {
  KVBatch batch;
  cache.gather(sequences, batch);
  batch.apply(options);
  attention(q, batch.k, batch.v, out, options);
}

}  // namespace manyheads
