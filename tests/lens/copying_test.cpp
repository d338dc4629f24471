#include "lens/copying.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <complex>
#include <manyheads/safetensors.hpp>
#include <random>
#include <string>
#include <vector>

#include "layer/convert.hpp"
#include "lens/eigenvalues.hpp"
#include "model/checkpoint.hpp"
#include "support.hpp"

namespace manyheads::lens {
namespace {

using Matrix = std::vector<std::vector<double>>;

Matrix matrix_of(const Tensor& tensor) {
  const Tensor f32 = layer::converted(tensor.cview(), DType::kF32);
  const std::int64_t rows = f32.size(0), columns = f32.rank() == 1 ? 1 : f32.size(1);
  Matrix result;
  for (std::int64_t i = 0; i < rows; ++i) {
    result.emplace_back(f32.as<float>() + i * columns, f32.as<float>() + (i + 1) * columns);
  }
  return result;
}

// The formula's M[s,t] = u_s g_final W_O W_V g_l e_t of each pair of tokens, for the tensors of one head.
class Path {
 public:
  Path(const model::LlamaConfig& config, const StateDict& tensors, std::int64_t layer, std::int64_t head)
      : config_(config) {
    const auto at = [&](const std::string& name) { return matrix_of(tensors.at(name)); };
    const std::string name = "model.layers." + std::to_string(layer) + ".";
    embeddings_ = at("model.embed_tokens.weight");
    unembeddings_ = config.tie_word_embeddings ? embeddings_ : at("lm_head.weight");
    final_gain_ = at("model.norm.weight");
    gain_ = at(name + "input_layernorm.weight");
    value_ = at(name + "self_attn.v_proj.weight");
    out_ = at(name + "self_attn.o_proj.weight");
    first_value_ = head / (config.num_attention_heads / config.num_key_value_heads) * config.head_dim;
    first_out_ = head * config.head_dim;
    mean_.resize(static_cast<std::size_t>(config.hidden_size));
    for (const auto& row : unembeddings_) {
      for (std::size_t e = 0; e < row.size(); ++e) mean_[e] += row[e] / static_cast<double>(unembeddings_.size());
    }
  }

  // W_V g_l e_t, [D].
  std::vector<double> read(std::size_t token) const {
    double square = 0;
    for (const double x : embeddings_[token]) square += x * x / static_cast<double>(config_.hidden_size);
    std::vector<double> read(static_cast<std::size_t>(config_.head_dim));
    for (std::size_t d = 0; d < read.size(); ++d) {
      for (std::size_t e = 0; e < embeddings_[token].size(); ++e) {
        read[d] += value_[static_cast<std::size_t>(first_value_) + d][e] * gain_[e][0] * embeddings_[token][e] /
                   std::sqrt(square + config_.rms_norm_eps);
      }
    }
    return read;
  }
  // u_s g_final W_O, [D].
  std::vector<double> written(std::size_t token) const {
    std::vector<double> written(static_cast<std::size_t>(config_.head_dim));
    for (std::size_t d = 0; d < written.size(); ++d) {
      for (std::size_t e = 0; e < mean_.size(); ++e) {
        written[d] += (unembeddings_[token][e] - mean_[e]) * final_gain_[e][0] *
                      out_[e][static_cast<std::size_t>(first_out_) + d];
      }
    }
    return written;
  }

 private:
  const model::LlamaConfig& config_;
  Matrix embeddings_, unembeddings_, final_gain_, gain_, value_, out_;
  std::int64_t first_value_ = 0, first_out_ = 0;
  std::vector<double> mean_;
};

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

double copying(const std::vector<double>& matrix, std::size_t n) {
  double sum = 0, sizes = 0;
  for (const std::complex<double>& value : eigenvalues(matrix, n)) {
    sum += value.real();
    sizes += std::abs(value);
  }
  return sum / sizes;
}

// Of the whole vocabulary's matrix [V,V], its 96 eigenvalues and its diagonal.
TEST(CopyingTest, IsThatOfTheWholeVocabularysMatrix) {
  for (const char* name : {"tiny_grouped", "tiny_untied", "tiny_biases", "tiny_head_dim", "tiny_bf16"}) {
    const auto folder = test::source_dir() / "tests/golden/decoder" / name;
    const model::LlamaConfig config = model::load_llama_config(folder);
    const StateDict tensors = model::load_checkpoint(folder).tensors;
    const std::vector<RoleScore> found = copying_scores(folder, {.num_threads = 2});
    ASSERT_EQ(found.size(), 3u);
    const auto tokens = static_cast<std::size_t>(config.vocab_size);
    for (std::int64_t i = 0; i < config.num_hidden_layers * config.num_attention_heads; ++i) {
      const Path path(config, tensors, i / config.num_attention_heads, i % config.num_attention_heads);
      std::vector<double> whole(tokens * tokens);
      double share = 0, logit = 0;
      for (std::size_t s = 0; s < tokens; ++s) {
        const std::vector<double> written = path.written(s);
        for (std::size_t t = 0; t < tokens; ++t) whole[s * tokens + t] = dot(written, path.read(t));
        const double own = whole[s * tokens + s];
        share += own > 0 ? 1.0 / static_cast<double>(tokens) : 0;
        logit += own / static_cast<double>(tokens);
      }
      const auto head = static_cast<std::size_t>(i);
      // F32 products: some 2^-24 of the numbers that they add.
      EXPECT_NEAR(*found[0].values[head], copying(whole, tokens), 1e-5) << name << " " << i;
      EXPECT_NEAR(*found[1].values[head], share, 1e-9) << name << " " << i;
      EXPECT_NEAR(*found[2].values[head], logit, 1e-5) << name << " " << i;
    }
  }
}

// More tokens than one product takes, and than are sampled.
TEST(CopyingTest, OfALargeVocabularyItSamplesAtEvenSteps) {
  const std::int64_t v = 5000, e = 8, d = 2, hq = 4, hkv = 2;
  const model::LlamaConfig config{.hidden_size = e,
                                  .num_hidden_layers = 1,
                                  .num_attention_heads = hq,
                                  .num_key_value_heads = hkv,
                                  .head_dim = d,
                                  .vocab_size = v,
                                  .tie_word_embeddings = false,
                                  .rope_frequencies = {}};
  std::mt19937 random(31);
  std::normal_distribution<float> normal(0.3f, 1);
  StateDict tensors;
  const auto add = [&](const char* name, const Dims& shape) {
    Tensor tensor(DType::kF32, shape);
    for (std::int64_t i = 0; i < tensor.elements(); ++i) tensor.as<float>()[i] = normal(random);
    tensors[name] = tensor;
  };
  add("model.embed_tokens.weight", {v, e});
  add("lm_head.weight", {v, e});
  add("model.norm.weight", {e});
  add("model.layers.0.input_layernorm.weight", {e});
  add("model.layers.0.self_attn.v_proj.weight", {hkv * d, e});
  add("model.layers.0.self_attn.o_proj.weight", {e, hq * d});
  const std::vector<RoleScore> found = copying_scores(config, tensors, {}, "here");
  for (std::int64_t h = 0; h < hq; ++h) {
    const Path path(config, tensors, 0, h);
    std::vector<double> small(d * d);
    double share = 0, logit = 0;
    for (std::size_t t = 0; t < static_cast<std::size_t>(v); ++t) {
      const std::vector<double> read = path.read(t), written = path.written(t);
      for (std::size_t i = 0; i < 2; ++i) {
        for (std::size_t j = 0; j < 2; ++j) small[i * 2 + j] += read[i] * written[j];
      }
      if (t % 5 != 0) continue;
      share += dot(read, written) > 0 ? 1e-3 : 0;
      logit += dot(read, written) * 1e-3;
    }
    const auto head = static_cast<std::size_t>(h);
    EXPECT_NEAR(*found[0].values[head], copying(small, 2), 1e-4) << h;
    EXPECT_NEAR(*found[1].values[head], share, 2e-3) << h;  // a product near 0 may round to the other side
    EXPECT_NEAR(*found[2].values[head], logit, 1e-5) << h;
  }
}

// W_V reads the embedding and W_O writes it back: every token's logit rises, or falls where W_O has the other sign.
TEST(CopyingTest, AHeadThatWritesWhatItReadsCopies) {
  const std::int64_t v = 40, e = 8, d = 8, hq = 2;
  const model::LlamaConfig config{.hidden_size = e,
                                  .num_hidden_layers = 1,
                                  .num_attention_heads = hq,
                                  .num_key_value_heads = hq,
                                  .head_dim = d,
                                  .vocab_size = v,
                                  .tie_word_embeddings = true,
                                  .rope_frequencies = {}};
  std::mt19937 random(37);
  std::normal_distribution<float> normal;
  Tensor table(DType::kF32, {v, e}), ones(DType::kF32, {e}), value(DType::kF32, {hq * d, e}),
      out(DType::kF32, {e, hq * d});
  for (std::int64_t i = 0; i < table.elements(); ++i) table.as<float>()[i] = normal(random);
  for (std::int64_t i = 0; i < e; ++i) {
    ones.as<float>()[i] = 1;
    for (std::int64_t h = 0; h < hq; ++h) {
      value.as<float>()[(h * d + i) * e + i] = 1;
      out.as<float>()[i * hq * d + h * d + i] = h == 0 ? 1.0f : -1.0f;
    }
  }
  const StateDict tensors = {{"model.embed_tokens.weight", table},
                             {"model.norm.weight", ones},
                             {"model.layers.0.input_layernorm.weight", ones},
                             {"model.layers.0.self_attn.v_proj.weight", value},
                             {"model.layers.0.self_attn.o_proj.weight", out}};
  const std::vector<RoleScore> found = copying_scores(config, tensors, {}, "here");
  EXPECT_GT(*found[0].values[0], 0.95);
  EXPECT_LT(*found[0].values[1], -0.95);
  EXPECT_GT(*found[1].values[0], 0.8);
  EXPECT_LT(*found[1].values[1], 0.2);
  EXPECT_TRUE(found[0].passes(0));
  EXPECT_FALSE(found[0].passes(1));
}

TEST(CopyingTest, ATensorThatIsMissingIsNamed) {
  const auto folder = test::source_dir() / "tests/golden/decoder/tiny_grouped";
  StateDict tensors = model::load_checkpoint(folder).tensors;
  tensors.erase("model.layers.1.self_attn.o_proj.weight");
  const std::string error = test::error_of(
      [&] { copying_scores(model::load_llama_config(folder), tensors, {}, "here"); }, ErrorCode::kMalformedFile);
  EXPECT_NE(error.find("here"), std::string::npos) << error;
  EXPECT_NE(error.find("layers.1.self_attn.o_proj.weight"), std::string::npos) << error;
}

}  // namespace
}  // namespace manyheads::lens
