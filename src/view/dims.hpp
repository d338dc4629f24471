#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include <manyheads/tensor.hpp>

// How d_model is cut into heads: shapes, parameters, work.
namespace manyheads::view {

struct LayerSize {
  std::int64_t d_model = 512;
  std::int64_t tokens = 128;
  std::int64_t batch = 1;
  std::int64_t kv_heads = 0;  // 0: as many as there are heads
  std::string dtype = "f32";  // f32, bf16 or f16
  int threads = 0;
};

DType dtype_named(const std::string& name);

struct Step {
  const char* name;
  double flop = 0;
  double bytes = 0;
  double intensity() const { return flop / bytes; }
};

// One way to cut d_model into heads.
struct Cut {
  std::int64_t heads = 0;
  std::int64_t d_k = 0;
  std::int64_t kv_width = 0;  // columns of W_k and W_v: those of its key/value heads
  std::string problem;        // why it does not divide, or empty
  std::vector<Step> steps;    // one after the other, each reading its inputs and writing its outputs once
  Step fused;                 // scores, softmax and values in one pass
  std::optional<double> seconds;
  std::optional<double> ratio;  // to the single head, measured in turn with it
};

struct MachineRoofline {
  double fma = 0;     // GFLOP/s
  double memory = 0;  // GB/s
  double ridge() const { return fma / memory; }
};

// Of W_q, W_k, W_v, W_o and their biases.
double parameters(double d_model, double kv_width);
Cut make_cut(const LayerSize& request, std::int64_t heads);
const char* binding(const Step& step, const MachineRoofline& limits);  // what a step waits for

nlohmann::ordered_json dims_json(const LayerSize& request, const std::vector<Cut>& cuts,
                                 const std::optional<MachineRoofline>& limits);

}  // namespace manyheads::view
