#include "lens/relations_json.hpp"

namespace manyheads::lens {

using Json = nlohmann::ordered_json;

Json relations_json(const std::vector<RelationReading>& readings) {
  Json relations = Json::array();
  for (const RelationReading& reading : readings) {
    Json heads = Json::array();
    for (const HeadOnRelation& head : reading.best) {
      heads.push_back({{"layer", head.layer},
                       {"head", head.head},
                       {"chosen_by", head.chosen_by},
                       {"accuracy", head.accuracy},
                       {"interval", head.interval},
                       {"mean_weight", head.mean_weight},
                       {"reads", head.reads}});
    }
    relations.push_back({{"relation", reading.relation},
                         {"direction", reading.to_head ? "to_head" : "to_word"},
                         {"chosen_on", reading.chosen_on},
                         {"scored_on", reading.scored_on},
                         {"unseen", reading.unseen},
                         {"left_out", reading.left_out},
                         {"offset", reading.offset ? Json(*reading.offset) : Json(nullptr)},
                         {"offset_accuracy", reading.offset_accuracy},
                         {"heads", heads}});
  }
  return relations;
}

}  // namespace manyheads::lens
