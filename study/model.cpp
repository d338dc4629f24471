#include "study/model.hpp"

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "base/index.hpp"

namespace manyheads::study {
namespace {

using base::at;

constexpr std::array kLayerParts = {"in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"};

}  // namespace

Batch batch_of(std::span<const Sentence> sentences) {
  Batch batch;
  batch.sentences = static_cast<std::int64_t>(sentences.size());
  for (const Sentence& sentence : sentences) {
    batch.lengths.push_back(static_cast<std::int32_t>(sentence.words.size()));
    batch.length = std::max<std::int64_t>(batch.length, batch.lengths.back());
  }
  const std::size_t all = at(batch.sentences * batch.length);
  batch.words.assign(all, 0);
  for (auto& partner : batch.partner) partner.assign(all, -1);
  for (std::size_t s = 0; s < sentences.size(); ++s) {
    const auto first = static_cast<std::ptrdiff_t>(s * at(batch.length));
    std::copy(sentences[s].words.begin(), sentences[s].words.end(), batch.words.begin() + first);
    for (std::size_t r = 0; r < kRelations; ++r) {
      std::copy(sentences[s].partner[r].begin(), sentences[s].partner[r].end(), batch.partner[r].begin() + first);
    }
  }
  return batch;
}

std::size_t Model::add_part(std::string name, Dims shape) {
  const std::size_t begin = parts_.empty() ? 0 : parts_.back().begin + at(element_count(parts_.back().shape));
  parts_.push_back({std::move(name), shape, begin});
  return parts_.size() - 1;
}

Model::Model(const ModelSize& size, std::uint64_t seed) : size_(size) {
  const std::int64_t d = size.d_model;
  word_ = add_part("word", {static_cast<std::int64_t>(vocabulary().size()), d});
  place_ = add_part("place", {kMaxWords, d});
  for (int i = 0; i < size.layers; ++i) {
    Layer layer{MultiHeadAttention({.d_model = d, .num_heads = size.heads}), {}, parts_.size(), {}, {}};
    const std::string prefix = "layers." + std::to_string(i) + ".";
    add_part(prefix + kLayerParts[0], {3 * d, d});
    add_part(prefix + kLayerParts[1], {3 * d});
    add_part(prefix + kLayerParts[2], {d, d});
    add_part(prefix + kLayerParts[3], {d});
    layers_.push_back(std::move(layer));
  }
  readout_ = parts_.size();
  for (int r = 0; r < kRelations; ++r) {
    const std::string prefix = std::string("readout.") + name_of(static_cast<Relation>(r));
    add_part(prefix + ".weight", {d, kVocabulary});
    add_part(prefix + ".bias", {kVocabulary});
  }
  parameters_.assign(parts_.back().begin + at(element_count(parts_.back().shape)), 0);
  gradients_.assign(parameters_.size(), 0);

  // Uniform: embeddings of variance 1/2 each, so that x has 1; matrices of variance 1 / d_model; biases 0.
  Random random(seed);
  for (std::size_t p = 0; p < parts_.size(); ++p) {
    if (parts_[p].shape.rank() == 1) continue;
    const float variance = p == word_ || p == place_ ? 0.5F : 1.0F / static_cast<float>(d);
    const float reach = std::sqrt(3 * variance);
    float* const values = parameters_.data() + parts_[p].begin;
    for (std::int64_t i = 0; i < element_count(parts_[p].shape); ++i) values[i] = reach * (2 * random.uniform() - 1);
  }
}

void Model::load() {
  for (Layer& layer : layers_) {
    StateDict tensors;
    for (std::size_t i = 0; i < kLayerParts.size(); ++i) {
      const Part& part = parts_[layer.first_part + i];
      Tensor copy(DType::kF32, part.shape);
      std::copy_n(parameters_.data() + part.begin, copy.elements(), copy.as<float>());
      tensors[kLayerParts[i]] = std::move(copy);
    }
    layer.attention.load_state_dict(tensors);
  }
}

void Model::forward(const Batch& batch, bool keep, int off, std::span<HeadReading> readings) {
  const std::int64_t d = size_.d_model, rows = batch.sentences * batch.length;
  const Dims shape{batch.sentences, batch.length, d};
  const float* const words = parameters_.data() + parts_[word_].begin;
  const float* const places = parameters_.data() + parts_[place_].begin;
  layers_[0].x.resize(at(rows * d));
  for (std::int64_t row = 0; row < rows; ++row) {
    const float* const word = words + batch.words[at(row)] * d;
    const float* const place = places + row % batch.length * d;
    float* const x = layers_[0].x.data() + row * d;
    for (std::int64_t i = 0; i < d; ++i) x[i] = word[i] + place[i];
  }
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    Layer& layer = layers_[l];
    layer.y.resize(at(rows * d));
    MultiHeadAttentionOptions options;
    options.mask = mask::key_lengths({batch.lengths.data(), {batch.sentences}});
    options.threads.num_threads = 1;
    options.workspace = &workspace_;
    if (keep) options.activations = &layer.kept;
    if (off >= 0 && at(off / size_.heads) == l) {
      head_scale_.assign(at(size_.heads), 1);
      head_scale_[at(off % size_.heads)] = 0;
      options.head_scale = {head_scale_.data(), {size_.heads}};
    }
    if (!readings.empty()) {
      weights_.resize(at(batch.sentences * size_.heads * batch.length * batch.length));
      options.weights = {weights_.data(), {batch.sentences, size_.heads, batch.length, batch.length}};
    }
    layer.attention.forward({layer.x.data(), shape}, TensorView{layer.y.data(), shape}, options);
    if (!readings.empty()) read_heads(batch, l, readings);
    if (l + 1 < layers_.size()) {
      Layer& next = layers_[l + 1];
      next.x.resize(at(rows * d));
      for (std::size_t i = 0; i < next.x.size(); ++i) next.x[i] = layer.x[i] + layer.y[i];
    }
  }
}

void Model::read_heads(const Batch& batch, std::size_t layer, std::span<HeadReading> readings) const {
  const std::int64_t n = batch.length;
  for (std::int64_t s = 0; s < batch.sentences; ++s) {
    const std::int64_t length = batch.lengths[at(s)];
    for (std::int64_t h = 0; h < size_.heads; ++h) {
      for (std::int64_t i = 0; i < length; ++i) {
        const float* const row = weights_.data() + ((s * size_.heads + h) * n + i) * n;
        const std::int64_t top = std::max_element(row, row + length) - row;
        for (std::size_t r = 0; r < kRelations; ++r) {
          const std::int32_t partner = batch.partner[r][at(s * n + i)];
          if (partner < 0) continue;
          HeadReading& reading = readings[(layer * at(size_.heads) + at(h)) * kRelations + r];
          ++reading.argmax.pairs;
          reading.argmax.right += top == partner ? 1 : 0;
          reading.mass += static_cast<double>(row[partner]);
        }
      }
    }
  }
}

void Model::logits(std::size_t relation, const float* y, float* out) const {
  const float* const weight = parameters_.data() + parts_[readout_ + 2 * relation].begin;
  const float* const bias = parameters_.data() + parts_[readout_ + 2 * relation + 1].begin;
  std::copy_n(bias, kVocabulary, out);
  for (std::int64_t i = 0; i < size_.d_model; ++i) {
    for (int c = 0; c < kVocabulary; ++c) out[c] += y[i] * weight[i * kVocabulary + c];
  }
}

double Model::learn(const Batch& batch, std::span<const int> relations) {
  const std::int64_t d = size_.d_model, rows = batch.sentences * batch.length;
  const Dims shape{batch.sentences, batch.length, d};
  load();
  forward(batch, true, -1, {});
  std::fill(gradients_.begin(), gradients_.end(), 0.0F);
  dy_.assign(at(rows * d), 0);

  double loss = 0;
  const std::vector<float>& y = layers_.back().y;
  for (const int relation : relations) {
    const auto r = at(relation);
    const auto pairs = std::count_if(batch.partner[r].begin(), batch.partner[r].end(), [](auto p) { return p >= 0; });
    if (pairs == 0) continue;
    const double share = 1.0 / (static_cast<double>(pairs) * static_cast<double>(relations.size()));
    const float* const weight = parameters_.data() + parts_[readout_ + 2 * r].begin;
    float* const dweight = gradients_.data() + parts_[readout_ + 2 * r].begin;
    float* const dbias = gradients_.data() + parts_[readout_ + 2 * r + 1].begin;
    for (std::int64_t row = 0; row < rows; ++row) {
      const std::int32_t partner = batch.partner[r][at(row)];
      if (partner < 0) continue;
      std::array<float, kVocabulary> p{};
      logits(r, y.data() + row * d, p.data());
      const float most = *std::max_element(p.begin(), p.end());
      float sum = 0;
      const auto word = at(batch.words[at(row - row % batch.length + partner)]);
      const float logit = p[word] - most;
      for (float& value : p) sum += value = std::exp(value - most);
      loss += share * (std::log(static_cast<double>(sum)) - static_cast<double>(logit));
      for (float& value : p) value *= static_cast<float>(share) / sum;
      p[word] -= static_cast<float>(share);
      for (std::size_t c = 0; c < p.size(); ++c) dbias[c] += p[c];
      for (std::int64_t i = 0; i < d; ++i) {
        const float value = y[at(row * d + i)];
        std::array<float, 4> sums{};  // four chains, which a compiler may keep in one register
        for (std::size_t c = 0; c < p.size(); c += sums.size()) {
          for (std::size_t lane = 0; lane < sums.size(); ++lane) {
            const std::size_t w = at(i) * kVocabulary + c + lane;
            dweight[w] += value * p[c + lane];
            sums[lane] += weight[w] * p[c + lane];
          }
        }
        dy_[at(row * d + i)] += (sums[0] + sums[1]) + (sums[2] + sums[3]);
      }
    }
  }
  static_assert(kVocabulary % 4 == 0);

  dx_.resize(at(rows * d));
  for (std::size_t l = layers_.size(); l-- > 0;) {
    Layer& layer = layers_[l];
    MultiHeadAttentionOptions options;
    options.mask = mask::key_lengths({batch.lengths.data(), {batch.sentences}});
    options.threads.num_threads = 1;
    options.workspace = &workspace_;
    MultiHeadAttentionGradients gradients;
    gradients.dquery = {dx_.data(), shape};
    for (std::size_t i = 0; i < kLayerParts.size(); ++i) {
      const Part& part = parts_[layer.first_part + i];
      gradients.parameters[kLayerParts[i]] = {gradients_.data() + part.begin, part.shape};
    }
    layer.attention.backward({layer.x.data(), shape}, layer.kept, {dy_.data(), shape}, gradients, options);
    if (l + 1 == layers_.size()) {
      dy_ = dx_;
    } else {  // x goes on beside the layer
      for (std::size_t i = 0; i < dy_.size(); ++i) dy_[i] += dx_[i];
    }
  }
  for (std::int64_t row = 0; row < rows; ++row) {
    float* const word = gradients_.data() + parts_[word_].begin + at(batch.words[at(row)] * d);
    float* const place = gradients_.data() + parts_[place_].begin + at(row % batch.length * d);
    for (std::int64_t i = 0; i < d; ++i) {
      word[i] += dy_[at(row * d + i)];
      place[i] += dy_[at(row * d + i)];
    }
  }
  return loss;
}

void Model::evaluate(const Batch& batch, std::span<const int> relations, Scores& scores, int off,
                     std::span<HeadReading> readings) {
  load();
  forward(batch, false, off, readings);
  const std::int64_t d = size_.d_model, rows = batch.sentences * batch.length;
  for (const int relation : relations) {
    const auto r = at(relation);
    for (std::int64_t row = 0; row < rows; ++row) {
      const std::int32_t partner = batch.partner[r][at(row)];
      if (partner < 0) continue;
      std::array<float, kVocabulary> p{};
      logits(r, layers_.back().y.data() + row * d, p.data());
      ++scores[r].pairs;
      scores[r].right +=
          std::max_element(p.begin(), p.end()) - p.begin() == batch.words[at(row - row % batch.length + partner)] ? 1
                                                                                                                  : 0;
    }
  }
}

}  // namespace manyheads::study
