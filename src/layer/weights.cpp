#include "layer/weights.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <manyheads/error.hpp>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "base/file.hpp"
#include "layer/convert.hpp"

namespace manyheads::layer {
namespace {

std::vector<std::pair<std::string, Dims>> expected_tensors(const MultiHeadAttentionConfig& c, bool stacked) {
  const Sizes s(c);
  const std::int64_t projected = s.d_model + 2 * s.kv_width;
  std::vector<std::pair<std::string, Dims>> expected;
  if (stacked) {
    expected.emplace_back("in_proj_weight", Dims{projected, s.d_model});
  } else {
    expected.emplace_back("q_proj_weight", Dims{s.d_model, s.d_model});
    expected.emplace_back("k_proj_weight", Dims{s.kv_width, c.kdim});
    expected.emplace_back("v_proj_weight", Dims{s.kv_width, c.vdim});
  }
  if (c.bias) expected.emplace_back("in_proj_bias", Dims{projected});
  if (c.add_bias_kv) {
    expected.emplace_back("bias_k", Dims{1, 1, s.kv_width});
    expected.emplace_back("bias_v", Dims{1, 1, s.kv_width});
  }
  expected.emplace_back("out_proj.weight", Dims{s.d_model, s.d_model});
  if (c.bias) expected.emplace_back("out_proj.bias", Dims{s.d_model});
  return expected;
}

// Rows [begin, begin + count) of the first axis.
ConstTensorView rows_of(const Tensor& tensor, std::int64_t begin, std::int64_t count) {
  Dims shape = tensor.shape();
  const Dims strides = contiguous_strides(shape);
  shape[0] = count;
  const auto* data = static_cast<const std::byte*>(tensor.bytes());
  return ConstTensorView(data + begin * strides[0] * static_cast<std::int64_t>(size_of(tensor.dtype())), tensor.dtype(),
                         shape, strides);
}

void fill_uniform(float* data, std::int64_t count, double bound, std::mt19937_64& random) {
  for (std::int64_t i = 0; i < count; ++i) {
    const double unit = static_cast<double>(random() >> 11) * 0x1p-53;
    data[i] = static_cast<float>((2 * unit - 1) * bound);
  }
}

}  // namespace

StateDict initial_tensors(const MultiHeadAttentionConfig& config) {
  std::mt19937_64 random(20170612);
  StateDict tensors;
  const Sizes sizes(config);
  for (const auto& [name, shape] : expected_tensors(config, sizes.stacked)) {
    Tensor tensor(DType::kF32, shape);
    const std::int64_t fan_in = shape[shape.rank() - 1];
    // In the stacked tensor each of the three projections counts for itself. bias_k and bias_v are rows of a matrix.
    const std::int64_t fan_out = name == "in_proj_weight" ? sizes.d_model : shape[0];
    if (shape.rank() > 1) {
      fill_uniform(tensor.as<float>(), tensor.elements(), std::sqrt(6.0 / static_cast<double>(fan_in + fan_out)),
                   random);
    }
    tensors[name] = converted(tensor.cview(), config.dtype);
  }
  return tensors;
}

StateDict checked_tensors(const char* function, const MultiHeadAttentionConfig& config, const StateDict& tensors) {
  const Sizes sizes(config);
  // For equally wide inputs PyTorch's file has one stacked tensor; three matrices say the same.
  const bool together = sizes.stacked && (tensors.contains("in_proj_weight") || !tensors.contains("q_proj_weight"));
  const auto expected = expected_tensors(config, together);
  StateDict taken;
  std::string missing, wrong;
  for (const auto& [name, shape] : expected) {
    const auto found = tensors.find(name);
    if (found == tensors.end()) {
      missing += (missing.empty() ? "" : ", ") + name + " " + shape.to_string();
      continue;
    }
    const Tensor& tensor = found->second;
    if (!(tensor.shape() == shape)) {
      wrong += "; " + name + " is " + tensor.shape().to_string() + ", expected " + shape.to_string();
    } else if (!is_float(tensor.dtype())) {
      wrong += "; " + name + " is " + name_of(tensor.dtype()) + ", expected F32, BF16 or F16";
    } else {
      taken[name] = tensor;
    }
  }
  std::string extra;
  constexpr int kMostNamed = 8;
  int unknown = 0;
  for (const auto& [name, tensor] : tensors) {
    const auto is_it = [&name = name](const auto& one) { return one.first == name; };
    if (std::any_of(expected.begin(), expected.end(), is_it) || ++unknown > kMostNamed) continue;
    extra += (extra.empty() ? "" : ", ") + base::in_quotes(name);
  }
  if (unknown > kMostNamed) extra += " and " + std::to_string(unknown - kMostNamed) + " more";
  std::string problem;
  if (!missing.empty()) problem += "; missing " + missing;
  if (!extra.empty()) problem += "; not a tensor of this layer: " + extra;
  problem += wrong;
  if (!problem.empty()) {
    throw Error(ErrorCode::kInvalidArgument, std::string(function) + ": " + problem.substr(2));
  }

  if (sizes.stacked && !together) {
    const auto take = [&](const char* name) { return taken.extract(name).mapped(); };
    taken["in_proj_weight"] =
        stacked({take("q_proj_weight"), take("k_proj_weight"), take("v_proj_weight")}, config.dtype);
  }
  for (auto& [name, tensor] : taken) tensor = converted(tensor.cview(), config.dtype);
  return taken;
}

Weights::Weights(const MultiHeadAttentionConfig& config, StateDict tensors, const Threads& threads)
    : sizes_(config), kept_(config.dtype == DType::kBF16 ? DType::kBF16 : DType::kF32), tensors_(std::move(tensors)) {
  const std::int64_t e = sizes_.d_model, projected = e + 2 * sizes_.kv_width;
  PackedMemory memory(Linear::words(e, e, kept_) + (sizes_.same_widths ? Linear::words(projected, e, kept_) : 0));
  if (sizes_.stacked) {
    qkv_ = Linear(at("in_proj_weight").cview(), bias(0, projected), kept_, &memory, threads);
  } else if (sizes_.same_widths) {
    const Tensor all = stacked({at("q_proj_weight"), at("k_proj_weight"), at("v_proj_weight")}, config.dtype);
    qkv_ = Linear(all.cview(), bias(0, projected), kept_, &memory, threads);
  }
  out_ = Linear(at("out_proj.weight").cview(), config.bias ? at("out_proj.bias").cview() : ConstTensorView{}, kept_,
                &memory, threads);
  if (config.add_bias_kv) {
    bias_k_ = converted(at("bias_k").cview(), DType::kF32);
    bias_v_ = converted(at("bias_v").cview(), DType::kF32);
  }
}

const Weights::Apart& Weights::apart(const Threads& threads) const {
  std::call_once(packed_apart_, [&] {
    const std::int64_t e = sizes_.d_model, kv = sizes_.kv_width;
    const bool stacked = sizes_.stacked;
    const ConstTensorView q = stacked ? rows_of(at("in_proj_weight"), 0, e) : at("q_proj_weight").cview();
    const ConstTensorView k = stacked ? rows_of(at("in_proj_weight"), e, kv) : at("k_proj_weight").cview();
    const ConstTensorView v = stacked ? rows_of(at("in_proj_weight"), e + kv, kv) : at("v_proj_weight").cview();
    const auto packed = [&](const ConstTensorView& weight, std::int64_t begin) {
      return Linear(weight, bias(begin, weight.size(0)), kept_, nullptr, threads);
    };
    apart_ = {packed(q, 0), packed(k, e), packed(v, e + kv)};
  });
  return apart_;
}

ConstTensorView Weights::bias(std::int64_t begin, std::int64_t count) const {
  const auto found = tensors_.find("in_proj_bias");
  return found == tensors_.end() ? ConstTensorView{} : rows_of(found->second, begin, count);
}

}  // namespace manyheads::layer
