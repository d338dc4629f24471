#include "torch_api.hpp"

#include <dlfcn.h>

#include <bit>
#include <cstring>
#include <manyheads/error.hpp>
#include <span>

namespace manyheads::python::torch {
namespace {

Api loaded{};

void* found(void* library, const char* name, bool needed) {
  void* const symbol = ::dlsym(library, name);
  if (symbol == nullptr && needed) {
    throw Error(ErrorCode::kUnsupported, std::string("manyheads.torch: this PyTorch has no ") + name +
                                             " in its stable C ABI; PyTorch 2.10 or newer is needed");
  }
  return symbol;
}

class Pool final : public Executor {
 public:
  int concurrency() const noexcept override {
    std::uint32_t threads = 1;
    loaded.num_threads(&threads);
    return static_cast<int>(threads);
  }
  void run(std::int64_t count, Task task, void* context) override {
    struct Work {
      Task task;
      void* context;
    } work{task, context};
    check(loaded.parallel_for(
        0, count, 1,
        [](std::int64_t begin, std::int64_t end, void* at) {
          const Work& mine = *static_cast<const Work*>(at);
          for (; begin < end; ++begin) mine.task(mine.context, begin);
        },
        &work));
  }
};

}  // namespace

void load(const char* library) {
  void* const handle = ::dlopen(library, RTLD_NOW | RTLD_NOLOAD);
  if (handle == nullptr) {
    throw Error(ErrorCode::kUnsupported, std::string("manyheads.torch: PyTorch's ") + library + " is not loaded");
  }
  Api made{};
#define FIND(field, name) made.field = reinterpret_cast<decltype(made.field)>(found(handle, name, true))
  FIND(library_def, "aoti_torch_library_init_def");
  FIND(library_impl_of, "aoti_torch_library_init_impl");
  FIND(define, "aoti_torch_library_def");
  FIND(implement, "torch_library_impl");
  FIND(delete_library, "aoti_torch_delete_library_object");
  FIND(abi_version, "aoti_torch_abi_version");
  FIND(is_defined, "aoti_torch_is_defined");
  FIND(dim, "aoti_torch_get_dim");
  FIND(sizes, "aoti_torch_get_sizes");
  FIND(strides, "aoti_torch_get_strides");
  FIND(dtype, "aoti_torch_get_dtype");
  FIND(const_data, "torch_get_const_data_ptr");
  FIND(data, "torch_get_mutable_data_ptr");
  FIND(empty_strided, "aoti_torch_empty_strided");
  FIND(new_handle, "aoti_torch_new_tensor_handle");
  FIND(new_undefined, "aoti_torch_new_uninitialized_tensor");
  FIND(delete_tensor, "aoti_torch_delete_tensor_object");
  FIND(add, "aoti_torch_cpu_add_Tensor");
  FIND(call, "torch_call_dispatcher");
  FIND(parallel_for, "torch_parallel_for");
  FIND(num_threads, "torch_get_num_threads");
  FIND(grad_enabled, "aoti_torch_grad_mode_is_enabled");
  FIND(new_list, "torch_new_list_reserve_size");
  FIND(push_back, "torch_list_push_back");
  FIND(new_string, "torch_new_string_handle");
#undef FIND
  made.delete_ivalue =
      reinterpret_cast<decltype(made.delete_ivalue)>(found(handle, "torch_delete_stable_ivalue", false));
  made.new_ivalue = reinterpret_cast<decltype(made.new_ivalue)>(found(handle, "torch_new_stable_ivalue", false));
  made.what = reinterpret_cast<decltype(made.what)>(found(handle, "torch_exception_get_what_without_backtrace", false));
  constexpr const char* kTypes[] = {"float32", "bfloat16", "float16", "float64", "bool",
                                    "uint8",   "int8",     "int32",   "int64"};
  for (std::size_t i = 0; i < std::size(kTypes); ++i) {
    const std::string name = std::string("aoti_torch_dtype_") + kTypes[i];
    made.types[i] = reinterpret_cast<std::int32_t (*)()>(found(handle, name.c_str(), true))();
  }
  loaded = made;
}

const Api& api() { return loaded; }

void check(Status status) {
  if (status == 0) return;
  const char* const text = loaded.what != nullptr ? loaded.what() : nullptr;
  throw Error(ErrorCode::kInvalidArgument, text != nullptr && *text != 0
                                               ? text
                                               : "a call of PyTorch failed; before 2.13 it says why on stderr alone");
}

Owned Owned::again() const {
  Handle other = nullptr;
  check(loaded.new_handle(handle_, &other));
  return Owned(other);
}

bool type_of(Handle tensor, DType& type) {
  std::int32_t number = 0;
  check(loaded.dtype(tensor, &number));
  for (std::size_t i = 0; i < std::size(loaded.types); ++i) {
    if (loaded.types[i] == number) {
      type = static_cast<DType>(i);
      return true;
    }
  }
  return false;
}

ConstTensorView view_of(Handle tensor, const char* argument) {
  DType type;
  if (!type_of(tensor, type)) {
    throw Error(ErrorCode::kInvalidArgument, std::string("attention: ") + argument + " has a type that is not taken");
  }
  std::int64_t rank = 0, *sizes = nullptr, *strides = nullptr;
  check(loaded.dim(tensor, &rank));
  check(loaded.sizes(tensor, &sizes));
  check(loaded.strides(tensor, &strides));
  const void* data = nullptr;
  check(loaded.const_data(tensor, &data));
  const auto n = static_cast<std::size_t>(rank);
  return ConstTensorView(data, type, Dims(std::span<const std::int64_t>(sizes, n)),
                         Dims(std::span<const std::int64_t>(strides, n)));
}

TensorView mutable_view_of(Handle tensor) {
  const ConstTensorView view = view_of(tensor, "out");
  void* data = nullptr;
  check(loaded.data(tensor, &data));
  return TensorView(data, view.dtype(), view.shape(), view.strides());
}

Owned empty(DType type, const Dims& shape, const Dims& strides) {
  Handle made = nullptr;
  check(loaded.empty_strided(shape.rank(), shape.begin(), strides.begin(), loaded.types[static_cast<std::size_t>(type)],
                             0, -1, &made));
  return Owned(made);
}

Owned undefined() {
  Handle made = nullptr;
  check(loaded.new_undefined(&made));
  return Owned(made);
}

Arguments::Arguments(const IValue* stack, const char* schema) {
  for (std::size_t i = 0; schema[i] != 0; ++i) {
    Value& value = values_[i];
    IValue at = stack[i];
    if (schema[i] == 't' || schema[i] == 'D' || schema[i] == 'I') {
      value.has = at != 0;
      if (at == 0) continue;
      IValue* const held = reinterpret_cast<IValue*>(at);
      at = *held;
      if (loaded.delete_ivalue != nullptr) {
        loaded.delete_ivalue(held);
      } else {
        delete held;
      }
    }
    switch (schema[i]) {
      case 'T':
      case 't':
        value.tensor = Owned(reinterpret_cast<Handle>(at));
        value.has = true;
        if (schema[i] == 't') check(loaded.is_defined(value.tensor.get(), &value.has));
        if (!value.has) value.tensor = Owned();
        break;
      case 'd':
      case 'D':
        value.number = std::bit_cast<double>(at);
        break;
      case 'b':
        value.integer = static_cast<std::int64_t>(at & 1);
        break;
      default:
        value.integer = static_cast<std::int64_t>(at);
    }
  }
}

namespace {
IValue boxed(IValue value) {
  IValue* held = nullptr;
  if (loaded.new_ivalue != nullptr) {
    check(loaded.new_ivalue(&held));
  } else {
    held = new IValue;
  }
  *held = value;
  return reinterpret_cast<IValue>(held);
}

IValue list_of(std::initializer_list<std::int64_t> values) {
  void* made = nullptr;
  check(loaded.new_list(values.size(), &made));
  for (const std::int64_t value : values) check(loaded.push_back(made, static_cast<IValue>(value)));
  return reinterpret_cast<IValue>(made);
}
}  // namespace

Call& Call::tensor(const Owned& value) {
  stack_.push_back(reinterpret_cast<IValue>(value.again().release()));
  return *this;
}
Call& Call::optional(const Owned& value) {
  stack_.push_back(value ? boxed(reinterpret_cast<IValue>(value.again().release())) : 0);
  return *this;
}
Call& Call::number(double value) {
  stack_.push_back(std::bit_cast<IValue>(value));
  return *this;
}
Call& Call::optional_number(bool has, double value) {
  stack_.push_back(has ? boxed(std::bit_cast<IValue>(value)) : 0);
  return *this;
}
Call& Call::integer(std::int64_t value) {
  stack_.push_back(static_cast<IValue>(value));
  return *this;
}
Call& Call::optional_integer(std::int64_t value) {
  stack_.push_back(boxed(static_cast<IValue>(value)));
  return *this;
}
Call& Call::text(const char* value) {
  void* made = nullptr;
  check(loaded.new_string(value, std::strlen(value), &made));
  stack_.push_back(reinterpret_cast<IValue>(made));
  return *this;
}
Call& Call::integers(std::initializer_list<std::int64_t> values) {
  stack_.push_back(list_of(values));
  return *this;
}
Call& Call::optional_integers(std::initializer_list<std::int64_t> values) {
  stack_.push_back(boxed(list_of(values)));
  return *this;
}

std::vector<IValue> Call::run(const char* op, const char* overload, std::size_t results) {
  if (stack_.size() < results) stack_.resize(results);
  check(loaded.call(op, overload, stack_.data(), loaded.abi_version()));
  stack_.resize(results);
  return std::move(stack_);
}

Executor& pool() {
  static Pool pool;
  return pool;
}

}  // namespace manyheads::python::torch
