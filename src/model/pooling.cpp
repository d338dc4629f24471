#include "model/pooling.hpp"

#include <algorithm>
#include <cmath>
#include <manyheads/error.hpp>
#include <string>

#include "model/json.hpp"

namespace manyheads::model {
namespace {

namespace fs = std::filesystem;

constexpr const char* kKnownModes = "mean or cls, and no other beside it";

PoolingConfig::Mode read_mode(const JsonDocument& config) {
  if (has(config, "pooling_mode")) {
    const std::string mode = require_string(config, "pooling_mode");
    if (mode == "mean") return PoolingConfig::Mode::kMean;
    if (mode == "cls") return PoolingConfig::Mode::kCls;
    refuse_json(config, "pooling_mode", "mean or cls");
  }
  constexpr const char* kPrefix = "pooling_mode_";
  bool mean = false, cls = false;
  for (const auto& [key, value] : config.value.items()) {
    if (key.rfind(kPrefix, 0) != 0 || !require_bool(config, key)) continue;
    if (key == "pooling_mode_mean_tokens") {
      mean = true;
    } else if (key == "pooling_mode_cls_token") {
      cls = true;
    } else {
      refuse_json(config, key, std::string("false: the modes that are known are ") + kKnownModes);
    }
  }
  if (mean == cls) {
    throw Error(ErrorCode::kMalformedFile, config.place + ": the pooling mode must be " + kKnownModes);
  }
  return mean ? PoolingConfig::Mode::kMean : PoolingConfig::Mode::kCls;
}

// A module's folder lies in the model's: the file must not lead out of it.
bool stays_inside(const fs::path& path) {
  return !path.is_absolute() &&
         std::none_of(path.begin(), path.end(), [](const fs::path& part) { return part == ".."; });
}

}  // namespace

PoolingConfig load_pooling(const fs::path& folder) {
  std::error_code none;
  if (!fs::exists(folder / "modules.json", none)) return {};
  const JsonDocument modules = read_json(folder / "modules.json");
  if (!modules.value.is_array()) {
    throw Error(ErrorCode::kMalformedFile, modules.place + ": a list of modules is needed");
  }
  PoolingConfig config;
  config.normalize = false;
  bool pools = false;
  for (std::size_t i = 0; i < modules.value.size(); ++i) {
    const JsonDocument module{modules.value[i], modules.place + ", module " + std::to_string(i)};
    std::string type = require_string(module, "type");
    type = type.substr(type.rfind('.') + 1);
    if (type == "Pooling" && !pools) {
      const fs::path path = require_string(module, "path");
      if (!stays_inside(path)) refuse_json(module, "path", "a folder inside the model's");
      config.mode = read_mode(read_json(folder / path / "config.json"));
      pools = true;
    } else if (type == "Normalize" && pools) {
      config.normalize = true;
    } else if (type != "Transformer" || i != 0) {
      refuse_json(module, "type", "Transformer, Pooling and Normalize, in this order");
    }
  }
  if (!pools) throw Error(ErrorCode::kMalformedFile, modules.place + ": no module of type Pooling");
  return config;
}

Tensor pool(ConstTensorView hidden, const std::vector<std::int64_t>& lengths, const PoolingConfig& config) {
  if (hidden.rank() != 3 || hidden.dtype() != DType::kF32) {
    throw Error(ErrorCode::kInvalidArgument, std::string("pool: hidden is ") + name_of(hidden.dtype()) + " " +
                                                 hidden.shape().to_string() + ", expected F32 [B,T,E]");
  }
  const std::int64_t batch = hidden.size(0), tokens = hidden.size(1), width = hidden.size(2);
  if (!lengths.empty() && static_cast<std::int64_t>(lengths.size()) != batch) {
    throw Error(ErrorCode::kInvalidArgument,
                "pool: " + std::to_string(lengths.size()) + " lengths for hidden " + hidden.shape().to_string());
  }
  Tensor pooled(DType::kF32, {batch, width});
  std::vector<double> sum(static_cast<std::size_t>(width));
  for (std::int64_t b = 0; b < batch; ++b) {
    const std::int64_t length = lengths.empty() ? tokens : lengths[static_cast<std::size_t>(b)];
    if (length < 0 || length > tokens) {
      throw Error(ErrorCode::kInvalidArgument, "pool: length " + std::to_string(length) + " of entry " +
                                                   std::to_string(b) + " for hidden " + hidden.shape().to_string());
    }
    const std::int64_t used = config.mode == PoolingConfig::Mode::kCls ? std::min<std::int64_t>(1, length) : length;
    std::fill(sum.begin(), sum.end(), 0.0);
    for (std::int64_t t = 0; t < used; ++t) {
      const float* row = static_cast<const float*>(hidden.data()) + b * hidden.stride(0) + t * hidden.stride(1);
      for (std::int64_t i = 0; i < width; ++i) sum[static_cast<std::size_t>(i)] += row[i * hidden.stride(2)];
    }
    double squares = 0;
    for (double& value : sum) {
      value /= static_cast<double>(std::max<std::int64_t>(1, used));
      squares += value * value;
    }
    const double divisor = config.normalize ? std::max(std::sqrt(squares), 1e-12) : 1.0;
    float* out = pooled.as<float>() + b * width;
    for (std::int64_t i = 0; i < width; ++i) out[i] = static_cast<float>(sum[static_cast<std::size_t>(i)] / divisor);
  }
  return pooled;
}

}  // namespace manyheads::model
