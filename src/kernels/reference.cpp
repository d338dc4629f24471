#include "kernels/reference.hpp"

#include <cmath>
#include <limits>
#include <vector>

namespace manyheads::kernels {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

double load(const void* data, DType type, std::int64_t at) {
  switch (type) {
    case DType::kBF16:
      return static_cast<double>(static_cast<float>(static_cast<const bfloat16*>(data)[at]));
    case DType::kF16:
      return static_cast<double>(static_cast<float>(static_cast<const float16*>(data)[at]));
    default:
      return static_cast<double>(static_cast<const float*>(data)[at]);
  }
}

// Rounded once: through F32 the half types could round twice, which the sticky bit of a round to odd prevents.
float to_float_odd(double value) {
  const float nearest = static_cast<float>(value);
  if (static_cast<double>(nearest) == value || !std::isfinite(value) || !std::isfinite(nearest)) return nearest;
  const bool away = std::fabs(static_cast<double>(nearest)) > std::fabs(value);
  float truncated = away ? std::nextafter(nearest, 0.0f) : nearest;
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(truncated) | 1u);
}

void store(void* data, DType type, std::int64_t at, double value) {
  switch (type) {
    case DType::kBF16:
      static_cast<bfloat16*>(data)[at] = bfloat16(to_float_odd(value));
      break;
    case DType::kF16:
      static_cast<float16*>(data)[at] = float16(to_float_odd(value));
      break;
    default:
      static_cast<float*>(data)[at] = static_cast<float>(value);
  }
}

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
    if (load(call.bias, call.bias_type, b * s[0] + h * s[1] + i * s[2] + j * s[3]) == -kInfinity) return false;
  }
  return true;
}

double score(const AttentionCall& call, std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t j) {
  const std::int64_t kv = h / (call.q_heads / call.kv_heads);
  double dot = 0;
  for (std::int64_t d = 0; d < call.d; ++d) {
    dot += load(call.q, call.type,
                b * call.q_stride[0] + h * call.q_stride[1] + i * call.q_stride[2] + d * call.q_stride[3]) *
           load(call.k, call.type,
                b * call.k_stride[0] + kv * call.k_stride[1] + j * call.k_stride[2] + d * call.k_stride[3]);
  }
  double s = call.scale * dot;
  if (call.softcap > 0) s = call.softcap * std::tanh(s / call.softcap);
  if (call.bias != nullptr) {
    const std::int64_t* t = call.bias_stride;
    s += load(call.bias, call.bias_type, b * t[0] + h * t[1] + i * t[2] + j * t[3]);
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
      for (std::int64_t i = 0; i < call.tq; ++i) {
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
          call.lse[b * call.lse_stride[0] + h * call.lse_stride[1] + i * call.lse_stride[2]] = static_cast<float>(lse);
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
            value += weight *
                     load(call.v, call.type,
                          b * call.v_stride[0] + kv * call.v_stride[1] + j * call.v_stride[2] + e * call.v_stride[3]);
          }
          store(call.out, call.out_type,
                b * call.out_stride[0] + h * call.out_stride[1] + i * call.out_stride[2] + e * call.out_stride[3],
                value);
        }
      }
    }
  }
}

}  // namespace manyheads::kernels
