#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include <manyheads/cpu.hpp>
#include <manyheads/multi_head_attention.hpp>
#include <manyheads/safetensors.hpp>

#include "layer/golden_case.hpp"
#include "layer/gradient_reference.hpp"

// The layer's gradients against torch.autograd's in float64.
namespace manyheads::layer_test {
namespace {

namespace fs = std::filesystem;

std::map<std::string, Tensor> gradients_of(const Golden& g, const Tensor& dy) {
  const MultiHeadAttention layer(g.c.config, g.c.state);
  MultiHeadAttentionActivations kept;
  MultiHeadAttentionOptions options = g.options;
  options.activations = &kept;
  Tensor y(DType::kF32, g.c.query.shape());
  std::map<std::string, Tensor> all;
  const auto make = [&](const std::string& name, const Dims& shape) {
    return (all[name] = Tensor(DType::kF32, shape)).view();
  };
  MultiHeadAttentionGradients to;
  to.dquery = make("query", g.c.query.shape());
  for (const auto& [name, tensor] : g.c.state) to.parameters[name] = make(name, tensor.shape());
  if (g.self_attention) {
    layer.forward(g.c.query.cview(), y.view(), options);
    layer.backward(g.c.query.cview(), kept, dy.cview(), to, options);
  } else {
    to.dkey = make("key", g.c.key.shape());
    to.dvalue = make("value", g.c.value.shape());
    layer.forward(g.c.query.cview(), g.c.key.cview(), g.c.value.cview(), y.view(), options);
    layer.backward(g.c.query.cview(), g.c.key.cview(), g.c.value.cview(), kept, dy.cview(), to, options);
  }
  return all;
}

class GoldenGradients : public testing::TestWithParam<fs::path> {};

TEST_P(GoldenGradients, AreThoseOfAutograd) {
  const SafetensorsFile file = load_safetensors(GetParam());
  const Tensor& dy = file.at("dy");
  const Golden g = read_golden(test::source_dir() / "tests/golden/mha" / GetParam().filename());
  const std::map<std::string, Matrix> reference = reference_gradients(g.c, dy, g.self_attention);
  ASSERT_EQ(file.tensors.size(), reference.size() + 1);
  for (const std::string& isa : available_isas()) {
    set_isa(isa);
    const std::map<std::string, Tensor> found = gradients_of(g, dy);
    for (const auto& [name, expected] : reference) {
      const bool input = name == "query" || name == "key" || name == "value";
      const std::vector<double> golden = values(file.at((input ? "d" : "grad.") + name));
      const std::vector<double> got = values(found.at(name));
      ASSERT_EQ(golden.size(), expected.value.size()) << name;
      ASSERT_EQ(golden.size(), got.size()) << name;
      double largest = 0;
      for (const double x : golden) largest = std::max(largest, std::abs(x));
      for (std::size_t i = 0; i < golden.size(); ++i) {
        ASSERT_NEAR(expected.value[i], golden[i], 1e-12 * std::max(1.0, largest)) << name << " " << i;
        ASSERT_LE(std::abs(got[i] - golden[i]), expected.bound[i]) << isa << ": " << name << " " << i;
      }
    }
  }
  set_isa("");
}

INSTANTIATE_TEST_SUITE_P(Files, GoldenGradients, testing::ValuesIn(golden_files("mha_gradients")),
                         [](const auto& file) { return file.param.stem().string(); });

TEST(GoldenGradientFiles, AreThere) { EXPECT_GE(golden_files("mha_gradients").size(), 19U); }

}  // namespace
}  // namespace manyheads::layer_test
