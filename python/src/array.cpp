#include "array.hpp"

#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>

#include <array>
#include <cstring>
#include <utility>

namespace manyheads::python {
namespace {

// Python objects that are looked up once.
struct Cached {
  nb::object ndarray, empty, bfloat16;
  std::array<nb::object, 9> dtypes;  // by DType

  static Cached& get() {
    static Cached* const cached = new Cached;  // never destroyed: the interpreter may end first
    return *cached;
  }

 private:
  Cached() {
    const nb::module_ numpy = nb::module_::import_("numpy");
    ndarray = numpy.attr("ndarray");
    empty = numpy.attr("empty");
    for (const DType type :
         {DType::kF32, DType::kF16, DType::kF64, DType::kBool, DType::kU8, DType::kI8, DType::kI32, DType::kI64}) {
      dtypes[static_cast<std::size_t>(type)] = numpy.attr("dtype")(python_name(type));
    }
  }
};

// NumPy's dtype; bfloat16 is that of ml_dtypes, which must be there.
nb::object numpy_dtype(DType type) {
  Cached& cached = Cached::get();
  nb::object& dtype = cached.dtypes[static_cast<std::size_t>(type)];
  if (!dtype.is_valid()) {
    dtype = nb::module_::import_("numpy").attr("dtype")(nb::module_::import_("ml_dtypes").attr("bfloat16"));
  }
  return dtype;
}

[[noreturn]] void refuse(const char* function, const char* argument, const std::string& why) {
  const std::string text = std::string(function) + ": " + argument + " " + why;
  throw nb::type_error(text.c_str());
}

std::string name_of_type(nb::handle object) { return nb::cast<std::string>(nb::str(object.type().attr("__name__"))); }

// The type of a buffer's elements by its format, of the struct module. False where there is none.
bool type_of_format(const char* format, Py_ssize_t itemsize, DType& type) {
  if (format == nullptr) return false;
  if (*format == '@' || *format == '=' || *format == '<') ++format;  // native and little-endian
  if (format[0] == 0 || format[1] != 0) return false;
  switch (*format) {
    case 'f':
      type = DType::kF32;
      return true;
    case 'e':
      type = DType::kF16;
      return true;
    case 'd':
      type = DType::kF64;
      return true;
    case '?':
      type = DType::kBool;
      return true;
    case 'B':
      type = DType::kU8;
      return true;
    case 'b':
      type = DType::kI8;
      return true;
    case 'i':
    case 'l':
    case 'q':
      type = itemsize == 4 ? DType::kI32 : DType::kI64;
      return true;
    default:
      return false;
  }
}

bool type_of_dlpack(const dlpack::DataType& from, DType& type) {
  if (from.lanes != 1) return false;
  const auto is = [&](std::uint8_t code, int bits) { return from.code == code && from.bits == bits; };
  if (is(dlpack::kFloat, 32)) return type = DType::kF32, true;
  if (is(dlpack::kFloat, 16)) return type = DType::kF16, true;
  if (is(dlpack::kFloat, 64)) return type = DType::kF64, true;
  if (is(dlpack::kBfloat, 16)) return type = DType::kBF16, true;
  if (is(dlpack::kBool, 8)) return type = DType::kBool, true;
  if (is(dlpack::kUInt, 8)) return type = DType::kU8, true;
  if (is(dlpack::kInt, 8)) return type = DType::kI8, true;
  if (is(dlpack::kInt, 32)) return type = DType::kI32, true;
  if (is(dlpack::kInt, 64)) return type = DType::kI64, true;
  return false;
}

dlpack::DataType to_dlpack(DType type) {
  switch (type) {
    case DType::kF32:
      return {dlpack::kFloat, 32, 1};
    case DType::kBF16:
      return {dlpack::kBfloat, 16, 1};
    case DType::kF16:
      return {dlpack::kFloat, 16, 1};
    case DType::kF64:
      return {dlpack::kFloat, 64, 1};
    case DType::kBool:
      return {dlpack::kBool, 8, 1};
    case DType::kU8:
      return {dlpack::kUInt, 8, 1};
    case DType::kI8:
      return {dlpack::kInt, 8, 1};
    case DType::kI32:
      return {dlpack::kInt, 32, 1};
    case DType::kI64:
      return {dlpack::kInt, 64, 1};
  }
  return {};
}

// The exchange table of a type, or null. The last type is remembered: all tensors of a call are of one.
const dlpack::ExchangeApi* exchange_api(PyObject* object) {
  static PyObject* last_type = nullptr;  // under the GIL; kept alive
  static const dlpack::ExchangeApi* last = nullptr;
  PyObject* const type = reinterpret_cast<PyObject*>(Py_TYPE(object));
  if (type == last_type) return last;
  const dlpack::ExchangeApi* api = nullptr;
  if (PyObject* const capsule = PyObject_GetAttrString(type, "__dlpack_c_exchange_api__")) {
    if (PyCapsule_IsValid(capsule, "dlpack_exchange_api") != 0) {
      api = static_cast<const dlpack::ExchangeApi*>(PyCapsule_GetPointer(capsule, "dlpack_exchange_api"));
      if (api->header.version.major != 1) api = nullptr;
    }
    Py_DECREF(capsule);
  } else {
    PyErr_Clear();
  }
  if (api == nullptr) return nullptr;
  Py_INCREF(type);
  Py_XDECREF(std::exchange(last_type, type));
  return last = api;
}

// A tensor that wants a gradient would lose it here.
void check_gradient(PyObject* object, const char* function, const char* argument) {
  PyObject* const wanted = PyObject_GetAttrString(object, "requires_grad");
  if (wanted == nullptr) {
    PyErr_Clear();
    return;
  }
  const bool yes = wanted == Py_True;
  Py_DECREF(wanted);
  if (yes) refuse(function, argument, "requires grad: manyheads.torch computes gradients, or detach() it");
}

void set_error(void*, const char* kind, const char* message) {
  PyErr_SetString(std::strcmp(kind, "MemoryError") == 0 ? PyExc_MemoryError : PyExc_RuntimeError, message);
}

}  // namespace

const char* python_name(DType type) noexcept {
  switch (type) {
    case DType::kF32:
      return "float32";
    case DType::kBF16:
      return "bfloat16";
    case DType::kF16:
      return "float16";
    case DType::kF64:
      return "float64";
    case DType::kBool:
      return "bool";
    case DType::kU8:
      return "uint8";
    case DType::kI8:
      return "int8";
    case DType::kI32:
      return "int32";
    case DType::kI64:
      return "int64";
  }
  return "?";
}

Array::Array(nb::handle object, const char* function, const char* argument, bool writable) {
  PyObject* const from = object.ptr();
  const auto fail = [&](const char* why) {  // gives back what was taken
    *this = Array();
    refuse(function, argument, why);
  };
  Cached& cached = Cached::get();
  if (PyObject_IsInstance(from, cached.ndarray.ptr()) == 1) {
    kind_ = Kind::kNumpy;
    take_buffer(from, function, argument, writable);
    return;
  }
  if (const dlpack::ExchangeApi* const api = exchange_api(from)) {
    kind_ = Kind::kExchange;
    check_gradient(from, function, argument);
    if (api->from_object(from, &versioned_) != 0) {
      versioned_ = nullptr;
      throw nb::python_error();
    }
    if (writable && (versioned_->flags & dlpack::kReadOnly) != 0) fail("is read-only");
    take_dlpack(versioned_->tensor, function, argument);
    return;
  }
  if (nb::hasattr(object, "__dlpack__")) {
    kind_ = Kind::kDlpack;
    std::pair<int, int> device;
    if (!nb::try_cast(nb::tuple(object.attr("__dlpack_device__")()), device)) {
      refuse(function, argument, "gave no DLPack device, a pair of ints");
    }
    if (device.first != dlpack::kCpu) refuse(function, argument, "is on another device than the CPU");
    nb::object capsule;
    try {
      nb::dict arguments;
      arguments["max_version"] = nb::make_tuple(1, 0);
      capsule = object.attr("__dlpack__")(**arguments);
    } catch (nb::python_error& error) {
      if (!error.matches(PyExc_TypeError)) throw;
      capsule = object.attr("__dlpack__")();  // of before version 1
    }
    if (PyCapsule_IsValid(capsule.ptr(), "dltensor_versioned") != 0) {
      versioned_ = static_cast<dlpack::ManagedVersioned*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor_versioned"));
      PyCapsule_SetName(capsule.ptr(), "used_dltensor_versioned");
      if (versioned_->version.major != 1) refuse(function, argument, "comes by a version of DLPack that is not known");
      if (writable && (versioned_->flags & dlpack::kReadOnly) != 0) fail("is read-only");
      take_dlpack(versioned_->tensor, function, argument);
    } else if (PyCapsule_IsValid(capsule.ptr(), "dltensor") != 0) {
      managed_ = static_cast<dlpack::Managed*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor"));
      PyCapsule_SetName(capsule.ptr(), "used_dltensor");
      take_dlpack(managed_->tensor, function, argument);
    } else {
      refuse(function, argument, "gave no DLPack capsule");
    }
    return;
  }
  if (PyObject_CheckBuffer(from) != 0) {
    kind_ = Kind::kBuffer;
    take_buffer(from, function, argument, writable);
    return;
  }
  refuse(function, argument,
         "is a " + name_of_type(object) + ", expected an array: NumPy's, or any with __dlpack__ on the CPU");
}

void Array::take_buffer(PyObject* object, const char* function, const char* argument, bool writable) {
  const int wanted = PyBUF_STRIDES | PyBUF_FORMAT | (writable ? PyBUF_WRITABLE : 0);
  DType type = DType::kBF16;
  if (PyObject_GetBuffer(object, &buffer_, wanted) == 0) {
    if (!type_of_format(buffer_.format, buffer_.itemsize, type)) {
      const std::string format = buffer_.format == nullptr ? "?" : buffer_.format;
      PyBuffer_Release(&buffer_);
      refuse(function, argument, "has elements of a type that is not taken (format '" + format + "')");
    }
  } else {  // NumPy hands out no buffer of bfloat16: its bits are taken
    buffer_ = {};
    nb::python_error error;
    const nb::handle array(object);
    const nb::object dtype = kind_ == Kind::kNumpy ? nb::object(array.attr("dtype")) : nb::none();
    const bool bf16 = nb::cast<std::string>(nb::str(dtype)) == "bfloat16";
    if (!bf16) refuse(function, argument, "cannot be taken: " + nb::cast<std::string>(nb::str(error.value())));
    const nb::object bits = array.attr("view")("uint16");
    if (PyObject_GetBuffer(bits.ptr(), &buffer_, wanted) != 0) {
      buffer_ = {};
      nb::python_error second;
      refuse(function, argument, "cannot be taken: " + nb::cast<std::string>(nb::str(second.value())));
    }
  }
  if (buffer_.ndim > kMaxRank) {
    const int rank = buffer_.ndim;
    PyBuffer_Release(&buffer_);
    refuse(function, argument, "has " + std::to_string(rank) + " axes, more than " + std::to_string(kMaxRank));
  }
  std::array<std::int64_t, kMaxRank> shape{}, strides{};
  bool whole = true, empty = false;
  for (int i = 0; i < buffer_.ndim; ++i) {
    const std::size_t at = static_cast<std::size_t>(i);
    shape[at] = buffer_.shape[i];
    strides[at] = buffer_.strides[i] / buffer_.itemsize;
    empty |= shape[at] == 0;
    whole &= shape[at] <= 1 || buffer_.strides[i] % buffer_.itemsize == 0;
  }
  const std::size_t rank = static_cast<std::size_t>(buffer_.ndim);
  if (!whole && !empty) {
    PyBuffer_Release(&buffer_);
    refuse(function, argument, "has strides that are no whole elements");
  }
  view_ = ConstTensorView(buffer_.buf, type, Dims(std::span<const std::int64_t>(shape.data(), rank)),
                          Dims(std::span<const std::int64_t>(strides.data(), rank)));
}

void Array::take_dlpack(const dlpack::Tensor& tensor, const char* function, const char* argument) {
  const auto fail = [&](const std::string& why) {
    *this = Array();
    refuse(function, argument, why);
  };
  if (tensor.device.type != dlpack::kCpu) fail("is on another device than the CPU");
  DType type;
  if (!type_of_dlpack(tensor.dtype, type)) fail("has elements of a type that is not taken");
  if (tensor.ndim < 0 || tensor.ndim > kMaxRank) {
    fail("has " + std::to_string(tensor.ndim) + " axes, more than " + std::to_string(kMaxRank));
  }
  const std::size_t rank = static_cast<std::size_t>(tensor.ndim);
  const Dims shape(std::span<const std::int64_t>(tensor.shape, rank));
  const void* const data = static_cast<const char*>(tensor.data) + tensor.byte_offset;
  view_ = tensor.strides == nullptr
              ? ConstTensorView(data, type, shape)
              : ConstTensorView(data, type, shape, Dims(std::span<const std::int64_t>(tensor.strides, rank)));
}

Array::~Array() {
  if (buffer_.obj != nullptr) PyBuffer_Release(&buffer_);
  if (versioned_ != nullptr && versioned_->deleter != nullptr) versioned_->deleter(versioned_);
  if (managed_ != nullptr && managed_->deleter != nullptr) managed_->deleter(managed_);
}

Array::Array(Array&& other) noexcept
    : kind_(other.kind_),
      view_(std::exchange(other.view_, {})),
      buffer_(std::exchange(other.buffer_, {})),
      versioned_(std::exchange(other.versioned_, nullptr)),
      managed_(std::exchange(other.managed_, nullptr)) {}

Array& Array::operator=(Array&& other) noexcept {
  std::swap(kind_, other.kind_);
  std::swap(view_, other.view_);
  std::swap(buffer_, other.buffer_);
  std::swap(versioned_, other.versioned_);
  std::swap(managed_, other.managed_);
  return *this;
}

TensorView Array::mutable_view() const {
  return TensorView(const_cast<void*>(view_.data()), view_.dtype(), view_.shape(), view_.strides());
}

Maker::Result Maker::make(DType type, const Dims& shape) const {
  if (kind_ == Array::Kind::kExchange) {
    const dlpack::ExchangeApi* const api = exchange_api(like_.ptr());
    Dims sizes = shape;
    dlpack::Tensor prototype{.data = nullptr,
                             .device = {dlpack::kCpu, 0},
                             .ndim = sizes.rank(),
                             .dtype = to_dlpack(type),
                             .shape = sizes.rank() == 0 ? nullptr : &sizes[0],
                             .strides = nullptr,
                             .byte_offset = 0};
    dlpack::ManagedVersioned* made = nullptr;
    if (api->allocate(&prototype, &made, nullptr, set_error) != 0) throw nb::python_error();
    void* object = nullptr;
    if (api->to_object(made, &object) != 0) throw nb::python_error();
    Result result{nb::steal(static_cast<PyObject*>(object)), {}};
    result.array = Array(result.object, "result", "out", true);
    return result;
  }
  PyObject* const sizes = PyTuple_New(shape.rank());
  if (sizes == nullptr) throw nb::python_error();
  for (int i = 0; i < shape.rank(); ++i) PyTuple_SetItem(sizes, i, PyLong_FromLongLong(shape[i]));
  Result result{Cached::get().empty(nb::steal(sizes), numpy_dtype(type)), {}};
  result.array = Array(result.object, "result", "out", true);
  return result;
}

nb::object Maker::finish(Result result) const {
  result.array = Array();
  if (kind_ != Array::Kind::kDlpack || !nb::hasattr(like_, "__array_namespace__")) return std::move(result.object);
  return like_.attr("__array_namespace__")().attr("from_dlpack")(result.object);
}

nb::object numpy_of(const Tensor& tensor, bool writable) {
  std::array<std::size_t, kMaxRank> shape{};
  for (int i = 0; i < tensor.rank(); ++i) shape[static_cast<std::size_t>(i)] = static_cast<std::size_t>(tensor.size(i));
  const bool bf16 = tensor.dtype() == DType::kBF16;
  const dlpack::DataType type = bf16 ? dlpack::DataType{dlpack::kUInt, 16, 1} : to_dlpack(tensor.dtype());
  auto* const kept = new Tensor(tensor);
  const nb::capsule owner(kept, [](void* at) noexcept { delete static_cast<Tensor*>(at); });
  const nb::dlpack::dtype dtype{type.code, type.bits, type.lanes};
  nb::object array = nb::cast(nb::ndarray<nb::numpy>(
      const_cast<void*>(tensor.bytes()), static_cast<std::size_t>(tensor.rank()), shape.data(), owner, nullptr, dtype));
  if (bf16) array = array.attr("view")(numpy_dtype(DType::kBF16));
  if (!writable) array.attr("setflags")(nb::arg("write") = false);
  return array;
}

}  // namespace manyheads::python
