#include <algorithm>
#include <cmath>
#include <manyheads/attention.hpp>
#include <memory>
#include <random>
#include <utility>

#include "base/format.hpp"
#include "bench/cases/prefill.hpp"
#include "bench/cases/sampling.hpp"

namespace manyheads::bench {

namespace {

Part lengths_part(std::int64_t tokens, double share) {
  const std::int64_t length = std::lround(share * static_cast<double>(tokens));
  return {.share = static_cast<double>(length) / static_cast<double>(tokens),
          .set =
              [length](Call& call) {
                Tensor lengths = call.hold(Tensor(DType::kI64, {1}));
                lengths.as<std::int64_t>()[0] = length;
                call.options.mask = mask::key_lengths(lengths.cview());
              },
          .added = [length](std::int64_t, std::int64_t j) { return forbid_unless(j < length); }};
}

// Half of the pairs, at random: no block is ruled out, all are computed.
Part bool_part(std::int64_t tokens) {
  auto seen = std::make_shared<Tensor>(DType::kBool, Dims{tokens, tokens});
  return {.share = 1,
          .set =
              [=](Call& call) {
                std::mt19937_64 random(4);
                for (std::int64_t i = 0; i < tokens * tokens; ++i) seen->as<bool>()[i] = (random() & 1) != 0;
                call.options.mask = mask::allowed(seen->cview());
              },
          .added = [=](std::int64_t i,
                       std::int64_t j) { return forbid_unless(std::as_const(*seen).as<bool>()[i * tokens + j]); }};
}

Part bias_part(std::int64_t tokens) {
  auto added = std::make_shared<Tensor>();
  return {.share = 1,
          .set =
              [=](Call& call) {
                *added = normal(DType::kF32, {tokens, tokens}, 5);
                call.options.mask = mask::bias(added->cview());
              },
          .added = [=](std::int64_t i, std::int64_t j) { return std::as_const(*added).as<float>()[i * tokens + j]; }};
}

const std::byte* at(const ConstTensorView& view, std::int64_t head, std::int64_t token) {
  return static_cast<const std::byte*>(view.data()) +
         static_cast<std::size_t>(head * view.stride(1) + token * view.stride(2)) * size_of(view.dtype());
}

// The error of query `i` of a head over its first `keys` keys. `added`, where defined, is added to the scores.
double row_error(const Call& call, std::int64_t head, std::int64_t i, std::int64_t keys, ConstTensorView added) {
  const std::int64_t d = call.q.size(3);
  const DType type = call.q.dtype();
  const auto head_of = [&](const ConstTensorView& view) {
    return ConstTensorView(at(view, head, 0), type, {1, 1, keys, d}, {0, 0, view.stride(2), 1});
  };
  Tensor expected(DType::kF32, {1, 1, 1, d});
  AttentionOptions options;
  if (added.defined()) options.mask = mask::bias(added);
  options.dropout = call.options.dropout;
  options.dropout.first_query = i;
  attention_reference({at(call.q, head, i), type, {1, 1, 1, d}}, head_of(call.k), head_of(call.v), expected.view(),
                      options);
  return largest_difference({at(call.out, head, i), type, {d}}, expected.cview());
}

Case attention_case(const Prefill& p, const std::optional<Prefill>& base = {}, const std::string& over = {}) {
  Case c;
  c.row = {.name = p.name,
           .dtype = dtype_name(p.type),
           .heads = p.heads,
           .kv_heads = p.heads,
           .head_dim = p.d,
           .tokens = p.tokens,
           .threads = p.threads,
           .causal = p.part.causal,
           .by_time = p.by_time,
           .over = over};
  if (p.part.share < 1) c.row.share = p.part.share;
  if (base) c.base_share = p.part.share / base->part.share;
  const auto t = static_cast<double>(p.tokens);
  c.flop = 4.0 * static_cast<double>(p.heads * p.d) * t * t * p.part.share;
  c.prepare = [=] {
    const std::shared_ptr<Call> call = make_call(p);
    PreparedCase prepared{.work = [call] { call->run(); }, .base = {}, .error = {}};
    if (base) prepared.base = [other = make_call(*base)] { other->run(); };
    prepared.error = [=] {
      double worst = 0;
      Tensor added(DType::kF32, {1, 1, 1, p.tokens});
      for (const std::int64_t i : probe_rows(p.tokens)) {
        for (std::int64_t j = 0; j < p.tokens; ++j) added.as<float>()[j] = p.part.added ? p.part.added(i, j) : 0.0f;
        // One head by itself drops what head 0 does.
        const std::int64_t head = call->options.dropout.p > 0 ? 0 : p.heads - 1;
        worst = std::max(worst, row_error(*call, head, i, p.tokens, added.cview()));
      }
      return worst;
    };
    return prepared;
  };
  return c;
}

// The base is the same on one thread.
Case on_threads(Prefill p, int threads) {
  if (threads == 1) return attention_case(p);
  const Prefill one = p;
  p.threads = threads;
  return attention_case(p, one, "one thread");
}

// Prefills and steps of decoding in one packed call; the base is one call a sequence.
Case packed_case(DType type, std::int64_t heads, std::int64_t d, int threads) {
  struct Sequence {
    std::int64_t queries, keys;
  };
  static constexpr Sequence kSequences[] = {{512, 512},  {1, 1500}, {1, 700}, {384, 384}, {1, 2048},
                                            {256, 1024}, {1, 1000}, {1, 300}, {640, 640}, {1, 1200}};
  Case c;
  std::int64_t queries = 0, keys = 0;
  double pairs = 0;
  for (const Sequence& s : kSequences) {
    queries += s.queries;
    keys += s.keys;
    pairs += static_cast<double>(s.queries) *
             (static_cast<double>(s.keys - s.queries) + static_cast<double>(s.queries + 1) / 2);
  }
  c.row = {.name = "packed",
           .dtype = dtype_name(type),
           .heads = heads,
           .kv_heads = heads,
           .head_dim = d,
           .tokens = queries,
           .batch = static_cast<std::int64_t>(std::size(kSequences)),
           .threads = threads,
           .causal = true,
           .over = "one call a sequence"};
  c.flop = 4.0 * static_cast<double>(heads * d) * pairs;
  c.prepare = [=] {
    auto call = std::make_shared<Call>();
    Tensor q = call->hold(normal(type, {queries, heads, d}, 1)), k = call->hold(normal(type, {keys, heads, d}, 2)),
           v = call->hold(normal(type, {keys, heads, d}, 3)), out = call->hold(Tensor(type, {queries, heads, d}));
    const Dims starts{static_cast<std::int64_t>(std::size(kSequences)) + 1};
    Tensor q_starts = call->hold(Tensor(DType::kI64, starts)), k_starts = call->hold(Tensor(DType::kI64, starts));
    call->q = q.cview();
    call->k = k.cview();
    call->v = v.cview();
    call->out = out.view();
    call->options = {.mask = mask::causal(Alignment::kBottomRight),
                     .threads = {.num_threads = threads},
                     .workspace = &call->workspace,
                     .cu_seqlens_q = q_starts.cview(),
                     .cu_seqlens_k = k_starts.cview()};
    auto singles = std::make_shared<std::vector<Call>>();
    std::int64_t b = 0;
    for (const Sequence& s : kSequences) {
      const std::int64_t q_from = q_starts.as<std::int64_t>()[b], k_from = k_starts.as<std::int64_t>()[b];
      q_starts.as<std::int64_t>()[b + 1] = q_from + s.queries;
      k_starts.as<std::int64_t>()[b + 1] = k_from + s.keys;
      ++b;
      const auto piece = [&](const Tensor& of, std::int64_t from, std::int64_t count) {
        const std::byte* data =
            static_cast<const std::byte*>(of.bytes()) + static_cast<std::size_t>(from * heads * d) * size_of(type);
        return ConstTensorView(data, type, {1, heads, count, d}, {0, d, heads * d, 1});
      };
      Call single;
      single.q = piece(q, q_from, s.queries);
      single.k = piece(k, k_from, s.keys);
      single.v = piece(v, k_from, s.keys);
      const ConstTensorView y = piece(out, q_from, s.queries);
      single.out = TensorView(const_cast<void*>(y.data()), type, y.shape(), y.strides());
      single.options = {.mask = call->options.mask, .threads = {.num_threads = threads}, .workspace = &call->workspace};
      singles->push_back(std::move(single));
    }
    PreparedCase prepared;
    prepared.work = [call] { call->run(); };
    prepared.base = [call, singles] {
      for (Call& single : *singles) single.run();
    };
    prepared.error = [=] {  // of the last row of each sequence, which sees all of its keys
      call->run();          // the base writes to the same rows
      double worst = 0;
      for (const Call& single : *singles) {
        worst = std::max(worst, row_error(single, heads - 1, single.q.size(2) - 1, single.k.size(2), {}));
      }
      return worst;
    };
    return prepared;
  };
  return c;
}

constexpr DType kFloats[] = {DType::kF32, DType::kBF16, DType::kF16};
constexpr DType kTwoFloats[] = {DType::kF32, DType::kBF16};

void add_plain(std::vector<Case>& cases, const Size& size) {
  const auto add = [&](DType type, std::int64_t d, std::int64_t tokens, int threads) {
    Prefill p = prefill(type, d, tokens);
    cases.push_back(on_threads(p, threads));
    p.part = causal_part(tokens);
    cases.push_back(on_threads(p, threads));
  };
  for (const int threads : thread_counts(size)) {
    if (size.quick) {
      for (const std::int64_t d : {64, 128}) add(DType::kF32, d, 1024, threads);
      add(DType::kBF16, 64, 1024, threads);
      add(DType::kF16, 64, 1024, threads);
    } else if (threads == 1) {
      for (const DType type : kFloats) {
        for (const std::int64_t d : {32, 64, 80, 96, 128, 192, 256}) {
          for (const std::int64_t tokens : {512, 1024, 2048, 4096, 8192, 16384}) add(type, d, tokens, 1);
        }
      }
    } else {
      for (const DType type : kFloats) {
        for (const std::int64_t d : {64, 128}) {
          for (const std::int64_t tokens : {1024, 4096}) add(type, d, tokens, threads);
        }
      }
    }
  }
}

// Calls whose fixed cost counts. More threads than one must not cost more: nobody is woken.
void add_small(std::vector<Case>& cases, const Size& size) {
  struct Shape {
    std::int64_t heads, tokens, d;
  };
  for (const auto& [heads, tokens, d] : {Shape{4, 1, 16}, Shape{8, 7, 64}}) {
    for (const int threads : thread_counts(size)) {
      const Prefill p{.name = base::format("small 1x{}x{}x{}", heads, tokens, d),
                      .heads = heads,
                      .d = d,
                      .tokens = tokens,
                      .by_time = true};
      cases.push_back(on_threads(p, threads));
    }
  }
}

void add_sharp(std::vector<Case>& cases, bool quick) {
  const std::int64_t tokens = quick ? 1024 : 4096;
  for (const DType type : kFloats) {
    for (const std::int64_t d : {64, 128}) {
      for (const int scale : {10, 30}) {
        if (quick && (type != DType::kF32 || d != 64)) continue;
        const Prefill base = prefill(type, d, tokens);
        Prefill p = base;
        p.name = base::format("sharp, keys x{}", scale);
        p.key_scale = static_cast<float>(scale);
        cases.push_back(attention_case(p, base, "keys of N(0,1)"));
      }
    }
  }
}

void add_masked(std::vector<Case>& cases, bool quick) {
  const std::int64_t tokens = quick ? 1024 : 4096;
  const auto add = [&](const Prefill& base, const std::string& name, const Part& part, const char* over) {
    Prefill p = base;
    p.name = name;
    p.part = part;
    cases.push_back(attention_case(p, base, over));
  };
  const char* const kOver = "share x no mask";
  for (const DType type : kTwoFloats) {
    if (quick && type != DType::kF32) continue;
    const Prefill base = prefill(type, 64, tokens);
    for (const double share : quick ? std::vector{0.1} : std::vector{0.05, 0.1, 0.25, 0.5}) {
      add(base, base::format("window {:.0f} %", 100 * share), window_part(tokens, share), kOver);
      add(base, base::format("documents {:.0f} %", 100 * share), documents_part(tokens, share), kOver);
      add(base, base::format("key lengths {:.0f} %", 100 * share), lengths_part(tokens, share), kOver);
    }
    for (const std::int64_t d : quick ? std::vector<std::int64_t>{64} : std::vector<std::int64_t>{64, 128}) {
      const Prefill dense = prefill(type, d, tokens / 2);
      add(dense, "bool mask", bool_part(dense.tokens), "no mask");
      add(dense, "float bias", bias_part(dense.tokens), "no mask");
      add(dense, "dropout 10 %", dropout_part(), "no dropout");
    }
  }
}

void add_layouts(std::vector<Case>& cases, const Size& size) {
  for (const DType type : kTwoFloats) {
    for (const std::int64_t d : {64, 128}) {
      if (size.quick && (type != DType::kF32 || d != 64)) continue;
      const Prefill base = prefill(type, d, 1024);
      Prefill p = base;
      p.name = "layout BTHD";
      p.tokens_first = true;
      cases.push_back(attention_case(p, base, "layout BHTD"));
    }
    if (size.quick && type != DType::kF32) continue;
    for (const int threads : thread_counts(size)) cases.push_back(packed_case(type, 8, 64, threads));
  }
}

}  // namespace

std::vector<Case> attention_cases(const Size& size) {
  std::vector<Case> cases;
  add_plain(cases, size);
  add_small(cases, size);
  add_sharp(cases, size.quick);
  add_masked(cases, size.quick);
  add_layouts(cases, size);
  return cases;
}

}  // namespace manyheads::bench
