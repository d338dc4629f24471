#include "c/refused.hpp"

namespace manyheads::test {
namespace {

TEST(CDoorRefused, AttemptsAreGood) {
  Attempt a;
  EXPECT_EQ(a.attend(), MH_OK) << mh_last_error();
  EXPECT_FALSE(a.written() == a.before);
}

TEST(CDoorRefused, Tensors) {
  expect_refused({
      {"mh_attention: q is undefined, expected [B,Hq,Tq,D]", "",
       [](Attempt& a) { return mh_attention(nullptr, &a.k, &a.v, &a.out, nullptr); }},
      {"mh_attention: out is undefined, expected [B,Hq,Tq,Dv]", "",
       [](Attempt& a) { return mh_attention(&a.q, &a.k, &a.v, nullptr, nullptr); }},
      {"mh_attention: k has rank 99, expected 0 to 8", "", [](Attempt& a) { return a.k.rank = 99, a.attend(); }},
      {"mh_attention: v has rank -1, expected 0 to 8", "", [](Attempt& a) { return a.v.rank = -1, a.attend(); }},
      {"mh_attention: q is F32 [2,4,3], expected [B,Hq,Tq,D]", "", [](Attempt& a) { return a.q.rank = 3, a.attend(); }},
      {"mh_attention: q->dtype is 42, expected an mh_dtype, 0 to 8", "",
       [](Attempt& a) { return a.q.dtype = 42, a.attend(); }},
      {"mh_attention: q->dtype is -2147483648", "",
       [](Attempt& a) { return a.q.dtype = std::numeric_limits<std::int32_t>::min(), a.attend(); }},
      {"mh_attention: q is I32 [2,4,3,8], expected F32, BF16 or F16", "",
       [](Attempt& a) { return a.q.dtype = MH_I32, a.attend(); }},
      {"mh_attention: k must have q's type", "(q F32 [2,4,3,8], k F16 [2,2,5,8], v F32 [2,2,5,6])",
       [](Attempt& a) { return a.k.dtype = MH_F16, a.attend(); }},
      {"mh_attention: k has head size 7, q has 8", "(q F32 [2,4,3,8], k F32 [2,2,5,7], v F32 [2,2,5,6])",
       [](Attempt& a) { return a.k.shape[3] = 7, a.attend(); }},
      {"mh_attention: v: shape [2,2,-5,6] has a negative size", "",
       [](Attempt& a) { return a.v.shape[2] = -5, a.attend(); }},
      {"mh_attention: q: shape [9223372036854775807,4,3,8] holds more than 2^63 elements", "",
       [](Attempt& a) { return a.q.shape[0] = kMost, a.attend(); }},
      {"mh_attention: q: a view of shape [2,4,3,8] on a null pointer", "",
       [](Attempt& a) { return a.q.data = nullptr, a.attend(); }},
      {"mh_attention: k: a view of shape [2,2,5,8] with strides [-9223372036854775808,0,0,0] reaches beyond", "",
       [](Attempt& a) { return a.strides[0] = kLeast, a.k.strides = a.strides, a.attend(); }},
      {"mh_attention: out is F32 [2,4,3,5], expected [B,Hq,Tq,Dv] = [2,4,3,6]", "k F32 [2,2,5,8]",
       [](Attempt& a) { return a.out.shape[3] = 5, a.attend(); }},
      {"mh_attention: out F32 [2,4,3,6] with strides [0,0,0,0] overlaps itself", "",
       [](Attempt& a) { return a.out.strides = a.strides, a.attend(); }},
      {"mh_attention: out F32 [2,4,3,6] overlaps q F32 [2,4,3,8]", "",
       [](Attempt& a) { return a.out.data = a.q.data, a.attend(); }},
      {"mh_attention: out F32 [2,4,3,6] overlaps lse F32 [2,4,3]", "",
       [](Attempt& a) { return a.lse.data = a.out.data, a.attend(); }},
      {"mh_attention: lse is F32 [2,4,4], expected F32 [B,Hq,Tq] = [2,4,3]", "",
       [](Attempt& a) { return a.lse.shape[2] = 4, a.attend(); }},
      {"mh_attention_weights: weights is F32 [2,4,3,4], expected F32 [B,Hq,Tq,Tk] = [2,4,3,5]", "",
       [](Attempt& a) {
         return a.weights.shape[3] = 4, mh_attention_weights(&a.q, &a.k, &a.lse, &a.weights, nullptr);
       }},
      {"mh_attention_weights: lse is undefined", "",
       [](Attempt& a) { return mh_attention_weights(&a.q, &a.k, nullptr, &a.weights, nullptr); }},
      {"mh_attention_workspace_size: bytes is NULL", "",
       [](Attempt& a) { return mh_attention_workspace_size(&a.q, &a.k, &a.v, &a.out, nullptr, nullptr); }},
      {"mh_explain: explanation is NULL", "",
       [](Attempt& a) { return mh_explain(&a.q, &a.k, &a.v, &a.out, nullptr, nullptr); }},
      {"mh_explain: v has 6 keys, k has 5", "v F32 [2,2,6,6]",
       [](Attempt& a) { return a.v.shape[2] = 6, mh_explain(&a.q, &a.k, &a.v, &a.out, nullptr, &a.explanation); }},
  });
}

TEST(CDoorRefused, OptionsAndMasks) {
  expect_refused({
      {"mh_attention: options->size is 0, expected sizeof *options (", "",
       [](Attempt& a) { return a.options.size = 0, a.attend(); }},
      {"mh_attention: options->size is 13, expected", "", [](Attempt& a) { return a.options.size = 13, a.attend(); }},
      {"mh_attention: mask->size is 18446744073709551608, expected", "",
       [](Attempt& a) { return a.mask.size = std::numeric_limits<std::size_t>::max() - 7, a.attend(); }},
      {"mh_attention: scale is nan, expected a finite number", "",
       [](Attempt& a) { return a.scale = kNaN, a.options.scale = &a.scale, a.attend(); }},
      {"mh_attention: softcap is -1, expected", "", [](Attempt& a) { return a.options.softcap = -1, a.attend(); }},
      {"mh_attention: softcap is inf, expected", "", [](Attempt& a) { return a.options.softcap = kInf, a.attend(); }},
      {"mh_attention: num_threads is -3, expected 0 or more", "",
       [](Attempt& a) { return a.options.num_threads = -3, a.attend(); }},
      {"mh_attention: mask->alignment is 3, expected an mh_alignment, 0 to 2", "",
       [](Attempt& a) { return a.mask.alignment = 3, a.attend(); }},
      {"mh_attention: causal with 3 queries and 5 keys: say top_left or bottom_right", "q F32 [2,4,3,8]",
       [](Attempt& a) { return a.mask.causal = 1, a.attend(); }},
      {"mh_attention: window left is -9, expected -1 (unbounded) or more", "",
       [](Attempt& a) { return a.window[0] = -9, a.mask.window = a.window, a.attend(); }},
      {"mh_attention: key_lengths[0] is 6, expected 0 to Tk = 5", "",
       [](Attempt& a) {
         const Strided lengths = integers({6, 1});
         a.mask.key_lengths = a.door.tensor(lengths.view());
         return a.attend();
       }},
      {"mh_attention: key_starts[1] is -1, expected 0 to Tk = 5", "",
       [](Attempt& a) {
         const Strided starts = integers({0, -1});
         a.mask.key_starts = a.door.tensor(starts.view());
         return a.attend();
       }},
      {"mh_attention: offsets is I64 [3], expected I32 or I64 [2]", "",
       [](Attempt& a) { return a.ids.shape[0] = 3, a.mask.offsets = &a.ids, a.attend(); }},
      {"mh_attention: q_documents without k_documents", "",
       [](Attempt& a) { return a.mask.q_documents = &a.ids, a.attend(); }},
      {"mh_attention: allowed is F32 [2,4,3,5], expected BOOL (a float mask is a bias)", "",
       [](Attempt& a) { return a.mask.allowed = &a.weights, a.attend(); }},
      {"mh_attention: allowed and ignored: a call takes one bool mask", "",
       [](Attempt& a) { return a.weights.dtype = MH_BOOL, a.mask.allowed = a.mask.ignored = &a.weights, a.attend(); }},
      {"mh_attention: bias is F32 [2,4,3,8], which does not broadcast to [B,Hq,Tq,Tk] = [2,4,3,5]", "",
       [](Attempt& a) { return a.mask.bias = &a.q, a.attend(); }},
      {"mh_attention: alibi_slopes is I64 [2], expected F32 [4]", "",
       [](Attempt& a) { return a.mask.alibi_slopes = &a.ids, a.attend(); }},
      {"mh_attention: sinks is I64 [2], expected F32 [4]", "",
       [](Attempt& a) { return a.options.sinks = &a.ids, a.attend(); }},
      {"mh_attention: row_states are of 5 keys, the call has 4", "",
       [](Attempt& a) { return a.k.shape[2] = a.v.shape[2] = 4, a.options.row_states = a.states, a.attend(); }},
      {"mh_attention: q is F32 [2,4,3,8], expected [Tq,Hq,D]", "",
       [](Attempt& a) { return a.options.cu_seqlens_q = &a.ids, a.attend(); }},
      {"mh_attention: page_table is I64 [2], expected I32 or I64 [B,N]", "",
       [](Attempt& a) { return a.options.page_table = &a.ids, a.attend(); }},
      {"mh_attention: k_scales with k F32 [2,2,5,8]: only I8 takes scales", "",
       [](Attempt& a) { return a.options.k_scales = &a.lse, a.attend(); }},
      {"mh_attention: int8_products takes I8 keys and values", "k F32 [2,2,5,8]",
       [](Attempt& a) { return a.options.int8_products = 1, a.attend(); }},
      {"mh_attention: bits \"f99\"", "", [](Attempt& a) { return a.options.bits = "f99", a.attend(); }, MH_UNSUPPORTED},
      {"mh_attention: executor->run is NULL", "",
       [](Attempt& a) { return a.executor.run = nullptr, a.options.executor = &a.executor, a.attend(); }},
      {"mh_attention: executor->concurrency is NULL", "",
       [](Attempt& a) { return a.executor.concurrency = nullptr, a.options.executor = &a.executor, a.attend(); }},
      {"mh_attention: executor->size is 0", "",
       [](Attempt& a) { return a.executor.size = 0, a.options.executor = &a.executor, a.attend(); }},
  });
}

}  // namespace
}  // namespace manyheads::test
