#include <vector>

#include "lens/head_distances.hpp"
#include "lens/rollout.hpp"
#include "view/state.hpp"

// What heads have in common, and what they do together.
namespace manyheads::view {

Answer ask_clusters(const Question& question) {
  using Json = nlohmann::ordered_json;
  const lens::Trace& trace = question.trace().trace;
  if (trace.layers.empty() || trace.num_queries() == 0) question.refuse("the trace is empty");
  const std::int64_t each = trace.num_heads(0), all = static_cast<std::int64_t>(trace.layers.size()) * each;
  const std::int64_t count = require_int(question.json(), "clusters", 1, all);
  lens::HeadDistances distances(static_cast<std::size_t>(all));
  distances.add(trace, question.threads());
  const std::vector<double> mean = distances.mean();
  Json clusters = Json::array(), rows = Json::array();
  for (const lens::HeadCluster& cluster :
       lens::cluster_heads(mean, static_cast<std::size_t>(all), static_cast<std::size_t>(count))) {
    Json heads = Json::array();
    for (const std::size_t head : cluster.heads) {
      const auto place = static_cast<std::int64_t>(head);
      heads.push_back({place / each, place % each});
    }
    clusters.push_back({{"heads", heads}, {"mean_distance", cluster.mean_distance}});
  }
  for (std::int64_t head = 0; head < all; ++head) {
    rows.push_back(std::vector<double>(mean.begin() + head * all, mean.begin() + (head + 1) * all));
  }
  return json_answer({{"clusters", clusters}, {"distances", rows}});
}

Answer ask_rollout(const Question& question) {
  const lens::Trace& trace = question.trace().trace;
  if (trace.layers.empty() || trace.num_queries() == 0) question.refuse("the trace is empty");
  const std::vector<double> shares = lens::attention_rollout(trace, question.threads());
  Tensor tensor(DType::kF64, {static_cast<std::int64_t>(shares.size())});
  std::copy(shares.begin(), shares.end(), tensor.as<double>());
  return tensors_answer({{"rollout", tensor}}, {});
}

}  // namespace manyheads::view
