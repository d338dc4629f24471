#pragma once

#include <manyheads/tensor.hpp>
#include <map>
#include <string>
#include <vector>

namespace manyheads::model {

// A checkpoint's tensors under the names that its writers give them. `unsupported` names the types of tensors that no
// Tensor holds, `place` is where all come from; both for messages, and `tensors` and `unsupported` outlive it.
class CheckpointTensors {
 public:
  // A part of names and what older writers call it.
  struct Renamed {
    std::string now, once;
  };

  // Names are looked for with and without `prefix`.
  CheckpointTensors(const StateDict& tensors, const std::map<std::string, std::string>& unsupported, std::string place,
                    std::string prefix, std::vector<Renamed> renamed = {});

  // The tensor, of F32, BF16 or F16. Throws Error (kMalformedFile) that names the place and the tensor that is missing,
  // or whose type or shape is another.
  Tensor take(const std::string& name, const Dims& shape) const;
  // The tensor itself where it is F32 already, else a copy.
  Tensor take_f32(const std::string& name, const Dims& shape) const;
  bool has(const std::string& name) const;

 private:
  std::vector<std::string> names(const std::string& name) const;
  [[noreturn]] void refuse(const std::string& what) const;

  const StateDict& tensors_;
  const std::map<std::string, std::string>& unsupported_;
  std::string place_, prefix_;
  std::vector<Renamed> renamed_;
};

}  // namespace manyheads::model
