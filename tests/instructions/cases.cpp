// One named case for scripts/instructions, which counts the instructions of the call that manyheads_measured makes.
//   manyheads_instructions                  the names
//   manyheads_instructions NAME             runs the case once to warm up and once to be counted, on AVX2, one thread
//   manyheads_instructions --built-with     the compiler and the vector library: other ones give other counts
#include <cstdint>
#include <functional>
#include <iostream>
#include <manyheads/attention.hpp>
#include <manyheads/cpu.hpp>
#include <manyheads/error.hpp>
#include <manyheads/kv_cache.hpp>
#include <manyheads/multi_head_attention.hpp>
#include <string>
#include <utility>
#include <vector>

#include "layer/linear.hpp"

// Counting starts where this begins and stops where it ends: a name that a tool can find.
extern "C" [[gnu::noinline]] void manyheads_measured(const std::function<void()>& call);
extern "C" void manyheads_measured(const std::function<void()>& call) { call(); }

namespace manyheads {
namespace {

// Numbers in [-1, 1), the same everywhere and cheap.
Tensor numbers(DType type, Dims shape, std::uint32_t seed) {
  Tensor tensor(type, shape);
  std::uint32_t state = seed;
  const auto next = [&state] {
    state = state * 1664525u + 1013904223u;
    return static_cast<std::int32_t>(state) >> 8;
  };
  const auto fill = [&](auto* data, auto make) {
    for (std::int64_t i = 0; i < tensor.elements(); ++i) data[i] = make(next());
  };
  const auto unit = [](std::int32_t x) { return static_cast<float>(x) * 0x1p-23f; };
  switch (type) {
    case DType::kBF16:
      fill(tensor.as<bfloat16>(), [&](std::int32_t x) { return bfloat16(unit(x)); });
      break;
    case DType::kF16:
      fill(tensor.as<float16>(), [&](std::int32_t x) { return float16(unit(x)); });
      break;
    case DType::kBool:
      fill(tensor.as<bool>(), [](std::int32_t x) { return (x & 0x300) != 0; });
      break;
    default:
      fill(tensor.as<float>(), unit);
  }
  return tensor;
}

struct Shape {
  std::int64_t q_heads = 1, kv_heads = 1, tq = 1, tk = 1, d = 64;
  DType type = DType::kF32;
};

void attend(const Shape& s, AttentionOptions options = {}) {
  const Tensor q = numbers(s.type, {1, s.q_heads, s.tq, s.d}, 1);
  const Tensor k = numbers(s.type, {1, s.kv_heads, s.tk, s.d}, 2);
  const Tensor v = numbers(s.type, {1, s.kv_heads, s.tk, s.d}, 3);
  Tensor out(s.type, {1, s.q_heads, s.tq, s.d});
  options.threads.num_threads = 1;
  const auto call = [&] { attention(q.view(), k.view(), v.view(), out.view(), options); };
  call();
  manyheads_measured(call);
}

// A call so small that its fixed cost counts.
void small_call(std::int64_t heads, std::int64_t tokens, std::int64_t d) {
  Workspace workspace;
  attend({.q_heads = heads, .kv_heads = heads, .tq = tokens, .tk = tokens, .d = d}, {.workspace = &workspace});
}

void masked(const Mask& mask) { attend({.tq = 160, .tk = 640}, {.mask = mask}); }

void with_bool_mask() {
  const Tensor mask = numbers(DType::kBool, {160, 640}, 4);
  masked(mask::allowed(mask.view()));
}

void with_bias() {
  const Tensor added = numbers(DType::kF32, {160, 640}, 4);
  masked(mask::bias(added.view()));
}

void decode_cached(DType type, std::int64_t page_size, bool int8_products = false) {
  KVCache cache({.num_kv_heads = 2, .head_dim = 64, .dtype = type, .page_size = page_size});
  const KVCache::Sequence sequences[] = {cache.add()};
  cache.append(sequences[0], numbers(DType::kF32, {2, 1500, 64}, 2).view(),
               numbers(DType::kF32, {2, 1500, 64}, 3).view());
  KVBatch batch;
  cache.gather(sequences, batch);
  AttentionOptions options;
  batch.apply(options);
  options.threads.num_threads = 1;
  options.int8_products = int8_products;
  const Tensor q = numbers(DType::kF32, {1, 8, 1, 64}, 1);
  Tensor out(DType::kF32, {1, 8, 1, 64});
  const auto call = [&] { attention(q.view(), batch.k, batch.v, out.view(), options); };
  call();
  manyheads_measured(call);
}

void linear(std::int64_t rows, std::int64_t in, std::int64_t out_features) {
  const layer::Linear weights(numbers(DType::kF32, {out_features, in}, 1).view(),
                              numbers(DType::kF32, {out_features}, 2).view());
  const Tensor x = numbers(DType::kF32, {rows, in}, 3);
  Tensor y(DType::kF32, {rows, out_features});
  const auto call = [&] {
    weights.run(x.as<float>(), rows, in, y.as<float>(), out_features, layer::Activation::kNone, {.num_threads = 1});
  };
  call();
  manyheads_measured(call);
}

void layer_of_7_tokens() {
  const MultiHeadAttention layer({.d_model = 256, .num_heads = 4});
  const Tensor x = numbers(DType::kF32, {1, 7, 256}, 1);
  Tensor y(DType::kF32, {1, 7, 256});
  const auto call = [&] { layer.forward(x.view(), y.view(), {.threads = {.num_threads = 1}}); };
  call();
  manyheads_measured(call);
}

const std::vector<std::pair<std::string, std::function<void()>>>& cases() {
  static const std::vector<std::pair<std::string, std::function<void()>>> all = {
      {"call-1x4x1x16", [] { small_call(4, 1, 16); }},
      {"call-1x8x7x64", [] { small_call(8, 7, 64); }},
      {"prefill-f32-d32", [] { attend({.tq = 160, .tk = 640, .d = 32}); }},
      {"prefill-f32-d64", [] { attend({.tq = 160, .tk = 640}); }},
      {"prefill-f32-d128", [] { attend({.tq = 160, .tk = 640, .d = 128}); }},
      {"prefill-bf16-d64", [] { attend({.tq = 160, .tk = 640, .type = DType::kBF16}); }},
      {"prefill-f16-d64", [] { attend({.tq = 160, .tk = 640, .type = DType::kF16}); }},
      {"prefill-causal", [] { masked(mask::causal(Alignment::kBottomRight)); }},
      {"prefill-window", [] { masked(mask::causal(Alignment::kBottomRight) | mask::window(100, 0)); }},
      {"prefill-bool-mask", with_bool_mask},
      {"prefill-bias", with_bias},
      {"prefill-7-queries", [] { attend({.q_heads = 4, .kv_heads = 4, .tq = 7, .tk = 600}); }},
      {"decode-f32", [] { attend({.q_heads = 8, .kv_heads = 8, .tk = 1500}); }},
      {"decode-bf16", [] { attend({.q_heads = 8, .kv_heads = 8, .tk = 1500, .type = DType::kBF16}); }},
      {"decode-grouped", [] { attend({.q_heads = 16, .kv_heads = 2, .tk = 1500}); }},
      {"decode-paged", [] { decode_cached(DType::kF32, 64); }},
      {"decode-int8", [] { decode_cached(DType::kI8, 0); }},
      {"decode-int8-products", [] { decode_cached(DType::kI8, 0, true); }},
      {"linear-7-rows", [] { linear(7, 512, 512); }},
      {"linear-512-rows", [] { linear(512, 128, 128); }},
      {"layer-7-tokens", layer_of_7_tokens},
  };
  return all;
}

int run(const std::string& name) {
  if (name == "--built-with") {
    std::cout <<
#if defined(__clang__)
        "clang "
#else
        "gcc "
#endif
              << __VERSION__ << ", Highway " MANYHEADS_HIGHWAY_VERSION "\n";
    return 0;
  }
  for (const auto& [known, work] : cases()) {
    if (known != name) continue;
    set_isa("avx2");
    work();
    return 0;
  }
  std::cerr << "manyheads_instructions: there is no case " << name << "\n";
  return 2;
}

}  // namespace
}  // namespace manyheads

int main(int argc, char** argv) {
  try {
    if (argc == 2) return manyheads::run(argv[1]);
    for (const auto& [name, work] : manyheads::cases()) std::cout << name << "\n";
    return argc == 1 ? 0 : 2;
  } catch (const manyheads::Error& error) {
    std::cerr << "manyheads_instructions: " << error.what() << "\n";
    return 1;
  }
}
