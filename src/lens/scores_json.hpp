#pragma once

#include <manyheads/lens/roles.hpp>
#include <nlohmann/json.hpp>
#include <optional>

// A head's scores, and how they are worked out, as JSON.
namespace manyheads::lens {

// null where there is no value, or none that JSON can write.
nlohmann::ordered_json json_number(const std::optional<double>& value);
nlohmann::ordered_json scores_json(const HeadScores& scores);  // {"previous": 0.9, ...}
nlohmann::ordered_json rules_json();                           // [{"score": "previous", "threshold": ...}, ...]

}  // namespace manyheads::lens
