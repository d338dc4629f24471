#include "c/refused.hpp"

namespace manyheads::test {
namespace {

TEST(CDoorRefused, Merges) {
  expect_refused({
      {"mh_merge_attention: out_b is undefined", "",
       [](Attempt& a) { return mh_merge_attention(&a.out, &a.lse, nullptr, &a.lse, &a.out, nullptr, 0, nullptr); }},
      {"mh_merge_attention: lse_b is F32 [2,4,3,5]", "[2,4,3,6] less the last axis",
       [](Attempt& a) { return mh_merge_attention(&a.out, &a.lse, &a.out, &a.weights, &a.out, nullptr, 0, nullptr); }},
      {"mh_merge_attention: num_threads is -1", "",
       [](Attempt& a) { return mh_merge_attention(&a.out, &a.lse, &a.out, &a.lse, &a.out, nullptr, -1, nullptr); }},
      {"mh_merge_row_states: there are no row states", "",
       [](Attempt& a) { return mh_merge_row_states(nullptr, 0, &a.out, nullptr, nullptr, 0, nullptr); }},
      {"mh_merge_row_states: parts is NULL", "",
       [](Attempt& a) { return mh_merge_row_states(nullptr, 2, &a.out, nullptr, nullptr, 0, nullptr); }},
      {"mh_merge_row_states: parts has 18446744073709551615 elements, expected at most", "",
       [](Attempt& a) {
         const mh_row_states* parts[] = {a.states};
         return mh_merge_row_states(parts, std::numeric_limits<std::size_t>::max(), &a.out, nullptr, nullptr, 0,
                                    nullptr);
       }},
      {"mh_merge_row_states: parts[1] is NULL", "",
       [](Attempt& a) {
         const mh_row_states* parts[] = {a.states, nullptr};
         return mh_merge_row_states(parts, 2, &a.out, nullptr, nullptr, 0, nullptr);
       }},
      {"mh_merge_row_states: parts[1] begins at key 0, the part before it ends at 5", "",
       [](Attempt& a) {
         const mh_row_states* parts[] = {a.states, a.states};
         return mh_merge_row_states(parts, 2, &a.out, nullptr, nullptr, 0, nullptr);
       }},
      {"mh_merge_row_states: parts[0].max is F32 [1,2,4,3], expected F32 [1,2,4,2]", "",
       [](Attempt& a) {
         const mh_row_states* parts[] = {a.states};
         a.out.shape[2] = 2;
         return mh_merge_row_states(parts, 1, &a.out, nullptr, nullptr, 0, nullptr);
       }},
      {"mh_row_states_create: keys_before is 3, expected a multiple of 512", "",
       [](Attempt& a) { return mh_row_states_create(3, 5, 1, 1, 1, 1, &a.new_states); }},
      {"mh_row_states_create: shape [1,-1,1,1] has a negative size", "",
       [](Attempt& a) { return mh_row_states_create(0, 5, -1, 1, 1, 1, &a.new_states); }},
      {"mh_row_states_create: a tensor of shape [1,4611686018427387904,1,1] is larger than memory", "",
       [](Attempt& a) { return mh_row_states_create(0, 5, std::int64_t{1} << 62, 1, 1, 1, &a.new_states); },
       MH_OUT_OF_MEMORY},
      {"mh_row_states_create: states is NULL", "",
       [](Attempt&) { return mh_row_states_create(0, 5, 1, 1, 1, 1, nullptr); }},
      {"mh_row_states_tensors: states is NULL", "",
       [](Attempt& a) { return mh_row_states_tensors(nullptr, &a.q, &a.q, &a.q); }},
      {"mh_row_states_tensors: sum is NULL", "",
       [](Attempt& a) { return mh_row_states_tensors(a.states, &a.q, nullptr, &a.q); }},
      {"mh_workspace_create: workspace is NULL", "", [](Attempt&) { return mh_workspace_create(nullptr); }},
      {"mh_workspace_reserve: workspace is NULL", "", [](Attempt&) { return mh_workspace_reserve(nullptr, 1); }},
      {"mh_workspace_reserve: ", "",
       [](Attempt& a) { return mh_workspace_reserve(a.workspace, std::numeric_limits<std::size_t>::max()); },
       MH_OUT_OF_MEMORY},
      {"mh_workspace_bytes: bytes is NULL", "", [](Attempt& a) { return mh_workspace_bytes(a.workspace, nullptr); }},
  });
}

TEST(CDoorRefused, Caches) {
  expect_refused({
      {"mh_kv_cache_create: options is NULL", "", [](Attempt& a) { return mh_kv_cache_create(nullptr, &a.new_cache); }},
      {"mh_kv_cache_create: cache is NULL", "",
       [](Attempt& a) { return mh_kv_cache_create(&a.cache_options, nullptr); }},
      {"mh_kv_cache_create: num_kv_heads is 2, head_dim 0, value_dim 6: expected 1 or more", "",
       [](Attempt& a) { return a.cache_options.head_dim = 0, mh_kv_cache_create(&a.cache_options, &a.new_cache); }},
      {"mh_kv_cache_create: page_size is 17, expected", "",
       [](Attempt& a) { return a.cache_options.page_size = 17, mh_kv_cache_create(&a.cache_options, &a.new_cache); }},
      {"mh_kv_cache_create: page_size is 16 with in_one_piece, which has no pages", "",
       [](Attempt& a) {
         return a.cache_options.page_size = 16, a.cache_options.in_one_piece = 1,
                mh_kv_cache_create(&a.cache_options, &a.new_cache);
       }},
      {"mh_kv_cache_create: dtype is I64, expected F32, BF16, F16 or I8", "",
       [](Attempt& a) { return a.cache_options.dtype = MH_I64, mh_kv_cache_create(&a.cache_options, &a.new_cache); }},
      {"mh_kv_cache_create: dtype is -1, expected an mh_dtype", "",
       [](Attempt& a) { return a.cache_options.dtype = -1, mh_kv_cache_create(&a.cache_options, &a.new_cache); }},
      {"mh_kv_cache_create: num_kv_heads 9223372036854775807", "",
       [](Attempt& a) {
         return a.cache_options.num_kv_heads = kMost, mh_kv_cache_create(&a.cache_options, &a.new_cache);
       },
       MH_OUT_OF_MEMORY},
      {"mh_kv_cache_add: cache is NULL", "", [](Attempt& a) { return mh_kv_cache_add(nullptr, &a.number); }},
      {"mh_kv_cache_add: sequence is NULL", "", [](Attempt& a) { return mh_kv_cache_add(a.cache, nullptr); }},
      {"mh_kv_cache_fork: ", "7", [](Attempt& a) { return mh_kv_cache_fork(a.cache, 7, &a.number); }},
      {"mh_kv_cache_remove: ", "-1", [](Attempt& a) { return mh_kv_cache_remove(a.cache, -1); }},
      {"mh_kv_cache_length: ", "99", [](Attempt& a) { return mh_kv_cache_length(a.cache, 99, &a.number); }},
      {"mh_kv_cache_length: tokens is NULL", "",
       [](Attempt& a) { return mh_kv_cache_length(a.cache, a.sequence, nullptr); }},
      {"mh_kv_cache_truncate: length is -1, sequence 0 has 0 tokens", "",
       [](Attempt& a) { return mh_kv_cache_truncate(a.cache, a.sequence, -1); }},
      {"mh_kv_cache_append: k is undefined, expected F32, BF16 or F16 [Hkv,T,D] = [2,0,8]", "",
       [](Attempt& a) { return mh_kv_cache_append(a.cache, a.sequence, nullptr, &a.v, 0, nullptr); }},
      {"mh_kv_cache_append: k is F32 [2,2,5,8], expected F32, BF16 or F16 [Hkv,T,D]", "",
       [](Attempt& a) { return a.append(); }},
      {"mh_kv_cache_append: ", "64",
       [](Attempt& a) {
         return a.k.rank = a.v.rank = 3, a.k.shape[1] = a.v.shape[1] = 65, a.k.shape[2] = 8, a.v.shape[2] = 6,
                a.k.strides = a.v.strides = a.strides, a.append();
       },
       MH_OUT_OF_MEMORY},
      {"mh_kv_cache_append: num_threads is -2", "", [](Attempt& a) { return a.num_threads = -2, a.append(); }},
      {"mh_kv_cache_attention: 1 sequences for batch 2 (q F32 [2,4,3,8])", "",
       [](Attempt& a) { return a.over_cache(&a.sequence, 1); }},
      {"mh_kv_cache_attention: 18446744073709551615 sequences for batch 2 (q F32 [2,4,3,8])", "",
       [](Attempt& a) { return a.over_cache(&a.sequence, std::numeric_limits<std::size_t>::max()); }},
      {"mh_kv_cache_attention: sequences is NULL", "", [](Attempt& a) { return a.over_cache(nullptr, 2); }},
      {"mh_kv_cache_attention: cache is NULL", "",
       [](Attempt& a) { return mh_kv_cache_attention(&a.q, nullptr, &a.sequence, 1, &a.out, nullptr); }},
      {"mh_kv_cache_attention: ", "5",
       [](Attempt& a) {
         const std::int64_t wrong[] = {a.sequence, 5};
         return a.over_cache(wrong, 2);
       }},
      {"mh_kv_cache_attention: key_lengths I64 [2]: it is the cache's", "",
       [](Attempt& a) { return a.mask.key_lengths = &a.ids, a.over_cache(&a.sequence, 1); }},
      {"mh_kv_cache_attention: page_table I64 [2]: it is the cache's", "",
       [](Attempt& a) { return a.options.page_table = &a.ids, a.over_cache(&a.sequence, 1); }},
      {"mh_kv_cache_bytes: cache is NULL", "", [](Attempt& a) { return mh_kv_cache_bytes(nullptr, &a.bytes); }},
      {"mh_kv_cache_pages_in_use: pages is NULL", "",
       [](Attempt& a) { return mh_kv_cache_pages_in_use(a.cache, nullptr); }},
  });
}

TEST(CDoorRefused, Layers) {
  expect_refused({
      {"mh_layer_create: config is NULL", "", [](Attempt& a) { return mh_layer_create(nullptr, &a.new_layer); }},
      {"mh_layer_create: layer is NULL", "", [](Attempt& a) { return mh_layer_create(&a.config, nullptr); }},
      {"mh_layer_create: d_model 8 is not divisible by 3 heads (8 = 3 * 2 + 2); 1, 2, 4, 8 would divide", "",
       [](Attempt& a) { return a.config.num_heads = 3, mh_layer_create(&a.config, &a.new_layer); }},
      {"mh_layer_create: num_heads is -2, expected at least 1", "",
       [](Attempt& a) { return a.config.num_heads = -2, mh_layer_create(&a.config, &a.new_layer); }},
      {"mh_layer_create: d_model 9223372036854775806", "",
       [](Attempt& a) { return a.config.d_model = kMost - 1, mh_layer_create(&a.config, &a.new_layer); },
       MH_OUT_OF_MEMORY},
      {"mh_layer_create: dtype is 77, expected an mh_dtype", "",
       [](Attempt& a) { return a.config.dtype = 77, mh_layer_create(&a.config, &a.new_layer); }},
      {"mh_layer_create_from: missing in_proj_weight [24,8]", "out_proj.bias [8]",
       [](Attempt& a) { return mh_layer_create_from(&a.config, nullptr, nullptr, 0, &a.new_layer); }},
      {"mh_layer_create_from: names is NULL", "",
       [](Attempt& a) { return mh_layer_create_from(&a.config, nullptr, &a.q, 1, &a.new_layer); }},
      {"mh_layer_load_state_dict: tensors is NULL", "",
       [](Attempt& a) {
         const char* names[] = {"in_proj_weight"};
         return mh_layer_load_state_dict(a.layer, names, nullptr, 1);
       }},
      {"mh_layer_load_state_dict: names[0] is NULL", "",
       [](Attempt& a) {
         const char* names[] = {nullptr};
         return mh_layer_load_state_dict(a.layer, names, &a.q, 1);
       }},
      {"mh_layer_load_state_dict: in_proj_weight is given twice", "",
       [](Attempt& a) {
         const char* names[] = {"in_proj_weight", "in_proj_weight"};
         const mh_tensor both[] = {a.q, a.q};
         return mh_layer_load_state_dict(a.layer, names, both, 2);
       }},
      {"mh_layer_load_state_dict: in_proj_weight F32 [2,4,3,8] with strides [0,0,0,0] is not dense", "",
       [](Attempt& a) {
         const char* names[] = {"in_proj_weight"};
         a.q.strides = a.strides;
         return mh_layer_load_state_dict(a.layer, names, &a.q, 1);
       }},
      {"mh_layer_load_state_dict: names has 100000 elements, expected at most", "",
       [](Attempt& a) {
         const char* names[] = {"in_proj_weight"};
         return mh_layer_load_state_dict(a.layer, names, &a.q, 100000);
       }},
      {"mh_layer_load_state_dict: missing ", "not a tensor of this layer: \"in_proj\"",
       [](Attempt& a) {
         const char* names[] = {"in_proj"};
         return mh_layer_load_state_dict(a.layer, names, &a.q, 1);
       }},
      {"mh_layer_tensor: the layer has no tensor \"weight\"", "",
       [](Attempt& a) { return mh_layer_tensor(a.layer, "weight", &a.q); }},
      {"mh_layer_tensor: name is NULL", "", [](Attempt& a) { return mh_layer_tensor(a.layer, nullptr, &a.q); }},
      {"mh_layer_tensor_name: index is 4, the layer has 4 tensors", "",
       [](Attempt& a) { return mh_layer_tensor_name(a.layer, 4, &a.text); }},
      {"mh_layer_tensor_count: layer is NULL", "", [](Attempt& a) { return mh_layer_tensor_count(nullptr, &a.bytes); }},
      {"mh_layer_get_config: config->size is 0", "",
       [](Attempt& a) { return a.config.size = 0, mh_layer_get_config(a.layer, &a.config); }},
      {"mh_layer_parameter_count: count is NULL", "",
       [](Attempt& a) { return mh_layer_parameter_count(a.layer, nullptr); }},
      {"mh_layer_forward: query is missing", "",
       [](Attempt& a) { return mh_layer_forward(a.layer, nullptr, nullptr, nullptr, &a.out, nullptr); }},
      {"mh_layer_forward: key is missing", "",
       [](Attempt& a) {
         return a.q.rank = 3, a.q.shape[2] = 8, mh_layer_forward(a.layer, &a.q, nullptr, &a.q, &a.out, nullptr);
       }},
      {"mh_layer_forward: query is [2,4,3,8], expected [batch, tokens, 8]", "", [](Attempt& a) { return a.forward(); }},
      {"mh_layer_forward: reserved is 1, expected 0", "",
       [](Attempt& a) { return a.layer_options.reserved = 1, a.forward(); }},
      {"mh_layer_forward: layer is NULL", "",
       [](Attempt& a) { return mh_layer_forward(nullptr, &a.q, nullptr, nullptr, &a.out, nullptr); }},
      {"mh_layer_activations_create: activations is NULL", "",
       [](Attempt&) { return mh_layer_activations_create(nullptr); }},
      {"mh_layer_backward: activations.q is ", "they are those of a forward() of these inputs",
       [](Attempt& a) { return a.layer_backward(); }},
      {"mh_layer_backward: activations is NULL", "",
       [](Attempt& a) {
         return mh_layer_backward(a.layer, &a.x, nullptr, nullptr, nullptr, &a.x, &a.layer_gradients, nullptr);
       }},
      {"mh_layer_backward: gradients is NULL", "",
       [](Attempt& a) {
         return mh_layer_backward(a.layer, &a.x, nullptr, nullptr, a.activations, &a.x, nullptr, nullptr);
       }},
      {"mh_layer_backward: gradients->size is 0", "",
       [](Attempt& a) { return a.layer_gradients.size = 0, a.layer_backward(); }},
      {"mh_layer_backward: gradients->reserved is 1, expected 0", "",
       [](Attempt& a) { return a.layer_gradients.reserved = 1, a.layer_backward(); }},
      {"mh_layer_backward: gradients->names is NULL", "",
       [](Attempt& a) { return a.layer_gradients.count = 1, a.layer_backward(); }},
      {"mh_layer_backward: in_proj_bias is given twice", "",
       [](Attempt& a) {
         const char* names[] = {"in_proj_bias", "in_proj_bias"};
         const mh_tensor both[] = {a.dq, a.dq};
         a.layer_gradients.names = names;
         a.layer_gradients.parameters = both;
         a.layer_gradients.count = 2;
         return a.layer_backward();
       }},
      {"mh_layer_backward: dy is undefined, expected F32, BF16 or F16 [2,3,8]", "",
       [](Attempt& a) {
         return mh_layer_backward(a.layer, &a.x, nullptr, nullptr, a.activations, nullptr, &a.layer_gradients, nullptr);
       }},
      {"mh_head_count_problem: problem is NULL", "", [](Attempt&) { return mh_head_count_problem(8, 3, nullptr); }},
  });
}

TEST(CDoorRefused, TheMachine) {
  expect_refused({
      {"mh_set_isa: ", "\"quantum\"", [](Attempt&) { return mh_set_isa("quantum"); }},
      {"mh_active_isa: name is NULL", "", [](Attempt&) { return mh_active_isa(nullptr); }},
      {"mh_active_bits: dtype is 9, expected an mh_dtype, 0 to 8", "",
       [](Attempt& a) { return mh_active_bits(9, &a.text); }},
      {"mh_active_bits: family is NULL", "", [](Attempt&) { return mh_active_bits(MH_F32, nullptr); }},
      {"mh_available_isas: names is NULL", "", [](Attempt& a) { return mh_available_isas(nullptr, &a.bytes); }},
      {"mh_default_num_threads: threads is NULL", "", [](Attempt&) { return mh_default_num_threads(nullptr); }},
      {"mh_limits: limits is NULL", "", [](Attempt&) { return mh_limits(1, nullptr, nullptr); }},
      {"mh_limits: limits->size is 0, expected sizeof *limits (96 bytes here)", "",
       [](Attempt& a) { return a.limits.size = 0, mh_limits(1, nullptr, &a.limits); }},
      {"mh_limits: num_threads is -1, expected 0 or more", "",
       [](Attempt& a) { return mh_limits(-1, nullptr, &a.limits); }},
      {"mh_limits: executor->run is NULL", "",
       [](Attempt& a) { return a.executor.run = nullptr, mh_limits(1, &a.executor, &a.limits); }},
  });
  EXPECT_STREQ(mh_dtype_name(9), "?");
  EXPECT_STREQ(mh_dtype_name(-1), "?");
  EXPECT_EQ(mh_dtype_size(9), 0u);
}

}  // namespace
}  // namespace manyheads::test
