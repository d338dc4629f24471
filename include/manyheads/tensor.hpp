#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <map>
#include <memory>
#include <span>
#include <string>

#include <manyheads/half.hpp>
#include <manyheads/export.hpp>

namespace manyheads {

// Element types. Attention computes on kF32, kBF16 and kF16. The others carry masks, lengths and ids.
enum class DType : std::uint8_t { kF32, kBF16, kF16, kF64, kBool, kU8, kI8, kI32, kI64 };

MANYHEADS_API std::size_t size_of(DType type) noexcept;
MANYHEADS_API const char* name_of(DType type) noexcept;  // as safetensors spells it: "F32", "BF16", "BOOL", ...

template <class T>
struct dtype_of;
template <>
struct dtype_of<float> {
  static constexpr DType value = DType::kF32;
};
template <>
struct dtype_of<bfloat16> {
  static constexpr DType value = DType::kBF16;
};
template <>
struct dtype_of<float16> {
  static constexpr DType value = DType::kF16;
};
template <>
struct dtype_of<double> {
  static constexpr DType value = DType::kF64;
};
template <>
struct dtype_of<bool> {
  static constexpr DType value = DType::kBool;
};
template <>
struct dtype_of<std::uint8_t> {
  static constexpr DType value = DType::kU8;
};
template <>
struct dtype_of<std::int8_t> {
  static constexpr DType value = DType::kI8;
};
template <>
struct dtype_of<std::int32_t> {
  static constexpr DType value = DType::kI32;
};
template <>
struct dtype_of<std::int64_t> {
  static constexpr DType value = DType::kI64;
};

constexpr int kMaxRank = 8;

// A list of up to kMaxRank sizes or strides. Throws Error where it is longer.
class MANYHEADS_API Dims {
 public:
  Dims() = default;
  Dims(std::initializer_list<std::int64_t> values);
  explicit Dims(std::span<const std::int64_t> values);
  int rank() const noexcept { return rank_; }
  std::int64_t operator[](int i) const noexcept { return values_[static_cast<std::size_t>(i)]; }
  std::int64_t& operator[](int i) noexcept { return values_[static_cast<std::size_t>(i)]; }
  const std::int64_t* begin() const noexcept { return values_.data(); }
  const std::int64_t* end() const noexcept { return values_.data() + rank_; }
  MANYHEADS_API friend bool operator==(const Dims& a, const Dims& b) noexcept;
  std::string to_string() const;  // "[1,8,7,64]"

 private:
  std::array<std::int64_t, kMaxRank> values_{};
  int rank_ = 0;
};

MANYHEADS_API Dims contiguous_strides(const Dims& shape);  // row-major, in elements
// Throws Error where a size is negative or the product leaves 63 bits.
MANYHEADS_API std::int64_t element_count(const Dims& shape);

// A view on the caller's memory: it owns nothing and costs nothing to copy. TensorView may be written to and converts
// to this one.
// - data points at the element with every index 0.
// - Strides count elements, are signed, and may be anything within the address space.
// - Nothing steps along an axis of one element or in an empty view. A stride there that is no distance in memory is
//   kept as 0.
class MANYHEADS_API ConstTensorView {
 public:
  ConstTensorView() = default;
  ConstTensorView(const void* data, DType type, Dims shape);
  ConstTensorView(const void* data, DType type, Dims shape, Dims strides);
  template <class T>
  ConstTensorView(const T* data, Dims shape) : ConstTensorView(data, dtype_of<T>::value, shape) {}
  template <class T>
  ConstTensorView(const T* data, Dims shape, Dims strides)
      : ConstTensorView(data, dtype_of<T>::value, shape, strides) {}

  const void* data() const noexcept { return data_; }
  DType dtype() const noexcept { return dtype_; }
  const Dims& shape() const noexcept { return shape_; }
  const Dims& strides() const noexcept { return strides_; }
  int rank() const noexcept { return shape_.rank(); }
  std::int64_t size(int axis) const noexcept { return shape_[axis]; }
  std::int64_t stride(int axis) const noexcept { return strides_[axis]; }
  bool defined() const noexcept { return defined_; }  // false only for a default-constructed view
  bool contiguous() const noexcept;

 protected:
  const void* data_ = nullptr;
  DType dtype_ = DType::kF32;
  bool defined_ = false;
  Dims shape_;
  Dims strides_;
};

class MANYHEADS_API TensorView : public ConstTensorView {
 public:
  TensorView() = default;
  TensorView(void* data, DType type, Dims shape) : ConstTensorView(data, type, shape) {}
  TensorView(void* data, DType type, Dims shape, Dims strides) : ConstTensorView(data, type, shape, strides) {}
  template <class T>
  TensorView(T* data, Dims shape) : ConstTensorView(data, shape) {}
  template <class T>
  TensorView(T* data, Dims shape, Dims strides) : ConstTensorView(data, shape, strides) {}

  void* data() const noexcept { return const_cast<void*>(data_); }
};

// The view of rows [B,T,H,D] as [B,H,T,D], the order that attention takes. Moves nothing. Throws Error for another
// rank.
MANYHEADS_API ConstTensorView from_bthd(const ConstTensorView& view);
MANYHEADS_API TensorView from_bthd(const TensorView& view);

// A dense row-major tensor, 64-byte aligned. It owns its memory, or keeps alive the file it is mapped from. Copies
// share the memory.
class MANYHEADS_API Tensor {
 public:
  Tensor() = default;
  Tensor(DType type, Dims shape);  // zero-filled; throws Error (kOutOfMemory)
  // A read-only tensor over memory that `owner` keeps alive.
  Tensor(std::shared_ptr<const void> owner, const void* data, DType type, Dims shape);

  TensorView view();  // throws Error for a read-only tensor
  ConstTensorView view() const noexcept { return ConstTensorView(data_, dtype_, shape_); }
  ConstTensorView cview() const noexcept { return view(); }
  DType dtype() const noexcept { return dtype_; }
  const Dims& shape() const noexcept { return shape_; }
  std::int64_t size(int axis) const noexcept { return shape_[axis]; }
  int rank() const noexcept { return shape_.rank(); }
  std::int64_t elements() const { return element_count(shape_); }
  bool defined() const noexcept { return owner_ != nullptr; }
  const void* bytes() const noexcept { return data_; }
  // The elements. Throws Error where T is not the tensor's type, or a read-only tensor is to be written.
  template <class T>
  T* as() {
    check_type(dtype_of<T>::value);
    return static_cast<T*>(view().data());
  }
  template <class T>
  const T* as() const {
    check_type(dtype_of<T>::value);
    return static_cast<const T*>(data_);
  }

 private:
  void check_type(DType type) const {
    if (defined() && type != dtype_) refuse_type(type);
  }
  [[noreturn]] void refuse_type(DType type) const;

  std::shared_ptr<const void> owner_;
  const void* data_ = nullptr;
  DType dtype_ = DType::kF32;
  bool writable_ = false;
  Dims shape_;
};

// Named tensors, as a model or a safetensors file holds them.
using StateDict = std::map<std::string, Tensor>;

}  // namespace manyheads
