#include "tensors.hpp"

#include <algorithm>
#include <manyheads/error.hpp>
#include <manyheads/safetensors.hpp>
#include <nlohmann/json.hpp>

#include "base/file.hpp"

namespace manyheads::cli {

StateDict load_named(const std::string& path, std::span<const std::string_view> known) {
  SafetensorsFile file = load_safetensors(path);
  const auto check = [&](const std::string& name) {
    if (std::find(known.begin(), known.end(), name) != known.end()) return;
    std::string names;
    for (const std::string_view k : known) names += (names.empty() ? "" : ", ") + std::string(k);
    throw Error(ErrorCode::kInvalidArgument,
                base::path_in_quotes(path) + " has a tensor " + base::in_quotes(name) + ", which is none of " + names);
  };
  for (const auto& [name, dtype] : file.unsupported) {
    check(name);
    throw Error(ErrorCode::kUnsupported, name + " in " + base::path_in_quotes(path) + " is of type " + dtype);
  }
  for (const auto& [name, tensor] : file.tensors) check(name);
  return std::move(file.tensors);
}

const Tensor& need(const std::string& path, const StateDict& tensors, const std::string& name) {
  const auto found = tensors.find(name);
  if (found == tensors.end()) {
    throw Error(ErrorCode::kInvalidArgument, base::path_in_quotes(path) + " has no tensor \"" + name + "\"");
  }
  return found->second;
}

ConstTensorView view_of(const StateDict& tensors, const std::string& name) {
  const auto found = tensors.find(name);
  return found == tensors.end() ? ConstTensorView{} : found->second.cview();
}

DType parse_dtype(const std::string& name) {
  return name == "bf16" ? DType::kBF16 : name == "f16" ? DType::kF16 : DType::kF32;
}

nlohmann::ordered_json describe(const Tensor& tensor) {
  nlohmann::ordered_json shape = nlohmann::ordered_json::array();
  for (const std::int64_t size : tensor.shape()) shape.push_back(size);
  return {{"dtype", name_of(tensor.dtype())}, {"shape", std::move(shape)}};
}

std::string describe_text(const StateDict& tensors) {
  std::string text;
  for (const auto& [name, tensor] : tensors) {
    text += (text.empty() ? "" : ", ") + name + " " + name_of(tensor.dtype()) + " " + tensor.shape().to_string();
  }
  return text;
}

}  // namespace manyheads::cli
