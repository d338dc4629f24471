#include <filesystem>
#include <manyheads/error.hpp>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>

#include "base/file.hpp"
#include "base/format.hpp"
#include "map.hpp"
#include "findings.hpp"
#include "text.hpp"
#include "view.hpp"
#include "view/figures.hpp"
#include "view/link.hpp"
#include "view/opened.hpp"
#include "view/page.hpp"

namespace manyheads::cli {

void export_figure(const ViewRequest& request) {
  Link link(!request.view.empty() ? request.view : request.head.empty() ? "story" : "map");
  if (!request.head.empty()) {
    parse_head(request.head);
    link.set("head", request.head);
  }
  ViewRequest shown = request;
  // A page whose sentence was changed has it in its link.
  if (const std::string text = link.text("text", 20000);
      !text.empty() && !request.model.empty() && !request.is_trace()) {
    shown.what = text;
  }
  // As `map` draws it, which a text of any length suits.
  if (shows_map(link)) {
    MapRequest figure;
    figure.common = request.common;
    figure.source = request.is_trace() ? *request.what : shown.text();
    figure.model = request.is_trace() ? "" : request.model;
    figure.pair = request.pair;
    figure.truncate = request.truncate;
    figure.head = link.head("head") ? link.text("head") : "";
    figure.pool = link.one_of("m.pool", {"mean", "max"});
    figure.out = request.out;
    return map(figure);
  }
  check_output(request.out);
  Opened opened(shown);
  FigureMaker maker(opened, link);
  maker.draw();
  const bool svg = request.out.compare(request.out.size() - 4, 4, ".svg") == 0;
  const std::string bytes = svg ? maker.sheet().svg(maker.title()) : maker.sheet().png();
  base::FileWriter file(request.out);
  file.write(bytes);
  file.commit();
  if (request.common.json) return print_json({{"out", request.out}, {"title", maker.title()}, {"bytes", bytes.size()}});
  print(base::format("Wrote {}: {}\n", base::escaped(request.out), base::escaped(maker.title())));
}

void export_page(const ViewRequest& request) {
  check_output(request.out);
  const std::string_view built = page_that_computes();
  Opened opened(request);
  nlohmann::ordered_json start = opened.start("file", request.heads), first = opened.first("file");
  if (!request.study.empty()) {
    base::map_file(request.study);  // so that a missing one is an error now
    start["study"] = first["study"] = std::filesystem::path(request.study).filename().string();
  }
  const std::string page = page_with(built, start, first);
  const auto megabytes = [](std::size_t bytes) { return 1e-6 * static_cast<double>(bytes); };
  // Said before it is written: a long text makes a large file.
  if (!request.common.json) {
    print(base::format("Writing {}: {:.1f} MB, of which the page itself is {:.1f}\n", base::escaped(request.out),
                       megabytes(page.size()), megabytes(built.size())));
  }
  base::FileWriter file(request.out);
  file.write(page);
  file.commit();
  if (request.common.json) {
    print_json({{"out", request.out}, {"bytes", page.size()}, {"page_bytes", built.size()}});
  }
}

}  // namespace manyheads::cli
