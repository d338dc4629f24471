#include <poll.h>

#include <manyheads/version.hpp>
#include <nlohmann/json.hpp>

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
  const server::Asset asset{.type = "text/html; charset=utf-8",
                            .bytes = page_with(page, {{"mode", "server"}, {"version", version()}}, nullptr),
                            .policy = policy_of(page) + "; frame-ancestors 'self'"};
  const StopOnSignals stop;
  const server::HttpServer server({{"", asset}}, answer, static_cast<std::uint16_t>(request.port), {},
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
