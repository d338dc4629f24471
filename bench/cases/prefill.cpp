#include "bench/cases/prefill.hpp"

#include <algorithm>
#include <cmath>

#include "bench/cases/sampling.hpp"

namespace manyheads::bench {

namespace {

// The longer the tokens, the fewer heads: cases take comparable time.
std::int64_t heads_at(std::int64_t tokens) { return std::clamp<std::int64_t>(8192 / tokens, 1, 8); }

}  // namespace

Part causal_part(std::int64_t tokens) {
  const auto t = static_cast<double>(tokens);
  return {.share = (t + 1) / (2 * t),
          .set = [](Call& call) { call.options.mask = mask::causal(); },
          .added = [](std::int64_t i, std::int64_t j) { return forbid_unless(j <= i); },
          .causal = true};
}

Part window_part(std::int64_t tokens, double share) {
  const auto t = static_cast<double>(tokens);
  const auto left = static_cast<std::int64_t>(std::lround(t * (1 - std::sqrt(1 - 2 * share))));
  double pairs = 0;
  for (std::int64_t i = 0; i < tokens; ++i) pairs += static_cast<double>(std::min(i, left) + 1);
  return {.share = pairs / (t * t),
          .set = [left](Call& call) { call.options.mask = mask::window(left, 0); },
          .added = [left](std::int64_t i, std::int64_t j) { return forbid_unless(j <= i && i - j <= left); }};
}

Part documents_part(std::int64_t tokens, double share) {
  const std::int64_t count = std::lround(1 / share);
  const auto document = [=](std::int64_t i) { return i * count / tokens; };
  std::vector<double> sizes(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < tokens; ++i) ++sizes[static_cast<std::size_t>(document(i))];
  double pairs = 0;
  for (const double size : sizes) pairs += size * size;
  const auto t = static_cast<double>(tokens);
  return {.share = pairs / (t * t),
          .set =
              [=](Call& call) {
                Tensor ids = call.hold(Tensor(DType::kI32, {1, tokens}));
                for (std::int64_t i = 0; i < tokens; ++i) {
                  ids.as<std::int32_t>()[i] = static_cast<std::int32_t>(document(i));
                }
                call.options.mask = mask::documents(ids.cview(), ids.cview());
              },
          .added = [=](std::int64_t i, std::int64_t j) { return forbid_unless(document(i) == document(j)); }};
}

Part dropout_part() {
  return {.set = [](Call& call) { call.options.dropout = {.p = 0.1, .seed = 3}; }};
}

Prefill prefill(DType type, std::int64_t d, std::int64_t tokens) {
  return {.type = type, .heads = heads_at(tokens), .d = d, .tokens = tokens};
}

std::shared_ptr<Call> make_call(const Prefill& p) {
  auto call = std::make_shared<Call>();
  const Dims shape{1, p.heads, p.tokens, p.d};
  const Dims strides =
      p.tokens_first ? Dims{p.tokens * p.heads * p.d, p.d, p.heads * p.d, 1} : contiguous_strides(shape);
  const auto view = [&](const Tensor& tensor) { return ConstTensorView(tensor.bytes(), p.type, shape, strides); };
  call->q = view(call->hold(normal(p.type, shape, 1)));
  call->k = view(call->hold(normal(p.type, shape, 2, p.key_scale)));
  call->v = view(call->hold(normal(p.type, shape, 3)));
  call->out = TensorView(call->hold(Tensor(p.type, shape)).view().data(), p.type, shape, strides);
  call->options.threads.num_threads = p.threads;
  call->options.workspace = &call->workspace;
  if (p.part.set) p.part.set(*call);
  return call;
}

}  // namespace manyheads::bench
