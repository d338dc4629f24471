#pragma once

#include <cstddef>
#include <cstring>
#include <optional>
#include <string>
#include <type_traits>

#include <manyheads/manyheads.h>
#include <manyheads/parallel.hpp>
#include <manyheads/tensor.hpp>

#include "base/fail.hpp"

// What every function of the C door goes through: errors that become codes, and structs, tensors and threads of C that
// become those of C++.
namespace manyheads::c {

// The code of the exception that is being handled. Keeps its text for mh_last_error(), in the name of `function`.
int failed(const char* function) noexcept;

// Runs body(function): MH_OK, or the code of what it throws.
template <class Body>
int guarded(const char* function, const Body& body) noexcept {
  try {
    body(function);
    return MH_OK;
  } catch (...) {
    return failed(function);
  }
}

// Throws Error where the argument is null; returns what it points to.
template <class T>
T& required(const char* function, const char* name, T* pointer) {
  if (pointer == nullptr) base::fail(function, base::format("{} is NULL", name));
  return *pointer;
}

// Throws Error where the array is null and not empty, or has more elements than any caller means.
void check_count(const char* function, const char* name, const void* array, std::size_t count);

// Copies a caller's struct of the size that its first field says into `known` bytes, the rest of which stays.
void read_sized(const char* function, const char* name, const void* from, void* to, std::size_t known);

// The struct that a caller's header has: what it lacks is 0.
template <class T>
T read(const char* function, const char* name, const T* from) {
  static_assert(std::is_trivially_copyable_v<T>);
  T known{};
  read_sized(function, name, from, &known, sizeof(T));
  return known;
}

// The other way: fields that the caller's header lacks are left out.
template <class T>
void write(const T& value, std::size_t size, T* to) {
  T sized = value;
  sized.size = size;
  std::memcpy(static_cast<void*>(to), &sized, size < sizeof(T) ? size : sizeof(T));
}

// Null is an undefined view.
ConstTensorView input(const char* function, const char* name, const mh_tensor* tensor);
TensorView output(const char* function, const char* name, const mh_tensor* tensor);
mh_tensor dense(const ConstTensorView& view);
bool is_dtype(std::int32_t dtype) noexcept;
// Throws Error where it is none.
DType dtype_of(const char* function, const char* name, std::int32_t dtype);

// A caller's executor. Each run checks that no task was left out.
class CallersExecutor final : public Executor {
 public:
  CallersExecutor(const char* function, const mh_executor* executor);
  int concurrency() const noexcept override { return concurrency_; }
  void run(std::int64_t count, Task task, void* context) override;

 private:
  const char* function_;
  mh_executor executor_;
  int concurrency_;  // asked once a call
};

// The threads of a call; they point to the executor that they hold.
class CallersThreads {
 public:
  CallersThreads(const char* function, std::int32_t num_threads, const mh_executor* executor);
  CallersThreads(const CallersThreads&) = delete;
  CallersThreads& operator=(const CallersThreads&) = delete;
  const Threads& operator*() const noexcept { return threads_; }

 private:
  std::optional<CallersExecutor> executor_;
  Threads threads_;
};

}  // namespace manyheads::c
