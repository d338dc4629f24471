#pragma once

#include <cstdint>
#include <filesystem>
#include <manyheads/parallel.hpp>
#include <manyheads/tensor.hpp>
#include <memory>
#include <string_view>
#include <vector>

namespace manyheads::model {

// A batch of token ids: [B,T], row-major, rows padded to T with anything.
struct TokenBatch {
  std::int64_t batch = 0;
  std::int64_t tokens = 0;
  std::vector<std::int64_t> ids{};       // [B,T]
  std::vector<std::int64_t> type_ids{};  // [B,T]: the segment of each token; empty: all 0
  std::vector<std::int64_t> lengths{};   // [B]: the tokens of each row that count; empty: all T

  // Pads the rows with id 0 to the longest. `type_ids` may be empty. Throws Error where the rows differ in length.
  static TokenBatch from_rows(const std::vector<std::vector<std::int64_t>>& ids,
                              const std::vector<std::vector<std::int64_t>>& type_ids = {});

  std::int64_t length(std::int64_t entry) const {
    return lengths.empty() ? tokens : lengths[static_cast<std::size_t>(entry)];
  }
};

// What the heads of a layer saw of one batch entry of T tokens. F32, any strides.
struct EntryHeads {
  ConstTensorView q;    // [Hq,T,D], after any rotary embedding
  ConstTensorView k;    // [Hkv,T,D]
  ConstTensorView v;    // [Hkv,T,D]
  ConstTensorView lse;  // [Hq,T]
};

// What the heads of a layer saw of a batch, packed: padding is left out, and the N tokens that count lie one after
// another. F32, any strides.
struct LayerHeads {
  ConstTensorView q;                     // [N,Hq,D], after any rotary embedding
  ConstTensorView k;                     // [N,Hkv,D]
  ConstTensorView v;                     // [N,Hkv,D]
  ConstTensorView lse;                   // [Hq,N]
  std::vector<std::int64_t> row_starts;  // [B+1]: entry b is rows row_starts[b] to row_starts[b+1]
  std::vector<Tensor> storage;           // what the views stand on

  // Views of one entry. Nothing is copied.
  EntryHeads entry(std::int64_t b = 0) const;
};

// The sizes of an encoder, and how its attention works. Query head h reads key/value head h / (num_heads /
// num_kv_heads).
struct EncoderConfig {
  std::int64_t hidden_size = 0;  // E
  std::int64_t num_layers = 0;
  std::int64_t num_heads = 0;     // Hq
  std::int64_t num_kv_heads = 0;  // Hkv, which divides Hq
  std::int64_t head_dim = 0;      // D, which need not be E / Hq
  double scale = 1;               // scores are scale * q k
  bool causal = false;            // a token sees no later one
  std::int64_t vocab_size = 0;
  std::int64_t type_vocab_size = 1;          // segments; 0: the model has none and reads no type_ids
  std::int64_t max_position_embeddings = 0;  // the most tokens of an entry
  DType weights = DType::kF32;               // what the projections keep their weights as: F32 or BF16
};

struct EncoderOptions {
  ConstTensorView head_scale{};  // [layers,heads] F32: each head's output is multiplied by it; 0 switches a head off
  std::vector<LayerHeads>* layers = nullptr;     // out: q, k, v and lse of every head
  std::vector<Tensor>* hidden_states = nullptr;  // out: [B,T,E] after the embeddings and after each layer
  Threads threads{};
  // The family of bits that the run must have (cpu.hpp), empty: the fastest's. An error where it cannot be had. The
  // first run with "f32-tiles-1" splits the weights: six bytes each besides their four, which the encoder keeps.
  std::string_view bits{};
  Workspace* workspace = nullptr;  // with one, a run allocates its results only once it has grown; not for two at once
};

// A stack of layers that turns token ids into hidden states.
//   auto encoder = manyheads::model::load_encoder("models/all-MiniLM-L6-v2");
//   manyheads::Tensor hidden = encoder->run(manyheads::model::TokenBatch::from_rows({{101, 4937, 102}}));
class Encoder {
 public:
  virtual ~Encoder() = default;

  virtual const EncoderConfig& config() const noexcept = 0;

  // The last hidden states [B,T,E] F32; rows at or past a length are 0. Throws Error that names what does not fit the
  // config, before anything runs. Thread-safe for disjoint workspaces. The bits of a row depend on the tokens of its
  // own entry only, not on the batch, the padding or the threads.
  Tensor run(const TokenBatch& batch, const EncoderOptions& options = {}) const;

 protected:
  Encoder() = default;
  Encoder(const Encoder&) = default;
  Encoder& operator=(const Encoder&) = default;

 private:
  // The same for what run has checked.
  virtual Tensor forward(const TokenBatch& batch, const EncoderOptions& options) const = 0;
};

// Opens a folder as the hub lays it out, config.json and model.safetensors, as the encoder that its "model_type" names:
// bert, roberta, xlm-roberta, camembert or distilbert, or as a decoder (load_decoder). Throws Error that names the file
// and the key or the tensor that does not fit.
// `weights` is what the projections keep their weights as, of whatever type they are in the file:
//   F32
//   BF16, which takes half the memory and reading. Where the processor multiplies BF16, the rows that it multiplies are
//   rounded too, queries, keys and values among them.
std::unique_ptr<const Encoder> load_encoder(const std::filesystem::path& folder, DType weights = DType::kF32);

}  // namespace manyheads::model
