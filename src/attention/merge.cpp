#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include <manyheads/attention.hpp>
#include <manyheads/error.hpp>

#include "attention/check.hpp"
#include "base/element.hpp"
#include "base/format.hpp"

namespace manyheads {
namespace {

constexpr const char* kName = "merge_attention";

[[noreturn]] void fail(const std::string& what) {
  throw Error(ErrorCode::kInvalidArgument, base::format("{}: {}", kName, what));
}

std::string describe(const ConstTensorView& view) {
  return view.defined() ? base::format("{} {}", name_of(view.dtype()), view.shape().to_string()) : "undefined";
}

void check_out(const char* name, const ConstTensorView& view, const Dims* shape) {
  const bool floating = view.defined() && (view.dtype() == DType::kF32 || view.dtype() == DType::kBF16 ||
                                           view.dtype() == DType::kF16);
  if (!floating || view.rank() < 1 || (shape != nullptr && !(view.shape() == *shape))) {
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

}  // namespace

void merge_attention(ConstTensorView out_a, ConstTensorView lse_a, ConstTensorView out_b, ConstTensorView lse_b,
                     TensorView out, TensorView lse) {
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
    // In place each element is read before it is written.
    if (!same(out, *input)) attention_detail::check_overlap(kName, "out", out, name, *input);
    if (lse.defined() && !same(lse, *input)) attention_detail::check_overlap(kName, "lse", lse, name, *input);
  }
  if (lse.defined()) attention_detail::check_overlap(kName, "out", out, "lse", lse);

  const std::int64_t width = shape[rank];
  if (width == 0 && !lse.defined()) return;  // views of stride 0 may yet be endless
  std::int64_t rows = 1;
  for (int i = 0; i < rank; ++i) rows *= shape[i];
  for (std::int64_t row = 0; row < rows; ++row) {
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
    const bool none = a == b && std::isinf(a) && a < 0;  // no key on either side
    const double mass_a = none ? 0.0 : std::exp(a - largest);
    const double mass_b = none ? 0.0 : std::exp(b - largest);
    const double sum = mass_a + mass_b;
    for (std::int64_t e = 0; e < width; ++e) {
      // A side of no mass is not read into the result, whatever it holds.
      double value = 0;
      if (mass_a != 0) value += mass_a / sum * load(out_a, at_a + e * out_a.stride(rank));
      if (mass_b != 0) value += mass_b / sum * load(out_b, at_b + e * out_b.stride(rank));
      store(out, at + e * out.stride(rank), value);
    }
    if (lse.defined()) {
      store(lse, at_lse, none ? -std::numeric_limits<double>::infinity() : largest + std::log(sum));
    }
  }
}

}  // namespace manyheads
