#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include <manyheads/multi_head_attention.hpp>
#include <manyheads/safetensors.hpp>
#include <nlohmann/json.hpp>

#include "layer/layer_reference.hpp"
#include "support.hpp"

// The files of tests/golden/mha, and masks as torch.nn.MultiheadAttention means them.
namespace manyheads::layer_test {

// Adds a mask to `added` [B,H,T,S]: key_padding_mask [B,S], attn_mask [T,S] or
// [B*H,T,S]; true = ignore.
inline void add_mask(LayerCase& c, const Tensor& mask) {
  const std::int64_t batch = c.query.size(0), heads = c.config.num_heads, queries = c.query.size(1);
  const std::int64_t keys = c.key.size(1);
  const bool padding = mask.rank() == 2 && mask.size(0) == batch && (batch != queries || mask.size(1) != keys);
  std::size_t at = 0;
  for (std::int64_t n = 0; n < batch; ++n) {
    for (std::int64_t h = 0; h < heads; ++h) {
      for (std::int64_t i = 0; i < queries; ++i) {
        for (std::int64_t j = 0; j < keys; ++j, ++at) {
          const std::int64_t from = padding            ? n * keys + j
                                    : mask.rank() == 2 ? i * keys + j
                                                       : ((n * heads + h) * queries + i) * keys + j;
          c.added[at] += mask.dtype() == DType::kBool
                             ? (mask.as<bool>()[from] ? -std::numeric_limits<float>::infinity() : 0)
                             : mask.as<float>()[from];
        }
      }
    }
  }
}

inline void add_causal(LayerCase& c) {
  const std::int64_t queries = c.query.size(1), keys = c.key.size(1);
  for (std::size_t at = 0; at < c.added.size(); ++at) {
    const auto place = static_cast<std::int64_t>(at) % (queries * keys);
    if (place % keys > place / keys) c.added[at] = -std::numeric_limits<float>::infinity();
  }
}

inline void start_masks(LayerCase& c) {
  c.added.assign(static_cast<std::size_t>(c.query.size(0) * c.config.num_heads * c.query.size(1) * c.key.size(1)), 0.0);
}

struct Golden {
  LayerCase c;
  MultiHeadAttentionOptions options;
  Tensor key_padding_mask, attn_mask, output, weights;
  bool self_attention;
};

inline Golden read_golden(const std::filesystem::path& path) {
  const SafetensorsFile file = load_safetensors(path);
  const auto json = nlohmann::json::parse(file.metadata.at("options"));
  Golden g;
  g.c.config = {.d_model = json["d_model"],
                .num_heads = json["num_heads"],
                .num_kv_heads = json["num_kv_heads"],
                .kdim = json["kdim"],
                .vdim = json["vdim"],
                .bias = json["bias"],
                .add_bias_kv = json["add_bias_kv"],
                .add_zero_attn = json["add_zero_attn"]};
  g.self_attention = json["self_attention"];
  for (const auto& [name, tensor] : file.tensors) {
    if (name.rfind("state.", 0) == 0) g.c.state[name.substr(6)] = tensor;
  }
  g.c.query = file.at("query");
  g.c.key = g.self_attention ? g.c.query : file.at("key");
  g.c.value = g.self_attention ? g.c.query : file.at("value");
  g.output = file.at("output");
  g.weights = file.at("weights");
  start_masks(g.c);
  if (json["causal"]) {
    g.options.mask = mask::causal(Alignment::kTopLeft);
    add_causal(g.c);
  }
  if (file.tensors.contains("key_padding_mask")) {
    g.key_padding_mask = file.at("key_padding_mask");
    g.options.key_padding_mask = g.key_padding_mask.cview();
    add_mask(g.c, g.key_padding_mask);
  }
  if (file.tensors.contains("attn_mask")) {
    g.attn_mask = file.at("attn_mask");
    g.options.attn_mask = g.attn_mask.cview();
    add_mask(g.c, g.attn_mask);
  }
  return g;
}

// The .safetensors of a folder of tests/golden, by name.
inline std::vector<std::filesystem::path> golden_files(const char* folder) {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(test::source_dir() / "tests/golden" / folder)) {
    if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace manyheads::layer_test
