#pragma once

#include <cstdint>
#include <cstring>
#include <initializer_list>

#include "cases.hpp"

namespace bits {

// Numbers from a counter: SplitMix64's mix of a key and the count. Integers, and doubles by exact steps, so that every
// machine and every standard library draws the same.
class Draw {
 public:
  explicit Draw(std::uint64_t key) : key_(mix(key)) {}

  std::uint64_t next() { return mix(key_ + ++count_ * 0x9e3779b97f4a7c15u); }
  std::int64_t between(std::int64_t low, std::int64_t high) {
    return low + static_cast<std::int64_t>(next() % static_cast<std::uint64_t>(high - low + 1));
  }
  bool chance(int percent) { return between(0, 99) < percent; }
  template <class T = std::int64_t>
  T of(std::initializer_list<T> list) {
    return list.begin()[between(0, static_cast<std::int64_t>(list.size()) - 1)];
  }
  // Nearly normal, of about unit size: the sum of four even draws.
  double value() {
    const std::uint64_t x = next();
    const std::uint64_t sum = (x & 0xffff) + (x >> 16 & 0xffff) + (x >> 32 & 0xffff) + (x >> 48);
    return (static_cast<double>(sum) - 131070) * 0x1p-15;
  }

 private:
  static std::uint64_t mix(std::uint64_t x) {
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
  }
  std::uint64_t key_, count_ = 0;
};

using Shape = std::vector<std::int64_t>;

// An array of that order of axes, slowest first, whose fastest rows are `gap` elements longer than needed.
Array make(Type type, const Shape& shape, const std::vector<std::size_t>& order, std::int64_t gap, std::int64_t step,
           int reversed, std::int64_t misalign);
Array dense(Type type, const Shape& shape);
Array in_some_layout(Draw& draw, Type type, const Shape& shape);

void put(unsigned char* to, Type type, double value);  // rounded to nearest, ties to even

// visit(address of the element, its index), in the order of the indices.
template <class Visit>
void each(const Array& array, Visit&& visit) {
  for (const std::int64_t size : array.shape) {
    if (size == 0) return;
  }
  const std::size_t rank = array.shape.size();
  Shape index(rank, 0);
  unsigned char* const data = array.data();
  const std::int64_t bytes = size_of(array.type);
  for (;;) {
    std::int64_t at = 0;
    for (std::size_t a = 0; a < rank; ++a) at += index[a] * array.strides[a];
    visit(data + at * bytes, index);
    std::size_t a = rank;
    while (a > 0 && ++index[a - 1] == array.shape[a - 1]) index[--a] = 0;
    if (a == 0) return;
  }
}

template <class F>
Array filled(Array array, F&& make) {
  each(array, [&](unsigned char* to, const Shape& index) { put(to, array.type, make(index)); });
  return array;
}

// The integers of a list, I32 or I64.
Array integers(Draw& draw, const std::vector<std::int64_t>& values);

}  // namespace bits
