#include "server/guard.hpp"

#include <sys/random.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <manyheads/error.hpp>
#include <nlohmann/json.hpp>

#include "base/format.hpp"

namespace manyheads::server {
namespace {

constexpr std::size_t kMostOfName = 64;

bool is_name(std::string_view text) {
  return !text.empty() && text.size() <= kMostOfName && std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
  });
}

// In a time that tells nothing of where they differ.
bool same(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  unsigned difference = 0;
  for (std::size_t i = 0; i < a.size(); ++i) difference |= static_cast<unsigned char>(a[i] ^ b[i]);
  return difference == 0;
}

bool take(std::string_view* text, std::string_view prefix) {
  if (text->substr(0, prefix.size()) != prefix) return false;
  text->remove_prefix(prefix.size());
  return true;
}

// By either name of this machine: a browser may show the other.
bool is_own(std::string_view host, std::uint16_t port) {
  return host == base::format("127.0.0.1:{}", port) || host == base::format("localhost:{}", port);
}

Response wrong_method(std::string_view takes) { return refusal(405, base::format("this path takes {} alone", takes)); }

}  // namespace

std::string random_token() {
  std::array<unsigned char, 16> bytes{};
  for (std::size_t done = 0; done < bytes.size();) {
    const ssize_t n = ::getrandom(bytes.data() + done, bytes.size() - done, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) throw Error(ErrorCode::kIo, base::format("the system gives no random bytes: {}", std::strerror(errno)));
    done += static_cast<std::size_t>(n);
  }
  std::string token;
  for (const unsigned char byte : bytes) token += base::format("{:02x}", byte);
  return token;
}

Response refusal(int status, std::string_view text) {
  const nlohmann::ordered_json error = {{"error", text}};
  return {status, "application/json", error.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)};
}

std::variant<Route, Response> route(const RequestHead& head, const Address& address) {
  if (head.hosts != 1 || !is_own(head.host, address.port)) {
    return refusal(403, "the request's Host is not this server's");
  }
  if (head.origins > 1 ||
      (head.origins == 1 && (head.origin.substr(0, 7) != "http://" || !is_own(head.origin.substr(7), address.port)))) {
    return refusal(403, "the request comes from another page");
  }
  std::string_view path = head.target;
  const std::size_t question_mark = path.find('?');
  const std::string_view query = question_mark == path.npos ? std::string_view() : path.substr(question_mark + 1);
  path = path.substr(0, question_mark);
  if (!take(&path, "/")) return refusal(400, "the request's target is no path");
  const std::string_view token = path.substr(0, address.token.size());
  path.remove_prefix(token.size());
  if (!same(token, address.token) || !take(&path, "/")) {
    return refusal(404, "the link is not the one that manyheads view printed");
  }

  if (path == "ask") {
    if (head.method != "POST") return wrong_method("POST");
    // A foreign page may not send this type without asking first, which the server refuses.
    if (head.content_types != 1 || head.content_type != "application/json") {
      return refusal(415, "a question has the Content-Type application/json");
    }
    std::string_view job = query;
    if (question_mark == head.target.npos) return Route{Route::kAsk, ""};
    if (!take(&job, "job=") || !is_name(job)) return refusal(400, "ask takes ?job=ID alone, of letters and digits");
    return Route{Route::kAsk, std::string(job)};
  }
  if (take(&path, "job/")) {
    if (!is_name(path) || !query.empty()) return refusal(404, "there is no such path");
    if (head.method == "GET") return Route{Route::kShare, std::string(path)};
    if (head.method == "DELETE") return Route{Route::kCancel, std::string(path)};
    return wrong_method("GET and DELETE");
  }
  if (head.method != "GET") return wrong_method("GET");
  return Route{Route::kAsset, std::string(path)};
}

}  // namespace manyheads::server
