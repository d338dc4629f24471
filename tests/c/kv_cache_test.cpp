#include <gtest/gtest.h>

#include <vector>

#include <manyheads/kv_cache.hpp>

#include "allocations.hpp"
#include "attention/call.hpp"
#include "attention/draw.hpp"
#include "c/door.hpp"

namespace manyheads::test {
namespace {

#define EXPECT_OK(call) EXPECT_EQ(call, MH_OK) << mh_last_error()

// Random adds, forks, appends, truncations and removals in both doors, and attention over what is there.
TEST(CDoorCache, HasTheBitsOfCpp) {
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    Draw draw(seed);
    KVCacheOptions how{.num_kv_heads = draw.between(1, 3), .head_dim = draw.between(1, 40)};
    how.value_dim = draw.chance(0.5) ? 0 : draw.between(1, 40);
    how.dtype = draw.chance(0.3) ? DType::kI8 : random_type(draw);
    how.page_size = draw.chance(0.2) ? 0 : 16 * draw.between(1, 4);
    KVCache cpp(how);
    mh_kv_cache_options same = MH_DEFAULT(mh_kv_cache_options);
    same.num_kv_heads = how.num_kv_heads == 1 ? 0 : how.num_kv_heads;
    same.head_dim = how.head_dim;
    same.value_dim = how.value_dim;
    same.dtype = static_cast<std::int32_t>(how.dtype);
    same.page_size = how.page_size == 64 ? 0 : how.page_size;
    same.in_one_piece = how.page_size == 0 ? 1 : 0;
    mh_kv_cache* c = nullptr;
    ASSERT_EQ(mh_kv_cache_create(&same, &c), MH_OK) << mh_last_error();
    const std::int64_t dv = how.value_dim == 0 ? how.head_dim : how.value_dim;
    std::vector<std::int64_t> there;
    std::int64_t id = -1;
    const auto any = [&] { return there[static_cast<std::size_t>(draw.between(0, std::ssize(there) - 1))]; };
    for (int step = 0; step < 40; ++step) {
      Door door;
      const std::int64_t kind = there.empty() ? 0 : draw.between(0, 9);
      if (kind == 0) {
        there.push_back(cpp.add());
        EXPECT_OK(mh_kv_cache_add(c, &id));
        EXPECT_EQ(id, there.back());
      } else if (kind == 1) {
        const std::int64_t from = any();
        there.push_back(cpp.fork(from));
        EXPECT_OK(mh_kv_cache_fork(c, from, &id));
        EXPECT_EQ(id, there.back());
      } else if (kind == 2) {
        const std::int64_t of = any(), length = draw.between(0, cpp.length(of));
        cpp.truncate(of, length);
        EXPECT_OK(mh_kv_cache_truncate(c, of, length));
      } else if (kind == 3 && there.size() > 2) {
        const std::int64_t of = any();
        cpp.remove(of);
        EXPECT_OK(mh_kv_cache_remove(c, of));
        std::erase(there, of);
      } else {
        const std::int64_t of = any(), tokens = draw.between(0, 70);
        std::normal_distribution<double> normal;
        const auto make = [&](const Index&) { return normal(draw.engine); };
        const Strided k = filled(DType::kF32, {how.num_kv_heads, tokens, how.head_dim}, make);
        const Strided v = filled(DType::kBF16, {how.num_kv_heads, tokens, dv}, make);
        cpp.append(of, k.view(), v.view());
        EXPECT_OK(mh_kv_cache_append(c, of, door.tensor(k.view()), door.tensor(v.view()), 2, nullptr));
      }
    }
    std::size_t bytes = 0;
    std::int64_t pages = -1, length = -1;
    EXPECT_OK(mh_kv_cache_bytes(c, &bytes));
    EXPECT_OK(mh_kv_cache_pages_in_use(c, &pages));
    EXPECT_OK(mh_kv_cache_length(c, there.back(), &length));
    EXPECT_EQ(bytes, cpp.bytes());
    EXPECT_EQ(pages, cpp.pages_in_use());
    EXPECT_EQ(length, cpp.length(there.back()));

    Call a({.batch = std::ssize(there), .q_heads = how.num_kv_heads * 2, .tq = 3, .d = how.head_dim, .dv = dv},
           how.dtype == DType::kI8 ? DType::kF32 : how.dtype, DType::kF32, seed);
    a.out.fill([](const Index&) { return 777.0; });
    Strided out = a.out;
    a.options.mask = mask::causal(Alignment::kBottomRight);
    attention(a.q.view(), cpp, there, a.out.mutable_view(), a.options);
    Door door;
    EXPECT_OK(mh_kv_cache_attention(door.tensor(a.q.view()), c, there.data(), there.size(),
                                    door.tensor(out.mutable_view()), door.options(a.options)));
    EXPECT_TRUE(out.memory == a.out.memory) << "seed " << seed;
    mh_kv_cache_destroy(c);
  }
}

TEST(CDoorCache, AStepInAGrownWorkspaceAllocatesNothing) {
  mh_kv_cache_options how = MH_DEFAULT(mh_kv_cache_options);
  how.head_dim = 8;
  mh_kv_cache* cache = nullptr;
  std::int64_t sequence = -1;
  mh_workspace* workspace = nullptr;
  Call call({.tq = 1, .tk = 20});
  Door door;
  const Strided k = filled(DType::kF32, {1, 20, 8}, [](const Index& at) { return static_cast<double>(at[1]); });
  EXPECT_OK(mh_kv_cache_create(&how, &cache));
  EXPECT_OK(mh_kv_cache_add(cache, &sequence));
  EXPECT_OK(mh_kv_cache_append(cache, sequence, door.tensor(k.view()), door.tensor(k.view()), 1, nullptr));
  EXPECT_OK(mh_workspace_create(&workspace));
  mh_attention_options* options = door.options({.threads = {.num_threads = 1}});
  options->workspace = workspace;
  const mh_tensor *q = door.tensor(call.q.view()), *out = door.tensor(call.out.mutable_view());
  EXPECT_OK(mh_kv_cache_attention(q, cache, &sequence, 1, out, options));
  const std::int64_t before = allocations();
  for (int step = 0; step < 10; ++step) EXPECT_OK(mh_kv_cache_attention(q, cache, &sequence, 1, out, options));
  EXPECT_EQ(allocations(), before);
  mh_workspace_destroy(workspace);
  mh_kv_cache_destroy(cache);
}

}  // namespace
}  // namespace manyheads::test
