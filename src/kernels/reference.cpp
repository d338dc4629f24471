#include "kernels/reference.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "base/element.hpp"
#include "base/math.hpp"
#include "kernels/backward.hpp"
#include "kernels/mask.hpp"

namespace manyheads::kernels {
namespace {

using base::load_element;
using base::store_element;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kLargestFloat = static_cast<double>(std::numeric_limits<float>::max());

double bias_of(const QkvMask& params, std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t j) {
  return load_element(params.bias, params.bias_type, params.bias_at(b, h, i, j));
}

// Calls visit(j) for each key that the row sees, ascending, until it returns false.
template <class Visit>
void each_key(const QkvMask& params, std::int64_t b, std::int64_t h, std::int64_t i, Visit&& visit) {
  const KeyRange keys = Band(params, b).keys_of(i);
  const std::uint8_t* const allowed =
      params.allowed == nullptr ? nullptr : params.allowed + params.allowed_at(b, h, i, 0);
  const std::int64_t step = params.allowed_stride[3];
  for (std::int64_t j = keys.begin; j < keys.end; ++j) {
    if (allowed != nullptr && !params.allows(allowed[j * step])) {
      // Padding forbids long runs of keys: eight are skipped at a time.
      const std::uint64_t all = params.allowed_where ? 0 : 0x0101010101010101u;
      for (std::uint64_t eight = 0; step == 1 && j + 9 <= keys.end; j += 8) {
        std::memcpy(&eight, allowed + j + 1, sizeof(eight));
        if (eight != all) break;
      }
      continue;
    }
    if (params.documents() && params.q_documents.at(b, i) != params.key_document(b, j)) continue;
    if (params.bias != nullptr && bias_of(params, b, h, i, j) == -kInfinity) continue;
    if (!visit(j)) return;
  }
}

// Reads `count` elements as doubles.
void load_row(const void* data, DType type, std::int64_t at, std::int64_t step, double* to, std::int64_t count) {
  if (type == DType::kF32 && step == 1) {  // a loop of its own, which becomes vectors
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

// The softmax of one row: its visible keys, their probabilities, and lse.
struct Softmax {
  std::vector<std::int64_t> keys;
  std::vector<double> probs;
  double lse = 0;

  Softmax(const QkvMask& params, std::int64_t b, std::int64_t h, std::int64_t i) {
    const double sink =
        params.sinks != nullptr ? static_cast<double>(params.sinks[h * params.sinks_stride]) : -kInfinity;
    lse = sink;
    each_key(params, b, h, i, [&](std::int64_t j) {
      keys.push_back(j);
      return true;
    });
    if (keys.empty()) return;
    probs.resize(keys.size(), std::numeric_limits<double>::quiet_NaN());

    const std::int64_t kv = h / params.group();
    std::vector<double> query(static_cast<std::size_t>(params.d)), key(query.size());
    load_row(params.q, params.type, params.q_at(b, h, i), params.q_stride[3], query.data(), params.d);
    double largest = sink;
    for (std::size_t n = 0; n < keys.size(); ++n) {
      const std::int64_t j = keys[n];
      load_row(params.k, params.kv_type, params.k_at(b, kv, j), params.k_stride[3], key.data(), params.d);
      double s = params.scale * dot(query.data(), key.data(), params.d);
      if (params.k_scales != nullptr)
        s *= static_cast<double>(params.k_scales[params.key_at(params.k_scales_stride, b, kv, j)]);
      if (params.softcap > 0) s = params.softcap * base::tanh(s / params.softcap);
      if (params.bias != nullptr) s += bias_of(params, b, h, i, j);
      if (params.alibi != nullptr) {
        s -= static_cast<double>(params.alibi[h * params.alibi_stride]) *
             std::fabs(static_cast<double>(j - i - params.diagonal(b)));
      }
      if (std::isnan(s) || s == kInfinity) {  // NaN, and inf - inf, reach every probability
        std::fill(probs.begin(), probs.end(), std::numeric_limits<double>::quiet_NaN());
        lse = std::numeric_limits<double>::quiet_NaN();
        return;
      }
      probs[n] = s;
      largest = std::max(largest, s);
    }
    double sum = sink == kInfinity ? 1 : base::exp(sink - largest);  // an infinite sink takes all the mass
    for (double& prob : probs) sum += prob = base::exp(prob - largest);
    for (double& prob : probs) prob /= sum;
    lse = largest + base::log(sum);
    // -inf is kept for rows that see no key.
    if (std::isfinite(lse)) lse = std::clamp(lse, -kLargestFloat, kLargestFloat);
  }
};

// What dropout makes of a weight of 1.
double kept(const QkvMask& params, std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t j) {
  if (!params.dropout.any()) return 1;
  return params.dropout.keeps(b, h, i, params.first_chunk * kChunkKeys + j) ? params.dropout.factor : 0;
}

template <class Visit>
void each_row(const QkvMask& params, Visit&& visit) {
  for (std::int64_t b = 0; b < params.batch; ++b) {
    for (std::int64_t h = 0; h < params.q_heads; ++h) {
      for (std::int64_t i = 0; i < params.queries(b); ++i) visit(b, h, i);
    }
  }
}

}  // namespace

bool sees_a_key(const QkvMask& params, std::int64_t b, std::int64_t h, std::int64_t i) {
  bool any = false;
  each_key(params, b, h, i, [&](std::int64_t) { return !(any = true); });
  return any;
}

std::optional<double> one_bias(const QkvMask& params, std::int64_t b, std::int64_t h, std::int64_t i) {
  std::optional<double> first;
  bool same = params.bias != nullptr;
  if (same) {
    each_key(params, b, h, i, [&](std::int64_t j) {
      const double bias = bias_of(params, b, h, i, j);
      if (!first) first = bias;
      return same = bias == *first;
    });
  }
  return same ? first : std::nullopt;
}

void reference_row(const ForwardParams& params, std::int64_t b, std::int64_t h, std::int64_t i) {
  const Softmax row(params, b, h, i);
  if (params.lse != nullptr) params.lse[params.lse_at(b, h, i)] = static_cast<float>(row.lse);
  const std::int64_t kv = h / params.group();
  std::vector<double> out(static_cast<std::size_t>(params.dv)), value(out.size());
  // A forbidden key's value is never read, whatever it holds.
  for (std::size_t n = 0; n < row.keys.size(); ++n) {
    const std::int64_t j = row.keys[n];
    load_row(params.v, params.kv_type, params.v_at(b, kv, j), params.v_stride[3], value.data(), params.dv);
    double prob = row.probs[n] * kept(params, b, h, i, j);
    if (params.v_scales != nullptr) {
      prob *= static_cast<double>(params.v_scales[params.key_at(params.v_scales_stride, b, kv, j)]);
    }
    for (std::size_t e = 0; e < out.size(); ++e) out[e] += prob * value[e];
  }
  for (std::int64_t e = 0; e < params.dv; ++e) {
    store_element(params.out, params.out_type, params.out_at(b, h, i) + e * params.out_stride[3],
                  out[static_cast<std::size_t>(e)]);
  }
}

void reference_probs_row(const ProbsParams& params, std::int64_t b, std::int64_t h, std::int64_t i) {
  const Softmax row(params, b, h, i);
  if (float* const lse = params.row_lse_of(b, h, i)) *lse = static_cast<float>(row.lse);
  float* const to = params.row_of_probs(b, h, i);
  const std::int64_t step = params.probs_stride[3];
  for (std::int64_t j = 0; j < params.tk; ++j) to[j * step] = 0.0f;
  for (std::size_t n = 0; n < row.keys.size(); ++n) {
    const double prob = row.probs[n] * kept(params, b, h, i, row.keys[n]);
    to[(params.key_start(b) + row.keys[n]) * step] = static_cast<float>(prob);
  }
}

void reference(const ForwardParams& params) {
  each_row(params, [&](std::int64_t b, std::int64_t h, std::int64_t i) { reference_row(params, b, h, i); });
}

void reference_probs(const ProbsParams& params) {
  each_row(params, [&](std::int64_t b, std::int64_t h, std::int64_t i) { reference_probs_row(params, b, h, i); });
}

namespace {

// The gradients of a call while they are summed, in float64.
class ReferenceGradients {
 public:
  explicit ReferenceGradients(const BackwardParams& params) : params_(params) {
    if (params.dbias.defined()) {
      const std::int64_t* size = params.dbias.size;
      bias_.resize(static_cast<std::size_t>(size[0] * size[1] * size[2] * size[3]));
    }
    sinks_.resize(static_cast<std::size_t>(params.q_heads));
    alibi_.resize(sinks_.size());
  }

  void add_head(std::int64_t b, std::int64_t kv) {
    const std::size_t keys = static_cast<std::size_t>(params_.key_length(b));
    dk_.assign(keys * static_cast<std::size_t>(params_.d), 0);
    dv_.assign(keys * static_cast<std::size_t>(params_.dv), 0);
    for (std::int64_t h = kv * params_.group(); h < (kv + 1) * params_.group(); ++h) {
      for (std::int64_t i = 0; i < params_.queries(b); ++i) add_row(b, h, i);
    }
    const std::int64_t start = params_.key_start(b), end = params_.key_length(b);
    const std::int64_t last = params_.k_starts.defined() ? end : params_.tk - start;
    for (std::int64_t j = -start; j < last; ++j) {
      const bool exists = j >= 0 && j < end;
      for (std::int64_t e = 0; params_.dk.defined() && e < params_.d; ++e) {
        store(params_.dk, params_.key_at(params_.dk.stride, b, kv, j) + e * params_.dk.stride[3],
              exists ? dk_[static_cast<std::size_t>(j * params_.d + e)] : 0);
      }
      for (std::int64_t e = 0; params_.dvalue.defined() && e < params_.dv; ++e) {
        store(params_.dvalue, params_.key_at(params_.dvalue.stride, b, kv, j) + e * params_.dvalue.stride[3],
              exists ? dv_[static_cast<std::size_t>(j * params_.dv + e)] : 0);
      }
    }
  }

  void store_rest() {
    const Gradient& to = params_.dbias;
    for (std::size_t n = 0; n < bias_.size(); ++n) {
      std::int64_t rest = static_cast<std::int64_t>(n), at = 0;
      for (int axis = 3; axis >= 0; --axis) {
        at += rest % to.size[axis] * to.stride[axis];
        rest /= to.size[axis];
      }
      store(to, at, bias_[n]);
    }
    for (std::int64_t h = 0; h < params_.q_heads; ++h) {
      const std::size_t n = static_cast<std::size_t>(h);
      if (params_.dsinks.defined()) store(params_.dsinks, h * params_.dsinks.stride[1], sinks_[n]);
      if (params_.dalibi.defined()) store(params_.dalibi, h * params_.dalibi.stride[1], alibi_[n]);
    }
  }

 private:
  void add_row(std::int64_t b, std::int64_t h, std::int64_t i) {
    const Softmax row(params_, b, h, i);
    const std::int64_t kv = h / params_.group();
    const std::size_t d = static_cast<std::size_t>(params_.d), dv = static_cast<std::size_t>(params_.dv);
    std::vector<double> query(d), key(d), value(dv), dout(dv), dq(d), dprobs(row.keys.size());
    load_row(params_.q, params_.type, params_.q_at(b, h, i), params_.q_stride[3], query.data(), params_.d);
    load_row(params_.dout, params_.dout_type, params_.dout_at(b, h, i), params_.dout_stride[3], dout.data(),
             params_.dv);
    double delta = 0;  // = dout out
    for (std::size_t n = 0; n < row.keys.size(); ++n) {
      const std::int64_t j = row.keys[n];
      load_row(params_.v, params_.kv_type, params_.v_at(b, kv, j), params_.v_stride[3], value.data(), params_.dv);
      const double stays = kept(params_, b, h, i, j), prob = row.probs[n] * stays;
      dprobs[n] = dot(dout.data(), value.data(), params_.dv) * stays;
      delta += row.probs[n] * dprobs[n];
      for (std::size_t e = 0; e < dv; ++e) dv_[static_cast<std::size_t>(j) * dv + e] += prob * dout[e];
    }
    if (params_.dlse != nullptr) delta -= static_cast<double>(params_.dlse[params_.dlse_at(b, h, i)]);
    for (std::size_t n = 0; n < row.keys.size(); ++n) {
      const std::int64_t j = row.keys[n];
      double ds = row.probs[n] * (dprobs[n] - delta);
      if (params_.dbias.defined()) bias_[bias_place(b, h, i, j + params_.key_start(b))] += ds;
      alibi_[static_cast<std::size_t>(h)] -= ds * std::fabs(static_cast<double>(j - i - params_.diagonal(b)));
      load_row(params_.k, params_.kv_type, params_.k_at(b, kv, j), params_.k_stride[3], key.data(), params_.d);
      if (params_.softcap > 0) {
        const double t = base::tanh(params_.scale * dot(query.data(), key.data(), params_.d) / params_.softcap);
        ds *= (1 - t) * (1 + t);
      }
      for (std::size_t e = 0; e < d; ++e) {
        dq[e] += ds * key[e];
        dk_[static_cast<std::size_t>(j) * d + e] += params_.scale * ds * query[e];
      }
    }
    for (std::size_t e = 0; params_.dq.defined() && e < d; ++e) {
      store(params_.dq, params_.dq_at(b, h, i) + static_cast<std::int64_t>(e) * params_.dq.stride[3],
            params_.scale * dq[e]);
    }
    if (params_.sinks != nullptr && delta != 0) {
      const double sink = static_cast<double>(params_.sinks[h * params_.sinks_stride]);
      sinks_[static_cast<std::size_t>(h)] -= base::exp(sink - row.lse) * delta;
    }
  }
  std::size_t bias_place(std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t j) const {
    const std::int64_t* size = params_.dbias.size;
    const std::int64_t at[4] = {b, h, i, j};
    std::int64_t place = 0;
    for (int axis = 0; axis < 4; ++axis) place = place * size[axis] + (size[axis] == 1 ? 0 : at[axis]);
    return static_cast<std::size_t>(place);
  }
  void store(const Gradient& to, std::int64_t at, double value) const {
    if (params_.accumulate) value += load_element(to.data, to.type, at);
    store_element(to.data, to.type, at, value);
  }

  const BackwardParams& params_;
  std::vector<double> dk_, dv_, bias_, sinks_, alibi_;
};

}  // namespace

void reference_backward(const BackwardParams& params) {
  ReferenceGradients gradients(params);
  for (std::int64_t b = 0; b < params.batch; ++b) {
    for (std::int64_t kv = 0; kv < params.kv_heads; ++kv) gradients.add_head(b, kv);
  }
  gradients.store_rest();
}

}  // namespace manyheads::kernels
