#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <manyheads/attention.hpp>
#include <manyheads/mask.hpp>
#include <manyheads/parallel.hpp>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "array.hpp"

namespace manyheads::python {

// A mask and the arrays that it stands on.
struct PythonMask {
  Mask mask;
  std::vector<std::shared_ptr<const Array>> arrays;
  std::string text;  // how it is made, for repr
};

// None, a Mask, or an array: BOOL true = attend, a float is added to the scores.
PythonMask mask_of(nb::handle mask, const char* function);

// (entry, head, query) of a call's first ones in the larger call that it is a part of.
using DropoutOrigin = std::tuple<std::int64_t, std::int64_t, std::int64_t>;

inline Dropout dropout_of(double p, std::uint64_t seed, const DropoutOrigin& origin) {
  return {.p = p,
          .seed = seed,
          .first_query = std::get<2>(origin),
          .first_head = std::get<1>(origin),
          .first_entry = std::get<0>(origin)};
}

// An array that may be None.
Array optional_array(nb::handle object, const char* function, const char* argument);

// Throws nb::value_error for a number of threads that is none.
void check_threads(int num_threads, const char* function);

// The kernels run without the GIL.
template <class Work>
void without_gil(Work&& work) {
  const nb::gil_scoped_release released;
  work();
}

// Memory that the calls of a thread reuse.
Workspace& own_workspace();

void bind_mask(nb::module_& module);
void bind_attention(nb::module_& module);
void bind_kv_cache(nb::module_& module);
void bind_layer(nb::module_& module);
void bind_encoder(nb::module_& module);
void bind_torch(nb::module_& module);

}  // namespace manyheads::python
