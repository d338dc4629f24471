#pragma once

#include <cstdint>

namespace manyheads::study {

// Numbers from a seed, the same on every machine: splitmix64 (Steele, Lea, Flood 2014).
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  // A stream of its own for each purpose and index.
  Random(std::uint64_t seed, std::uint64_t purpose, std::uint64_t index) : state_(seed) {
    state_ = next() ^ (purpose * 0xD1B54A32D192ED03U);
    state_ = next() ^ (index * 0x8CB92BA72F3D8DD7U);
    next();
  }

  std::uint64_t next() {
    std::uint64_t z = state_ += 0x9E3779B97F4A7C15U;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
    return z ^ (z >> 31);
  }
  // 0 to count - 1. The bias is below count / 2^32.
  int below(int count) { return static_cast<int>(((next() >> 32) * static_cast<std::uint64_t>(count)) >> 32); }
  // [0, 1), 24 bits.
  float uniform() { return static_cast<float>(next() >> 40) * 0x1p-24F; }
  bool chance(float p) { return uniform() < p; }

 private:
  std::uint64_t state_;
};

}  // namespace manyheads::study
