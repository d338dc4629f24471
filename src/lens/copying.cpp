#include "lens/copying.hpp"

#include <algorithm>
#include <cmath>
#include <complex>

#include "base/file.hpp"
#include "base/index.hpp"
#include "base/parallel.hpp"
#include "layer/convert.hpp"
#include "layer/linear.hpp"
#include "lens/eigenvalues.hpp"
#include "model/checkpoint.hpp"
#include "model/checkpoint_tensors.hpp"

namespace manyheads::lens {
namespace {

constexpr const char* kElhage = "Elhage et al. 2021, A Mathematical Framework for Transformer Circuits";
constexpr std::int64_t kTokens = 4096;  // of a product

using base::at;

Tensor as_f32(const Tensor& tensor) { return layer::converted(tensor.cview(), DType::kF32); }

// Rows of a table [V,E] of any type, `step` apart, as F32.
Tensor rows_of(const Tensor& table, std::int64_t begin, std::int64_t count, std::int64_t step) {
  const std::int64_t e = table.size(1);
  const auto* first = static_cast<const std::byte*>(table.bytes()) + at(begin * e) * size_of(table.dtype());
  Tensor rows(DType::kF32, Dims{count, e});
  layer::copy_to_f32(ConstTensorView(first, table.dtype(), Dims{count, e}, Dims{step * e, 1}), rows.as<float>());
  return rows;
}

// The ends of the path: embeddings as a norm reads them, and unembeddings around their mean.
class Ends {
 public:
  Ends(Tensor embeddings, Tensor unembeddings, double epsilon)
      : embeddings_(std::move(embeddings)), unembeddings_(std::move(unembeddings)), epsilon_(epsilon) {
    std::vector<double> sums(at(width()));
    for_each_chunk([&](std::int64_t begin, std::int64_t count) {
      const Tensor rows = rows_of(unembeddings_, begin, count, 1);
      for (std::int64_t i = 0; i < rows.elements(); ++i) {
        sums[at(i % width())] += static_cast<double>(rows.as<float>()[i]);
      }
    });
    for (const double sum : sums) mean_.push_back(sum / static_cast<double>(tokens()));
  }

  std::int64_t tokens() const { return embeddings_.size(0); }
  std::int64_t width() const { return embeddings_.size(1); }

  Tensor embedded(std::int64_t begin, std::int64_t count, std::int64_t step) const {
    Tensor rows = rows_of(embeddings_, begin, count, step);
    for (std::int64_t t = 0; t < count; ++t) {
      float* const row = rows.as<float>() + t * width();
      double square = 0;
      for (std::int64_t e = 0; e < width(); ++e) square += static_cast<double>(row[e]) * static_cast<double>(row[e]);
      const double root = std::sqrt(square / static_cast<double>(width()) + epsilon_);
      for (std::int64_t e = 0; e < width(); ++e) row[e] = static_cast<float>(static_cast<double>(row[e]) / root);
    }
    return rows;
  }
  Tensor unembedded(std::int64_t begin, std::int64_t count, std::int64_t step) const {
    Tensor rows = rows_of(unembeddings_, begin, count, step);
    for (std::int64_t i = 0; i < rows.elements(); ++i) {
      float& value = rows.as<float>()[i];
      value = static_cast<float>(static_cast<double>(value) - mean_[at(i % width())]);
    }
    return rows;
  }

  // The sum over tokens t of e_t u_t, [E,E].
  std::vector<double> product(const Threads& threads) const {
    const std::int64_t e = width();
    std::vector<double> sum(at(e * e));
    Tensor turned(DType::kF32, Dims{e, kTokens}), part(DType::kF32, Dims{e, e});
    for_each_chunk([&](std::int64_t begin, std::int64_t count) {
      const Tensor from = embedded(begin, count, 1), to = unembedded(begin, count, 1);
      for (std::int64_t t = 0; t < count; ++t) {
        for (std::int64_t i = 0; i < e; ++i) turned.as<float>()[i * kTokens + t] = from.as<float>()[t * e + i];
      }
      const layer::Linear with(ConstTensorView(to.as<float>(), Dims{e, count}, Dims{1, e}), {});
      with.run(turned.as<float>(), e, kTokens, part.as<float>(), e, layer::Activation::kNone, threads);
      for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += static_cast<double>(part.as<float>()[i]);
    });
    return sum;
  }

 private:
  template <class Chunk>
  void for_each_chunk(const Chunk& chunk) const {
    for (std::int64_t begin = 0; begin < tokens(); begin += kTokens) {
      chunk(begin, std::min(kTokens, tokens() - begin));
    }
  }

  Tensor embeddings_, unembeddings_;
  double epsilon_;
  std::vector<double> mean_;
};

// a [n,k] times b [k,m].
std::vector<double> multiply(const std::vector<double>& a, const std::vector<double>& b, std::int64_t n, std::int64_t k,
                             std::int64_t m) {
  std::vector<double> c(at(n * m));
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t j = 0; j < k; ++j) {
      const double factor = a[at(i * k + j)];
      for (std::int64_t l = 0; l < m; ++l) c[at(i * m + l)] += factor * b[at(j * m + l)];
    }
  }
  return c;
}

double copying_of(const std::vector<double>& matrix, std::int64_t d) {
  double sum = 0, sizes = 0;
  for (const std::complex<double>& value : eigenvalues(matrix, at(d))) {
    sum += value.real();
    sizes += std::abs(value);
  }
  return sizes == 0 ? 0 : sum / sizes;
}

// What stands between the ends in one layer.
struct Layer {
  Tensor gain;   // [E]
  Tensor value;  // [Hkv D, E]
  Tensor out;    // [E, Hq D]
};

// What a head writes: copying, copying_share and copying_logit.
struct Written {
  double copying = 0, share = 0, logit = 0;
};

class Reader {
 public:
  Reader(const model::LlamaConfig& config, const Ends& ends, Tensor final_gain, const Threads& threads)
      : config_(config), final_gain_(std::move(final_gain)), threads_(threads), product_(ends.product(threads)) {
    const std::int64_t step = std::max<std::int64_t>(1, ends.tokens() / kCopyingTokens);
    sampled_ = std::min(kCopyingTokens, ends.tokens());
    embedded_ = ends.embedded(0, sampled_, step);
    unembedded_ = ends.unembedded(0, sampled_, step);
    scale_columns(unembedded_, final_gain_);
  }

  std::vector<Written> read(const Layer& layer) const {
    const std::int64_t e = config_.hidden_size, d = config_.head_dim, heads = config_.num_attention_heads;
    const std::int64_t group = heads / config_.num_key_value_heads;
    std::vector<Written> result(at(heads));
    base::parallel_for(config_.num_key_value_heads, base::worker_count(config_.num_key_value_heads, threads_),
                       threads_.executor, [&](std::int64_t kv, int) {
                         std::vector<double> value(at(d * e));
                         for (std::int64_t i = 0; i < d * e; ++i) {
                           value[at(i)] = static_cast<double>(layer.value.as<float>()[kv * d * e + i]) *
                                          static_cast<double>(layer.gain.as<float>()[i % e]);
                         }
                         const std::vector<double> read = multiply(value, product_, d, e, e);
                         for (std::int64_t h = kv * group; h < (kv + 1) * group; ++h) {
                           result[at(h)].copying = copying_of(multiply(read, out_of(layer, h), d, e, d), d);
                         }
                       });
    read_sample(layer, result);
    return result;
  }

 private:
  // g_final W_O of a head, [E,D].
  std::vector<double> out_of(const Layer& layer, std::int64_t head) const {
    const std::int64_t d = config_.head_dim;
    std::vector<double> out(at(config_.hidden_size * d));
    for (std::int64_t i = 0; i < config_.hidden_size; ++i) {
      for (std::int64_t j = 0; j < d; ++j) {
        out[at(i * d + j)] = static_cast<double>(final_gain_.as<float>()[i]) *
                             static_cast<double>(layer.out.as<float>()[i * layer.out.size(1) + head * d + j]);
      }
    }
    return out;
  }

  // M[t,t] of a head: W_V g_l e_t times W_O^T g_final u_t.
  void read_sample(const Layer& layer, std::vector<Written>& result) const {
    const std::int64_t e = config_.hidden_size, d = config_.head_dim, heads = config_.num_attention_heads;
    const std::int64_t kv_width = layer.value.size(0), width = heads * d;
    Tensor normed(DType::kF32, Dims{sampled_, e}), values(DType::kF32, Dims{sampled_, kv_width}),
        outs(DType::kF32, Dims{sampled_, width});
    std::copy_n(embedded_.as<float>(), sampled_ * e, normed.as<float>());
    scale_columns(normed, layer.gain);
    layer::Linear(layer.value.cview(), {})
        .run(normed.as<float>(), sampled_, e, values.as<float>(), kv_width, layer::Activation::kNone, threads_);
    layer::Linear(ConstTensorView(layer.out.as<float>(), Dims{width, e}, Dims{1, width}), {})
        .run(unembedded_.as<float>(), sampled_, e, outs.as<float>(), width, layer::Activation::kNone, threads_);
    for (std::int64_t h = 0; h < heads; ++h) {
      const std::int64_t kv = h / (heads / config_.num_key_value_heads);
      Written& head = result[at(h)];
      for (std::int64_t t = 0; t < sampled_; ++t) {
        double logit = 0;
        for (std::int64_t i = 0; i < d; ++i) {
          logit += static_cast<double>(values.as<float>()[t * kv_width + kv * d + i]) *
                   static_cast<double>(outs.as<float>()[t * width + h * d + i]);
        }
        head.logit += logit / static_cast<double>(sampled_);
        head.share += logit > 0 ? 1 / static_cast<double>(sampled_) : 0;
      }
    }
  }

  static void scale_columns(Tensor& rows, const Tensor& gain) {
    for (std::int64_t i = 0; i < rows.elements(); ++i) rows.as<float>()[i] *= gain.as<float>()[i % rows.size(1)];
  }

  const model::LlamaConfig& config_;
  Tensor final_gain_;
  Threads threads_;
  std::vector<double> product_;
  std::int64_t sampled_ = 0;
  Tensor embedded_, unembedded_;
};

}  // namespace

std::vector<RoleScore> copying_scores(const model::LlamaConfig& config, const StateDict& tensors,
                                      const std::map<std::string, std::string>& unsupported, const std::string& place,
                                      const Threads& threads) {
  const model::CheckpointTensors from(tensors, unsupported, place, "model.");
  const std::int64_t e = config.hidden_size, kv = config.num_key_value_heads * config.head_dim;
  const Dims table{config.vocab_size, e};
  const Tensor embeddings = from.take("embed_tokens.weight", table);
  const Ends ends(embeddings, config.tie_word_embeddings ? embeddings : from.take("lm_head.weight", table),
                  config.rms_norm_eps);
  const Reader reader(config, ends, from.take_f32("norm.weight", {e}), threads);
  const std::string path = "; M[s,t] = u_s g_final W_O W_V g_l e_t";
  std::vector<RoleScore> scores = {
      {"copying", "copying", 0.5, true, false, "sum of the eigenvalues of M over the sum of their sizes" + path,
       kElhage},
      {"copying_share", nullptr, 0, true, false, "share of tokens t with M[t,t] > 0" + path, kElhage},
      {"copying_logit", nullptr, 0, true, false, "mean over tokens t of M[t,t]" + path, kElhage}};
  for (std::int64_t i = 0; i < config.num_hidden_layers; ++i) {
    const std::string name = "layers." + std::to_string(i) + ".";
    const Layer layer{
        from.take_f32(name + "input_layernorm.weight", {e}),
        as_f32(from.take(name + "self_attn.v_proj.weight", {kv, e})),
        as_f32(from.take(name + "self_attn.o_proj.weight", {e, config.num_attention_heads * config.head_dim}))};
    for (const Written& head : reader.read(layer)) {
      scores[0].values.emplace_back(head.copying);
      scores[1].values.emplace_back(head.share);
      scores[2].values.emplace_back(head.logit);
    }
  }
  return scores;
}

std::vector<RoleScore> copying_scores(const std::filesystem::path& folder, const Threads& threads) {
  const SafetensorsFile file = model::load_checkpoint(folder);
  return copying_scores(model::load_llama_config(folder), file.tensors, file.unsupported,
                        base::path_in_quotes(file.path), threads);
}

}  // namespace manyheads::lens
