#include <manyheads/error.hpp>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>

#include "base/file.hpp"
#include "base/format.hpp"
#include "map.hpp"
#include "text.hpp"
#include "view.hpp"
#include "view/opened.hpp"
#include "view/page.hpp"

namespace manyheads::cli {

void export_figure(const ViewRequest& request) {
  MapRequest figure;
  figure.common = request.common;
  figure.source = request.is_trace() ? *request.what : request.text();
  figure.model = request.is_trace() ? "" : request.model;
  figure.pair = request.pair;
  figure.truncate = request.truncate;
  figure.head = request.head;
  figure.out = request.out;
  map(figure);
}

void export_page(const ViewRequest& request) {
  check_output(request.out);
  const std::string_view built = page_that_computes();
  Opened opened(request);
  const nlohmann::ordered_json start = opened.start("file", request.heads);
  const std::string page = page_with(built, start);
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
