#include <manyheads/error.hpp>
#include <utility>

#include "lens/scan_json.hpp"
#include "view/state.hpp"

// What a scan found.
namespace manyheads::view {

std::int64_t Session::open_scan(lens::ScanFile scan, lens::PassageText text_of) {
  return state_->open(state_->scans, OpenScan{std::move(scan), std::move(text_of)});
}

Answer ask_scan(const Question& question) {
  const auto& [scan, text_of] = question.scan();
  lens::ScanPart part;
  if (has(question.json(), "head")) {
    const std::vector<std::int64_t> head = numbers(
        io::JsonDocument{view_array(question.json(), "head"), question.json().place}, {scan.layers(), scan.heads()});
    part.head = head[0] * scan.heads() + head[1];
  }
  if (has(question.json(), "score")) {
    const std::string name = require_string(question.json(), "score");
    for (std::size_t s = 0; s < scan.scores.size(); ++s) {
      if (scan.scores[s].name == name) part.score = static_cast<std::int64_t>(s);
    }
    if (!part.score) refuse_json(question.json(), "score", "a score of the scan");
  }
  return json_answer(lens::scan_json(scan, part, text_of));
}

Answer ask_close(const Question& question) {
  const std::int64_t id = require_int(question.json(), "trace");
  Session::State& state = question.state();
  if (!state.close(state.traces, id)) refuse_json(question.json(), "trace", "the number of an open trace");
  return json_answer({{"closed", id}});
}

}  // namespace manyheads::view
