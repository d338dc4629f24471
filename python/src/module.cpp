#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <manyheads/cpu.hpp>
#include <manyheads/error.hpp>
#include <manyheads/limits.hpp>
#include <manyheads/version.hpp>

#include "arguments.hpp"

namespace {

constexpr const char* kLimitsDoc =
    R"(What bounds attention on this machine, as measured; str() tells all of it.

GFLOP/s and GB/s are 1e9 a second, a multiply-add is 2 FLOP, and a rate of what the machine lacks is 0.
isa: the instruction set in use, which multiplies float32 and reads. threads: asked for.
fma_gflops: float32 multiply-adds. bf16_dot_gflops, bf16_tile_gflops: dot products and tiles of bfloat16.
int8_dot_gflops: dot products of bytes, as of int8_products.
memory_gbs, memory_gbs_one_thread: reads of memory that no cache holds, on all threads and on one.
l1_bytes, l2_bytes, l3_bytes: L1 for data and L2 of one core, the whole L3.

>>> str(limits(num_threads=1)).startswith(active_isa())
True)";

}  // namespace

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

  using manyheads::Limits;
  nb::class_<Limits>(module, "Limits", kLimitsDoc)
      .def_ro("isa", &Limits::isa)
      .def_ro("threads", &Limits::threads)
      .def_ro("fma_gflops", &Limits::fma_gflops)
      .def_ro("bf16_dot_gflops", &Limits::bf16_dot_gflops)
      .def_ro("bf16_tile_gflops", &Limits::bf16_tile_gflops)
      .def_ro("int8_dot_gflops", &Limits::int8_dot_gflops)
      .def_ro("memory_gbs", &Limits::memory_gbs)
      .def_ro("memory_gbs_one_thread", &Limits::memory_gbs_one_thread)
      .def_ro("l1_bytes", &Limits::l1_bytes)
      .def_ro("l2_bytes", &Limits::l2_bytes)
      .def_ro("l3_bytes", &Limits::l3_bytes)
      .def("__str__", &Limits::to_string)
      .def("__repr__", [](const Limits& found) { return "Limits(" + found.to_string() + ")"; });
  module.def(
      "limits",
      [](int num_threads) {
        Limits found;
        python::without_gil([&] { found = manyheads::limits({.num_threads = num_threads}); });
        return found;
      },
      "num_threads"_a = 0,
      "Measures what bounds attention on this machine: a second or two, on as many threads, and up to 1 GB of "
      "memory.\n\n"
      ">>> found = limits(num_threads=1)\n"
      ">>> found.fma_gflops > 0 and found.memory_gbs > 0\nTrue");
}
