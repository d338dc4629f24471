#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <manyheads/attention.hpp>
#include <manyheads/mask.hpp>
#include <manyheads/model/encoder.hpp>
#include <manyheads/model/encoding.hpp>
#include <manyheads/parallel.hpp>
#include <manyheads/safetensors.hpp>
#include <manyheads/tensor.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace manyheads::lens {

// A layer's part of A = exp(scale q k + bias - lse). Views into `storage`, any strides.
struct TraceLayer {
  ConstTensorView q;      // [H,Tq,D] F32, after any rotary embedding
  ConstTensorView k;      // [Hkv,Tk,D] F32
  ConstTensorView lse;    // [H,Tq] F32
  ConstTensorView v;      // [Hkv,Tk,Dv] F32, or undefined
  ConstTensorView bias;   // F32, broadcasts from the right to [H,Tq,Tk], or undefined
  ConstTensorView sinks;  // [H] F32, or undefined
  std::vector<Tensor> storage;
  // [H,Tq] F32, or undefined: each row's sum of exp(score - lse), which is 1 but for the rounding of lse. 0: it is not
  // known, or the row sees no key.
  ConstTensorView row_sum{};
};

// The heads of one forward pass over a text or a pair of texts: all that rebuilds their weights. As a file it is
// safetensors with tensors layers.{i}.q, .k, .lse (and .v, .bias, .sinks, .row_sum) and these fields as metadata, JSON
// where structured. Any program may write such files.
struct Trace {
  std::string place;  // the file it was read from, for messages; empty where there is none
  std::string model;
  std::string text;
  std::optional<std::string> text2;  // the second text of a pair

  // One entry for each key. All but `tokens` may be empty in a file of another program.
  std::vector<std::string> tokens;
  std::vector<std::int64_t> token_ids;
  std::vector<std::array<std::int64_t, 2>> offsets;  // first and past-the-last byte in the token's own text
  std::vector<std::int64_t> words;                   // index of its word, -1 for a special token
  std::vector<std::int64_t> sequences;               // 0: text, 1: text2, -1: a special token

  double scale = 1;
  bool causal = false;
  std::array<std::int64_t, 2> window{-1, -1};  // left and right, -1 is unbounded
  Alignment alignment = Alignment::kUnspecified;
  double softcap = 0;
  std::int64_t key_length = 0;  // keys at or past it do not exist

  std::vector<TraceLayer> layers;

  std::int64_t num_heads(std::size_t layer) const { return layers[layer].q.size(0); }
  std::int64_t num_queries() const { return layers.empty() ? 0 : layers[0].q.size(1); }
  std::int64_t num_keys() const { return layers.empty() ? 0 : layers[0].k.size(1); }
};

struct TraceOptions {
  std::optional<std::string> text2;
  bool values = false;  // keeps v too, so that a head's output follows from the trace
  // Makes row_sum too, at half the cost of attention: patches of the trace are exact at once.
  bool row_sums = false;
  // Sums lse again in double, from the same q and k, and rounds it once. The forward pass's lse is a few float steps
  // off where scores are large, which a reader sees who rebuilds the weights from the file alone.
  bool lse_in_double = false;
  ConstTensorView head_scale{};  // as EncoderOptions has it
  Tensor* hidden = nullptr;      // out: the last hidden states [1,T,E]
  std::string_view bits{};       // the family of bits that the pass must have (cpu.hpp), empty: the fastest's
  Threads threads{};
};

// Runs the encoder on the tokens of `text` (and options.text2) and keeps q, k and lse of every head. Copies no
// q, k or v: the views stand on what the projections wrote.
Trace make_trace(const model::Encoder& encoder, const model::Encoding& encoding, const std::string& model,
                 const std::string& text, const TraceOptions& options = {});

// Writes a file beside `path` and renames it. Throws Error (kInvalidArgument) when fields and tensors do not fit each
// other.
void save_trace(const std::filesystem::path& path, const Trace& trace);

// The bytes of that file. Throws as save_trace does.
std::string trace_bytes(const Trace& trace);

// Maps the file. Throws Error (kMalformedFile) that names the file and the field or tensor.
Trace load_trace(const std::filesystem::path& path);

// The trace that such a file holds. Throws as load_trace does.
Trace read_trace(const SafetensorsFile& file);

// Scale, softcap and mask of the attention that made the trace, for all but a layer's bias and sinks. Its key_lengths
// is a view of `trace`.
AttentionOptions attention_options(const Trace& trace);

// The weights [Tq,Tk] F32 of one head, recomputed from q, k and lse. Throws Error that names the file, the layer, the
// head and the row where lse is not what q, k, bias, sinks and mask give, within the roundings of sums in F32.
void trace_weights(const Trace& trace, std::size_t layer, std::int64_t head, TensorView weights,
                   const Threads& threads = {});

// Rows of it from `first_query` on: weights [rows,Tk], with the bits of the whole matrix, which never has to exist.
void trace_rows(const Trace& trace, std::size_t layer, std::int64_t head, std::int64_t first_query, TensorView weights,
                const Threads& threads = {});

}  // namespace manyheads::lens
