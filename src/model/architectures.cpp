#include <manyheads/model/decoder.hpp>
#include <manyheads/model/encoder.hpp>
#include <memory>
#include <string>

#include "base/file.hpp"
#include "io/json.hpp"
#include "model/bert.hpp"
#include "model/llama.hpp"

namespace manyheads::model {
namespace {

// The architectures that a folder may hold, by the "model_type" of its config.json. One of the two loads it.
struct Architecture {
  const char* model_type;
  std::unique_ptr<const Encoder> (*encoder)(const std::filesystem::path& folder, DType weights);
  std::unique_ptr<const Decoder> (*decoder)(const std::filesystem::path& folder, DType weights);
};
constexpr Architecture kArchitectures[] = {
    {"bert", load_bert, nullptr},      {"roberta", load_bert, nullptr},    {"xlm-roberta", load_bert, nullptr},
    {"camembert", load_bert, nullptr}, {"distilbert", load_bert, nullptr}, {"llama", nullptr, load_llama},
};

// The architecture of a folder, which throws where it is none of those that `fits`.
template <class Fits>
const Architecture& architecture(const std::filesystem::path& folder, Fits&& fits) {
  const io::JsonDocument config = io::read_json(folder / "config.json");
  const std::string type = require_string(config, "model_type");
  std::string names;
  for (const Architecture& known : kArchitectures) {
    if (!fits(known)) continue;
    if (type == known.model_type) return known;
    names += (names.empty() ? "" : " or ") + base::in_quotes(known.model_type);
  }
  refuse_json(config, "model_type", names);
}

}  // namespace

std::unique_ptr<const Encoder> load_encoder(const std::filesystem::path& folder, DType weights) {
  const Architecture& known = architecture(folder, [](const Architecture&) { return true; });
  if (known.decoder != nullptr) return known.decoder(folder, weights);
  return known.encoder(folder, weights);
}

std::unique_ptr<const Decoder> load_decoder(const std::filesystem::path& folder, DType weights) {
  return architecture(folder, [](const Architecture& one) { return one.decoder != nullptr; }).decoder(folder, weights);
}

}  // namespace manyheads::model
