#pragma once

#include <cstdint>
#include <filesystem>
#include <manyheads/model/encoder.hpp>
#include <vector>

namespace manyheads::model {

// The sizes of a decoder of the Llama family, as its config.json gives them.
struct LlamaConfig {
  std::int64_t hidden_size = 0;
  std::int64_t num_hidden_layers = 0;
  std::int64_t num_attention_heads = 0;
  std::int64_t num_key_value_heads = 0;
  std::int64_t head_dim = 0;  // even; need not be hidden_size / num_attention_heads
  std::int64_t intermediate_size = 0;
  std::int64_t vocab_size = 0;
  std::int64_t max_position_embeddings = 0;
  double rms_norm_eps = 1e-6;
  bool attention_bias = false;  // of the projections around attention
  bool mlp_bias = false;
  bool tie_word_embeddings = false;
  // [D/2] radians a position turns each pair, rounded to F32 as models of the hub are trained with:
  //   rope_theta^(-2 i / D), then scaled as rope_scaling says
  std::vector<float> rope_frequencies;
};

// Reads `folder`/config.json. Throws Error naming the file and the key: another model_type, a key that is missing or
// out of range, a hidden_act but silu, a rope_type but default, linear and llama3, a sliding window, quantised weights.
LlamaConfig load_llama_config(const std::filesystem::path& folder);

}  // namespace manyheads::model
