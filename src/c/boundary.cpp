#include "c/boundary.hpp"

#include <algorithm>
#include <atomic>
#include <cctype>
#include <exception>
#include <new>
#include <span>
#include <stdexcept>
#include <string_view>

#include <manyheads/error.hpp>
#include <manyheads/version.hpp>

static_assert(MH_VERSION_MAJOR == MANYHEADS_VERSION_MAJOR && MH_VERSION_MINOR == MANYHEADS_VERSION_MINOR &&
              MH_VERSION_PATCH == MANYHEADS_VERSION_PATCH);

namespace manyheads::c {
namespace {

constexpr bool same(DType cpp, mh_dtype c) { return static_cast<int>(cpp) == static_cast<int>(c); }
static_assert(same(DType::kF32, MH_F32) && same(DType::kBF16, MH_BF16) && same(DType::kF16, MH_F16) &&
              same(DType::kF64, MH_F64) && same(DType::kBool, MH_BOOL) && same(DType::kU8, MH_U8) &&
              same(DType::kI8, MH_I8) && same(DType::kI32, MH_I32) && same(DType::kI64, MH_I64));
static_assert(kMaxRank == MH_MAX_RANK);

// No struct comes near it: a size beyond is one that was never set.
constexpr std::size_t kMostBytes = 4096;
constexpr std::size_t kMostElements = 65536;

struct LastError {
  std::string text;
  const char* shown = "";
};
thread_local LastError g_last_error;

int code_of(ErrorCode code) noexcept {
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return MH_INVALID_ARGUMENT;
    case ErrorCode::kUnsupported:
      return MH_UNSUPPORTED;
    case ErrorCode::kOutOfMemory:
      return MH_OUT_OF_MEMORY;
    case ErrorCode::kIo:
      return MH_IO;
    case ErrorCode::kMalformedFile:
      return MH_MALFORMED_FILE;
  }
  return MH_FAILED;
}

// What a C++ function says, without its name in front: the caller knows another.
std::string_view without_name(std::string_view text) {
  const auto letter = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == ':'; };
  const std::size_t end = static_cast<std::size_t>(std::find_if_not(text.begin(), text.end(), letter) - text.begin());
  const bool named = end > 1 && end < text.size() && text[end] == ' ' && text[end - 1] == ':';
  return named ? text.substr(end + 1) : text;
}

int keep(const char* function, int code, const char* what) noexcept {
  try {
    std::string text = std::string(function) + ": " + std::string(without_name(what));
    g_last_error.text.swap(text);
    g_last_error.shown = g_last_error.text.c_str();
  } catch (const std::bad_alloc&) {
    g_last_error.shown = "out of memory, and none for the text of the error";
  }
  return code;
}

}  // namespace

int failed(const char* function) noexcept {
  try {
    throw;
  } catch (const Error& error) {
    return keep(function, code_of(error.code()), error.what());
  } catch (const std::bad_alloc&) {
    return keep(function, MH_OUT_OF_MEMORY, "out of memory");
  } catch (const std::exception& error) {
    return keep(function, MH_FAILED, error.what());
  } catch (...) {
    return keep(function, MH_FAILED, "an exception that is no std::exception");
  }
}

void check_count(const char* function, const char* name, const void* array, std::size_t count) {
  if (count > kMostElements) {
    base::fail(function, base::format("{} has {} elements, expected at most {}", name, count, kMostElements));
  }
  if (count > 0) required(function, name, static_cast<const unsigned char*>(array));
}

void read_sized(const char* function, const char* name, const void* from, void* to, std::size_t known) {
  std::size_t size = 0;
  std::memcpy(&size, from, sizeof(size));
  if (size == 0 || size % alignof(std::int64_t) != 0 || size > kMostBytes) {
    base::fail(function, base::format("{}->size is {}, expected sizeof *{} ({} bytes here)", name, size, name, known));
  }
  const auto* bytes = static_cast<const unsigned char*>(from);
  const std::size_t both = std::min(size, known);
  if (!std::all_of(bytes + both, bytes + size, [](unsigned char byte) { return byte == 0; })) {
    base::fail(function,
               base::format("{} has {} bytes, this library knows {} of them, and the rest is not 0", name, size, known),
               ErrorCode::kUnsupported);
  }
  std::memcpy(to, from, both);
}

bool is_dtype(std::int32_t dtype) noexcept { return dtype >= MH_F32 && dtype <= MH_I64; }

DType dtype_of(const char* function, const char* name, std::int32_t dtype) {
  if (!is_dtype(dtype)) {
    base::fail(function, base::format("{} is {}, expected an mh_dtype, {} to {}", name, dtype, static_cast<int>(MH_F32),
                                      static_cast<int>(MH_I64)));
  }
  return static_cast<DType>(dtype);
}

TensorView output(const char* function, const char* name, const mh_tensor* tensor) {
  if (tensor == nullptr) return {};
  if (tensor->rank < 0 || tensor->rank > MH_MAX_RANK) {
    base::fail(function, base::format("{} has rank {}, expected 0 to {}", name, tensor->rank, MH_MAX_RANK));
  }
  const auto rank = static_cast<std::size_t>(tensor->rank);
  // No text is made where none is needed: small calls would feel it.
  if (!is_dtype(tensor->dtype)) dtype_of(function, base::format("{}->dtype", name).c_str(), tensor->dtype);
  const auto type = static_cast<DType>(tensor->dtype);
  const Dims shape(std::span<const std::int64_t>(tensor->shape, rank));
  try {
    if (tensor->strides == nullptr) return TensorView(tensor->data, type, shape);
    return TensorView(tensor->data, type, shape, Dims(std::span<const std::int64_t>(tensor->strides, rank)));
  } catch (const Error& error) {
    base::fail(function, base::format("{}: {}", name, error.what()), error.code());
  }
}

ConstTensorView input(const char* function, const char* name, const mh_tensor* tensor) {
  return output(function, name, tensor);
}

mh_tensor dense(const ConstTensorView& view) {
  mh_tensor tensor{};
  tensor.data = const_cast<void*>(view.data());
  tensor.dtype = static_cast<std::int32_t>(view.dtype());
  tensor.rank = view.rank();
  std::copy(view.shape().begin(), view.shape().end(), tensor.shape);
  return tensor;
}

CallersExecutor::CallersExecutor(const char* function, const mh_executor* executor)
    : function_(function), executor_(read(function, "executor", executor)) {
  if (executor_.concurrency == nullptr) base::fail(function, "executor->concurrency is NULL");
  if (executor_.run == nullptr) base::fail(function, "executor->run is NULL");
  concurrency_ = executor_.concurrency(executor_.self);
}

void CallersExecutor::run(std::int64_t count, Task task, void* context) {
  struct Counted {
    Task task;
    void* context;
    std::int64_t count;
    std::atomic<std::int64_t> done{0};
  } counted{task, context, count};
  const auto run_one = [](void* of, std::int64_t i) {
    auto& all = *static_cast<Counted*>(of);
    if (i < 0 || i >= all.count) return;  // no task of that number has memory to work in
    all.task(all.context, i);
    ++all.done;
  };
  executor_.run(executor_.self, count, run_one, &counted);
  if (const std::int64_t done = counted.done; done != count) {
    throw std::runtime_error(base::format("{}: executor->run ran {} of {} tasks", function_, done, count));
  }
}

CallersThreads::CallersThreads(const char* function, std::int32_t num_threads, const mh_executor* executor) {
  if (num_threads < 0) base::fail(function, base::format("num_threads is {}, expected 0 or more", num_threads));
  if (executor != nullptr) executor_.emplace(function, executor);
  threads_ = {.num_threads = num_threads, .executor = executor_ ? &*executor_ : nullptr};
}

}  // namespace manyheads::c

const char* mh_last_error() noexcept { return manyheads::c::g_last_error.shown; }
