#pragma once

#include <cstdint>

// The structures of DLPack 1.3 that arrays are handed over with (https://dmlc.github.io/dlpack/latest/c_api.html).
// Their layout is the standard's; names are ours.
namespace manyheads::python::dlpack {

struct Version {
  std::uint32_t major, minor;
};
struct Device {
  std::int32_t type, id;
};
struct DataType {
  std::uint8_t code, bits;
  std::uint16_t lanes;
};
struct Tensor {
  void* data;
  Device device;
  std::int32_t ndim;
  DataType dtype;
  std::int64_t* shape;
  std::int64_t* strides;  // in elements; null: row-major
  std::uint64_t byte_offset;
};
struct Managed {
  Tensor tensor;
  void* context;
  void (*deleter)(Managed*);
};
struct ManagedVersioned {
  Version version;
  void* context;
  void (*deleter)(ManagedVersioned*);
  std::uint64_t flags;
  Tensor tensor;
};

constexpr std::int32_t kCpu = 1;
constexpr std::uint64_t kReadOnly = 1;
constexpr std::uint8_t kInt = 0, kUInt = 1, kFloat = 2, kBfloat = 4, kBool = 6;

// What a type's __dlpack_c_exchange_api__ capsule ("dlpack_exchange_api") points to. All but the deleters need the GIL.
struct ExchangeApiHeader {
  Version version;
  ExchangeApiHeader* previous;
};
struct ExchangeApi {
  ExchangeApiHeader header;
  int (*allocate)(Tensor* prototype, ManagedVersioned** out, void* error_context,
                  void (*set_error)(void*, const char*, const char*));
  int (*from_object)(void* object, ManagedVersioned** out);
  int (*to_object)(ManagedVersioned* tensor, void** out_object);
  int (*borrow)(void* object, Tensor* out);
  int (*stream)(std::int32_t device_type, std::int32_t device_id, void** out_stream);
};

}  // namespace manyheads::python::dlpack
