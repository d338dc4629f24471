#pragma once

#include <array>
#include <cstdint>
#include <manyheads/multi_head_attention.hpp>
#include <span>
#include <string>
#include <vector>

#include "study/grammar.hpp"

namespace manyheads::study {

// Sentences side by side, padded to the longest.
struct Batch {
  std::int64_t sentences = 0, length = 0;
  std::vector<std::int32_t> lengths;                          // [sentences]
  std::vector<std::int32_t> words;                            // [sentences, length], 0 behind a sentence
  std::array<std::vector<std::int32_t>, kRelations> partner;  // [sentences, length], -1: none
};
Batch batch_of(std::span<const Sentence> sentences);

struct ModelSize {
  int layers = 1;
  int d_model = 64;
  int heads = 1;
};

// How often a relation's partner was named, of how many.
struct Score {
  std::int64_t right = 0, pairs = 0;
  double accuracy() const { return pairs == 0 ? 0 : static_cast<double>(right) / static_cast<double>(pairs); }
};
using Scores = std::array<Score, kRelations>;

// One head's attention on the partners of a relation.
struct HeadReading {
  Score argmax;     // the head's largest weight lies on the partner
  double mass = 0;  // sum over the pairs of the weight on the partner
};

// Attention and nothing beside it: no MLP, no norm, and the last layer has no residual, so that what a word knows of
// another came through a head.
//
//   x = word + place                 [B,T,d_model]
//   x = x + attention(x)             each layer but the last
//   y = attention(x)                 the last one
//   name of the partner in relation r = argmax over words of y W_r + b_r
//
// Parameters are the same in number, and from one seed in value, for any count of heads. All work is on the caller's
// thread.
class Model {
 public:
  Model(const ModelSize& size, std::uint64_t seed);

  const ModelSize& size() const { return size_; }
  std::span<float> parameters() { return parameters_; }
  std::span<const float> gradients() const { return gradients_; }
  // Where in parameters() each tensor lies, in order.
  struct Part {
    std::string name;
    Dims shape;
    std::size_t begin = 0;
  };
  const std::vector<Part>& parts() const { return parts_; }

  // The mean over `relations` of the mean cross-entropy of its pairs, and its gradients by all parameters.
  double learn(const Batch& batch, std::span<const int> relations);

  // Adds to `scores`. `off`: a head, layer * heads + head, whose output counts as 0; -1: none. `readings`, where it is
  // not empty: [layers * heads * kRelations], added to.
  void evaluate(const Batch& batch, std::span<const int> relations, Scores& scores, int off = -1,
                std::span<HeadReading> readings = {});

 private:
  struct Layer {
    MultiHeadAttention attention;
    MultiHeadAttentionActivations kept;
    std::size_t first_part = 0;
    std::vector<float> x, y;
  };

  std::size_t add_part(std::string name, Dims shape);
  void load();  // the layers take the parameters
  void forward(const Batch& batch, bool keep, int off, std::span<HeadReading> readings);
  void read_heads(const Batch& batch, std::size_t layer, std::span<HeadReading> readings) const;
  void logits(std::size_t relation, const float* y, float* out) const;

  ModelSize size_;
  std::vector<Part> parts_;
  std::vector<float> parameters_, gradients_;
  std::size_t word_ = 0, place_ = 0, readout_ = 0;  // parts
  std::vector<Layer> layers_;
  Workspace workspace_;
  std::vector<float> weights_, dy_, dx_, head_scale_;
};

}  // namespace manyheads::study
