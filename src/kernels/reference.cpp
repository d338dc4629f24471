#include "kernels/reference.hpp"

#include <cmath>
#include <limits>
#include <vector>

#include "base/element.hpp"

namespace manyheads::kernels {
namespace {

using base::load_element;
using base::store_element;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

bool visible(const AttentionCall& call, std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t j) {
  const std::int64_t from_diagonal = j - i - call.diagonal(b);
  if (j >= call.key_length(b)) return false;
  if (call.causal && from_diagonal > 0) return false;
  if (call.window_left >= 0 && from_diagonal < -call.window_left) return false;
  if (call.window_right >= 0 && from_diagonal > call.window_right) return false;
  if (call.q_documents.data != nullptr && call.q_documents.at(b, i) != call.k_documents.at(b, j)) return false;
  if (call.allowed != nullptr) {
    const std::int64_t* s = call.allowed_stride;
    if (call.allowed[b * s[0] + h * s[1] + i * s[2] + j * s[3]] == 0) return false;
  }
  if (call.bias != nullptr) {
    const std::int64_t* s = call.bias_stride;
    if (load_element(call.bias, call.bias_type, b * s[0] + h * s[1] + i * s[2] + j * s[3]) == -kInfinity) return false;
  }
  return true;
}

double score(const AttentionCall& call, std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t j) {
  const std::int64_t kv = h / (call.q_heads / call.kv_heads);
  double dot = 0;
  for (std::int64_t d = 0; d < call.d; ++d) {
    dot += load_element(call.q, call.type, call.q_at(b, h, i) + d * call.q_stride[3]) *
           load_element(call.k, call.kv_type, call.k_at(b, kv, j) + d * call.k_stride[3]);
  }
  if (call.k_scales != nullptr) dot *= static_cast<double>(call.k_scales[call.key_at(call.k_scales_stride, b, kv, j)]);
  double s = call.scale * dot;
  if (call.softcap > 0) s = call.softcap * std::tanh(s / call.softcap);
  if (call.bias != nullptr) {
    const std::int64_t* t = call.bias_stride;
    s += load_element(call.bias, call.bias_type, b * t[0] + h * t[1] + i * t[2] + j * t[3]);
  }
  if (call.alibi != nullptr) {
    s -= static_cast<double>(call.alibi[h * call.alibi_stride]) *
         std::fabs(static_cast<double>(j - i - call.diagonal(b)));
  }
  return s;
}

}  // namespace

void reference(const AttentionCall& call) {
  std::vector<double> p(static_cast<std::size_t>(call.tk));
  for (std::int64_t b = 0; b < call.batch; ++b) {
    for (std::int64_t h = 0; h < call.q_heads; ++h) {
      for (std::int64_t i = 0; i < call.queries(b); ++i) {
        const double sink = call.sinks != nullptr ? static_cast<double>(call.sinks[h * call.sinks_stride]) : -kInfinity;
        bool any = false;
        bool nan = false;
        double largest = sink;
        for (std::int64_t j = 0; j < call.tk; ++j) {
          double& s = p[static_cast<std::size_t>(j)];
          const bool seen = visible(call, b, h, i, j);
          s = seen ? score(call, b, h, i, j) : -kInfinity;
          any = any || seen;
          nan = nan || std::isnan(s);
          if (seen && s > largest) largest = s;
        }
        double sum = 0;
        double lse = sink;
        if (any) {
          for (std::int64_t j = 0; j < call.tk; ++j) {
            double& s = p[static_cast<std::size_t>(j)];
            s = visible(call, b, h, i, j) ? std::exp(s - largest) : 0.0;
            sum += s;
          }
          sum += std::exp(sink - largest);
          lse = largest + std::log(sum);
        }
        if (nan) lse = std::numeric_limits<double>::quiet_NaN();
        if (call.lse != nullptr) {
          call.lse[call.lse_at(b, h, i)] = static_cast<float>(lse);
        }
        for (std::int64_t j = 0; call.weights != nullptr && j < call.tk; ++j) {
          const std::int64_t* s = call.weights_stride;
          call.weights[b * s[0] + h * s[1] + i * s[2] + j * s[3]] =
              any ? static_cast<float>(p[static_cast<std::size_t>(j)] / sum) : 0.0f;
        }
        const std::int64_t kv = h / (call.q_heads / call.kv_heads);
        for (std::int64_t e = 0; e < call.dv; ++e) {
          double value = 0;
          for (std::int64_t j = 0; any && j < call.tk; ++j) {
            // A key that is not visible is not read, whatever it holds.
            if (!visible(call, b, h, i, j)) continue;
            const double weight = p[static_cast<std::size_t>(j)] / sum;
            const double scale = call.v_scales != nullptr
                                     ? static_cast<double>(call.v_scales[call.key_at(call.v_scales_stride, b, kv, j)])
                                     : 1.0;
            value += weight * scale * load_element(call.v, call.kv_type, call.v_at(b, kv, j) + e * call.v_stride[3]);
          }
          store_element(call.out, call.out_type, call.out_at(b, h, i) + e * call.out_stride[3], value);
        }
      }
    }
  }
}

}  // namespace manyheads::kernels
