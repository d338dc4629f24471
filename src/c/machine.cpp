#include <string>
#include <vector>

#include <manyheads/cpu.hpp>
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
