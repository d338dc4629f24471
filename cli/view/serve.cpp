#include <manyheads/error.hpp>
#include <manyheads/version.hpp>
#include <nlohmann/json.hpp>

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
                            .bytes = page_with(page, {{"mode", "server"}, {"version", version()}}),
                            .policy = policy_of(page) + "; frame-ancestors 'self'"};
  Interrupt interrupt;
  const server::HttpServer server({{"", asset}}, answer, static_cast<std::uint16_t>(request.port));
  if (request.common.json) {
    print_json({{"link", server.link()}, {"port", server.port()}});
  } else {
    print(server.link() + "\nCtrl-C ends it.\n");
  }
  if (!request.no_browser) open_browser(server.link());
  interrupt.wait();
}

}  // namespace manyheads::cli
