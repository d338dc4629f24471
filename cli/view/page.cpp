#include "view/page.hpp"

#include <manyheads/error.hpp>
#include <nlohmann/json.hpp>

// The file's bytes, between two symbols. C++20 has no #embed.
asm(".pushsection .rodata\n"
    "manyheads_page:\n"
    ".incbin \"" MANYHEADS_PAGE_FILE
    "\"\n"
    "manyheads_page_end:\n"
    ".byte 0\n"
    ".popsection\n");
extern "C" const char manyheads_page[], manyheads_page_end[];

namespace manyheads::cli {
namespace {

void put(std::string& page, std::string_view name, const nlohmann::ordered_json& json) {
  constexpr std::string_view kEmpty = "{}";
  const std::string before = "<script id=\"" + std::string(name) + "\" type=\"application/json\">";
  const std::size_t found = page.find(before), at = found + before.size();
  if (found == page.npos || page.compare(at, kEmpty.size(), kEmpty) != 0) {
    throw Error(ErrorCode::kUnsupported, "this build's page takes no data");
  }
  const std::string data = json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  std::string escaped;
  escaped.reserve(data.size() + 64);
  for (const char c : data) {
    if (c == '<') {
      escaped += "\\u003c";
    } else {
      escaped += c;
    }
  }
  page.replace(at, kEmpty.size(), escaped);
}

}  // namespace

std::string_view built_page() {
  return {manyheads_page, static_cast<std::size_t>(manyheads_page_end - manyheads_page)};
}

std::string_view page_that_computes() {
  const std::string_view page = built_page();
  if (page.find("<script id=\"wasm\"") != page.npos) return page;
  throw Error(ErrorCode::kUnsupported,
              "this build's page has no engine inside, to compute where nobody serves it: run scripts/wasm, and "
              "configure and build again");
}

std::string page_with(std::string_view page, const nlohmann::ordered_json& start, const nlohmann::ordered_json& first) {
  std::string out(page);
  if (!first.is_null()) put(out, "first", first);
  put(out, "start", start);
  return out;
}

std::string policy_of(std::string_view page) {
  constexpr std::string_view kBefore = "<meta http-equiv=\"Content-Security-Policy\" content=\"";
  const std::size_t at = page.find(kBefore);
  if (at == page.npos) return "default-src 'none'";
  const std::size_t begin = at + kBefore.size();
  return std::string(page.substr(begin, page.find('"', begin) - begin));
}

}  // namespace manyheads::cli
