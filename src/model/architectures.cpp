#include <manyheads/model/encoder.hpp>
#include <memory>
#include <string>

#include "base/utf8.hpp"
#include "io/json.hpp"
#include "model/bert.hpp"

namespace manyheads::model {
namespace {

// The architectures that a folder may hold, by the "model_type" of its config.json.
struct Architecture {
  const char* model_type;
  std::unique_ptr<const Encoder> (*load)(const std::filesystem::path& folder, DType weights);
};
constexpr Architecture kArchitectures[] = {{"bert", load_bert}};

std::string known_types() {
  std::string names;
  for (const Architecture& known : kArchitectures) {
    if (!names.empty()) names += " or ";
    names += base::in_quotes(known.model_type);
  }
  return names;
}

}  // namespace

std::unique_ptr<const Encoder> load_encoder(const std::filesystem::path& folder, DType weights) {
  const io::JsonDocument config = io::read_json(folder / "config.json");
  const std::string type = require_string(config, "model_type");
  for (const Architecture& known : kArchitectures) {
    if (type == known.model_type) return known.load(folder, weights);
  }
  refuse_json(config, "model_type", known_types());
}

}  // namespace manyheads::model
