#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "attention/call.hpp"

// Random sizes, types and masks of calls whose bits are compared.
namespace manyheads::test {

// The seed is in each message.
struct Draw {
  explicit Draw(std::uint64_t s) : seed(s), engine(s) {}
  std::int64_t between(std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(engine);
  }
  bool chance(double p) { return std::uniform_real_distribution<double>(0, 1)(engine) < p; }
  std::uint64_t seed;
  std::mt19937_64 engine;
};

inline Sizes random_sizes(Draw& draw) {
  Sizes s;
  s.batch = draw.between(1, 3);
  s.kv_heads = draw.between(1, 2);
  s.q_heads = s.kv_heads * draw.between(1, 3);
  s.tq = draw.chance(0.2) ? draw.between(60, 200) : draw.between(1, 60);
  s.tk = draw.chance(0.3) ? draw.between(500, 1700) : draw.between(1, 200);
  s.d = draw.between(1, 70);
  s.dv = draw.chance(0.5) ? s.d : draw.between(1, 70);
  if (draw.chance(0.4)) s.dv = 16 * draw.between(1, 5);  // whole vectors, which few rows read where they lie
  return s;
}

inline DType random_type(Draw& draw) { return static_cast<DType>(draw.chance(0.6) ? 0 : draw.between(1, 2)); }

// Causal and others that count from the diagonal, with the tensors they need.
struct RandomMask {
  RandomMask(Draw& draw, const Sizes& s) {
    parts.reserve(4);
    if (draw.chance(0.5)) mask.causal = true;
    mask.alignment = draw.chance(0.7) ? Alignment::kBottomRight : Alignment::kTopLeft;
    if (draw.chance(0.5)) {
      mask.window_left = draw.between(-1, draw.chance(0.5) ? 100 : s.tk);
      mask.window_right = draw.between(-1, s.tk / 2);
    }
    if (draw.chance(0.3)) {
      parts.push_back(
          filled(DType::kI64, {s.batch}, [&](const Index&) { return static_cast<double>(draw.between(0, s.tk)); }));
      mask.key_lengths = parts.back().view();
    }
    if (draw.chance(0.3)) {
      const auto id = [&](const Index& at) { return static_cast<double>(at[1] / 23); };
      parts.push_back(filled(DType::kI32, {s.batch, s.tq}, id));
      mask.q_documents = parts.back().view();
      parts.push_back(filled(DType::kI32, {s.batch, s.tk}, id));
      mask.k_documents = parts.back().view();
    }
    if (draw.chance(0.3)) {
      parts.push_back(filled(DType::kF32, {s.q_heads}, [&](const Index&) { return 0.125; }));
      mask.alibi_slopes = parts.back().view();
    }
  }
  Mask mask;
  std::vector<Strided> parts;
};

}  // namespace manyheads::test
