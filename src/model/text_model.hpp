#pragma once

#include <cstdint>
#include <manyheads/model/text_model.hpp>
#include <memory>
#include <string>
#include <vector>

#include "model/modules.hpp"
#include "model/tokenizer_config.hpp"

namespace manyheads::model {

struct TextModel::Parts {
  TransformerModule module;
  ConfiguredTokenizer configured;
  std::unique_ptr<const Encoder> encoder;
};

// Throws Error that begins with `subject`, the text, when the model has no such token or segment: tokenizer and weights
// do not fit.
void check_ids(const std::string& subject, const std::vector<std::int64_t>& ids,
               const std::vector<std::int64_t>& type_ids, const TextModel& model);

}  // namespace manyheads::model
