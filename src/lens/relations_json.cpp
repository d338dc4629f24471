#include "lens/relations_json.hpp"

#include "io/json.hpp"

namespace manyheads::lens {

using io::OrderedJson;

OrderedJson relations_json(const std::vector<RelationReading>& readings) {
  OrderedJson relations = OrderedJson::array();
  for (const RelationReading& reading : readings) {
    OrderedJson heads = OrderedJson::array();
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
                         {"offset", reading.offset ? OrderedJson(*reading.offset) : OrderedJson(nullptr)},
                         {"offset_accuracy", reading.offset_accuracy},
                         {"heads", heads}});
  }
  return relations;
}

}  // namespace manyheads::lens
