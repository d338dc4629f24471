#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <manyheads/parallel.hpp>
#include <manyheads/tensor.hpp>
#include <string>
#include <utility>
#include <vector>

// PyTorch's stable C ABI, found at run time in the loaded libtorch_cpu: no header and no linking, one extension for
// every PyTorch from 2.10. Signatures: torch/csrc/stable/c/shim.h and torch/csrc/inductor/aoti_torch/c/shim.h.
namespace manyheads::python::torch {

using Handle = void*;          // a tensor, owned
using IValue = std::uint64_t;  // an argument of a boxed kernel; an optional is null or a pointer to one
using Kernel = void (*)(IValue*, std::uint64_t, std::uint64_t);
using Status = std::int32_t;

struct Api {
  Status (*library_def)(const char*, const char*, std::uint32_t, void**);
  Status (*library_impl_of)(const char*, const char*, const char*, std::uint32_t, void**);
  Status (*define)(void*, const char*);
  Status (*implement)(void*, const char*, Kernel, std::uint64_t);
  Status (*delete_library)(void*);
  std::uint64_t (*abi_version)();
  Status (*is_defined)(Handle, bool*);
  Status (*dim)(Handle, std::int64_t*);
  Status (*sizes)(Handle, std::int64_t**);
  Status (*strides)(Handle, std::int64_t**);
  Status (*dtype)(Handle, std::int32_t*);
  Status (*const_data)(Handle, const void**);
  Status (*data)(Handle, void**);
  Status (*empty_strided)(std::int64_t, const std::int64_t*, const std::int64_t*, std::int32_t, std::int32_t,
                          std::int32_t, Handle*);
  Status (*new_handle)(Handle, Handle*);
  Status (*new_undefined)(Handle*);
  Status (*delete_tensor)(Handle);
  Status (*add)(Handle, Handle, double, Handle*);
  Status (*call)(const char*, const char*, IValue*, std::uint64_t);
  Status (*parallel_for)(std::int64_t, std::int64_t, std::int64_t, void (*)(std::int64_t, std::int64_t, void*), void*);
  Status (*num_threads)(std::uint32_t*);
  bool (*grad_enabled)();
  Status (*new_list)(std::size_t, void**);
  Status (*push_back)(void*, IValue);
  Status (*new_string)(const char*, std::size_t, void**);
  Status (*delete_ivalue)(IValue*);  // from 2.13; null before, where they are plain new
  Status (*new_ivalue)(IValue**);    // likewise
  const char* (*what)();             // from 2.13; null before
  std::int32_t types[9];             // PyTorch's numbers of our types, by DType
};

// Finds the functions. Throws Error that names what is missing.
void load(const char* library);
const Api& api();

// Throws Error with PyTorch's text.
void check(Status status);

// A tensor that is deleted with its holder.
class Owned {
 public:
  Owned() = default;
  explicit Owned(Handle handle) : handle_(handle) {}
  ~Owned() {
    if (handle_ != nullptr) api().delete_tensor(handle_);
  }
  Owned(Owned&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Owned& operator=(Owned&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  Handle get() const noexcept { return handle_; }
  Handle release() noexcept { return std::exchange(handle_, nullptr); }
  Owned again() const;  // another handle of the same tensor
  explicit operator bool() const noexcept { return handle_ != nullptr; }

 private:
  Handle handle_ = nullptr;
};

// False where a tensor's type is none of ours.
bool type_of(Handle tensor, DType& type);
// What a tensor's memory holds. Throws Error that names `argument` where its type is none of ours.
ConstTensorView view_of(Handle tensor, const char* argument);
TensorView mutable_view_of(Handle tensor);
Owned empty(DType type, const Dims& shape, const Dims& strides);
Owned undefined();  // None in Python

// The arguments of a boxed kernel, taken off the stack: they are the kernel's to delete.
//   T a tensor, t an optional one (an undefined one is none), d a float, D an optional one, i an int, I an optional
//   one, b a bool
class Arguments {
 public:
  Arguments(const IValue* stack, const char* schema);

  const Owned& tensor(int i) const { return values_[static_cast<std::size_t>(i)].tensor; }
  bool has(int i) const { return values_[static_cast<std::size_t>(i)].has; }
  double number(int i) const { return values_[static_cast<std::size_t>(i)].number; }
  std::int64_t integer(int i) const { return values_[static_cast<std::size_t>(i)].integer; }
  bool flag(int i) const { return integer(i) != 0; }

 private:
  struct Value {
    Owned tensor;
    bool has = false;
    double number = 0;
    std::int64_t integer = 0;
  };
  std::array<Value, 26> values_;  // no schema of ours has more
};

// A call through PyTorch's dispatcher. Arguments are pushed in the schema's order.
class Call {
 public:
  Call& tensor(const Owned& value);    // hands over another handle of it
  Call& optional(const Owned& value);  // None where it holds none
  Call& number(double value);
  Call& optional_number(bool has, double value);
  Call& integer(std::int64_t value);
  Call& optional_integer(std::int64_t value);
  Call& flag(bool value) { return integer(value ? 1 : 0); }
  Call& none() { return integer(0); }
  Call& text(const char* value);
  Call& integers(std::initializer_list<std::int64_t> values);
  Call& optional_integers(std::initializer_list<std::int64_t> values);
  // The results, on the stack.
  std::vector<IValue> run(const char* op, const char* overload, std::size_t results);
  // The one result, a tensor.
  Owned run(const char* op, const char* overload = "") {
    return Owned(reinterpret_cast<Handle>(run(op, overload, 1)[0]));
  }

 private:
  std::vector<IValue> stack_;
};

// PyTorch's own threads.
Executor& pool();

}  // namespace manyheads::python::torch
