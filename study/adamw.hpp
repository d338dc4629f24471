#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace manyheads::study {

struct AdamWOptions {
  double beta1 = 0.9, beta2 = 0.98, epsilon = 1e-9, weight_decay = 0.0;
};

// Adam with decoupled weight decay (Loshchilov and Hutter 2019). Moments are F32.
//
//   m = b1 m + (1 - b1) g     v = b2 v + (1 - b2) g^2
//   x = x - rate (m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + epsilon) + decay x)
class AdamW {
 public:
  explicit AdamW(std::size_t count, const AdamWOptions& options = {}) : options_(options), m_(count), v_(count) {}
  void step(std::span<float> values, std::span<const float> gradients, double rate);

 private:
  AdamWOptions options_;
  std::vector<float> m_, v_;
  std::int64_t steps_ = 0;
};

}  // namespace manyheads::study
