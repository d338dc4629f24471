// Calls the installed library: attention, the layer and an error. Ends with 0 when all three are as they should be.
#include <cmath>
#include <cstdio>
#include <vector>

#include <manyheads/manyheads.hpp>

int main() {
  using namespace manyheads;
  std::vector<float> q(8 * 64, 0.0f), v(8 * 64), out(8 * 64), lse_data(8);
  for (std::size_t i = 0; i < v.size(); ++i) v[i] = static_cast<float>(i / 64);
  const Dims shape{1, 1, 8, 64};
  const TensorView lse(lse_data.data(), {1, 1, 8});
  attention({q.data(), shape}, {q.data(), shape}, {v.data(), shape}, TensorView(out.data(), shape),
            {.mask = mask::causal(), .lse = lse});
  // Equal scores under a causal mask: row i is the mean of values 0 to i, and lse is log(i + 1).
  const bool attends = std::fabs(out[7 * 64] - 3.5f) < 1e-5f && std::fabs(lse_data[7] - std::log(8.0f)) < 1e-5f;

  const MultiHeadAttention layer({.d_model = 64, .num_heads = 4});
  layer.forward({v.data(), {1, 8, 64}}, TensorView(out.data(), {1, 8, 64}));

  bool refuses = false;
  try {
    MultiHeadAttention({.d_model = 512, .num_heads = 7});
  } catch (const Error& error) {
    refuses = error.code() == ErrorCode::kInvalidArgument;
  }
  std::printf("consumer on %s: attention %s, error %s\n", active_isa().c_str(), attends ? "right" : "wrong",
              refuses ? "raised" : "missed");
  return attends && refuses ? 0 : 1;
}
