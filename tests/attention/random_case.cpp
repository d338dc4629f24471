#include "attention/random_case.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <sstream>
#include <utility>

#include "attention/oracle.hpp"

namespace manyheads::test {

Strided::Strided(DType t, Dims s, std::vector<int> order, std::int64_t gap, std::int64_t step, int reversed,
                 std::size_t misalign)
    : type(t), shape(s), strides(s) {
  std::int64_t extent = step;
  bool first = true;
  for (auto axis = order.rbegin(); axis != order.rend(); ++axis) {
    strides[*axis] = extent;
    extent *= std::max<std::int64_t>(1, shape[*axis]);
    if (first) extent += gap;
    first = false;
  }
  if (reversed >= 0 && shape[reversed] > 0) {
    origin = strides[reversed] * (shape[reversed] - 1);
    strides[reversed] = -strides[reversed];
  }
  shift_ = misalign * size_of(type);
  memory.assign(static_cast<std::size_t>(extent) * size_of(type) + shift_ + 64, 0xff);
}

ConstTensorView Strided::view() const {
  return ConstTensorView(memory.data() + shift_ + static_cast<std::size_t>(origin) * size_of(type), type, shape,
                         strides);
}

TensorView Strided::mutable_view() {
  return TensorView(memory.data() + shift_ + static_cast<std::size_t>(origin) * size_of(type), type, shape, strides);
}

void Strided::set(std::int64_t at, double value) {
  unsigned char* to = memory.data() + shift_ + static_cast<std::size_t>(at) * size_of(type);
  const auto put = [to](auto typed) { std::memcpy(to, &typed, sizeof(typed)); };
  switch (type) {
    case DType::kF32:
      return put(static_cast<float>(value));
    case DType::kBF16:
      return put(bfloat16(static_cast<float>(value)));
    case DType::kF16:
      return put(float16(static_cast<float>(value)));
    case DType::kF64:
      return put(value);
    case DType::kBool:
    case DType::kU8:
      return put(static_cast<std::uint8_t>(value));
    case DType::kI8:
      return put(static_cast<std::int8_t>(value));
    case DType::kI32:
      return put(static_cast<std::int32_t>(value));
    case DType::kI64:
      return put(static_cast<std::int64_t>(value));
  }
}

namespace {

class Draw {
 public:
  explicit Draw(std::uint64_t seed) : engine_(seed) {}
  std::int64_t between(std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(engine_);
  }
  bool chance(double p) { return std::uniform_real_distribution<double>(0, 1)(engine_) < p; }
  double normal() { return normal_(engine_); }
  std::int64_t of(std::initializer_list<std::int64_t> list) {
    return list.begin()[between(0, static_cast<std::int64_t>(list.size()) - 1)];
  }

 private:
  std::mt19937_64 engine_;
  std::normal_distribution<double> normal_;
};

Strided layout(Draw& draw, DType type, Dims shape) {
  std::vector<int> order(static_cast<std::size_t>(shape.rank()));
  std::iota(order.begin(), order.end(), 0);
  if (shape.rank() == 4 && draw.chance(0.4)) std::swap(order[1], order[2]);  // [B,T,H,D]
  if (draw.chance(0.05)) std::swap(order.back(), order.front());
  const std::int64_t gap = draw.chance(0.2) ? draw.between(1, 9) : 0;
  const std::int64_t step = draw.chance(0.05) ? 2 : 1;
  const int reversed = draw.chance(0.1) ? static_cast<int>(draw.between(0, shape.rank() - 1)) : -1;
  return Strided(type, shape, order, gap, step, reversed, static_cast<std::size_t>(draw.between(0, 5)));
}

}  // namespace

RandomCase::RandomCase(std::uint64_t s) : seed(s) {
  Draw draw(seed);
  type = static_cast<DType>(draw.of({0, 0, 0, 1, 2}));
  out_type = draw.chance(0.8) ? type : static_cast<DType>(draw.between(0, 2));
  batch = draw.of({1, 1, 1, 2, 3});
  kv_heads = draw.of({1, 1, 2, 3});
  q_heads = kv_heads * draw.of({1, 1, 1, 2, 4});
  const bool large = draw.chance(0.04);  // more than one chunk of keys
  tk = large ? draw.between(400, 2300) : draw.chance(0.3) ? draw.between(0, 9) : draw.between(1, 150);
  tq = large ? draw.between(1, 20) : draw.chance(0.3) ? draw.between(0, 3) : draw.between(1, 100);
  d = draw.chance(0.7) ? draw.of({8, 16, 32, 64}) : draw.of({1, 2, 3, 5, 7, 24, 33, 80, 96, 128});
  dv = draw.chance(0.7) ? d : draw.of({1, 3, 4, 16, 30, 64, 72});
  if (large) batch = 1;
  if (draw.chance(0.02)) batch = 0;

  // Sharp heads, flat heads, and large keys.
  const double q_size = static_cast<double>(draw.of({1, 1, 1, 4, 0})) + 0.1;
  const double k_size = static_cast<double>(draw.of({1, 1, 1, 10, 30}));
  const double v_size = std::pow(10.0, static_cast<double>(draw.of({0, 0, 0, 3, -3})));
  q = layout(draw, type, {batch, q_heads, tq, d});
  k = layout(draw, type, {batch, kv_heads, tk, d});
  v = layout(draw, type, {batch, kv_heads, tk, dv});
  out = layout(draw, out_type, {batch, q_heads, tq, dv});
  lse = layout(draw, DType::kF32, {batch, q_heads, tq});
  const bool equal_keys = draw.chance(0.03);
  q.fill([&](const auto&) { return draw.normal() * q_size; });
  k.fill([&](const auto&) { return equal_keys ? 0.5 : draw.normal() * k_size; });
  v.fill([&](const auto&) { return draw.normal() * v_size; });

  std::ostringstream list;
  if (draw.chance(0.3)) {
    options.scale = static_cast<double>(draw.of({0, -1, 1, 3})) * 0.25;
    list << " scale " << *options.scale;
  }
  if (draw.chance(0.15)) {
    options.softcap = static_cast<double>(draw.of({1, 20, 50}));
    list << " softcap " << options.softcap;
  }
  Mask& mask = options.mask;
  if (draw.chance(0.35)) {
    mask.causal = true;
    list << " causal";
  }
  if (draw.chance(0.5)) {
    mask.alignment = Alignment::kBottomRight;
    list << " bottom-right";
  } else if (mask.causal) {
    mask.alignment = Alignment::kTopLeft;
  }
  if (draw.chance(0.2)) {
    mask.window_left = draw.between(-1, 40);
    mask.window_right = draw.between(-1, 40);
    list << " window " << mask.window_left << "," << mask.window_right;
  }
  parts.reserve(16);
  const auto part = [&](DType t, Dims shape) -> Strided& {
    parts.push_back(layout(draw, t, shape));
    return parts.back();
  };
  const auto integers = [&]() { return draw.chance(0.5) ? DType::kI32 : DType::kI64; };
  if (draw.chance(0.2)) {
    Strided& t = part(integers(), {batch});
    t.fill([&](const auto&) { return static_cast<double>(draw.chance(0.1) ? 0 : draw.between(0, tk)); });
    mask.key_lengths = t.view();
    list << " key_lengths";
    // What lies behind the lengths is never read.
    const double poison =
        draw.chance(0.5) ? std::numeric_limits<double>::quiet_NaN() : std::numeric_limits<double>::infinity();
    const ConstTensorView lengths = t.view();
    const auto length = [&](std::int64_t b) {
      return lengths.dtype() == DType::kI64 ? static_cast<const std::int64_t*>(lengths.data())[b * lengths.stride(0)]
                                            : static_cast<const std::int32_t*>(lengths.data())[b * lengths.stride(0)];
    };
    const auto hide = [&](Strided& x) {
      x.fill(
          [&, &x = x](const std::vector<std::int64_t>& at) { return at[2] >= length(at[0]) ? poison : draw.normal(); });
    };
    hide(k);
    hide(v);
  }
  if (draw.chance(0.1)) {
    Strided& t = part(integers(), {batch});
    t.fill([&](const auto&) { return static_cast<double>(draw.between(-20, 60)); });
    mask.offsets = t.view();
    list << " offsets";
  }
  if (draw.chance(0.15)) {
    const std::int64_t documents = draw.between(1, 4);
    Strided& qd = part(integers(), {batch, tq});
    Strided& kd = part(integers(), {batch, tk});
    const bool sorted = draw.chance(0.7);
    const auto id = [&](const std::vector<std::int64_t>& at, std::int64_t n) {
      return static_cast<double>(sorted ? at[1] * documents / std::max<std::int64_t>(1, n) - 1
                                        : draw.between(0, documents));
    };
    qd.fill([&](const auto& at) { return id(at, tq); });
    kd.fill([&](const auto& at) { return id(at, tk); });
    mask.q_documents = qd.view();
    mask.k_documents = kd.view();
    list << " documents";
  }
  const auto broadcast = [&]() {
    Dims shape{batch, q_heads, tq, tk};
    for (int axis = 0; axis < 4; ++axis) {
      if (draw.chance(0.3)) shape[axis] = 1;
    }
    const int drop = static_cast<int>(draw.of({0, 0, 1, 2, 3}));
    return Dims(std::span<const std::int64_t>(shape.begin() + drop, shape.end()));
  };
  if (draw.chance(0.25)) {
    Strided& t = part(DType::kBool, broadcast());
    const double p = draw.chance(0.2) ? 0.02 : 0.6;
    t.fill([&](const auto&) { return draw.chance(p) ? 1.0 : 0.0; });
    mask.allowed = t.view();
    list << " mask" << t.shape.to_string();
  }
  if (draw.chance(0.25)) {
    Strided& t = part(draw.chance(0.5) ? DType::kF32 : type, broadcast());
    t.fill([&](const auto&) {
      return draw.chance(0.1) ? -std::numeric_limits<double>::infinity() : draw.chance(0.02) ? -1e4 : draw.normal();
    });
    mask.bias = t.view();
    list << " bias" << t.shape.to_string();
  }
  if (draw.chance(0.15)) {
    Strided& t = part(DType::kF32, {q_heads});
    t.fill([&](const auto&) { return std::pow(2.0, -static_cast<double>(draw.between(1, 8))); });
    mask.alibi_slopes = t.view();
    list << " alibi";
  }
  if (draw.chance(0.15)) {
    Strided& t = part(DType::kF32, {q_heads});
    t.fill([&](const auto&) { return draw.normal() * 3; });
    options.sinks = t.view();
    list << " sinks";
  }
  options.threads.num_threads = static_cast<int>(draw.of({1, 1, 1, 2, 3}));
  // Drawn apart, so that a seed keeps all that it was.
  Draw apart(seed ^ 0x5ca1ab1e0ddba11u);
  if (apart.chance(0.15)) {
    Strided& t = part(apart.chance(0.5) ? DType::kI32 : DType::kI64, {batch});
    const ConstTensorView lengths = mask.key_lengths;
    const auto end_of = [&](std::int64_t b) {
      return lengths.defined() ? static_cast<std::int64_t>(element(lengths, {b})) : tk;
    };
    t.fill([&](const auto& at) { return static_cast<double>(apart.between(0, end_of(at[0]))); });
    mask.key_starts = t.view();
    list << " key_starts";
    // What lies before them is never read.
    for (Strided* x : {&k, &v}) {
      const ConstTensorView starts = mask.key_starts;
      for (std::int64_t b = 0; b < batch; ++b) {
        for (std::int64_t h = 0; h < kv_heads; ++h) {
          for (std::int64_t j = 0; j < static_cast<std::int64_t>(element(starts, {b})); ++j) {
            for (std::int64_t e = 0; e < x->shape[3]; ++e) {
              x->set(x->origin + b * x->strides[0] + h * x->strides[1] + j * x->strides[2] + e * x->strides[3],
                     std::numeric_limits<double>::quiet_NaN());
            }
          }
        }
      }
    }
  }
  if (mask.allowed.defined() && apart.chance(0.3)) {
    std::swap(mask.allowed, mask.ignored);
    list << " ignored";
  }
  if (apart.chance(0.15)) {
    options.dropout.p = static_cast<double>(apart.of({100, 100, 500, 900, 1, 1000})) / 1000;
    options.dropout.seed = static_cast<std::uint64_t>(apart.between(0, INT64_MAX)) * 2 + 1;
    for (std::int64_t* first :
         {&options.dropout.first_query, &options.dropout.first_head, &options.dropout.first_entry}) {
      *first = apart.chance(0.7) ? 0 : apart.between(0, 100000);
    }
    list << " dropout " << options.dropout.p;
  }
  features = list.str();
}

void RandomCase::run() {
  const TensorView lse_view = lse.mutable_view();
  options.lse = lse_view;
  attention(q.view(), k.view(), v.view(), out.mutable_view(), options);
  options.lse = {};
}

std::string RandomCase::describe() const {
  std::ostringstream text;
  text << "seed " << seed << ": " << name_of(type) << " -> " << name_of(out_type) << " q " << q.shape.to_string()
       << " k " << k.shape.to_string() << " v " << v.shape.to_string() << features;
  return text.str();
}

}  // namespace manyheads::test
