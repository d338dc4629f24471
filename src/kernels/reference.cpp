#include "kernels/reference.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "base/element.hpp"
#include "kernels/mask.hpp"

namespace manyheads::kernels {
namespace {

using base::load_element;
using base::store_element;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kLargestFloat = static_cast<double>(std::numeric_limits<float>::max());

double bias_of(const AttentionCall& call, std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t j) {
  return load_element(call.bias, call.bias_type, call.bias_at(b, h, i, j));
}

// Calls visit(j) for each key that the row sees, ascending, until it returns false.
template <class Visit>
void each_key(const AttentionCall& call, std::int64_t b, std::int64_t h, std::int64_t i, Visit&& visit) {
  const KeyRange keys = QueryKeys(call, b)(i);
  const std::uint8_t* const allowed = call.allowed == nullptr ? nullptr : call.allowed + call.allowed_at(b, h, i, 0);
  const std::int64_t step = call.allowed_stride[3];
  for (std::int64_t j = keys.begin; j < keys.end; ++j) {
    if (allowed != nullptr && allowed[j * step] == 0) {
      // Padding forbids many keys on end: eight at a time.
      for (std::uint64_t eight = 0; step == 1 && j + 9 <= keys.end; j += 8) {
        std::memcpy(&eight, allowed + j + 1, sizeof(eight));
        if (eight != 0) break;
      }
      continue;
    }
    if (call.q_documents.data != nullptr && call.q_documents.at(b, i) != call.k_documents.at(b, j)) continue;
    if (call.bias != nullptr && bias_of(call, b, h, i, j) == -kInfinity) continue;
    if (!visit(j)) return;
  }
}

// `count` elements as doubles.
void load_row(const void* data, DType type, std::int64_t at, std::int64_t step, double* to, std::int64_t count) {
  if (type == DType::kF32 && step == 1) {  // by itself, so that it becomes vectors
    const float* from = static_cast<const float*>(data) + at;
    for (std::int64_t e = 0; e < count; ++e) to[e] = static_cast<double>(from[e]);
  } else {
    for (std::int64_t e = 0; e < count; ++e) to[e] = load_element(data, type, at + e * step);
  }
}

double dot(const double* x, const double* y, std::int64_t count) {
  constexpr std::int64_t kSums = 8;
  double sums[kSums] = {};
  std::int64_t e = 0;
  for (; e + kSums <= count; e += kSums) {
    for (std::int64_t s = 0; s < kSums; ++s) sums[s] += x[e + s] * y[e + s];
  }
  for (std::int64_t s = 0; e < count; ++s, ++e) sums[s] += x[e] * y[e];
  double total = 0;
  for (const double sum : sums) total += sum;
  return total;
}

// The softmax of one row: the keys it sees, their weights, and lse.
struct Softmax {
  std::vector<std::int64_t> keys;
  std::vector<double> weights;
  double lse = 0;

  Softmax(const AttentionCall& call, std::int64_t b, std::int64_t h, std::int64_t i) {
    const double sink = call.sinks != nullptr ? static_cast<double>(call.sinks[h * call.sinks_stride]) : -kInfinity;
    lse = sink;
    each_key(call, b, h, i, [&](std::int64_t j) {
      keys.push_back(j);
      return true;
    });
    if (keys.empty()) return;
    weights.resize(keys.size(), std::numeric_limits<double>::quiet_NaN());

    const std::int64_t kv = h / (call.q_heads / call.kv_heads);
    std::vector<double> query(static_cast<std::size_t>(call.d)), key(query.size());
    load_row(call.q, call.type, call.q_at(b, h, i), call.q_stride[3], query.data(), call.d);
    double largest = sink;
    for (std::size_t n = 0; n < keys.size(); ++n) {
      const std::int64_t j = keys[n];
      load_row(call.k, call.kv_type, call.k_at(b, kv, j), call.k_stride[3], key.data(), call.d);
      double s = call.scale * dot(query.data(), key.data(), call.d);
      if (call.k_scales != nullptr) s *= static_cast<double>(call.k_scales[call.key_at(call.k_scales_stride, b, kv, j)]);
      if (call.softcap > 0) s = call.softcap * std::tanh(s / call.softcap);
      if (call.bias != nullptr) s += bias_of(call, b, h, i, j);
      if (call.alibi != nullptr) {
        s -= static_cast<double>(call.alibi[h * call.alibi_stride]) *
             std::fabs(static_cast<double>(j - i - call.diagonal(b)));
      }
      if (std::isnan(s) || s == kInfinity) {  // NaN, and inf - inf, reach every weight
        std::fill(weights.begin(), weights.end(), std::numeric_limits<double>::quiet_NaN());
        lse = std::numeric_limits<double>::quiet_NaN();
        return;
      }
      weights[n] = s;
      largest = std::max(largest, s);
    }
    double sum = sink == kInfinity ? 1 : std::exp(sink - largest);  // an infinite sink takes all there is
    for (double& weight : weights) sum += weight = std::exp(weight - largest);
    for (double& weight : weights) weight /= sum;
    lse = largest + std::log(sum);
    // -inf is for rows that see no key.
    if (std::isfinite(lse)) lse = std::clamp(lse, -kLargestFloat, kLargestFloat);
  }
};

}  // namespace

bool sees_a_key(const AttentionCall& call, std::int64_t b, std::int64_t h, std::int64_t i) {
  bool any = false;
  each_key(call, b, h, i, [&](std::int64_t) { return !(any = true); });
  return any;
}

std::optional<double> one_bias(const AttentionCall& call, std::int64_t b, std::int64_t h, std::int64_t i) {
  std::optional<double> first;
  bool same = call.bias != nullptr;
  if (same) {
    each_key(call, b, h, i, [&](std::int64_t j) {
      const double bias = bias_of(call, b, h, i, j);
      if (!first) first = bias;
      return same = bias == *first;
    });
  }
  return same ? first : std::nullopt;
}

void reference_row(const AttentionCall& call, std::int64_t b, std::int64_t h, std::int64_t i) {
  const Softmax row(call, b, h, i);
  if (call.lse != nullptr) call.lse[call.lse_at(b, h, i)] = static_cast<float>(row.lse);
  if (call.weights != nullptr) {
    const std::int64_t* s = call.weights_stride;
    float* const to = call.weights + b * s[0] + h * s[1] + i * s[2];
    for (std::int64_t j = 0; j < call.tk; ++j) to[j * s[3]] = 0.0f;
    for (std::size_t n = 0; n < row.keys.size(); ++n) to[row.keys[n] * s[3]] = static_cast<float>(row.weights[n]);
  }
  if (call.out == nullptr) return;
  const std::int64_t kv = h / (call.q_heads / call.kv_heads);
  std::vector<double> out(static_cast<std::size_t>(call.dv)), value(out.size());
  // A key that is not visible is not read, whatever it holds.
  for (std::size_t n = 0; n < row.keys.size(); ++n) {
    const std::int64_t j = row.keys[n];
    load_row(call.v, call.kv_type, call.v_at(b, kv, j), call.v_stride[3], value.data(), call.dv);
    double weight = row.weights[n];
    if (call.v_scales != nullptr) {
      weight *= static_cast<double>(call.v_scales[call.key_at(call.v_scales_stride, b, kv, j)]);
    }
    for (std::size_t e = 0; e < out.size(); ++e) out[e] += weight * value[e];
  }
  for (std::int64_t e = 0; e < call.dv; ++e) {
    store_element(call.out, call.out_type, call.out_at(b, h, i) + e * call.out_stride[3],
                  out[static_cast<std::size_t>(e)]);
  }
}

void reference(const AttentionCall& call) {
  for (std::int64_t b = 0; b < call.batch; ++b) {
    for (std::int64_t h = 0; h < call.q_heads; ++h) {
      for (std::int64_t i = 0; i < call.queries(b); ++i) reference_row(call, b, h, i);
    }
  }
}

}  // namespace manyheads::kernels
