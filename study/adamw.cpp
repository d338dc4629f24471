#include "study/adamw.hpp"

#include <cmath>

namespace manyheads::study {

void AdamW::step(std::span<float> values, std::span<const float> gradients, double rate) {
  ++steps_;
  const auto t = static_cast<double>(steps_);
  const auto b1 = static_cast<float>(options_.beta1), b2 = static_cast<float>(options_.beta2);
  const auto m_scale = static_cast<float>(rate / (1 - std::pow(options_.beta1, t)));
  const auto v_scale = static_cast<float>(1 / (1 - std::pow(options_.beta2, t)));
  const auto epsilon = static_cast<float>(options_.epsilon), decay = static_cast<float>(rate * options_.weight_decay);
  float* const m = m_.data();
  float* const v = v_.data();
  float* const x = values.data();
  const float* const gradient = gradients.data();
  for (std::size_t i = 0; i < values.size(); ++i) {
    const float g = gradient[i];
    m[i] = b1 * m[i] + (1 - b1) * g;
    v[i] = b2 * v[i] + (1 - b2) * g * g;
    x[i] -= m_scale * m[i] / (std::sqrt(v[i] * v_scale) + epsilon) + decay * x[i];
  }
}

}  // namespace manyheads::study
