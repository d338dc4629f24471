#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <tuple>
#include <vector>

#include <manyheads/attention.hpp>
#include <manyheads/error.hpp>

#include "attention/check.hpp"
#include "attention/overlap.hpp"
#include "base/aligned_buffer.hpp"
#include "base/element.hpp"
#include "base/fail.hpp"
#include "base/math.hpp"
#include "base/parallel.hpp"
#include "kernels/dispatch.hpp"

namespace manyheads {
namespace {

constexpr const char* kName = "merge_attention";

using base::describe;

[[noreturn]] void fail(const std::string& what) { base::fail(kName, what); }

void check_out(const char* name, const ConstTensorView& view, const Dims* shape) {
  if (!view.defined() || !base::is_float(view.dtype()) || view.rank() < 1 ||
      (shape != nullptr && !(view.shape() == *shape))) {
    fail(base::format("{} is {}, expected F32, BF16 or F16 {}", name, describe(view),
                      shape != nullptr ? shape->to_string() : "[...,Dv]"));
  }
}

void check_lse(const char* name, const ConstTensorView& view, const Dims& out) {
  bool fits = view.defined() && view.dtype() == DType::kF32 && view.rank() == out.rank() - 1;
  for (int i = 0; fits && i < view.rank(); ++i) fits = view.size(i) == out[i];
  if (!fits)
    fail(
        base::format("{} is {}, expected F32 of out_a's {} less the last axis", name, describe(view), out.to_string()));
}

double load(const ConstTensorView& view, std::int64_t at) { return base::load_element(view.data(), view.dtype(), at); }

void store(const TensorView& view, std::int64_t at, double value) {
  base::store_element(view.data(), view.dtype(), at, value);
}

// A part without mass is not read into the result, whatever it holds.
void merge_row(const ConstTensorView& out_a, std::int64_t at_a, double mass_a, const ConstTensorView& out_b,
               std::int64_t at_b, double mass_b, double sum, const TensorView& out, std::int64_t at) {
  const int axis = out.rank() - 1;
  for (std::int64_t e = 0; e < out.size(axis); ++e) {
    double value = 0;
    if (mass_a != 0) value += mass_a / sum * load(out_a, at_a + e * out_a.stride(axis));
    if (mass_b != 0) value += mass_b / sum * load(out_b, at_b + e * out_b.stride(axis));
    store(out, at + e * out.stride(axis), value);
  }
}

}  // namespace

void merge_attention(ConstTensorView out_a, ConstTensorView lse_a, ConstTensorView out_b, ConstTensorView lse_b,
                     TensorView out, TensorView lse, const Threads& threads) {
  check_out("out_a", out_a, nullptr);
  const Dims shape = out_a.shape();
  check_out("out_b", out_b, &shape);
  check_out("out", out, &shape);
  check_lse("lse_a", lse_a, shape);
  check_lse("lse_b", lse_b, shape);
  attention_detail::check_itself(kName, "out", out);
  if (lse.defined()) {
    check_lse("lse", lse, shape);
    attention_detail::check_itself(kName, "lse", lse);
  }
  const int rank = shape.rank() - 1;
  const auto same = [](const ConstTensorView& x, const ConstTensorView& y) {
    return x.data() == y.data() && x.dtype() == y.dtype() && x.strides() == y.strides();
  };
  const std::pair<const char*, const ConstTensorView*> inputs[] = {
      {"out_a", &out_a}, {"lse_a", &lse_a}, {"out_b", &out_b}, {"lse_b", &lse_b}};
  for (const auto& [name, input] : inputs) {
    // In place, each element is read before it is written.
    if (!same(out, *input)) attention_detail::check_overlap(kName, "out", out, name, *input);
    if (lse.defined() && !same(lse, *input)) attention_detail::check_overlap(kName, "lse", lse, name, *input);
  }
  if (lse.defined()) attention_detail::check_overlap(kName, "out", out, "lse", lse);

  const std::int64_t width = shape[rank];
  if (width == 0 && !lse.defined()) return;  // with nothing to write, views of stride 0 may be endless
  std::int64_t rows = 1;
  for (int i = 0; i < rank; ++i) rows *= shape[i];
  base::parallel_for_rows(rows, width, threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      std::int64_t left = row;
      std::int64_t at_a = 0, at_b = 0, at = 0, at_lse_a = 0, at_lse_b = 0, at_lse = 0;
      for (int i = rank - 1; i >= 0; --i) {
        const std::int64_t place = left % shape[i];
        left /= shape[i];
        at_a += place * out_a.stride(i);
        at_b += place * out_b.stride(i);
        at += place * out.stride(i);
        at_lse_a += place * lse_a.stride(i);
        at_lse_b += place * lse_b.stride(i);
        if (lse.defined()) at_lse += place * lse.stride(i);
      }
      const double a = load(lse_a, at_lse_a);
      const double b = load(lse_b, at_lse_b);
      const double largest = std::max(a, b);
      const bool none = a == b && std::isinf(a) && a < 0;  // no key in either part
      const double mass_a = none ? 0.0 : base::exp(a - largest);
      const double mass_b = none ? 0.0 : base::exp(b - largest);
      const double sum = mass_a + mass_b;
      merge_row(out_a, at_a, mass_a, out_b, at_b, mass_b, sum, out, at);
      if (lse.defined()) {
        store(lse, at_lse, none ? -std::numeric_limits<double>::infinity() : largest + base::log(sum));
      }
    }
  });
}

RowStates::RowStates(std::int64_t before, std::int64_t part, std::int64_t batch, std::int64_t q_heads, std::int64_t tq,
                     std::int64_t dv)
    : keys_before(before),
      keys(part),
      max(DType::kF32, {branches(before, part), batch, q_heads, tq}),
      sum(DType::kF32, max.shape()),
      output(DType::kF32, {max.size(0), batch, q_heads, tq, dv}) {}

std::int64_t RowStates::branches(std::int64_t keys_before, std::int64_t keys) {
  constexpr std::int64_t kMostKeys = std::int64_t{1} << 60;
  if (keys_before < 0 || keys_before > kMostKeys || keys_before % kernels::kChunkKeys != 0) {
    base::fail("RowStates",
               base::format("keys_before is {}, expected a multiple of {}", keys_before, kernels::kChunkKeys));
  }
  if (keys < 0 || keys > kMostKeys) base::fail("RowStates", base::format("keys is {}, expected 0 or more", keys));
  return std::max<std::int64_t>(1,
                                kernels::Branches{keys_before / kernels::kChunkKeys, kernels::chunks_of(keys)}.size());
}

void merge_attention(std::span<const RowStates> parts, TensorView out, TensorView lse, ConstTensorView sinks,
                     const Threads& threads) {
  if (parts.empty()) fail("there are no row states");
  if (!out.defined() || out.rank() != 4 || !base::is_float(out.dtype())) {
    fail(base::format("out is {}, expected F32, BF16 or F16 [B,Hq,Tq,Dv]", describe(out)));
  }
  attention_detail::check_itself(kName, "out", out);
  kernels::StatesParams params;
  const std::int64_t rows = out.size(0) * out.size(1) * out.size(2);
  params.q_heads = out.size(1);
  params.tq = out.size(2);
  params.dv = out.size(3);
  params.out = out.data();
  params.out_type = out.dtype();
  for (int axis = 0; axis < 4; ++axis)
    params.out_stride[axis] = out.size(axis) > 1 ? out.stride(axis) : axis == 3 ? 1 : 0;
  if (lse.defined()) {
    const Dims shape{out.size(0), out.size(1), out.size(2)};
    if (lse.dtype() != DType::kF32 || !(lse.shape() == shape)) {
      fail(base::format("lse is {}, expected F32 [B,Hq,Tq] = {}", describe(lse), shape.to_string()));
    }
    attention_detail::check_itself(kName, "lse", lse);
    attention_detail::check_overlap(kName, "out", out, "lse", lse);
    attention_detail::put_lse(lse, params);
  }
  if (sinks.defined()) {
    params.sinks = attention_detail::check_per_head(kName, "sinks", sinks, params.q_heads, &params.sinks_stride);
  }

  std::vector<kernels::StatesParams::Branch> branches;
  for (std::size_t p = 0; p < parts.size(); ++p) {
    const RowStates& part = parts[p];
    const std::int64_t count = RowStates::branches(part.keys_before, part.keys);
    const Dims of_rows{count, out.size(0), out.size(1), out.size(2)};
    const Dims of_output{count, out.size(0), out.size(1), out.size(2), out.size(3)};
    for (const auto& [name, tensor, shape] :
         {std::tuple{"max", &part.max, &of_rows}, std::tuple{"sum", &part.sum, &of_rows},
          std::tuple{"output", &part.output, &of_output}}) {
      if (!tensor->defined() || tensor->dtype() != DType::kF32 || !(tensor->shape() == *shape)) {
        fail(base::format("parts[{}].{} is {}, expected F32 {} (out {})", p, name, describe(tensor->cview()),
                          shape->to_string(), describe(out)));
      }
      attention_detail::check_overlap(kName, "out", out, name, tensor->cview());
      attention_detail::check_overlap(kName, "lse", lse, name, tensor->cview());
    }
    if (p > 0 && parts[p - 1].keys_before + parts[p - 1].keys != part.keys_before) {
      fail(base::format("parts[{}] begins at key {}, the part before it ends at {}", p, part.keys_before,
                        parts[p - 1].keys_before + parts[p - 1].keys));
    }
    const kernels::Branches tree{part.keys_before / kernels::kChunkKeys, kernels::chunks_of(part.keys)};
    for (std::int64_t s = 0; s < count; ++s) {
      branches.push_back({part.max.as<float>() + s * rows, part.sum.as<float>() + s * rows,
                          part.output.as<float>() + s * rows * params.dv, tree.begin(s)});
    }
  }
  if (rows == 0) return;
  params.branches = branches.data();
  params.count = static_cast<std::int64_t>(branches.size());
  const kernels::StatesKernels& kernels = kernels::active_table().states;
  base::parallel_for_rows(rows, params.dv * params.count, threads, [&](std::int64_t begin, std::int64_t end) {
    base::AlignedBuffer<float> workspace(kernels.workspace_floats(params.dv));
    kernels.combine(params, begin, end, workspace.data());
  });
}

}  // namespace manyheads
