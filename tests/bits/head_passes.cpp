#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "adapter.hpp"
#include "base/aligned_buffer.hpp"
#include "draw.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/score_pass.hpp"

namespace kernels = manyheads::kernels;

namespace bits {
namespace {

constexpr int kHeads = 60;

template <class T>
std::vector<T> zeros(std::int64_t count) {
  return std::vector<T>(static_cast<std::size_t>(count));
}

template <class T>
Array copied(Type type, const T* from, std::int64_t count) {
  Array array = dense(type, {count});
  std::memcpy(array.data(), from, static_cast<std::size_t>(count) * sizeof(T));
  return array;
}
Array bits_of(const float* from, std::int64_t count) { return copied(Type::kF32, from, count); }
Array bits_of(const double* from, std::int64_t count) { return copied(Type::kI64, from, count); }  // F64's words

// A head whose queries and keys are the same tokens.
struct Head {
  Array q, k;
  std::vector<float> shifts, factors;
  std::unique_ptr<bool[]> left_out;
  kernels::HeadPassParams params;
};

Head head_of(int number) {
  Draw draw(0x9a55 + static_cast<std::uint64_t>(number));
  const std::int64_t tokens = draw.of({1, 2, 16, 17, 63, 64, 65, 130, 200, 577});
  const std::int64_t d = draw.of({1, 8, 32, 33, 64, 80, 128});
  const double size = draw.of({0.3, 1.0, 4.0});
  Head head;
  const auto drawn = [&](const Shape&) { return size * draw.value(); };
  head.q = filled(dense(Type::kF32, {tokens, d}), drawn);
  head.k = filled(dense(Type::kF32, {tokens, d}), drawn);
  head.left_out = std::make_unique<bool[]>(static_cast<std::size_t>(tokens));
  for (std::int64_t i = 0; i < tokens; ++i) {
    head.shifts.push_back(static_cast<float>(size * draw.value()));
    head.factors.push_back(static_cast<float>(draw.of({0, 1, 2})) / 2);
    head.left_out[static_cast<std::size_t>(i)] = draw.chance(10);
  }
  kernels::HeadPassParams& params = head.params;
  params.batch = params.q_heads = params.kv_heads = 1;
  params.d = d;
  params.tq = params.tk = tokens;
  params.q = head.q.data();
  params.k = head.k.data();
  params.q_stride[2] = params.k_stride[2] = d;
  params.q_stride[3] = params.k_stride[3] = 1;
  params.scale = draw.of({0.1, 0.25, -0.2});
  params.softcap = draw.chance(20) ? 2 : 0;
  params.causal = draw.chance(40);
  if (draw.chance(20)) params.window_left = draw.between(0, 90);
  params.shift = head.shifts.data();
  params.factor = head.factors.data();
  return head;
}

void add_map(const Head& head, std::vector<Array>& to) {
  const kernels::HeadPassKernels& pass = kernels::active_table().head_pass;
  const std::int64_t tk = head.params.tk, runs = kernels::runs_of(tk), rows = kernels::kPassRows, top = 3;
  manyheads::base::AlignedBuffer<float> workspace(pass.workspace_floats(head.params));
  auto weights = zeros<float>(head.params.tq * tk);
  for (std::int64_t first = 0; first < head.params.tq; first += rows) {
    const std::int64_t count = std::min(rows, head.params.tq - first);
    auto sum = zeros<double>(rows), log_sum = zeros<double>(rows);
    auto block_sum = zeros<float>(runs * rows), block_max = zeros<float>(runs * rows),
         columns = zeros<float>(runs * kernels::kRunKeys), distances = zeros<float>((runs + 1) * kernels::kRunKeys),
         top_weights = zeros<float>(rows * top);
    auto top_keys = zeros<std::int64_t>(rows * top);
    kernels::HeadPassOutputs out;
    out.sum = sum.data();
    out.log_sum = log_sum.data();
    out.block_sum = block_sum.data();
    out.block_max = block_max.data();
    out.columns = columns.data();
    out.distances = distances.data();
    out.top = top;
    out.top_weights = top_weights.data();
    out.top_keys = top_keys.data();
    out.weights = weights.data();
    out.weights_stride[0] = tk;
    out.weights_stride[1] = 1;
    pass.run(head.params, first, count, out, workspace.data());
    to.push_back(bits_of(sum.data(), count));
    to.push_back(bits_of(log_sum.data(), count));
    for (std::int64_t run = 0; run < runs; ++run) {
      to.push_back(bits_of(block_sum.data() + run * rows, count));
      to.push_back(bits_of(block_max.data() + run * rows, count));
    }
    for (const std::vector<float>* list : {&columns, &distances}) {
      to.push_back(bits_of(list->data(), static_cast<std::int64_t>(list->size())));
    }
    to.push_back(bits_of(top_weights.data(), count * top));
    to.push_back(copied(Type::kI64, top_keys.data(), count * top));
  }
  to.push_back(bits_of(weights.data(), head.params.tq * tk));
}

void add_scores(const Head& head, std::vector<Array>& to) {
  const kernels::ScorePassKernels& pass = kernels::score_pass_kernels(kernels::active_table());
  const std::int64_t tk = head.params.tk, d = head.params.d, runs = kernels::runs_of(tk), rows = kernels::kPassRows;
  manyheads::base::AlignedBuffer<float> workspace(pass.workspace_floats(head.params));
  auto tiles = zeros<float>(runs * kernels::kScoreTile), columns = zeros<float>(runs * kernels::kRunKeys),
       distances = zeros<float>((runs + 1) * kernels::kRunKeys), largest = zeros<float>(rows),
       largest_key = zeros<float>(rows);
  auto sum = zeros<double>(rows), entropy = zeros<double>(rows), distance = zeros<double>(rows),
       variance = zeros<double>(rows);
  for (std::int64_t first = 0; first < head.params.tq; first += rows) {
    const std::int64_t count = std::min(rows, head.params.tq - first);
    pass.run(head.params, first, count, head.left_out.get(),
             {tiles.data(), sum.data(), entropy.data(), distance.data(), variance.data(), largest.data(),
              largest_key.data(), columns.data(), distances.data()},
             workspace.data());
    for (const std::vector<double>* list : {&sum, &entropy, &distance, &variance}) {
      to.push_back(bits_of(list->data(), count));
    }
    for (const std::vector<float>* list : {&largest, &largest_key}) to.push_back(bits_of(list->data(), count));
    for (const std::vector<float>* list : {&columns, &distances}) {
      to.push_back(bits_of(list->data(), static_cast<std::int64_t>(list->size())));
    }
    for (std::int64_t key = 0; key < tk; ++key) to.push_back(bits_of(kernels::score_weights(tiles.data(), key), count));
  }
  auto total = zeros<double>(d), products = zeros<double>(d * d), wide = zeros<double>(kernels::kProductRows * d);
  pass.add_products(static_cast<const float*>(head.params.k), d, tk, d, total.data(), products.data(), wide.data());
  to.push_back(bits_of(total.data(), d));
  for (std::int64_t i = 0; i < d; ++i) to.push_back(bits_of(products.data() + i * d, i + 1));
}

}  // namespace

std::vector<Answers> head_passes() {
  Answers maps{"passes/maps", "f32", {}}, scores{"passes/scores", "f32", {}};
  for (int number = 0; number < kHeads; ++number) {
    const Head head = head_of(number);
    add_map(head, maps.results);
    add_scores(head, scores.results);
  }
  return {std::move(maps), std::move(scores)};
}

}  // namespace bits
