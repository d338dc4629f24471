// The session as a module of WebAssembly: docs/wasm.md. One call at a time; one that throws ends by a trap, after
// env.error has the text, and leaves the session as it was.
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>

#include "view/session.hpp"

extern "C" __attribute__((import_module("env"), import_name("progress"))) int host_progress(double share);

namespace {

manyheads::view::Session& session() {
  static manyheads::view::Session one("WebAssembly", {.num_threads = 1});
  return one;
}
manyheads::view::Answer& answer() {
  static manyheads::view::Answer last;
  return last;
}

}  // namespace

#define MH_EXPORT(name) extern "C" __attribute__((export_name(#name)))

MH_EXPORT(mh_alloc) void* mh_alloc(std::size_t size) { return ::operator new(size); }
MH_EXPORT(mh_free) void mh_free(void* memory) { ::operator delete(memory); }

// Each returns the number of what it opened, and copies the bytes.
MH_EXPORT(mh_open_trace) int mh_open_trace(const char* bytes, std::size_t size) {
  return static_cast<int>(session().open_trace(std::string(bytes, size)));
}
MH_EXPORT(mh_open_tensors) int mh_open_tensors(const char* bytes, std::size_t size) {
  return static_cast<int>(session().open_tensors(std::string(bytes, size)));
}
MH_EXPORT(mh_open_model)
int mh_open_model(const char* name, std::size_t name_size, const char* config, std::size_t config_size,
                  const char* weights, std::size_t weights_size) {
  return static_cast<int>(
      session().open_model(manyheads::view::read_model({.name = std::string(name, name_size),
                                                        .config = std::string(config, config_size),
                                                        .weights = std::string(weights, weights_size)})));
}
MH_EXPORT(mh_close) void mh_close(int id) { session().close(id); }

// Returns 0 where the answer is JSON, 1 where it is a safetensors file. It stays until the next question.
MH_EXPORT(mh_ask) int mh_ask(const char* question, std::size_t size) {
  answer() = {};
  answer() = session().ask(std::string_view(question, size), [](double share) { return host_progress(share) != 0; });
  return answer().kind == manyheads::view::Answer::Kind::kSafetensors ? 1 : 0;
}
MH_EXPORT(mh_answer_data) const char* mh_answer_data() { return answer().bytes.data(); }
MH_EXPORT(mh_answer_size) std::size_t mh_answer_size() { return answer().bytes.size(); }
