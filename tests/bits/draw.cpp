#include "draw.hpp"

#include <algorithm>
#include <bit>
#include <manyheads/half.hpp>
#include <numeric>

namespace bits {

std::int64_t size_of(Type type) {
  switch (type) {
    case Type::kF32:
    case Type::kI32:
      return 4;
    case Type::kBF16:
    case Type::kF16:
      return 2;
    case Type::kI64:
      return 8;
    case Type::kBool:
    case Type::kI8:
      break;
  }
  return 1;
}

const char* name_of(Type type) {
  constexpr const char* kNames[] = {"F32", "BF16", "F16", "BOOL", "I8", "I32", "I64"};
  return kNames[static_cast<int>(type)];
}

std::string to_string(const Array& array) {
  if (!array.given()) return " none";
  std::string text = std::string(" ") + name_of(array.type);
  char separator = '[';
  for (const std::int64_t size : array.shape) {
    text += separator + std::to_string(size);
    separator = ',';
  }
  return text + ']';
}

std::string to_string(const Mask& mask) {
  constexpr const char* kAlignments[] = {"", " top-left", " bottom-right"};
  std::string text = mask.causal ? " causal" : "";
  text += kAlignments[static_cast<int>(mask.alignment)];
  if (mask.window_left >= 0 || mask.window_right >= 0) {
    text += " window " + std::to_string(mask.window_left) + ',' + std::to_string(mask.window_right);
  }
  for (const auto& [name, part] : {std::pair<const char*, const Array*>{" offsets", &mask.offsets},
                                   {" key_starts", &mask.key_starts},
                                   {" key_lengths", &mask.key_lengths},
                                   {" q_documents", &mask.q_documents},
                                   {" k_documents", &mask.k_documents},
                                   {" allowed", &mask.allowed},
                                   {" ignored", &mask.ignored},
                                   {" bias", &mask.bias},
                                   {" alibi", &mask.alibi_slopes}}) {
    if (part->given()) text += name + to_string(*part);
  }
  return text;
}

void Mask::add_to(std::vector<const Array*>& inputs) const {
  for (const Array* part :
       {&offsets, &key_starts, &key_lengths, &q_documents, &k_documents, &allowed, &ignored, &bias, &alibi_slopes}) {
    inputs.push_back(part);
  }
}

Array Array::fresh() const {
  Array copy = *this;
  copy.memory = std::make_shared<std::vector<unsigned char>>(memory->size(), static_cast<unsigned char>(0xff));
  return copy;
}

Array Array::slice(std::size_t axis, std::int64_t begin, std::int64_t end) const {
  Array part = *this;
  part.origin += begin * strides[axis] * size_of(type);
  part.shape[axis] = end - begin;
  return part;
}

Array Array::entry(std::size_t index) const {
  Array part = slice(0, static_cast<std::int64_t>(index), static_cast<std::int64_t>(index) + 1);
  part.shape.erase(part.shape.begin());
  part.strides.erase(part.strides.begin());
  return part;
}

Array make(Type type, const Shape& shape, const std::vector<std::size_t>& order, std::int64_t gap, std::int64_t step,
           int reversed, std::int64_t misalign) {
  Array array{.type = type, .shape = shape, .strides = shape, .memory = {}};
  std::int64_t extent = step;
  for (std::size_t i = order.size(); i-- > 0;) {
    array.strides[order[i]] = extent;
    extent *= std::max<std::int64_t>(1, shape[order[i]]);
    if (i + 1 == order.size()) extent += gap;
  }
  std::int64_t first = misalign;
  if (reversed >= 0 && shape[static_cast<std::size_t>(reversed)] > 0) {
    std::int64_t& stride = array.strides[static_cast<std::size_t>(reversed)];
    first += stride * (shape[static_cast<std::size_t>(reversed)] - 1);
    stride = -stride;
  }
  array.origin = first * size_of(type);
  array.memory = std::make_shared<std::vector<unsigned char>>(
      static_cast<std::size_t>((extent + misalign) * size_of(type)), static_cast<unsigned char>(0xff));
  return array;
}

Array dense(Type type, const Shape& shape) {
  std::vector<std::size_t> order(shape.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  return make(type, shape, order, 0, 1, -1, 0);
}

Array in_some_layout(Draw& draw, Type type, const Shape& shape) {
  std::vector<std::size_t> order(shape.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  if (shape.size() == 4 && draw.chance(40)) std::swap(order[1], order[2]);  // [B,T,H,D]
  if (draw.chance(5)) std::swap(order.back(), order.front());
  const std::int64_t gap = draw.chance(20) ? draw.between(1, 9) : 0;
  const std::int64_t step = draw.chance(5) ? 2 : 1;
  const int reversed = draw.chance(10) ? static_cast<int>(draw.between(0, static_cast<int>(shape.size()) - 1)) : -1;
  return make(type, shape, order, gap, step, reversed, draw.between(0, 5));
}

void put(unsigned char* to, Type type, double value) {
  const auto write = [to](auto typed) { std::memcpy(to, &typed, sizeof(typed)); };
  switch (type) {
    case Type::kF32:
      return write(static_cast<float>(value));
    case Type::kBF16: {
      const std::uint32_t u = std::bit_cast<std::uint32_t>(static_cast<float>(value));
      const bool nan = (u & 0x7fffffffu) > 0x7f800000u;
      return write(static_cast<std::uint16_t>(nan ? 0x7fc0u : (u + 0x7fffu + (u >> 16 & 1u)) >> 16));
    }
    case Type::kF16:
      return write(manyheads::float16(static_cast<float>(value)));
    case Type::kBool:
      return write(static_cast<std::uint8_t>(value));
    case Type::kI8:
      return write(static_cast<std::int8_t>(value));
    case Type::kI32:
      return write(static_cast<std::int32_t>(value));
    case Type::kI64:
      return write(static_cast<std::int64_t>(value));
  }
}

Array integers(Draw& draw, const std::vector<std::int64_t>& values) {
  const Type type = draw.chance(50) ? Type::kI32 : Type::kI64;
  return filled(in_some_layout(draw, type, {static_cast<std::int64_t>(values.size())}),
                [&](const Shape& at) { return static_cast<double>(values[static_cast<std::size_t>(at[0])]); });
}

}  // namespace bits
