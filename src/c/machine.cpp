#include <string>
#include <vector>

#include <manyheads/cpu.hpp>
#include <manyheads/limits.hpp>
#include <manyheads/version.hpp>

#include "c/boundary.hpp"

using namespace manyheads;
using c::guarded;
using c::required;

const char* mh_version() noexcept { return version(); }

const char* mh_dtype_name(int32_t dtype) noexcept {
  return c::is_dtype(dtype) ? name_of(static_cast<DType>(dtype)) : "?";
}

size_t mh_dtype_size(int32_t dtype) noexcept { return c::is_dtype(dtype) ? size_of(static_cast<DType>(dtype)) : 0; }

int mh_default_num_threads(int32_t* threads) noexcept {
  return guarded("mh_default_num_threads",
                 [&](const char* f) { required(f, "threads", threads) = default_num_threads(); });
}

int mh_available_isas(const char* const** names, size_t* count) noexcept {
  return guarded("mh_available_isas", [&](const char* f) {
    const char* const*& to = required(f, "names", names);
    std::size_t& of = required(f, "count", count);
    static const std::vector<std::string> isas = available_isas();
    static const std::vector<const char*> texts = [] {
      std::vector<const char*> all;
      for (const std::string& isa : isas) all.push_back(isa.c_str());
      return all;
    }();
    to = texts.data();
    of = texts.size();
  });
}

int mh_active_isa(const char** name) noexcept {
  return guarded("mh_active_isa", [&](const char* f) {
    const char*& to = required(f, "name", name);
    thread_local std::string text;
    text = active_isa();
    to = text.c_str();
  });
}

int mh_set_isa(const char* name) noexcept {
  return guarded("mh_set_isa", [&](const char*) { set_isa(name == nullptr ? "" : name); });
}

int mh_active_bits(int32_t dtype, const char** family) noexcept {
  return guarded("mh_active_bits", [&](const char* f) {
    const char*& to = required(f, "family", family);
    thread_local std::string text;
    text = active_bits(c::dtype_of(f, "dtype", dtype));
    to = text.c_str();
  });
}

int mh_limits(int32_t num_threads, const mh_executor* executor, mh_machine_limits* limits) noexcept {
  return guarded("mh_limits", [&](const char* f) {
    const std::size_t size = c::read(f, "limits", &required(f, "limits", limits)).size;
    const c::CallersThreads threads(f, num_threads, executor);
    const Limits found = manyheads::limits(*threads);
    thread_local std::string isa;
    isa = found.isa;
    mh_machine_limits all{};
    all.isa = isa.c_str();
    all.threads = found.threads;
    all.fma_gflops = found.fma_gflops;
    all.bf16_dot_gflops = found.bf16_dot_gflops;
    all.bf16_tile_gflops = found.bf16_tile_gflops;
    all.int8_dot_gflops = found.int8_dot_gflops;
    all.memory_gbs = found.memory_gbs;
    all.memory_gbs_one_thread = found.memory_gbs_one_thread;
    all.l1_bytes = found.l1_bytes;
    all.l2_bytes = found.l2_bytes;
    all.l3_bytes = found.l3_bytes;
    c::write(all, size, limits);
  });
}
