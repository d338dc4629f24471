#include "study/model.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <vector>

namespace manyheads::study {
namespace {

using Values = std::vector<double>;

std::vector<Sentence> sentences(int count) {
  Random random(3);
  std::vector<Sentence> drawn;
  for (int i = 0; i < count; ++i) drawn.push_back(draw(random));
  return drawn;
}

// The model's loss as model.hpp defines it, in float64 and plain loops.
class Definition {
 public:
  Definition(Model& model) : size_(model.size()), parts_(model.parts()) {
    for (const float value : model.parameters()) values.push_back(static_cast<double>(value));
    for (std::size_t i = 0; i < parts_.size(); ++i) index_[parts_[i].name] = i;
  }

  Values values;

  double loss(const std::vector<Sentence>& batch, const std::vector<int>& relations) const {
    const std::size_t d = static_cast<std::size_t>(size_.d_model);
    std::array<double, kRelations> sums{}, pairs{};
    for (const Sentence& sentence : batch) {
      const std::size_t n = sentence.words.size();
      std::vector<Values> x(n, Values(d)), y;
      for (std::size_t t = 0; t < n; ++t) {
        const auto word = static_cast<std::size_t>(sentence.words[t]);
        for (std::size_t i = 0; i < d; ++i) x[t][i] = part("word")[word * d + i] + part("place")[t * d + i];
      }
      for (int l = 0; l < size_.layers; ++l) {
        y = attention("layers." + std::to_string(l) + ".", x);
        for (std::size_t t = 0; t < n; ++t) {
          for (std::size_t i = 0; i < d; ++i) x[t][i] += y[t][i];
        }
      }
      for (const int relation : relations) {
        const auto r = static_cast<std::size_t>(relation);
        const std::string prefix = std::string("readout.") + name_of(static_cast<Relation>(relation));
        for (std::size_t t = 0; t < n; ++t) {
          const int partner = sentence.partner[r][t];
          if (partner < 0) continue;
          Values logits(kVocabulary);
          double sum = 0;
          for (std::size_t c = 0; c < logits.size(); ++c) {
            logits[c] = part(prefix + ".bias")[c];
            for (std::size_t i = 0; i < d; ++i) logits[c] += y[t][i] * part(prefix + ".weight")[i * kVocabulary + c];
            sum += std::exp(logits[c]);
          }
          const int word = sentence.words[static_cast<std::size_t>(partner)];
          sums[r] += std::log(sum) - logits[static_cast<std::size_t>(word)];
          pairs[r] += 1;
        }
      }
    }
    double loss = 0;
    for (const int r : relations) {
      loss += sums[static_cast<std::size_t>(r)] / pairs[static_cast<std::size_t>(r)] /
              static_cast<double>(relations.size());
    }
    return loss;
  }

 private:
  const double* part(const std::string& name) const { return values.data() + parts_[index_.at(name)].begin; }

  Values linear(const double* weight, const double* bias, std::size_t out, const Values& x) const {
    Values y(out);
    for (std::size_t o = 0; o < out; ++o) {
      y[o] = bias[o];
      for (std::size_t i = 0; i < x.size(); ++i) y[o] += weight[o * x.size() + i] * x[i];
    }
    return y;
  }

  std::vector<Values> attention(const std::string& prefix, const std::vector<Values>& x) const {
    const std::size_t n = x.size(), d = x[0].size(), heads = static_cast<std::size_t>(size_.heads), width = d / heads;
    std::vector<Values> qkv(n), y(n);
    for (std::size_t t = 0; t < n; ++t) {
      qkv[t] = linear(part(prefix + "in_proj_weight"), part(prefix + "in_proj_bias"), 3 * d, x[t]);
    }
    for (std::size_t t = 0; t < n; ++t) {
      Values joined(d);
      for (std::size_t h = 0; h < heads; ++h) {
        Values weight(n);
        double sum = 0;
        for (std::size_t j = 0; j < n; ++j) {
          double score = 0;
          for (std::size_t i = 0; i < width; ++i) score += qkv[t][h * width + i] * qkv[j][d + h * width + i];
          sum += weight[j] = std::exp(score / std::sqrt(static_cast<double>(width)));
        }
        for (std::size_t j = 0; j < n; ++j) {
          for (std::size_t i = 0; i < width; ++i) {
            joined[h * width + i] += weight[j] / sum * qkv[j][2 * d + h * width + i];
          }
        }
      }
      y[t] = linear(part(prefix + "out_proj.weight"), part(prefix + "out_proj.bias"), d, joined);
    }
    return y;
  }

  ModelSize size_;
  std::vector<Model::Part> parts_;
  std::map<std::string, std::size_t> index_;
};

// A gradient is a sum over the batch's rows of products that went through sums over d_model, d_k, the sentence and the
// vocabulary, there and back: so many roundings of 2^-24 lie on its longest chain, each of at most the size of the
// part's largest sum of rows, which a factor of 4 covers.
double roundings(const ModelSize& size, const Batch& batch) {
  const int chain = size.layers * (5 * size.d_model + 2 * kMaxWords) + size.d_model + kVocabulary;
  return 4 * 2 * (chain + static_cast<double>(batch.sentences * batch.length)) * 0x1p-24;
}

TEST(StudyModel, GradientsAreThoseOfCentralDifferences) {
  const std::vector<Sentence> drawn = sentences(6);
  const Batch batch = batch_of(drawn);
  const std::vector<int> relations = {kVerb, kAdjective, kObject, kBefore};
  for (const ModelSize& size : {ModelSize{1, 16, 1}, ModelSize{1, 16, 4}, ModelSize{2, 16, 2}}) {
    Model model(size, 7);
    Random random(11);
    for (float& value : model.parameters()) value += 0.2F * (random.uniform() - 0.5F);  // biases too
    Definition definition(model);
    const double loss = model.learn(batch, relations);
    EXPECT_NEAR(loss, definition.loss(drawn, relations), loss * roundings(size, batch));
    for (const Model::Part& part : model.parts()) {
      const auto count = static_cast<std::size_t>(element_count(part.shape));
      double largest = 0;
      for (std::size_t i = 0; i < count; ++i) {
        largest = std::max(largest, std::abs(static_cast<double>(model.gradients()[part.begin + i])));
      }
      for (int sample = 0; sample < 6; ++sample) {
        const std::size_t i = part.begin + static_cast<std::size_t>(random.below(static_cast<int>(count)));
        constexpr double kStep = 1e-4;  // the error of central differences is of its square
        double& value = definition.values[i];
        const double before = value;
        value = before + kStep;
        const double up = definition.loss(drawn, relations);
        value = before - kStep;
        const double down = definition.loss(drawn, relations);
        value = before;
        const double want = (up - down) / (2 * kStep);
        EXPECT_NEAR(static_cast<double>(model.gradients()[i]), want, largest * roundings(size, batch) + kStep * kStep)
            << part.name << " " << i - part.begin << ", " << size.layers << " layers, " << size.heads << " heads";
      }
    }
  }
}

TEST(StudyModel, HeadCountsShareParametersAndFirstWeights) {
  Model one({1, 64, 1}, 9), many({1, 64, 16}, 9);
  ASSERT_EQ(one.parameters().size(), many.parameters().size());
  EXPECT_TRUE(std::equal(one.parameters().begin(), one.parameters().end(), many.parameters().begin()));
}

TEST(StudyModel, WithItsOnlyHeadOffAllWordsAnswerAlike) {
  Model model({1, 16, 1}, 4);
  const std::vector<Sentence> drawn = sentences(40);
  const Batch batch = batch_of(drawn);
  const std::vector<int> relations = {kVerb};
  Scores scores{};
  model.evaluate(batch, relations, scores, 0);
  // Behind the head lie biases alone, all 0 before training: the first word of the vocabulary, "cat".
  std::int64_t cats = 0;
  for (const Sentence& sentence : drawn) {
    for (const int partner : sentence.partner[kVerb]) {
      cats += partner >= 0 && sentence.words[static_cast<std::size_t>(partner)] == 0 ? 1 : 0;
    }
  }
  EXPECT_EQ(scores[kVerb].right, cats);
  EXPECT_GT(scores[kVerb].pairs, 40);
}

TEST(StudyModel, ReadingsAreOfTheAttentionProbabilities) {
  Model model({1, 16, 2}, 4);
  const Batch batch = batch_of(sentences(10));
  const std::vector<int> relations = {kBefore};
  // Keys of no effect: each head attends to all words alike.
  for (const Model::Part& part : model.parts()) {
    if (part.name != "layers.0.in_proj_weight") continue;
    const std::size_t third = static_cast<std::size_t>(element_count(part.shape)) / 3;
    std::fill_n(model.parameters().begin() + static_cast<std::ptrdiff_t>(part.begin + third), third, 0.0F);
  }
  Scores scores{};
  std::vector<HeadReading> readings(2 * kRelations);
  model.evaluate(batch, relations, scores, -1, readings);
  double want = 0;
  for (std::int64_t s = 0; s < batch.sentences; ++s) {
    for (std::int64_t i = 0; i < batch.length; ++i) {
      if (batch.partner[kBefore][static_cast<std::size_t>(s * batch.length + i)] >= 0) {
        want += 1.0 / batch.lengths[static_cast<std::size_t>(s)];
      }
    }
  }
  for (const std::size_t head : {0U, 1U}) {
    EXPECT_NEAR(readings[head * kRelations + kBefore].mass, want, want * 1e-5);
    EXPECT_EQ(readings[head * kRelations + kBefore].argmax.pairs, scores[kBefore].pairs);
  }
}

}  // namespace
}  // namespace manyheads::study
