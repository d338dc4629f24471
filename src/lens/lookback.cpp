#include <manyheads/lens/lookback.hpp>

#include <algorithm>
#include <cstring>
#include <manyheads/attention.hpp>
#include <numeric>

#include "base/index.hpp"

namespace manyheads::lens {
namespace {

constexpr std::int64_t kPromptTokens = 256;
constexpr std::int64_t kRows = 32;  // queries whose weights are worked out together
constexpr std::size_t kTokens = 3;

using base::at;

// Rows [first, first + count) of [N,H,D] as [1,H,count,D].
ConstTensorView rows_of(const ConstTensorView& view, std::int64_t first, std::int64_t count) {
  return {static_cast<const float*>(view.data()) + first * view.stride(0), Dims{1, view.size(1), count, view.size(2)},
          Dims{0, view.stride(1), view.stride(0), view.stride(2)}};
}

}  // namespace

Lookback::Lookback(const model::EncoderConfig& config, std::int64_t prompt_tokens, const Threads& threads,
                   std::string_view bits)
    : config_(config),
      first_(std::max<std::int64_t>(1, prompt_tokens - kPromptTokens)),
      threads_(threads),
      bits_(bits),
      layers_(at(config.num_layers)) {}

void Lookback::append(std::span<const model::LayerHeads> layers) {
  const std::int64_t count = layers[0].q.size(0);
  grow(tokens_ + count);
  best_.assign(at(tokens_ + count), {});
  for (std::int64_t l = 0; l < config_.num_layers; ++l) {
    const model::LayerHeads& heads = layers[at(l)];
    float* const k = layers_[at(l)].k.as<float>();
    for (std::int64_t n = 0; n < count; ++n) {
      for (std::int64_t h = 0; h < config_.num_kv_heads; ++h) {
        const float* from = static_cast<const float*>(heads.k.data()) + n * heads.k.stride(0) + h * heads.k.stride(1);
        float* to = k + (h * capacity_ + tokens_ + n) * config_.head_dim;
        for (std::int64_t d = 0; d < config_.head_dim; ++d) to[d] = from[d * heads.k.stride(2)];
      }
    }
    for (std::int64_t row = std::max<std::int64_t>(0, first_ - tokens_); row < count; row += kRows) {
      read(l, heads, row, std::min(kRows, count - row));
    }
  }
  tokens_ += count;
}

// Makes room for `tokens`.
void Lookback::grow(std::int64_t tokens) {
  if (tokens <= capacity_) return;
  const std::int64_t capacity = std::max({tokens, 2 * capacity_, std::int64_t{256}});
  for (Layer& layer : layers_) {
    Tensor k(DType::kF32, Dims{config_.num_kv_heads, capacity, config_.head_dim});
    for (std::int64_t h = 0; h < config_.num_kv_heads && tokens_ > 0; ++h) {
      std::memcpy(k.as<float>() + h * capacity * config_.head_dim,
                  layer.k.as<float>() + h * capacity_ * config_.head_dim,
                  at(tokens_ * config_.head_dim) * sizeof(float));
    }
    layer.k = k;
    for (std::vector<double>* sums : {&layer.by_offset, &layer.by_token}) {
      std::vector<double> wider(at(config_.num_heads * capacity));
      for (std::int64_t h = 0; h < config_.num_heads; ++h) {
        std::copy_n(sums->begin() + h * capacity_, capacity_, wider.begin() + h * capacity);
      }
      *sums = std::move(wider);
    }
  }
  capacity_ = capacity;
}

// Reads the weights of a pass's rows [row, row + rows) in one layer.
void Lookback::read(std::int64_t l, const model::LayerHeads& heads, std::int64_t row, std::int64_t rows) {
  const std::int64_t keys = tokens_ + row + rows;
  weights_.resize(at(config_.num_heads * rows * keys));
  const ConstTensorView k(layers_[at(l)].k.as<float>(), Dims{1, config_.num_kv_heads, keys, config_.head_dim},
                          Dims{0, capacity_ * config_.head_dim, config_.head_dim, 1});
  const ConstTensorView lse(static_cast<const float*>(heads.lse.data()) + row * heads.lse.stride(1),
                            Dims{1, config_.num_heads, rows}, Dims{0, heads.lse.stride(0), heads.lse.stride(1)});
  attention_weights(
      rows_of(heads.q, row, rows), k, lse, TensorView(weights_.data(), Dims{1, config_.num_heads, rows, keys}),
      {.mask = mask::causal(Alignment::kBottomRight), .scale = config_.scale, .threads = threads_, .bits = bits_});
  const std::int64_t end = heads.q.size(0);
  for (std::int64_t h = 0; h < config_.num_heads; ++h) {
    double* const by_offset = layers_[at(l)].by_offset.data() + h * capacity_;
    double* const by_token = layers_[at(l)].by_token.data() + h * capacity_;
    for (std::int64_t r = 0; r < rows; ++r) {
      const std::int64_t query = tokens_ + row + r;
      const float* const weights = weights_.data() + (h * rows + r) * keys;
      if (row + r + 1 == end) compare(l, h, query, weights);
      for (std::int64_t j = 1; j <= query; ++j) {
        by_offset[query - j] += static_cast<double>(weights[j]);
        by_token[j] += static_cast<double>(weights[j]);
      }
    }
  }
}

void Lookback::compare(std::int64_t l, std::int64_t h, std::int64_t query, const float* weights) {
  const double* const by_offset = layers_[at(l)].by_offset.data() + h * capacity_;
  const double* const by_token = layers_[at(l)].by_token.data() + h * capacity_;
  const double even = std::accumulate(weights + 1, weights + query + 1, 0.0) / static_cast<double>(query);
  for (std::int64_t j = 1; j <= query; ++j) {
    // The tokens before this one that have a token so far back, and those that see token j.
    const auto with_offset = static_cast<double>(query - std::max(first_, query - j + 1));
    const auto with_token = static_cast<double>(query - std::max(first_, j));
    const double usual =
        std::max((by_offset[query - j] + even) / (with_offset + 1), (by_token[j] + even) / (with_token + 1));
    note(j, {l, h, static_cast<double>(weights[j]), usual});
  }
}

void Lookback::note(std::int64_t token, const LookingHead& head) {
  auto& [first, second] = best_[at(token)];
  if (head.rise() > first.rise()) {
    second = first;
    first = head;
  } else if (head.rise() > second.rise()) {
    second = head;
  }
}

std::vector<LookedAt> Lookback::last() const {
  std::vector<std::int64_t> order(best_.size());
  std::iota(order.begin(), order.end(), std::int64_t{0});
  const auto rise = [&](std::int64_t token) { return best_[at(token)][0].rise(); };
  const std::size_t count = std::min(kTokens, order.size());
  std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(count), order.end(),
                    [&](std::int64_t a, std::int64_t b) { return rise(a) > rise(b) || (rise(a) == rise(b) && a < b); });
  std::vector<LookedAt> looked;
  for (std::size_t i = 0; i < count && rise(order[i]) > 0; ++i) {
    LookedAt& entry = looked.emplace_back(LookedAt{order[i], {}});
    for (const LookingHead& head : best_[at(order[i])]) {
      if (head.rise() > 0) entry.heads.push_back(head);
    }
  }
  return looked;
}

}  // namespace manyheads::lens
