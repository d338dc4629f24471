#include "model/checkpoint_tensors.hpp"

#include <algorithm>
#include <manyheads/error.hpp>
#include <utility>

#include "base/file.hpp"
#include "layer/convert.hpp"

namespace manyheads::model {

CheckpointTensors::CheckpointTensors(const StateDict& tensors, const std::map<std::string, std::string>& unsupported,
                                     std::string place, std::string prefix, std::vector<Renamed> renamed)
    : tensors_(tensors),
      unsupported_(unsupported),
      place_(std::move(place)),
      prefix_(std::move(prefix)),
      renamed_(std::move(renamed)) {}

std::vector<std::string> CheckpointTensors::names(const std::string& name) const {
  std::vector<std::string> all{name, prefix_ + name};
  for (const Renamed& part : renamed_) {
    const std::size_t at = name.rfind(part.now);
    if (at == std::string::npos) continue;
    all.push_back(name.substr(0, at) + part.once);
    all.push_back(prefix_ + all.back());
  }
  return all;
}

void CheckpointTensors::refuse(const std::string& what) const {
  throw Error(ErrorCode::kMalformedFile, place_ + ": tensor " + what);
}

bool CheckpointTensors::has(const std::string& name) const {
  const std::vector<std::string> all = names(name);
  return std::any_of(all.begin(), all.end(), [&](const std::string& known) {
    return tensors_.contains(known) || unsupported_.contains(known);
  });
}

Tensor CheckpointTensors::take(const std::string& name, const Dims& shape) const {
  for (const std::string& known : names(name)) {
    if (const auto found = unsupported_.find(known); found != unsupported_.end()) {
      refuse(base::in_quotes(known) + " is " + found->second + ", expected F32, BF16 or F16 " + shape.to_string());
    }
    const auto found = tensors_.find(known);
    if (found == tensors_.end()) continue;
    const Tensor& tensor = found->second;
    if (!(tensor.shape() == shape)) {
      refuse(base::in_quotes(known) + " is " + tensor.shape().to_string() + ", expected " + shape.to_string());
    }
    if (!layer::is_float(tensor.dtype())) {
      refuse(base::in_quotes(known) + " is " + name_of(tensor.dtype()) + ", expected F32, BF16 or F16");
    }
    return tensor;
  }
  refuse(base::in_quotes(name) + " " + shape.to_string() + " is missing (looked for with and without the prefix " +
         prefix_ + ")");
}

Tensor CheckpointTensors::take_f32(const std::string& name, const Dims& shape) const {
  const Tensor tensor = take(name, shape);
  return tensor.dtype() == DType::kF32 ? tensor : layer::converted(tensor.cview(), DType::kF32);
}

}  // namespace manyheads::model
