#pragma once

#include <array>
#include <cstdint>

// Which weights dropout keeps: a function of the seed and the weight's place alone, so that any blocking, any direction
// and any machine agree.
//
// Source: Salmon, Moraes, Dror and Shaw 2011, Philox 4x32-10.
namespace manyheads::kernels {

constexpr std::uint32_t kPhiloxFactors[2] = {0xD2511F53, 0xCD9E8D57};
constexpr std::uint32_t kPhiloxSteps[2] = {0x9E3779B9, 0xBB67AE85};
constexpr int kPhiloxRounds = 10;

constexpr std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter, std::uint32_t key0,
                                              std::uint32_t key1) noexcept {
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const std::uint64_t first = std::uint64_t{kPhiloxFactors[0]} * counter[0];
    const std::uint64_t second = std::uint64_t{kPhiloxFactors[1]} * counter[2];
    counter = {static_cast<std::uint32_t>(second >> 32) ^ counter[1] ^ key0, static_cast<std::uint32_t>(second),
               static_cast<std::uint32_t>(first >> 32) ^ counter[3] ^ key1, static_cast<std::uint32_t>(first)};
    key0 += kPhiloxSteps[0];
    key1 += kPhiloxSteps[1];
  }
  return counter;
}

constexpr std::int64_t kDropoutKeys = 4;  // keys that share a counter: each takes one of its four words

// The counter of query i and key j of head h and entry b is (i, j / 4, h, b), each modulo 2^32, with what the call
// begins with added; word j % 4 is the key's. Its top 24 bits, over 2^24, are uniform in [0, 1): the weight goes where
// they are below p.
struct Dropout {
  double p = 0;
  std::uint32_t dropped = 0;  // of 2^24; 0: no dropout
  std::uint32_t key[2] = {};  // the seed's halves, the lower first
  double factor = 1;          // of the weights that stay: 1 / (1 - p); 0 where none does
  std::int64_t first_query = 0, first_head = 0, first_entry = 0;

  bool any() const noexcept { return dropped != 0; }
  bool keeps(std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t j) const noexcept {
    const std::array<std::uint32_t, 4> words =
        philox({static_cast<std::uint32_t>(first_query + i), static_cast<std::uint32_t>(j / kDropoutKeys),
                static_cast<std::uint32_t>(first_head + h), static_cast<std::uint32_t>(first_entry + b)},
               key[0], key[1]);
    return words[static_cast<std::size_t>(j % kDropoutKeys)] >> 8 >= dropped;
  }
};

}  // namespace manyheads::kernels
