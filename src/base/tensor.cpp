#include <manyheads/tensor.hpp>

#include <cstring>

#include <manyheads/error.hpp>

#include "base/aligned_buffer.hpp"
#include "base/checked.hpp"

namespace manyheads {

std::size_t size_of(DType type) noexcept {
  switch (type) {
    case DType::kF64:
    case DType::kI64:
      return 8;
    case DType::kF32:
    case DType::kI32:
      return 4;
    case DType::kBF16:
    case DType::kF16:
      return 2;
    case DType::kBool:
    case DType::kU8:
    case DType::kI8:
      return 1;
  }
  return 0;
}

const char* name_of(DType type) noexcept {
  switch (type) {
    case DType::kF32:
      return "F32";
    case DType::kBF16:
      return "BF16";
    case DType::kF16:
      return "F16";
    case DType::kF64:
      return "F64";
    case DType::kBool:
      return "BOOL";
    case DType::kU8:
      return "U8";
    case DType::kI8:
      return "I8";
    case DType::kI32:
      return "I32";
    case DType::kI64:
      return "I64";
  }
  return "?";
}

Dims::Dims(std::initializer_list<std::int64_t> values)
    : Dims(std::span<const std::int64_t>(values.begin(), values.size())) {}

Dims::Dims(std::span<const std::int64_t> values) {
  if (values.size() > kMaxRank) {
    throw Error(ErrorCode::kInvalidArgument, "a tensor of " + std::to_string(values.size()) + " dimensions: at most " +
                                                 std::to_string(kMaxRank) + " are taken");
  }
  for (const std::int64_t value : values) values_[static_cast<std::size_t>(rank_++)] = value;
}

bool operator==(const Dims& a, const Dims& b) noexcept {
  if (a.rank_ != b.rank_) return false;
  for (int i = 0; i < a.rank_; ++i) {
    if (a[i] != b[i]) return false;
  }
  return true;
}

std::string Dims::to_string() const {
  std::string text = "[";
  for (int i = 0; i < rank_; ++i) {
    if (i > 0) text += ',';
    text += std::to_string((*this)[i]);
  }
  return text + "]";
}

Dims contiguous_strides(const Dims& shape) {
  element_count(shape);  // refuses what would overflow below
  Dims strides = shape;
  std::int64_t step = 1;
  for (int i = shape.rank() - 1; i >= 0; --i) {
    strides[i] = step;
    step *= shape[i] > 0 ? shape[i] : 1;
  }
  return strides;
}

std::int64_t element_count(const Dims& shape) {
  std::int64_t count = 1;
  std::int64_t nonzero = 1;  // so that a zero does not hide a product that wraps
  for (const std::int64_t size : shape) {
    if (size < 0) throw Error(ErrorCode::kInvalidArgument, "shape " + shape.to_string() + " has a negative size");
    count *= size > 0 ? 1 : 0;
    if (size > 0 && !base::multiply(nonzero, size, &nonzero)) {
      throw Error(ErrorCode::kInvalidArgument, "shape " + shape.to_string() + " holds more than 2^63 elements");
    }
  }
  return count == 0 ? 0 : nonzero;
}

ConstTensorView::ConstTensorView(const void* data, DType type, Dims shape)
    : ConstTensorView(data, type, shape, contiguous_strides(shape)) {}

ConstTensorView::ConstTensorView(const void* data, DType type, Dims shape, Dims strides)
    : data_(data), dtype_(type), defined_(true), shape_(shape), strides_(strides) {
  const std::int64_t count = element_count(shape);
  if (shape.rank() != strides.rank()) {
    throw Error(ErrorCode::kInvalidArgument, "a view of shape " + shape.to_string() + " with strides " +
                                                 strides.to_string() + ": one stride for each dimension is needed");
  }
  std::int64_t reach = 0;
  for (int i = 0; i < shape.rank(); ++i) {
    const std::int64_t stride = strides[i] < 0 ? -(strides[i] + 1) : strides[i];  // the lowest int64 has no opposite
    std::int64_t bytes = 0;
    const bool fits = base::multiply(stride, static_cast<std::int64_t>(size_of(type)) * 2, &bytes) &&
                      base::multiply(bytes, shape[i], &bytes);
    if (count == 0 || shape[i] == 1) {
      if (!fits) strides_[i] = 0;  // nothing steps along it: no address is computed with such a stride
    } else if (!fits || !base::add(reach, bytes, &reach)) {
      throw Error(ErrorCode::kInvalidArgument, "a view of shape " + shape.to_string() + " with strides " +
                                                   strides.to_string() + " reaches beyond the address space");
    }
  }
  if (data == nullptr && count > 0) {
    throw Error(ErrorCode::kInvalidArgument, "a view of shape " + shape.to_string() + " on a null pointer");
  }
}

bool ConstTensorView::contiguous() const noexcept {
  for (const std::int64_t size : shape_) {
    if (size == 0) return true;
  }
  std::int64_t step = 1;
  for (int i = rank() - 1; i >= 0; --i) {
    if (shape_[i] != 1 && strides_[i] != step) return false;
    step *= shape_[i];
  }
  return true;
}

Tensor::Tensor(DType type, Dims shape) : dtype_(type), writable_(true), shape_(shape) {
  std::int64_t bytes = 0;
  if (!base::multiply(element_count(shape), static_cast<std::int64_t>(size_of(type)), &bytes)) {
    throw Error(ErrorCode::kOutOfMemory, "a tensor of shape " + shape.to_string() + " is larger than memory");
  }
  auto buffer = std::make_shared<base::AlignedBuffer<unsigned char>>(static_cast<std::size_t>(bytes > 0 ? bytes : 1));
  std::memset(buffer->data(), 0, buffer->size());
  data_ = buffer->data();
  owner_ = std::move(buffer);
}

Tensor::Tensor(std::shared_ptr<const void> owner, const void* data, DType type, Dims shape)
    : owner_(std::move(owner)), data_(data), dtype_(type), shape_(shape) {}

TensorView Tensor::view() {
  if (!writable_) throw Error(ErrorCode::kInvalidArgument, "this tensor is read-only: its memory belongs to a file");
  return TensorView(const_cast<void*>(data_), dtype_, shape_);
}

void Tensor::refuse_type(DType type) const {
  throw Error(ErrorCode::kInvalidArgument, std::string("Tensor::as: the tensor is ") + name_of(dtype_) + " " +
                                               shape_.to_string() + ", not " + name_of(type));
}

namespace {

Dims swapped(Dims dims) {
  std::swap(dims[1], dims[2]);
  return dims;
}

void check_bthd(const ConstTensorView& view) {
  if (view.rank() == 4) return;
  throw Error(ErrorCode::kInvalidArgument,
              "from_bthd: the tensor is " + view.shape().to_string() + ", expected [B,T,H,D]");
}

}  // namespace

ConstTensorView from_bthd(const ConstTensorView& view) {
  check_bthd(view);
  return ConstTensorView(view.data(), view.dtype(), swapped(view.shape()), swapped(view.strides()));
}

TensorView from_bthd(const TensorView& view) {
  check_bthd(view);
  return TensorView(view.data(), view.dtype(), swapped(view.shape()), swapped(view.strides()));
}

}  // namespace manyheads
