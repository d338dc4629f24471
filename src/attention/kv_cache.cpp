#include <manyheads/kv_cache.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include <manyheads/error.hpp>

#include "base/element.hpp"
#include "base/format.hpp"

namespace manyheads {
namespace {

[[noreturn]] void fail(const char* function, const std::string& what, ErrorCode code = ErrorCode::kInvalidArgument) {
  throw Error(code, base::format("KVCache::{}: {}", function, what));
}

std::string describe(const ConstTensorView& view) {
  return view.defined() ? base::format("{} {}", name_of(view.dtype()), view.shape().to_string()) : "undefined";
}

bool floating(DType type) { return type == DType::kF32 || type == DType::kBF16 || type == DType::kF16; }

// The room of a sequence in one piece begins here, and doubles.
constexpr std::int64_t kFirstRoom = 64;
// Of a sequence: far from where sizes and doubled room would wrap. Views with strides of 0 may be longer.
constexpr std::int64_t kMostTokens = std::int64_t{1} << 48;

// Pages of keys or of values: [pages,Hkv,size,width], and for I8 their scales [pages,Hkv,size].
struct Store {
  std::int64_t heads = 0, width = 0;
  DType type = DType::kF32;
  std::int64_t pages = 0, size = 0;
  Tensor data, scales;

  void reset(std::int64_t new_pages, std::int64_t new_size) {
    data = Tensor(type, {new_pages, heads, new_size, width});
    if (type == DType::kI8) scales = Tensor(DType::kF32, {new_pages, heads, new_size});
    pages = new_pages;
    size = new_size;
  }
  // A store of more or larger pages with the same content.
  Store grown(std::int64_t new_pages, std::int64_t new_size) const {
    Store to = *this;
    to.reset(new_pages, new_size);
    for (std::int64_t page = 0; page < pages; ++page) to.copy_page(page, *this, page, size);
    return to;
  }
  void copy_page(std::int64_t page, const Store& from, std::int64_t from_page, std::int64_t tokens) {
    const std::size_t row = static_cast<std::size_t>(width) * size_of(type);
    for (std::int64_t h = 0; h < heads; ++h) {
      const std::int64_t at = (page * heads + h) * size;
      const std::int64_t from_at = (from_page * heads + h) * from.size;
      std::memcpy(data.as<char>() + static_cast<std::size_t>(at) * row,
                  static_cast<const char*>(from.data.bytes()) + static_cast<std::size_t>(from_at) * row,
                  static_cast<std::size_t>(tokens) * row);
      if (type == DType::kI8) {
        std::copy_n(static_cast<const float*>(from.scales.bytes()) + from_at, tokens, scales.as<float>() + at);
      }
    }
  }
  // One token's head: rounded once, or scaled by its largest magnitude.
  void put(std::int64_t page, std::int64_t h, std::int64_t token, const ConstTensorView& from, std::int64_t t) {
    const std::int64_t at = (page * heads + h) * size + token;
    const std::int64_t from_at = h * from.stride(0) + t * from.stride(1);
    const auto value = [&](std::int64_t i) {
      return base::load_element(from.data(), from.dtype(), from_at + i * from.stride(2));
    };
    if (type != DType::kI8) {
      if (from.dtype() == type && from.stride(2) == 1) {
        std::memcpy(data.as<char>() + static_cast<std::size_t>(at * width) * size_of(type),
                    static_cast<const char*>(from.data()) + from_at * static_cast<std::int64_t>(size_of(type)),
                    static_cast<std::size_t>(width) * size_of(type));
        return;
      }
      for (std::int64_t i = 0; i < width; ++i) base::store_element(data.as<char>(), type, at * width + i, value(i));
      return;
    }
    double largest = 0;
    bool finite = true;
    for (std::int64_t i = 0; i < width; ++i) {
      finite = finite && std::isfinite(value(i));
      largest = std::max(largest, std::fabs(value(i)));
    }
    // I8 has no NaN and no infinity: the scale says it for the whole row.
    const float scale = finite ? static_cast<float>(largest / 127) : std::numeric_limits<float>::quiet_NaN();
    scales.as<float>()[at] = scale;
    const double inverse = finite && scale > 0 ? 1.0 / static_cast<double>(scale) : 0.0;
    for (std::int64_t i = 0; i < width; ++i) {
      const double rounded = finite ? std::clamp(std::nearbyint(value(i) * inverse), -127.0, 127.0) : 0.0;
      data.as<std::int8_t>()[at * width + i] = static_cast<std::int8_t>(rounded);
    }
  }
};

}  // namespace

struct KVCache::State {
  struct Tokens {
    std::int64_t length = 0;
    std::vector<std::int64_t> pages;
  };

  KVCacheOptions options;
  Store keys, values;
  std::vector<std::int64_t> users;  // of each page
  std::vector<std::int64_t> free;   // pages of no user
  std::map<Sequence, Tokens> sequences;
  Sequence next = 0;

  bool in_one_piece() const { return options.page_size == 0; }

  Tokens& find(const char* function, Sequence sequence) {
    const auto at = sequences.find(sequence);
    if (at == sequences.end()) fail(function, base::format("there is no sequence {}", sequence));
    return at->second;
  }

  void resize(const char* function, std::int64_t pages, std::int64_t size) {
    if (options.max_tokens > 0 && pages > options.max_tokens / size) {
      fail(function, base::format("{} pages of {} tokens exceed max_tokens = {}", pages, size, options.max_tokens),
           ErrorCode::kOutOfMemory);
    }
    // Both or none.
    Store new_keys = keys.grown(pages, size);
    Store new_values = values.grown(pages, size);
    users.reserve(static_cast<std::size_t>(pages));
    free.reserve(static_cast<std::size_t>(pages));
    for (std::int64_t page = pages; page-- > keys.pages;) free.push_back(page);
    users.resize(static_cast<std::size_t>(pages), 0);
    keys = std::move(new_keys);
    values = std::move(new_values);
  }

  // Room for so many more pages of no user.
  void need_pages(const char* function, std::int64_t count) {
    const std::int64_t missing = count - static_cast<std::int64_t>(free.size());
    if (missing <= 0) return;
    std::int64_t pages = std::max(keys.pages + missing, 2 * keys.pages);
    if (options.max_tokens > 0) pages = std::max(keys.pages + missing, std::min(pages, options.max_tokens / keys.size));
    resize(function, pages, keys.size);
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

KVCache::KVCache(const KVCacheOptions& options) : state_(std::make_unique<State>()) {
  const std::int64_t value_dim = options.value_dim == 0 ? options.head_dim : options.value_dim;
  if (options.num_kv_heads < 1 || options.head_dim < 1 || value_dim < 1) {
    fail("KVCache", base::format("num_kv_heads is {}, head_dim {}, value_dim {}: expected 1 or more",
                                 options.num_kv_heads, options.head_dim, value_dim));
  }
  if (!floating(options.dtype) && options.dtype != DType::kI8) {
    fail("KVCache", base::format("dtype is {}, expected F32, BF16, F16 or I8", name_of(options.dtype)));
  }
  if (options.page_size < 0 || options.page_size % 16 != 0) {
    fail("KVCache", base::format("page_size is {}, expected 0 or a multiple of 16", options.page_size));
  }
  if (options.max_tokens < 0) fail("KVCache", base::format("max_tokens is {}, expected 0 or more", options.max_tokens));
  state_->options = options;
  state_->options.value_dim = value_dim;
  const std::int64_t size = options.page_size > 0 ? options.page_size : kFirstRoom;
  state_->keys.heads = state_->values.heads = options.num_kv_heads;
  state_->keys.width = options.head_dim;
  state_->values.width = value_dim;
  state_->keys.type = state_->values.type = options.dtype;
  state_->keys.reset(0, size);
  state_->values.reset(0, size);
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
  // The entry before its pages: joining the others cannot fail.
  std::map<Sequence, State::Tokens> entry;
  State::Tokens& copy = entry.emplace(s.next, s.find("fork", sequence)).first->second;
  if (s.in_one_piece() && !copy.pages.empty()) {
    s.need_pages("fork", 1);
    const std::int64_t from = copy.pages[0];
    copy.pages[0] = s.take_page();
    s.keys.copy_page(copy.pages[0], s.keys, from, copy.length);
    s.values.copy_page(copy.pages[0], s.values, from, copy.length);
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
    fail("truncate", base::format("length is {}, sequence {} has {} tokens", length, sequence, tokens.length));
  }
  tokens.length = length;
  const std::size_t pages = static_cast<std::size_t>((length + s.keys.size - 1) / s.keys.size);
  while (tokens.pages.size() > pages) {
    s.give_back(tokens.pages.back());
    tokens.pages.pop_back();
  }
}

void KVCache::append(Sequence sequence, ConstTensorView k, ConstTensorView v) {
  static constexpr const char* kName = "append";
  State& s = *state_;
  State::Tokens& tokens = s.find(kName, sequence);
  const std::int64_t count = k.defined() && k.rank() == 3 ? k.size(1) : 0;
  const auto check = [&](const char* name, const ConstTensorView& view, std::int64_t width) {
    const Dims expected{s.options.num_kv_heads, count, width};
    if (!view.defined() || !floating(view.dtype()) || !(view.shape() == expected)) {
      fail(kName, base::format("{} is {}, expected F32, BF16 or F16 [Hkv,T,{}] = {}", name, describe(view),
                               name[0] == 'k' ? "D" : "Dv", expected.to_string()));
    }
  };
  check("k", k, s.options.head_dim);
  check("v", v, s.options.value_dim);
  if (count == 0) return;
  if (count > kMostTokens - tokens.length) {
    fail(kName, base::format("{} tokens behind {} are more than memory holds", count, tokens.length),
         ErrorCode::kOutOfMemory);
  }

  const std::int64_t length = tokens.length + count;
  if (s.in_one_piece()) {
    std::int64_t room = s.keys.size;
    while (room < length) room *= 2;
    if (room != s.keys.size) s.resize(kName, s.keys.pages, room);
    if (tokens.pages.empty()) {
      s.need_pages(kName, 1);
      tokens.pages.reserve(1);
      tokens.pages.push_back(s.take_page());
    }
  } else {
    const std::int64_t size = s.keys.size;
    const std::size_t pages = static_cast<std::size_t>((length + size - 1) / size);
    // A last page that others use too is written to in a copy.
    const bool shared = tokens.length % size != 0 && s.users[static_cast<std::size_t>(tokens.pages.back())] > 1;
    s.need_pages(kName, static_cast<std::int64_t>(pages - tokens.pages.size()) + (shared ? 1 : 0));
    tokens.pages.reserve(pages);
    if (shared) {
      const std::int64_t from = tokens.pages.back();
      tokens.pages.back() = s.take_page();
      s.keys.copy_page(tokens.pages.back(), s.keys, from, tokens.length % size);
      s.values.copy_page(tokens.pages.back(), s.values, from, tokens.length % size);
      s.give_back(from);
    }
    while (tokens.pages.size() < pages) tokens.pages.push_back(s.take_page());
  }
  for (std::int64_t t = 0; t < count; ++t) {
    const std::int64_t token = tokens.length + t;
    const std::int64_t page = tokens.pages[static_cast<std::size_t>(token / s.keys.size)];
    for (std::int64_t h = 0; h < s.options.num_kv_heads; ++h) {
      s.keys.put(page, h, token % s.keys.size, k, t);
      s.values.put(page, h, token % s.keys.size, v, t);
    }
  }
  tokens.length = length;
}

void KVCache::gather(std::span<const Sequence> sequences, KVBatch& batch) const {
  State& s = *state_;
  const std::int64_t entries = static_cast<std::int64_t>(sequences.size());
  std::size_t columns = 1;
  for (const Sequence sequence : sequences) columns = std::max(columns, s.find("gather", sequence).pages.size());
  const Dims table{entries, static_cast<std::int64_t>(columns)};
  if (!batch.page_table.defined() || !(batch.page_table.shape() == table)) batch.page_table = Tensor(DType::kI64, table);
  if (!batch.key_lengths.defined() || !(batch.key_lengths.shape() == Dims{entries})) {
    batch.key_lengths = Tensor(DType::kI64, {entries});
  }
  for (std::size_t b = 0; b < sequences.size(); ++b) {
    const State::Tokens& tokens = s.find("gather", sequences[b]);
    std::int64_t* row = batch.page_table.as<std::int64_t>() + b * columns;
    std::copy(tokens.pages.begin(), tokens.pages.end(), row);
    std::fill(row + tokens.pages.size(), row + columns, std::int64_t{-1});
    batch.key_lengths.as<std::int64_t>()[b] = tokens.length;
  }
  batch.k = s.keys.data.cview();
  batch.v = s.values.data.cview();
  batch.k_scales = s.keys.type == DType::kI8 ? s.keys.scales.cview() : ConstTensorView{};
  batch.v_scales = s.values.type == DType::kI8 ? s.values.scales.cview() : ConstTensorView{};
}

std::size_t KVCache::bytes() const noexcept {
  const auto of = [](const Store& store) {
    const std::size_t rows = static_cast<std::size_t>(store.pages * store.heads * store.size);
    return rows * (static_cast<std::size_t>(store.width) * size_of(store.type) +
                   (store.type == DType::kI8 ? sizeof(float) : 0));
  };
  return of(state_->keys) + of(state_->values);
}

std::int64_t KVCache::pages_in_use() const noexcept {
  return state_->keys.pages - static_cast<std::int64_t>(state_->free.size());
}

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
