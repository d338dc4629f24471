#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

// Calls of attention and of layers as data: everything that a call is made of, drawn from its number. No header of the
// library is included, so that the same calls meet any version of it.
namespace bits {

enum class Type { kF32, kBF16, kF16, kBool, kI8, kI32, kI64 };

std::int64_t size_of(Type type);
const char* name_of(Type type);

// An array with strides, in memory that is 0xff (a NaN in each float type) wherever no element lies. Copies share it.
struct Array {
  Type type = Type::kF32;
  std::vector<std::int64_t> shape, strides;            // in elements
  std::int64_t origin = 0;                             // of the element with every index 0, in bytes
  std::shared_ptr<std::vector<unsigned char>> memory;  // null: the call goes without this array

  bool given() const { return memory != nullptr; }
  unsigned char* data() const { return memory->data() + origin; }
  Array fresh() const;  // the same layout in memory of its own
  Array slice(std::size_t axis, std::int64_t begin, std::int64_t end) const;
  Array entry(std::size_t index) const;  // of the first axis, which goes
};

enum class Alignment { kUnspecified, kTopLeft, kBottomRight };

struct Mask {
  bool causal = false;
  Alignment alignment = Alignment::kUnspecified;
  std::int64_t window_left = -1, window_right = -1;
  Array offsets, key_starts, key_lengths;  // [B]
  Array q_documents, k_documents;          // [B,Tq], [B,Tk]
  Array allowed, ignored, bias;            // broadcast to [B,Hq,Tq,Tk]; allowed: true = attend
  Array alibi_slopes;                      // [Hq]

  void add_to(std::vector<const Array*>& inputs) const;
};

std::string to_string(const Array& array);  // " BF16[1,2,7,64]"
std::string to_string(const Mask& mask);

// A cache that grows step by step: each sequence takes its next tokens, then all of them its next queries.
struct CacheStep {
  std::vector<std::int64_t> tokens;  // of each sequence
  std::int64_t queries = 1;
};
struct Cache {
  Type type = Type::kF32;
  std::int64_t page_size = 0;
  std::vector<CacheStep> steps;
};

struct AttentionCall {
  std::string group;
  Array q, k, v;   // [B,H,T,D]; packed [T,H,D]; k and v paged [pages,Hkv,size,D]
  Array out, lse;  // the layouts of what comes out
  Mask mask;
  std::optional<double> scale;
  double softcap = 0;
  Array sinks;  // [Hq]
  Array cu_seqlens_q, cu_seqlens_k;
  Array page_table;
  Array k_scales, v_scales;  // of I8 keys and values
  bool int8_products = false;
  Array weights;                    // given: attention_weights() too
  std::optional<std::int64_t> cut;  // given: the keys before and from here on by themselves, merged
  bool row_states = false;          // they are merged by their row states
  std::optional<Cache> cache;       // given: k and v go through it

  std::vector<const Array*> inputs() const;
  const char* products() const;  // "f32", "bf16", "int8": what it multiplies, which its family of bits follows from
  std::string to_string() const;
};

struct LayerCall {
  std::string group;
  std::int64_t d_model = 0, num_heads = 0, num_kv_heads = 0, kdim = 0, vdim = 0;
  bool bias = true, add_bias_kv = false, add_zero_attn = false;
  Type type = Type::kF32;                                 // of the weights in the layer
  std::vector<std::pair<std::string, Array>> state_dict;  // F32
  Array query, key, value, y;                             // key and value not given: self-attention
  Array key_padding_mask, attn_mask;                      // true = ignore
  Mask mask;
  Array head_scale, weights;

  std::vector<const Array*> inputs() const;
  const char* products() const { return type == Type::kBF16 ? "bf16" : "f32"; }
  std::string to_string() const;
};

constexpr int kAttentionCalls = 3000, kLayerCalls = 300, kCallsPerGroup = 20;

AttentionCall attention_call(int number);
LayerCall layer_call(int number);

}  // namespace bits
