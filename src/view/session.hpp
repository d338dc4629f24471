#pragma once

#include <cstdint>
#include <functional>
#include <manyheads/lens/trace.hpp>
#include <manyheads/model/encoder.hpp>
#include <manyheads/model/pooling.hpp>
#include <manyheads/parallel.hpp>
#include <manyheads/tensor.hpp>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "lens/scan_json.hpp"

// What the page asks, whoever computes: the program that serves it, or WebAssembly inside it.
namespace manyheads::view {

// Called with the share that is done, from any thread, one call at a time. False cancels.
using Progress = std::function<bool(double)>;

struct Answer {
  enum class Kind { kJson, kSafetensors };
  Kind kind = Kind::kJson;
  std::string bytes;  // text, or a safetensors file
};

// A token that may come next.
struct NextToken {
  std::int64_t id = 0;
  std::string token;  // as text
  double probability = 0;
};
// Of a decoder: so many of the likeliest tokens behind a text, the likeliest first, from the last hidden state [1,E]
// F32 of its last token.
using NextTokens = std::function<std::vector<NextToken>(const ConstTensorView& last, std::size_t count)>;

// A model that questions may name.
struct Model {
  std::string name;
  std::shared_ptr<const model::Encoder> encoder;
  model::PoolingConfig pooling{};
  StateDict tensors{};  // the checkpoint's, whose projections `pipeline` shows; empty: it shows none
  NextTokens next{};    // what `encode` says comes next; empty: nothing
};

// An encoder of BERT's architecture from what its files hold.
struct ModelFiles {
  std::string name;
  std::string config;   // config.json
  std::string weights;  // model.safetensors: F32, BF16 or F16, which the projections keep where it is F32 or BF16
};
// Throws Error that names what of the config or the weights does not fit. Sentences are pooled by the mean, to
// length 1.
Model read_model(ModelFiles files);

// Opened traces and models, by number. Safe from many threads: questions may be asked, and what they work on closed,
// at once.
//   Session session;
//   const auto trace = session.open_trace(bytes);
//   Answer answer = session.ask(R"({"ask": "patch", "trace": 1, "layer": 1, "head": 8, "rows": [0, 9], "keys": [0,
//   9]})");
class Session {
 public:
  // `computes` is what `about` says of this build: "native" or "WebAssembly".
  explicit Session(std::string computes, const Threads& threads = {});
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // Each returns its number, from 1 on; traces and models count together. Throws Error (kMalformedFile) where the bytes
  // are no trace.
  std::int64_t open_trace(std::string bytes);
  std::int64_t open_trace(lens::Trace trace);
  std::int64_t open_model(Model model);
  // `text_of` gives the texts of its examples, where they can be opened.
  std::int64_t open_scan(lens::ScanFile scan, lens::PassageText text_of);
  // Tensors by name, a safetensors file, for `layer`.
  std::int64_t open_tensors(std::string bytes);
  // Forgets what was opened. Throws Error where there is none of that number.
  void close(std::int64_t id);

  // Answers a question, a JSON object {"ask": NAME, ...}: docs/wasm.md lists them. One that progress cancels answers
  // {"cancelled": true}. Throws Error that names the question and the argument that does not fit; the session is then
  // as before.
  Answer ask(std::string_view question, const Progress& progress = {});

  // Whether the answer takes long, so that other questions should not wait for it. Throws where it is no question.
  static bool takes_long(std::string_view question);

  struct State;

 private:
  std::string name_of_next(const char* kind);

  std::unique_ptr<State> state_;
};

}  // namespace manyheads::view
