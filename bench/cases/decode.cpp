#include <algorithm>
#include <cmath>
#include <cstring>
#include <manyheads/attention.hpp>
#include <memory>
#include <numeric>
#include <random>

#include "base/format.hpp"
#include "bench/cases/case.hpp"
#include "bench/cases/sampling.hpp"
#include "kernels/roofline.hpp"

namespace manyheads::bench {

namespace {

constexpr std::int64_t kHeads = 32;
constexpr std::int64_t kKeys = 32768;

struct Decode {
  DType type = DType::kF32;  // of keys and values
  std::int64_t kv_heads = 4, d = 64;
  int threads = 1;
  bool int8_products = false;
  bool wide_queries = false;  // F32 over I8 keys, else BF16

  DType query_type() const { return type != DType::kI8 ? type : wide_queries ? DType::kF32 : DType::kBF16; }
};

std::size_t elements(const Decode& decode) { return static_cast<std::size_t>(decode.kv_heads * kKeys * decode.d); }

// Keys, values and the scales of I8, each read once.
double bytes_of(const Decode& decode) {
  const std::size_t scales = decode.type == DType::kI8 ? static_cast<std::size_t>(decode.kv_heads * kKeys) * 4 : 0;
  return 2 * static_cast<double>(elements(decode) * size_of(decode.type) + scales);
}

// [Hkv,keys,D]: every head repeats the first one's numbers from another token on, which is quicker than drawing them.
Tensor cache_of(const Decode& decode, std::uint64_t seed) {
  const Dims one{kKeys, decode.d};
  Tensor first;
  if (decode.type == DType::kI8) {
    const Tensor numbers = normal(DType::kF32, one, seed, 40);
    first = Tensor(DType::kI8, one);
    for (std::int64_t i = 0; i < kKeys * decode.d; ++i) {
      const long nearest = std::lround(numbers.as<float>()[i]);
      first.as<std::int8_t>()[i] = static_cast<std::int8_t>(std::clamp(nearest, -127L, 127L));
    }
  } else {
    first = normal(decode.type, one, seed);
  }
  Tensor cache(decode.type, {decode.kv_heads, kKeys, decode.d});
  const std::size_t row = static_cast<std::size_t>(decode.d) * size_of(decode.type), head = kKeys * row;
  for (std::int64_t h = 0; h < decode.kv_heads; ++h) {
    const std::size_t from = static_cast<std::size_t>(h * 997 % kKeys) * row;
    auto* to = static_cast<std::byte*>(cache.view().data()) + static_cast<std::size_t>(h) * head;
    const auto* source = static_cast<const std::byte*>(first.bytes());
    std::memcpy(to, source + from, head - from);
    std::memcpy(to + (head - from), source, from);
  }
  return cache;
}

Tensor scales_of(const Decode& decode, std::uint64_t seed) {
  Tensor scales = normal(DType::kF32, {decode.kv_heads, kKeys}, seed, 0.1f);
  for (std::int64_t i = 0; i < scales.elements(); ++i) {
    scales.as<float>()[i] = (1 + std::abs(scales.as<float>()[i])) / 40;
  }
  return scales;
}

// `copies` copies of a tensor: no run finds what it read last time in a cache.
Tensor repeated(const Tensor& tensor, std::int64_t copies) {
  const std::size_t bytes = static_cast<std::size_t>(tensor.elements()) * size_of(tensor.dtype());
  Tensor all(tensor.dtype(), {copies, tensor.elements()});
  for (std::int64_t i = 0; i < copies; ++i) {
    std::memcpy(static_cast<std::byte*>(all.view().data()) + static_cast<std::size_t>(i) * bytes, tensor.bytes(),
                bytes);
  }
  return all;
}

// A step of decoding over copies of its cache: tensors [Hkv,keys,D], or pages [Hkv,size,D].
class Step {
 public:
  Step(const Decode& decode, const Tensor& k, const Tensor& v, const Tensor& k_scales, const Tensor& v_scales)
      : decode_(decode),
        copies_(std::max<std::int64_t>(
            1, std::llround(std::ceil(static_cast<double>(kernels::beyond_caches()) / bytes_of(decode))))),
        k_(repeated(k, copies_)),
        v_(repeated(v, copies_)),
        q_(normal(decode.query_type(), {1, kHeads, 1, decode.d}, 1)),
        out_(q_.dtype(), q_.shape()) {
    if (decode.type == DType::kI8) {
      k_scales_ = repeated(k_scales, copies_);
      v_scales_ = repeated(v_scales, copies_);
    }
    options_.threads.num_threads = decode.threads;
    options_.int8_products = decode.int8_products;
    options_.workspace = &workspace_;
  }

  // Key j lies in page table[j / size] of each copy.
  void page(std::int64_t size, const std::vector<std::int64_t>& table) {
    page_size_ = size;
    const auto count = static_cast<std::int64_t>(table.size());
    table_ = Tensor(DType::kI64, {copies_, count});
    for (std::int64_t i = 0; i < copies_ * count; ++i) {
      table_.as<std::int64_t>()[i] = table[static_cast<std::size_t>(i % count)];
    }
  }

  void run() {
    const std::int64_t turn = turn_++ % copies_;
    const auto copy = [&](const Tensor& all, const Dims& shape) {
      const std::size_t bytes = static_cast<std::size_t>(all.size(1)) * size_of(all.dtype());
      return ConstTensorView(static_cast<const std::byte*>(all.bytes()) + static_cast<std::size_t>(turn) * bytes,
                             all.dtype(), shape);
    };
    Dims shape{1, decode_.kv_heads, kKeys, decode_.d};
    if (page_size_ != 0) {
      shape = {kKeys / page_size_, decode_.kv_heads, page_size_, decode_.d};
      options_.page_table = copy(table_, {1, table_.size(1)});
    }
    if (k_scales_.defined()) {
      options_.k_scales = copy(k_scales_, {1, decode_.kv_heads, kKeys});
      options_.v_scales = copy(v_scales_, {1, decode_.kv_heads, kKeys});
    }
    attention(q_.cview(), copy(k_, shape), copy(v_, shape), out_.view(), options_);
  }

  // Of the first and the last head, against the contiguous tensors.
  double error(const Tensor& k, const Tensor& v, const Tensor& k_scales, const Tensor& v_scales) const {
    double worst = 0;
    const std::int64_t d = decode_.d;
    for (const std::int64_t head : {std::int64_t{0}, kHeads - 1}) {
      const std::int64_t kv = head / (kHeads / decode_.kv_heads);
      const auto piece = [](const Tensor& of, std::int64_t index, const Dims& shape) {
        return ConstTensorView(static_cast<const std::byte*>(of.bytes()) +
                                   static_cast<std::size_t>(index * element_count(shape)) * size_of(of.dtype()),
                               of.dtype(), shape);
      };
      AttentionOptions options;
      if (k_scales.defined()) {
        options.k_scales = piece(k_scales, kv, {1, 1, kKeys});
        options.v_scales = piece(v_scales, kv, {1, 1, kKeys});
      }
      Tensor expected(DType::kF32, {1, 1, 1, d});
      attention_reference(piece(q_, head, {1, 1, 1, d}), piece(k, kv, {1, 1, kKeys, d}), piece(v, kv, {1, 1, kKeys, d}),
                          expected.view(), options);
      worst = std::max(worst, largest_difference(piece(out_, head, {d}), expected.cview()));
    }
    return worst;
  }

 private:
  Decode decode_;
  std::int64_t copies_, turn_ = 0, page_size_ = 0;
  Tensor k_, v_, k_scales_, v_scales_, table_, q_, out_;
  AttentionOptions options_;
  Workspace workspace_;
};

// Pages in random order, as in a cache after a while.
std::vector<std::int64_t> shuffled_pages(std::int64_t count) {
  std::vector<std::int64_t> pages(static_cast<std::size_t>(count));
  std::iota(pages.begin(), pages.end(), 0);
  std::shuffle(pages.begin(), pages.end(), std::mt19937_64(6));
  return pages;
}

// [Hkv,keys,D] as [pages,Hkv,size,D].
Tensor in_pages(const Tensor& cache, std::int64_t size, const std::vector<std::int64_t>& table) {
  const std::int64_t heads = cache.size(0), d = cache.size(2);
  Tensor pages(cache.dtype(), {static_cast<std::int64_t>(table.size()), heads, size, d});
  const std::size_t piece = static_cast<std::size_t>(size * d) * size_of(cache.dtype());
  for (std::size_t n = 0; n < table.size(); ++n) {
    for (std::int64_t h = 0; h < heads; ++h) {
      const std::size_t to = static_cast<std::size_t>(table[n] * heads + h);
      const std::size_t from = static_cast<std::size_t>(h) * table.size() + n;
      std::memcpy(static_cast<std::byte*>(pages.view().data()) + to * piece,
                  static_cast<const std::byte*>(cache.bytes()) + from * piece, piece);
    }
  }
  return pages;
}

Case decode_case(const Decode& decode, std::int64_t page_size = 0) {
  Case c;
  const bool narrow = decode.type == DType::kI8;
  c.row = {.name = decode.int8_products  ? "decode, I8 products"
                   : decode.wide_queries ? "decode, F32 queries"
                   : page_size == 0      ? "decode"
                                         : base::format("decode, page {}", page_size),
           .dtype = dtype_name(decode.type),
           .heads = kHeads,
           .kv_heads = decode.kv_heads,
           .head_dim = decode.d,
           .tokens = kKeys,
           .threads = decode.threads,
           .over = page_size != 0 ? "contiguous"
                   : narrow       ? "bf16"
                                  : ""};
  c.bytes = bytes_of(decode);
  c.prepare = [=] {
    const Tensor k = cache_of(decode, 2), v = cache_of(decode, 3);
    Tensor k_scales, v_scales;
    if (decode.type == DType::kI8) {
      k_scales = scales_of(decode, 4);
      v_scales = scales_of(decode, 5);
    }
    auto step = std::make_shared<Step>(decode, k, v, k_scales, v_scales);
    PreparedCase prepared;
    if (narrow) {
      Decode wide = decode;
      wide.type = DType::kBF16;
      wide.int8_products = false;
      auto base = std::make_shared<Step>(wide, cache_of(wide, 2), cache_of(wide, 3), Tensor(), Tensor());
      prepared.base = [base] { base->run(); };
    }
    if (page_size != 0) {
      prepared.base = [step] { step->run(); };
      const std::vector<std::int64_t> table = shuffled_pages(kKeys / page_size);
      step = std::make_shared<Step>(decode, in_pages(k, page_size, table), in_pages(v, page_size, table), k_scales,
                                    v_scales);
      step->page(page_size, table);
    }
    prepared.work = [step] { step->run(); };
    prepared.error = [=] { return step->error(k, v, k_scales, v_scales); };
    return prepared;
  };
  return c;
}

}  // namespace

std::vector<Case> decode_cases(const Size& size) {
  std::vector<Case> cases;
  if (size.quick) {
    for (const DType type : {DType::kF32, DType::kI8}) {
      cases.push_back(decode_case({.type = type, .threads = size.threads}));
    }
    cases.push_back(decode_case({.type = DType::kI8, .threads = size.threads, .int8_products = true}));
    cases.push_back(decode_case({.threads = size.threads}, 16));
    return cases;
  }
  for (const DType type : {DType::kF32, DType::kBF16, DType::kF16, DType::kI8}) {
    for (const std::int64_t kv_heads : {4, 32}) {
      for (const std::int64_t d : {64, 128}) {
        cases.push_back(decode_case({.type = type, .kv_heads = kv_heads, .d = d, .threads = size.threads}));
        if (type != DType::kI8) continue;
        const Decode same{.type = type, .kv_heads = kv_heads, .d = d, .threads = size.threads};
        Decode other = same;
        other.wide_queries = true;
        cases.push_back(decode_case(other));
        other = same;
        other.int8_products = true;
        cases.push_back(decode_case(other));
      }
    }
  }
  for (const DType type : {DType::kF32, DType::kBF16}) {
    for (const std::int64_t d : {64, 128}) {
      for (const std::int64_t page_size : {16, 64}) {
        cases.push_back(decode_case({.type = type, .d = d, .threads = size.threads}, page_size));
      }
    }
  }
  return cases;
}

}  // namespace manyheads::bench
