#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <manyheads/cpu.hpp>
#include <manyheads/error.hpp>
#include <manyheads/version.hpp>

#include "arguments.hpp"

NB_MODULE(_core, module) {
  namespace nb = nanobind;
  using nb::literals::operator""_a;
  namespace python = manyheads::python;

  nb::register_exception_translator([](const std::exception_ptr& thrown, void*) {
    try {
      std::rethrow_exception(thrown);
    } catch (const manyheads::Error& error) {
      switch (error.code()) {
        case manyheads::ErrorCode::kOutOfMemory:
          PyErr_SetString(PyExc_MemoryError, error.what());
          break;
        case manyheads::ErrorCode::kIo:
          PyErr_SetString(PyExc_OSError, error.what());
          break;
        default:
          PyErr_SetString(PyExc_ValueError, error.what());
      }
    }
  });

  module.attr("__version__") = manyheads::version();
  python::bind_mask(module);
  python::bind_attention(module);
  python::bind_kv_cache(module);
  python::bind_layer(module);
  python::bind_encoder(module);
  python::bind_torch(module);

  module.def("available_isas", &manyheads::available_isas,
             "The instruction sets of this build that run here, best first.\n\n"
             ">>> active_isa() in available_isas()\nTrue");
  module.def("active_isa", &manyheads::active_isa,
             "The instruction set that calls use.\n\n>>> isinstance(active_isa(), str)\nTrue");
  module.def("set_isa", &manyheads::set_isa, "name"_a,
             "The instruction set of later calls; '' for the best.\n\n>>> set_isa('portable')\n>>> active_isa()\n"
             "'portable'\n>>> set_isa('')");
  module.def(
      "active_bits",
      [](const std::string& dtype) {
        for (const auto type :
             {manyheads::DType::kF32, manyheads::DType::kBF16, manyheads::DType::kF16, manyheads::DType::kI8}) {
          if (dtype == python::python_name(type)) return manyheads::active_bits(type);
        }
        throw nb::value_error(
            ("active_bits: dtype is '" + dtype + "', expected 'float32', 'bfloat16', 'float16' or 'int8'").c_str());
      },
      "dtype"_a = "float32",
      "The family of bits of calls on such arrays: equal inputs and an equal name give equal bits on any machine.\n\n"
      ">>> active_bits()\n'f32-fma-1'");
  module.def("default_num_threads", &manyheads::default_num_threads,
             "The threads of a call that names none.\n\n>>> default_num_threads() >= 1\nTrue");
}
