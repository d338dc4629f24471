#include <gtest/gtest.h>

#include <vector>

#include "attention/call.hpp"
#include "attention/draw.hpp"

// Parts of the keys, computed apart, come to the bits of one call over all of them.
namespace manyheads::test {
namespace {

class RowStatesBits : public AtEachIsa {};
MANYHEADS_AT_EACH_ISA(RowStatesBits);

// Keys [begin, end) of a tensor [B,H,T,D].
ConstTensorView keys_of(const Strided& tensor, std::int64_t begin, std::int64_t end) {
  const ConstTensorView all = tensor.view();
  Dims shape = all.shape();
  shape[2] = end - begin;
  return ConstTensorView(static_cast<const char*>(all.data()) +
                             begin * all.stride(2) * static_cast<std::int64_t>(size_of(all.dtype())),
                         all.dtype(), shape, all.strides());
}

// The call over all keys, and the same from parts that end at `cuts`. `causal`: with the diagonal at `offset`.
void expect_same(const Sizes& s, DType type, const std::vector<std::int64_t>& cuts, bool causal, bool with_sinks) {
  Call whole(s, type, type, 7);
  const std::int64_t offset = s.tk - s.tq;
  std::vector<std::int64_t> offsets(static_cast<std::size_t>(s.batch), offset);
  const Strided places = integers(offsets);
  if (causal) whole.options.mask = mask::causal() | mask::offsets(places.view());
  const Strided sinks = filled(DType::kF32, {s.q_heads}, [](const Index& at) { return static_cast<double>(at[0]) - 1; });
  if (with_sinks) whole.options.sinks = sinks.view();
  whole.run();

  std::vector<RowStates> parts;
  std::int64_t begin = 0;
  for (const std::int64_t end : cuts) {
    RowStates& part = parts.emplace_back(begin, end - begin, s.batch, s.q_heads, s.tq, s.dv);
    AttentionOptions options;
    std::vector<std::int64_t> moved(static_cast<std::size_t>(s.batch), offset - begin);
    const Strided here = integers(moved);
    if (causal) options.mask = mask::causal() | mask::offsets(here.view());
    options.row_states = &part;
    options.threads.num_threads = 2;
    Strided out = dense(type, {s.batch, s.q_heads, s.tq, s.dv});
    attention(whole.q.view(), keys_of(whole.k, begin, end), keys_of(whole.v, begin, end), out.mutable_view(), options);
    if (cuts.size() == 1) {  // states change no bit of the call that leaves them
      Call same(s, type, type, 7);
      same.options = whole.options;
      RowStates again(0, end, s.batch, s.q_heads, s.tq, s.dv);
      same.options.row_states = &again;
      same.run();
      EXPECT_TRUE(same_bits(whole, same));
    }
    begin = end;
  }
  Call merged(s, type, type, 7);
  merge_attention(parts, merged.out.mutable_view(), merged.lse.mutable_view(),
                  with_sinks ? sinks.view() : ConstTensorView{}, {.num_threads = 3});
  EXPECT_TRUE(same_bits(whole, merged)) << name_of(type) << ", " << s.tq << " queries, " << s.tk << " keys, "
                                        << cuts.size() << " parts" << (causal ? ", causal" : "");
}

TEST_P(RowStatesBits, PartsThatEndOnAChunkCombineToOneCall) {
  const std::vector<std::vector<std::int64_t>> cuts{
      {3000}, {512, 3000}, {1024, 3000}, {1536, 2048, 3000}, {512, 1024, 1536, 2048, 2560, 3000}, {2560, 3000}};
  for (const DType type : {DType::kF32, DType::kBF16}) {
    for (const std::vector<std::int64_t>& cut : cuts) {
      expect_same({.batch = 2, .q_heads = 4, .kv_heads = 2, .tq = 3, .tk = 3000, .d = 40, .dv = 33}, type, cut, false,
                  false);
    }
    expect_same({.batch = 1, .q_heads = 2, .kv_heads = 1, .tq = 90, .tk = 3000, .d = 64, .dv = 64}, type, cuts[3], true,
                true);
    expect_same({.batch = 1, .q_heads = 1, .kv_heads = 1, .tq = 1, .tk = 400, .d = 16, .dv = 8}, type, {400}, false,
                true);
  }
}

TEST(RowStatesErrors, NameThePartAndTheShapes) {
  EXPECT_EQ(RowStates::branches(0, 3000), 2);    // chunks 0 to 3, 4 and 5
  EXPECT_EQ(RowStates::branches(512, 3000), 4);  // chunk 1, 2 and 3, 4 and 5, 6
  EXPECT_EQ(error_of([] { RowStates::branches(100, 5); }), "RowStates: keys_before is 100, expected a multiple of 512");
  Call call({.tq = 2, .tk = 600});
  RowStates states(0, 600, 1, 1, 2, 8);
  states.keys = 500;
  call.options.row_states = &states;
  EXPECT_EQ(error_of([&] { call.run(); }), "attention: row_states are of 500 keys, the call has 600");
  states.keys = 600;
  states.sum = Tensor(DType::kF32, {2, 1, 1, 2});
  EXPECT_EQ(error_of([&] { call.run(); }), "attention: row_states.sum is F32 [2,1,1,2], expected F32 [1,1,1,2]");
  std::vector<RowStates> parts;
  parts.emplace_back(0, 512, 1, 1, 2, 8);
  parts.emplace_back(1024, 10, 1, 1, 2, 8);
  EXPECT_EQ(error_of([&] { merge_attention(parts, call.out.mutable_view()); }),
            "merge_attention: parts[1] begins at key 1024, the part before it ends at 512");
  EXPECT_EQ(error_of([&] { merge_attention({}, call.out.mutable_view()); }), "merge_attention: there are no row states");
}

}  // namespace
}  // namespace manyheads::test
