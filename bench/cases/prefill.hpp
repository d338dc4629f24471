#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <manyheads/attention.hpp>
#include <memory>
#include <string>
#include <vector>

#include "bench/cases/case.hpp"

// Calls of attention on random tensors, with and without a mask: what is timed, and what others go back through.
namespace manyheads::bench {

// One call of attention() and its memory.
struct Call {
  ConstTensorView q, k, v;
  TensorView out;
  AttentionOptions options;
  Workspace workspace;
  std::vector<Tensor> held;  // what the views show

  void run() { attention(q, k, v, out, options); }
  Tensor hold(Tensor tensor) {
    held.push_back(tensor);
    return tensor;
  }
};

// A mask twice: as attention() is told of it, and as `added`, against which the error is taken.
struct Part {
  double share = 1;                                              // of all pairs that are computed
  std::function<void(Call&)> set{};                              // empty: no mask
  std::function<float(std::int64_t i, std::int64_t j)> added{};  // to the score of query i and key j; -inf forbids
  bool causal = false;
};

struct Prefill {
  std::string name = "attention";
  DType type = DType::kF32;
  std::int64_t heads = 1, d = 64, tokens = 1024;
  int threads = 1;
  bool by_time = false;
  float key_scale = 1;
  bool tokens_first = false;  // memory is [B,T,H,D]
  Part part{};
};

inline float forbid_unless(bool seen) { return seen ? 0.0f : -std::numeric_limits<float>::infinity(); }

Part causal_part(std::int64_t tokens);
// The last keys, and documents of one length: that share of all pairs.
Part window_part(std::int64_t tokens, double share);
Part documents_part(std::int64_t tokens, double share);
// No mask: a tenth of the weights is dropped.
Part dropout_part();

// The longer the tokens, the fewer heads: cases take comparable time.
Prefill prefill(DType type, std::int64_t d, std::int64_t tokens);

std::shared_ptr<Call> make_call(const Prefill& p);

}  // namespace manyheads::bench
