#include "layer/convert.hpp"

#include <cstring>

#include "base/parallel.hpp"

namespace manyheads::layer {
namespace {

// A view as rows of its last axis, [outer, middle, width].
struct StridedRows {
  std::int64_t outer = 1, middle = 1, width = 1;
  std::int64_t outer_stride = 0, middle_stride = 0, step = 1;

  explicit StridedRows(const ConstTensorView& view) {
    const int rank = view.rank();
    if (rank > 0) width = view.size(rank - 1), step = view.stride(rank - 1);
    if (rank > 1) middle = view.size(rank - 2), middle_stride = view.stride(rank - 2);
    if (rank > 2) outer = view.size(rank - 3), outer_stride = view.stride(rank - 3);
  }
};

// Calls body(offset in the view, offset in dense memory) for each row.
template <class Body>
void for_each_row(const StridedRows& rows, const Threads& threads, Body&& body) {
  if (rows.width == 0) return;
  base::parallel_for_rows(rows.outer * rows.middle, rows.width, threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const std::int64_t outer = row / rows.middle, middle = row % rows.middle;
      body(outer * rows.outer_stride + middle * rows.middle_stride, row * rows.width);
    }
  });
}

template <class T>
void to_f32(const StridedRows& rows, const T* from, float* to, const Threads& threads) {
  for_each_row(rows, threads, [&](std::int64_t strided, std::int64_t dense) {
    for (std::int64_t i = 0; i < rows.width; ++i) {
      T value;
      std::memcpy(&value, from + strided + i * rows.step, sizeof(T));  // files keep tensors at any address
      to[dense + i] = static_cast<float>(value);
    }
  });
}

template <class T>
void from_f32(const StridedRows& rows, const float* from, T* to, const Threads& threads) {
  for_each_row(rows, threads, [&](std::int64_t strided, std::int64_t dense) {
    for (std::int64_t i = 0; i < rows.width; ++i) {
      const T value(from[dense + i]);
      std::memcpy(to + strided + i * rows.step, &value, sizeof(T));
    }
  });
}

}  // namespace

void copy_to_f32(ConstTensorView from, float* to, const Threads& threads) {
  const StridedRows rows(from);
  switch (from.dtype()) {
    case DType::kBF16:
      return to_f32(rows, static_cast<const bfloat16*>(from.data()), to, threads);
    case DType::kF16:
      return to_f32(rows, static_cast<const float16*>(from.data()), to, threads);
    default:
      return to_f32(rows, static_cast<const float*>(from.data()), to, threads);
  }
}

void copy_from_f32(const float* from, TensorView to, const Threads& threads) {
  const StridedRows rows(to);
  switch (to.dtype()) {
    case DType::kBF16:
      return from_f32(rows, from, static_cast<bfloat16*>(to.data()), threads);
    case DType::kF16:
      return from_f32(rows, from, static_cast<float16*>(to.data()), threads);
    default:
      return from_f32(rows, from, static_cast<float*>(to.data()), threads);
  }
}

Tensor converted(ConstTensorView from, DType type) {
  Tensor result(type, from.shape());
  if (result.elements() == 0) return result;
  if (from.dtype() == type && from.contiguous()) {
    std::memcpy(result.view().data(), from.data(), static_cast<std::size_t>(result.elements()) * size_of(type));
    return result;
  }
  if (type == DType::kF32) {
    copy_to_f32(from, result.as<float>());
    return result;
  }
  Tensor wide(DType::kF32, from.shape());
  copy_to_f32(from, wide.as<float>());
  copy_from_f32(wide.as<float>(), result.view());
  return result;
}

Tensor stacked(const std::vector<Tensor>& parts, DType type) {
  Dims shape = parts[0].shape();
  for (std::size_t i = 1; i < parts.size(); ++i) shape[0] += parts[i].size(0);
  Tensor all(type, shape);
  auto* to = static_cast<std::byte*>(all.view().data());
  for (const Tensor& part : parts) {
    const Tensor same = converted(part.cview(), type);
    const std::size_t bytes = static_cast<std::size_t>(same.elements()) * size_of(type);
    std::memcpy(to, same.bytes(), bytes);
    to += bytes;
  }
  return all;
}

}  // namespace manyheads::layer
