#pragma once

#include <nanobind/nanobind.h>

#include <manyheads/tensor.hpp>
#include <memory>
#include <string>

#include "dlpack.hpp"

namespace manyheads::python {

namespace nb = nanobind;

// An array of the caller's, read where it lies. It keeps the array alive.
//   NumPy: by the buffer protocol; bfloat16 of ml_dtypes through its bits
//   types with __dlpack_c_exchange_api__ (PyTorch): by that, without a Python call
//   anything else with __dlpack__ on the CPU, and other buffers
// Nothing is copied or converted. Built and destroyed with the GIL held.
class Array {
 public:
  enum class Kind { kNumpy, kExchange, kDlpack, kBuffer };

  Array() = default;
  // Throws nb::type_error or nb::value_error that names `function` and `argument`.
  Array(nb::handle object, const char* function, const char* argument, bool writable = false);
  ~Array();
  Array(Array&& other) noexcept;
  Array& operator=(Array&& other) noexcept;

  bool given() const noexcept { return view_.defined(); }
  Kind kind() const noexcept { return kind_; }
  const ConstTensorView& view() const noexcept { return view_; }
  TensorView mutable_view() const;

 private:
  friend class Maker;
  void take_buffer(PyObject* object, const char* function, const char* argument, bool writable);
  void take_dlpack(const dlpack::Tensor& tensor, const char* function, const char* argument);

  Kind kind_ = Kind::kNumpy;
  ConstTensorView view_;
  Py_buffer buffer_{};
  dlpack::ManagedVersioned* versioned_ = nullptr;
  dlpack::Managed* managed_ = nullptr;
};

// "float32" as Python spells it.
const char* python_name(DType type) noexcept;

// Makes results of the kind of what came in: NumPy for NumPy, PyTorch for PyTorch, else what the array's own
// from_dlpack makes of it.
class Maker {
 public:
  // `like` outlives the maker.
  Maker(nb::handle like, const Array& array) : like_(like), kind_(array.kind()) {}

  struct Result {
    nb::object object;  // what goes to Python, by finish()
    Array array;        // the same memory
  };
  // An array with any content.
  Result make(DType type, const Dims& shape) const;
  nb::object finish(Result result) const;

 private:
  nb::handle like_;
  Array::Kind kind_;
};

// A NumPy array of this tensor's memory, which it keeps alive; read-only unless `writable`.
nb::object numpy_of(const Tensor& tensor, bool writable);

}  // namespace manyheads::python
