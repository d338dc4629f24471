#pragma once

#include <deque>
#include <functional>
#include <manyheads/lens/trace.hpp>
#include <manyheads/model/pooling.hpp>
#include <manyheads/model/text_model.hpp>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "findings.hpp"
#include "server/http_server.hpp"
#include "view.hpp"
#include "view/session.hpp"

namespace manyheads::cli {

using Aside = std::function<std::string(const HeadName& head, const std::string& packed)>;

// The trace that a view begins with, the model and the scan where there is one, and the page's questions on both.
class Opened {
 public:
  // Throws Error as `look` and `trace` do.
  explicit Opened(const ViewRequest& request);

  // Answers as view::Session does. A question with a model and a "text" but no "ids" gets its tokens from the model's
  // own tokenizer. Of the traces that questions opened the last 16 stay.
  view::Answer ask(const std::string& question, const view::Progress& progress = {});
  // The same for the server. Safe from many threads.
  server::Response answer(const std::string& question, const server::Progress& progress);
  // Whether short questions should pass this one.
  static bool takes_long(const std::string& question);

  const model::TextModel* model() const { return model_.get(); }

  // What a page starts from that nobody serves: its mode, the trace, and where there is a model what a trace alone
  // cannot give: around the heads that the tour shows and those asked for, the projections and what they made. `aside`
  // takes these of one head, packed, to lie in a file beside the page, and gives its address; none: they lie in the
  // page.
  nlohmann::ordered_json start(const char* mode, const std::string& more_heads, const Aside& aside = {});

  // Of a page that nobody serves: the answers of its first picture, so that it need not wait for the engine or for its
  // own end. The page asks the engine for them again when it is up.
  nlohmann::ordered_json first(const char* mode);

 private:
  void keep_trace(std::int64_t id);
  std::vector<HeadName> shown_heads(const std::string& more) const;
  // What the page asks of the model itself, beyond a trace: "relations" and "ablations" for the tour, and "treebank".
  // None where it is none of them.
  std::optional<nlohmann::ordered_json> ask_model(const nlohmann::json& question, const view::Progress& progress) const;

  int threads_;
  std::string treebank_;
  std::int64_t model_id_ = 0, trace_id_ = 0;
  std::shared_ptr<const model::TextModel> model_;
  model::PoolingConfig pooling_;
  lens::Trace trace_;
  view::Session session_;
  std::mutex lock_;                 // of later_
  std::deque<std::int64_t> later_;  // traces that questions opened, the oldest first
};

}  // namespace manyheads::cli
