#include <algorithm>
#include <limits>
#include <sstream>

#include "draw.hpp"

namespace bits {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

// What the groups of 20 calls hold, and how many groups of each there are: a hash that differs says which kind does.
struct Kind {
  const char* name;
  int groups;
};
constexpr Kind kKinds[] = {{"f32", 16},        {"bf16", 12},   {"f16", 8},        {"one-query", 10},
                           {"long", 2},        {"packed", 10}, {"paged", 8},      {"int8", 6},
                           {"cache", 12},      {"merged", 4},  {"weights", 10},   {"beyond", 2},
                           {"key-starts", 16}, {"ignored", 6}, {"row-states", 6}, {"any-type", 22}};

struct Sizes {
  std::int64_t batch = 1, q_heads = 1, kv_heads = 1, tq = 1, tk = 1, d = 8, dv = 8;
};

Type some_float(Draw& draw) { return draw.of({Type::kF32, Type::kF32, Type::kBF16, Type::kF16}); }

// Few of many keys and many of few, so that no call costs much; several chunks of 512 keys in a fifth of the calls.
Sizes some_sizes(Draw& draw, bool one_query) {
  Sizes s;
  s.batch = draw.of({1, 1, 1, 2, 3});
  s.kv_heads = draw.of({1, 1, 2, 3});
  s.q_heads = s.kv_heads * draw.of({1, 1, 1, 2, 4, 7});
  const bool many = draw.chance(20);
  s.tk = many ? draw.between(400, 3000) : draw.chance(30) ? draw.between(1, 17) : draw.between(1, 200);
  s.tq = one_query ? 1 : many ? draw.between(1, 24) : draw.chance(30) ? draw.between(1, 4) : draw.between(1, 100);
  if (many) s.batch = 1;
  s.d = draw.chance(70) ? draw.of({8, 16, 32, 64}) : draw.of({1, 2, 3, 5, 7, 24, 33, 80, 96, 128, 160});
  s.dv = draw.chance(70) ? s.d : draw.of({1, 3, 4, 16, 30, 64, 72, 128});
  return s;
}

// Sharp heads, flat heads, large keys and values.
struct Magnitudes {
  explicit Magnitudes(Draw& draw)
      : q(static_cast<double>(draw.of({1, 1, 1, 4, 0})) + 0.125),
        k(static_cast<double>(draw.of({1, 1, 1, 10, 30}))),
        v(draw.of({1.0, 1.0, 1.0, 1000.0, 0.0078125})) {}
  double q, k, v;
};

Array values(Draw& draw, Array array, double size) {
  return filled(std::move(array), [&](const Shape&) { return draw.value() * size; });
}

std::vector<std::int64_t> lengths_up_to(Draw& draw, std::int64_t count, std::int64_t most) {
  std::vector<std::int64_t> lengths;
  for (std::int64_t i = 0; i < count; ++i) lengths.push_back(draw.chance(10) ? 0 : draw.between(0, most));
  return lengths;
}

Shape broadcast_shape(Draw& draw, const Sizes& s) {
  Shape shape{s.batch, s.q_heads, s.tq, s.tk};
  for (std::int64_t& size : shape) {
    if (draw.chance(30)) size = 1;
  }
  return {shape.begin() + draw.of({0, 0, 1, 2, 3}), shape.end()};
}

Array documents(Draw& draw, std::int64_t batch, std::int64_t rows, std::int64_t count, bool sorted) {
  return filled(in_some_layout(draw, draw.of({Type::kI32, Type::kI64}), {batch, rows}), [&](const Shape& at) {
    return static_cast<double>(sorted ? at[1] * count / rows : draw.between(0, count));
  });
}

// The parts of a mask that packed and paged calls take as well.
void add_diagonal_parts(Draw& draw, const Sizes& s, AttentionCall& call) {
  Mask& mask = call.mask;
  mask.causal = draw.chance(35);
  mask.alignment = draw.chance(50) ? Alignment::kBottomRight
                   : mask.causal   ? Alignment::kTopLeft
                                   : Alignment::kUnspecified;
  if (draw.chance(20)) {
    mask.window_left = draw.between(-1, 40);
    mask.window_right = draw.between(-1, 40);
  }
  if (draw.chance(15)) {
    mask.alibi_slopes = filled(in_some_layout(draw, Type::kF32, {s.q_heads}),
                               [&](const Shape&) { return 1.0 / static_cast<double>(1 << draw.between(1, 8)); });
  }
}

void add_scores_parts(Draw& draw, const Sizes& s, AttentionCall& call) {
  if (draw.chance(30)) call.scale = static_cast<double>(draw.of({0, -1, 1, 3})) * 0.25;
  if (draw.chance(15)) call.softcap = static_cast<double>(draw.of({1, 20, 50}));
  if (draw.chance(15)) call.sinks = values(draw, in_some_layout(draw, Type::kF32, {s.q_heads}), 3);
}

// The parts that speak of one Tq and Tk.
void add_dense_parts(Draw& draw, const Sizes& s, AttentionCall& call) {
  Mask& mask = call.mask;
  if (draw.chance(20)) mask.key_lengths = integers(draw, lengths_up_to(draw, s.batch, s.tk));
  if (draw.chance(10)) {
    std::vector<std::int64_t> offsets;
    for (std::int64_t b = 0; b < s.batch; ++b) offsets.push_back(draw.between(-20, 60));
    mask.offsets = integers(draw, offsets);
  }
  if (draw.chance(15)) {
    const std::int64_t count = draw.between(1, 4);
    const bool sorted = draw.chance(70);
    mask.q_documents = documents(draw, s.batch, s.tq, count, sorted);
    mask.k_documents = documents(draw, s.batch, s.tk, count, sorted);
  }
  if (draw.chance(25)) {
    const int percent = draw.chance(20) ? 2 : 60;
    mask.allowed = filled(in_some_layout(draw, Type::kBool, broadcast_shape(draw, s)),
                          [&](const Shape&) { return draw.chance(percent) ? 1.0 : 0.0; });
  }
  if (draw.chance(25)) {
    const Type type = draw.chance(50) ? Type::kF32 : call.q.type;
    mask.bias = filled(in_some_layout(draw, type, broadcast_shape(draw, s)), [&](const Shape&) {
      return draw.chance(10) ? -kInf : draw.chance(2) ? -1e4 : draw.value();
    });
  }
}

void fill_dense(Draw& draw, const Sizes& s, Type type, AttentionCall& call) {
  const Magnitudes size(draw);
  const Type out_type = draw.chance(80) ? type : draw.of({Type::kF32, Type::kBF16, Type::kF16});
  call.q = values(draw, in_some_layout(draw, type, {s.batch, s.q_heads, s.tq, s.d}), size.q);
  call.k = values(draw, in_some_layout(draw, type, {s.batch, s.kv_heads, s.tk, s.d}), size.k);
  call.v = values(draw, in_some_layout(draw, type, {s.batch, s.kv_heads, s.tk, s.dv}), size.v);
  call.out = in_some_layout(draw, out_type, {s.batch, s.q_heads, s.tq, s.dv});
  call.lse = in_some_layout(draw, Type::kF32, {s.batch, s.q_heads, s.tq});
  if (draw.chance(3)) call.k = filled(call.k, [](const Shape&) { return 0.5; });  // equal scores
}

void plain(Draw& draw, Type type, const Sizes& s, AttentionCall& call) {
  fill_dense(draw, s, type, call);
  add_diagonal_parts(draw, s, call);
  add_scores_parts(draw, s, call);
  add_dense_parts(draw, s, call);
}

// Queries and keys enough for copies of heads and for groups of query blocks.
Sizes long_sizes(Draw& draw) {
  Sizes s{.kv_heads = draw.of({1, 2}), .tq = draw.between(200, 700), .tk = draw.between(600, 4500)};
  s.q_heads = s.kv_heads * draw.of({1, 2});
  s.d = draw.of({32, 64, 64, 80});
  s.dv = draw.of({s.d, s.d, std::int64_t{48}});
  return s;
}

std::vector<std::int64_t> starts(const std::vector<std::int64_t>& lengths) {
  std::vector<std::int64_t> at{0};
  for (const std::int64_t length : lengths) at.push_back(at.back() + length);
  return at;
}

// Queries packed, or keys, or both.
void packed(Draw& draw, AttentionCall& call) {
  Sizes s = some_sizes(draw, false);
  s.batch = draw.between(1, 5);
  const Type type = some_float(draw);
  fill_dense(draw, s, type, call);
  const Magnitudes size(draw);
  const int sides = static_cast<int>(draw.between(1, 3));
  if ((sides & 1) != 0) {
    const auto at = starts(lengths_up_to(draw, s.batch, draw.chance(30) ? 1 : s.tq));
    call.cu_seqlens_q = integers(draw, at);
    call.q = values(draw, in_some_layout(draw, type, {at.back(), s.q_heads, s.d}), size.q);
    call.out = in_some_layout(draw, call.out.type, {at.back(), s.q_heads, s.dv});
    call.lse = in_some_layout(draw, Type::kF32, {s.q_heads, at.back()});
  }
  if ((sides & 2) != 0) {
    const auto at = starts(lengths_up_to(draw, s.batch, s.tk));
    call.cu_seqlens_k = integers(draw, at);
    call.k = values(draw, in_some_layout(draw, type, {at.back(), s.kv_heads, s.d}), size.k);
    call.v = values(draw, in_some_layout(draw, type, {at.back(), s.kv_heads, s.dv}), size.v);
  }
  add_diagonal_parts(draw, s, call);
  add_scores_parts(draw, s, call);
  if (call.mask.causal && call.mask.alignment == Alignment::kUnspecified) call.mask.alignment = Alignment::kTopLeft;
}

void make_i8(Draw& draw, AttentionCall& call) {
  const auto bytes = [&](Array& array) {
    array = filled(in_some_layout(draw, Type::kI8, array.shape),
                   [&](const Shape&) { return static_cast<double>(draw.between(-127, 127)); });
    const Shape rows(array.shape.begin(), array.shape.end() - 1);
    return filled(in_some_layout(draw, Type::kF32, rows),
                  [&](const Shape&) { return static_cast<double>(draw.between(1, 4000)) * 0x1p-18; });
  };
  call.k_scales = bytes(call.k);
  call.v_scales = bytes(call.v);
  call.int8_products = draw.chance(60);
}

void paged(Draw& draw, AttentionCall& call) {
  const Sizes s = some_sizes(draw, draw.chance(50));
  const Type type = some_float(draw);
  fill_dense(draw, s, type, call);
  const Magnitudes size(draw);
  const std::int64_t page = draw.of({16, 16, 32, 48, 64, 256}), columns = (s.tk + page - 1) / page;
  const std::int64_t pages = s.batch * columns + draw.between(0, 3);
  call.k = values(draw, in_some_layout(draw, type, {pages, s.kv_heads, page, s.d}), size.k);
  call.v = values(draw, in_some_layout(draw, type, {pages, s.kv_heads, page, s.dv}), size.v);
  if (draw.chance(25)) make_i8(draw, call);
  call.page_table = filled(in_some_layout(draw, draw.of({Type::kI32, Type::kI64}), {s.batch, columns}),
                           [&](const Shape&) { return static_cast<double>(draw.between(0, pages - 1)); });
  if (draw.chance(80)) call.mask.key_lengths = integers(draw, lengths_up_to(draw, s.batch, s.tk));
  add_diagonal_parts(draw, s, call);
  add_scores_parts(draw, s, call);
}

void cached(Draw& draw, AttentionCall& call) {
  Sizes s = some_sizes(draw, false);
  s.batch = draw.between(1, 3);
  Cache cache{.type = draw.of({Type::kF32, Type::kBF16, Type::kF16, Type::kI8}),
              .page_size = draw.of({0, 0, 16, 64, 256}),
              .steps = {}};
  const Type appended = draw.of({Type::kF32, Type::kBF16, Type::kF16});
  const Type type = cache.type == Type::kI8 ? some_float(draw) : cache.type;
  call.int8_products = cache.type == Type::kI8 && draw.chance(50);
  // Chunks, then one query after the other.
  s.tq = 0;
  s.tk = 0;
  const std::int64_t steps = draw.between(1, 5);
  for (std::int64_t i = 0; i < steps; ++i) {
    CacheStep step{.tokens = {}, .queries = i < steps / 2 ? draw.between(1, 60) : 1};
    const bool many = i == 0 && draw.chance(30);
    for (std::int64_t b = 0; b < s.batch; ++b) {
      step.tokens.push_back(step.queries > 1 ? draw.between(step.queries, many ? 1500 : 200) : draw.between(1, 40));
    }
    s.tq += step.queries;
    s.tk += *std::max_element(step.tokens.begin(), step.tokens.end());
    cache.steps.push_back(std::move(step));
  }
  fill_dense(draw, s, type, call);
  const Magnitudes size(draw);
  call.k = values(draw, in_some_layout(draw, appended, {s.batch, s.kv_heads, s.tk, s.d}), size.k);
  call.v = values(draw, in_some_layout(draw, appended, {s.batch, s.kv_heads, s.tk, s.dv}), size.v);
  add_diagonal_parts(draw, s, call);
  add_scores_parts(draw, s, call);
  call.mask.alignment = Alignment::kBottomRight;
  call.cache = std::move(cache);
}

// Scores and sums that leave F32 on the way, and inputs that are no numbers.
void beyond(Draw& draw, AttentionCall& call) {
  const Sizes s{.q_heads = 2, .tq = draw.between(1, 5), .tk = draw.between(1, 700), .d = 16, .dv = 8};
  fill_dense(draw, s, Type::kF32, call);
  call.scale = 1.0;
  const auto spoiled = [&](Array& array, double value) {
    array = filled(array, [&](const Shape&) { return draw.chance(4) ? value : draw.value(); });
  };
  switch (draw.between(0, 4)) {
    case 0:
      spoiled(call.q, 1e30);
      return spoiled(call.k, 1e20);
    case 1:
      return spoiled(call.v, 3e38);
    case 2:
      return spoiled(call.q, std::numeric_limits<double>::quiet_NaN());
    case 3:
      return spoiled(call.k, -kInf);
    default:
      call.mask.bias =
          filled(dense(Type::kF32, {s.tq, s.tk}), [&](const Shape&) { return draw.of({-3.4e38, 3e38, 1.0}); });
  }
}

// Two drawing arguments of one call would come in an order of the compiler's choice: sizes are drawn first.
AttentionCall drawn(const std::string& kind, Draw& draw) {
  AttentionCall call;
  if (kind == "packed") packed(draw, call);
  if (kind == "paged") paged(draw, call);
  if (kind == "cache") cached(draw, call);
  if (kind == "beyond") beyond(draw, call);
  if (call.q.given()) return call;
  const bool one_query = kind == "one-query" || ((kind == "int8" || kind == "merged") && draw.chance(50));
  const Sizes s = kind == "long" ? long_sizes(draw) : some_sizes(draw, one_query);
  if (kind == "f32") plain(draw, Type::kF32, s, call);
  if (kind == "bf16") plain(draw, Type::kBF16, s, call);
  if (kind == "f16") plain(draw, Type::kF16, s, call);
  if (kind == "one-query" || kind == "long") plain(draw, some_float(draw), s, call);
  if (kind == "int8") {
    plain(draw, some_float(draw), s, call);
    make_i8(draw, call);
  }
  if (kind == "merged") {
    fill_dense(draw, s, some_float(draw), call);
    add_scores_parts(draw, s, call);
    call.sinks = {};
    call.cut = draw.between(0, s.tk);
  }
  if (kind == "any-type") plain(draw, some_float(draw), s, call);
  if (kind == "ignored") {
    plain(draw, some_float(draw), s, call);
    std::swap(call.mask.ignored, call.mask.allowed);
  }
  if (kind == "key-starts") {
    plain(draw, some_float(draw), s, call);
    std::vector<std::int64_t> begins, ends;
    for (std::int64_t b = 0; b < s.batch; ++b) {
      ends.push_back(draw.between(0, s.tk));
      begins.push_back(draw.between(0, ends.back()));
    }
    call.mask.key_lengths = integers(draw, ends);
    call.mask.key_starts = integers(draw, begins);
  }
  if (kind == "row-states") {
    Sizes many = s;
    many.tk = draw.between(513, 2600);
    many.tq = draw.between(1, 24);
    fill_dense(draw, many, some_float(draw), call);
    add_scores_parts(draw, many, call);
    call.cut = draw.between(1, (many.tk - 1) / 512) * 512;
    call.row_states = true;
  }
  if (kind == "weights") {
    plain(draw, some_float(draw), s, call);
    call.weights = in_some_layout(draw, Type::kF32, {s.batch, s.q_heads, s.tq, s.tk});
  }
  return call;
}

}  // namespace

AttentionCall attention_call(int number) {
  Draw draw(static_cast<std::uint64_t>(number));
  int group = number / kCallsPerGroup;
  for (const Kind& kind : kKinds) {
    if (group >= kind.groups) {
      group -= kind.groups;
      continue;
    }
    AttentionCall call = drawn(kind.name, draw);
    call.group = std::string("attention/") + kind.name + "/" + std::to_string(group);
    return call;
  }
  return {};
}

std::vector<const Array*> AttentionCall::inputs() const {
  std::vector<const Array*> list{&q, &k, &v, &sinks, &cu_seqlens_q, &cu_seqlens_k, &page_table, &k_scales, &v_scales};
  mask.add_to(list);
  return list;
}

const char* AttentionCall::products() const {
  if (int8_products) return "int8";
  const Type keys = cache ? cache->type : k.type;
  return q.type == Type::kBF16 && (keys == Type::kBF16 || keys == Type::kI8) ? "bf16" : "f32";
}

std::string AttentionCall::to_string() const {
  std::ostringstream text;
  text << group << " q" << ::bits::to_string(q) << " k" << ::bits::to_string(k) << " v" << ::bits::to_string(v)
       << " out" << ::bits::to_string(out) << ::bits::to_string(mask);
  if (scale) text << " scale " << *scale;
  if (softcap > 0) text << " softcap " << softcap;
  if (sinks.given()) text << " sinks";
  if (cu_seqlens_q.given()) text << " packed queries";
  if (cu_seqlens_k.given()) text << " packed keys";
  if (page_table.given()) text << " paged";
  if (int8_products) text << " int8 products";
  if (cut) text << " cut " << *cut << (row_states ? " by row states" : "");
  if (cache) {
    text << " cache of " << name_of(cache->type) << ", pages of " << cache->page_size;
    for (const CacheStep& step : cache->steps) {
      text << ", " << step.queries << " queries after";
      for (const std::int64_t tokens : step.tokens) text << ' ' << tokens;
    }
  }
  return text.str();
}

}  // namespace bits
