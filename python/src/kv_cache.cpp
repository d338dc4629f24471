#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <manyheads/kv_cache.hpp>
#include <mutex>

#include "arguments.hpp"

namespace manyheads::python {
namespace {

DType dtype_named(const std::string& name, std::initializer_list<DType> choices, const char* function) {
  std::string expected;
  for (const DType type : choices) {
    if (name == python_name(type)) return type;
    expected += std::string(expected.empty() ? "" : ", ") + "'" + python_name(type) + "'";
  }
  throw nb::value_error((std::string(function) + ": dtype is '" + name + "', expected one of " + expected).c_str());
}

// A cache changes under a lock: Python's threads may share it.
class PythonCache {
 public:
  explicit PythonCache(const KVCacheOptions& options) : cache_(options) {}

  template <class Work>
  auto locked(Work&& work) {
    const nb::gil_scoped_release released;
    const std::lock_guard lock(mutex_);
    return work(cache_);
  }

 private:
  std::mutex mutex_;
  KVCache cache_;
};

nb::object attend(PythonCache& self, nb::object q, std::vector<std::int64_t> sequences, nb::object mask,
                  std::optional<double> scale, double softcap, nb::object sinks, bool lse, nb::object out,
                  nb::object cu_seqlens_q, bool int8_products, int num_threads, std::string bits) {
  constexpr const char* kName = "KVCache.attention";
  const Array query(q, kName, "q");
  AttentionOptions options;
  PythonMask masks;
  if (!mask.is_none()) {
    masks = mask_of(mask, kName);
    options.mask = masks.mask;
  }
  const Array sink = optional_array(sinks, kName, "sinks"),
              starts = optional_array(cu_seqlens_q, kName, "cu_seqlens_q");
  options.scale = scale;
  options.softcap = softcap;
  options.sinks = sink.view();
  options.cu_seqlens_q = starts.view();
  options.int8_products = int8_products;
  options.threads.num_threads = num_threads;
  options.bits = bits;
  const Maker maker(q, query);
  Dims shape = query.view().shape();
  const std::int64_t width = self.locked([](const KVCache& cache) {
    return cache.options().value_dim > 0 ? cache.options().value_dim : cache.options().head_dim;
  });
  if (shape.rank() > 0) shape[shape.rank() - 1] = width;
  Maker::Result result =
      out.is_none() ? maker.make(query.view().dtype(), shape) : Maker::Result{out, Array(out, kName, "out", true)};
  Maker::Result logs;
  if (lse) {
    const ConstTensorView& view = query.view();
    Dims rows;
    if (starts.given() && view.rank() == 3) rows = {view.size(1), view.size(0)};
    if (!starts.given() && view.rank() == 4) rows = {view.size(0), view.size(1), view.size(2)};
    logs = maker.make(DType::kF32, rows);
    options.lse = logs.array.mutable_view();
  }
  options.workspace = &own_workspace();
  self.locked(
      [&](const KVCache& cache) { attention(query.view(), cache, sequences, result.array.mutable_view(), options); });
  nb::object given = out.is_none() ? maker.finish(std::move(result)) : std::move(out);
  return lse ? nb::object(nb::make_tuple(given, maker.finish(std::move(logs)))) : given;
}

}  // namespace

void bind_kv_cache(nb::module_& module) {
  using nb::literals::operator""_a;
  nb::class_<PythonCache>(module, "KVCache",
                          R"(Keys and values of many growing sequences, for decoding and chunked prefill.

In pages of page_size tokens (a multiple of 16), or each sequence in one piece where it is 0. dtype: 'float32',
'bfloat16', 'float16', or 'int8' with a scale for each token and head. max_tokens bounds its memory.
attention gives the bits of one call over all keys, however the tokens came in. Threads may share a cache.

>>> cache = KVCache(num_kv_heads=2, head_dim=64)
>>> s = cache.add()
>>> x = np.ones((2, 5, 64), np.float32)
>>> cache.append(s, x, x)
>>> cache.attention(np.ones((1, 8, 1, 64), np.float32), [s]).shape
(1, 8, 1, 64))")
      .def(
          "__init__",
          [](PythonCache* self, std::int64_t num_kv_heads, std::int64_t head_dim, std::int64_t value_dim,
             const std::string& dtype, std::int64_t page_size, std::int64_t max_tokens) {
            new (self) PythonCache(
                {.num_kv_heads = num_kv_heads,
                 .head_dim = head_dim,
                 .value_dim = value_dim,
                 .dtype = dtype_named(dtype, {DType::kF32, DType::kBF16, DType::kF16, DType::kI8}, "KVCache"),
                 .page_size = page_size,
                 .max_tokens = max_tokens});
          },
          nb::kw_only(), "num_kv_heads"_a, "head_dim"_a, "value_dim"_a = 0, "dtype"_a = "float32", "page_size"_a = 64,
          "max_tokens"_a = 0)
      .def(
          "add", [](PythonCache& self) { return self.locked([](KVCache& cache) { return cache.add(); }); },
          "A new, empty sequence.")
      .def(
          "fork",
          [](PythonCache& self, std::int64_t sequence) {
            return self.locked([&](KVCache& cache) { return cache.fork(sequence); });
          },
          "sequence"_a, "A sequence that begins with the tokens of another; pages are shared until one changes.")
      .def(
          "remove",
          [](PythonCache& self, std::int64_t sequence) {
            self.locked([&](KVCache& cache) { cache.remove(sequence); });
          },
          "sequence"_a, "Gives a sequence's memory back to the cache.")
      .def(
          "length",
          [](PythonCache& self, std::int64_t sequence) {
            return self.locked([&](KVCache& cache) { return cache.length(sequence); });
          },
          "sequence"_a, "The tokens of a sequence.")
      .def(
          "truncate",
          [](PythonCache& self, std::int64_t sequence, std::int64_t length) {
            self.locked([&](KVCache& cache) { cache.truncate(sequence, length); });
          },
          "sequence"_a, "length"_a, "Keeps the first tokens of a sequence.")
      .def(
          "append",
          [](PythonCache& self, std::int64_t sequence, nb::object k, nb::object v, int num_threads) {
            const Array keys(k, "KVCache.append", "k"), values(v, "KVCache.append", "v");
            self.locked([&](KVCache& cache) {
              cache.append(sequence, keys.view(), values.view(), {.num_threads = num_threads});
            });
          },
          "sequence"_a, "k"_a, "v"_a, nb::kw_only(), "num_threads"_a = 0,
          "Appends T tokens, k [Hkv,T,D] and v [Hkv,T,Dv], rounded once to the cache's type.")
      .def("attention", attend, "q"_a, "sequences"_a, nb::kw_only(), "mask"_a = nb::none(), "scale"_a = nb::none(),
           "softcap"_a = 0.0, "sinks"_a = nb::none(), "lse"_a = false, "out"_a = nb::none(),
           "cu_seqlens_q"_a = nb::none(), "int8_products"_a = false, "num_threads"_a = 0, "bits"_a = "",
           "Attention of q [B,Hq,Tq,D] over the sequences, or of packed q [Tq,Hq,D] with cu_seqlens_q.")
      .def_prop_ro(
          "bytes", [](PythonCache& self) { return self.locked([](KVCache& c) { return c.bytes(); }); },
          "Bytes of all pages.")
      .def_prop_ro(
          "pages_in_use", [](PythonCache& self) { return self.locked([](KVCache& c) { return c.pages_in_use(); }); },
          "Pages that hold tokens, each shared one once.");
}

}  // namespace manyheads::python
