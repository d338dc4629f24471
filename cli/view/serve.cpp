#include <poll.h>

#include <manyheads/version.hpp>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "base/file.hpp"
#include "scan.hpp"
#include "server/http_server.hpp"
#include "view.hpp"
#include "view/browser.hpp"
#include "view/opened.hpp"
#include "view/page.hpp"

namespace manyheads::cli {

void serve_page(const ViewRequest& request) {
  Opened opened(request);
  const auto answer = [&](const std::string& question, const server::Progress& progress) {
    return opened.answer(question, progress);
  };
  const std::string_view page = built_page();
  constexpr const char* kHtml = "text/html; charset=utf-8";
  nlohmann::ordered_json start = {{"mode", "server"}, {"version", version()}};
  std::map<std::string, server::Asset> assets;
  if (!request.study.empty()) {
    assets[kStudy] = {.type = kHtml,
                      .bytes = std::string(base::map_file(request.study).text()),
                      .policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"};
    start["study"] = kStudy;
  }
  assets[""] = {
      .type = kHtml, .bytes = page_with(page, start, nullptr), .policy = policy_of(page) + "; frame-ancestors 'self'"};
  const StopOnSignals stop;
  const server::HttpServer server(std::move(assets), answer, static_cast<std::uint16_t>(request.port), {},
                                  &Opened::takes_long);
  if (request.common.json) {
    print_json({{"link", server.link()}, {"port", server.port()}});
  } else {
    print(server.link() + "\nCtrl-C ends it.\n");
  }
  if (!request.no_browser) open_browser(server.link());
  constexpr int kMilliseconds = 100;
  while (!StopOnSignals::stopped()) ::poll(nullptr, 0, kMilliseconds);
}

}  // namespace manyheads::cli
