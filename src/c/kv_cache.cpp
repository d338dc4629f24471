#include <manyheads/kv_cache.hpp>

#include <span>

#include "c/options.hpp"

using namespace manyheads;
using c::guarded;
using c::input;
using c::output;
using c::required;

struct mh_kv_cache {
  KVCache cache;
};

namespace {

constexpr std::int64_t kPageSize = 64;

KVCacheOptions options_of(const char* f, const mh_kv_cache_options* options) {
  const mh_kv_cache_options given = c::read(f, "options", &required(f, "options", options));
  if (given.in_one_piece != 0 && given.page_size != 0) {
    base::fail(f, base::format("page_size is {} with in_one_piece, which has no pages", given.page_size));
  }
  KVCacheOptions all;
  all.num_kv_heads = given.num_kv_heads == 0 ? 1 : given.num_kv_heads;
  all.head_dim = given.head_dim;
  all.value_dim = given.value_dim;
  all.dtype = c::dtype_of(f, "dtype", given.dtype);
  all.page_size = given.in_one_piece != 0 ? 0 : given.page_size == 0 ? kPageSize : given.page_size;
  all.max_tokens = given.max_tokens;
  return all;
}

// What the cache sets itself must not be given beside it.
void check_options(const char* f, const AttentionOptions& options) {
  for (const auto& [name, view] : {std::pair{"page_table", &options.page_table},
                                   {"k_scales", &options.k_scales},
                                   {"v_scales", &options.v_scales},
                                   {"key_lengths", &options.mask.key_lengths}}) {
    if (view->defined()) base::fail(f, base::format("{} {}: it is the cache's", name, base::describe(*view)));
  }
}

// No more sequences are read than the queries have entries.
void check_sequences(const char* f, const ConstTensorView& q, const AttentionOptions& options,
                     const std::int64_t* sequences, std::size_t count) {
  const ConstTensorView& starts = options.cu_seqlens_q;
  const bool packed = starts.defined();
  if (packed ? starts.rank() != 1 : q.rank() != 4) return;  // attention() says what is wrong with them
  const std::int64_t batch = packed ? starts.size(0) - 1 : q.size(0);
  if (static_cast<std::int64_t>(count) != batch) {
    base::fail(f, base::format("{} sequences for batch {} ({} {})", count, batch, packed ? "cu_seqlens_q" : "q",
                               base::describe(packed ? starts : q)));
  }
  if (count > 0) required(f, "sequences", sequences);
}

}  // namespace

int mh_kv_cache_create(const mh_kv_cache_options* options, mh_kv_cache** cache) noexcept {
  return guarded("mh_kv_cache_create", [&](const char* f) {
    mh_kv_cache*& made = required(f, "cache", cache);
    made = new mh_kv_cache{KVCache(options_of(f, options))};
  });
}

void mh_kv_cache_destroy(mh_kv_cache* cache) noexcept { delete cache; }

int mh_kv_cache_add(mh_kv_cache* cache, int64_t* sequence) noexcept {
  return guarded("mh_kv_cache_add", [&](const char* f) {
    std::int64_t& id = required(f, "sequence", sequence);
    id = required(f, "cache", cache).cache.add();
  });
}

int mh_kv_cache_fork(mh_kv_cache* cache, int64_t sequence, int64_t* copy) noexcept {
  return guarded("mh_kv_cache_fork", [&](const char* f) {
    std::int64_t& id = required(f, "copy", copy);
    id = required(f, "cache", cache).cache.fork(sequence);
  });
}

int mh_kv_cache_remove(mh_kv_cache* cache, int64_t sequence) noexcept {
  return guarded("mh_kv_cache_remove", [&](const char* f) { required(f, "cache", cache).cache.remove(sequence); });
}

int mh_kv_cache_length(const mh_kv_cache* cache, int64_t sequence, int64_t* tokens) noexcept {
  return guarded("mh_kv_cache_length", [&](const char* f) {
    const std::int64_t length = required(f, "cache", cache).cache.length(sequence);
    required(f, "tokens", tokens) = length;
  });
}

int mh_kv_cache_truncate(mh_kv_cache* cache, int64_t sequence, int64_t tokens) noexcept {
  return guarded("mh_kv_cache_truncate",
                 [&](const char* f) { required(f, "cache", cache).cache.truncate(sequence, tokens); });
}

int mh_kv_cache_append(mh_kv_cache* cache, int64_t sequence, const mh_tensor* k, const mh_tensor* v,
                       int32_t num_threads, const mh_executor* executor) noexcept {
  return guarded("mh_kv_cache_append", [&](const char* f) {
    const c::CallersThreads threads(f, num_threads, executor);
    required(f, "cache", cache).cache.append(sequence, input(f, "k", k), input(f, "v", v), *threads);
  });
}

int mh_kv_cache_attention(const mh_tensor* q, const mh_kv_cache* cache, const int64_t* sequences, size_t count,
                          const mh_tensor* out, const mh_attention_options* options) noexcept {
  return guarded("mh_kv_cache_attention", [&](const char* f) {
    const KVCache& of = required(f, "cache", cache).cache;
    const c::CallersOptions call(f, options);
    const ConstTensorView queries = input(f, "q", q);
    check_options(f, *call);
    check_sequences(f, queries, *call, sequences, count);
    KVBatch own;
    KVBatch& batch = call.workspace() != nullptr ? call.workspace()->batch : own;
    of.gather({sequences, count}, batch);
    AttentionOptions all = *call;
    batch.apply(all);
    attention(queries, batch.k, batch.v, output(f, "out", out), all);
  });
}

int mh_kv_cache_bytes(const mh_kv_cache* cache, size_t* bytes) noexcept {
  return guarded("mh_kv_cache_bytes", [&](const char* f) {
    const std::size_t all = required(f, "cache", cache).cache.bytes();
    required(f, "bytes", bytes) = all;
  });
}

int mh_kv_cache_pages_in_use(const mh_kv_cache* cache, int64_t* pages) noexcept {
  return guarded("mh_kv_cache_pages_in_use", [&](const char* f) {
    const std::int64_t used = required(f, "cache", cache).cache.pages_in_use();
    required(f, "pages", pages) = used;
  });
}
