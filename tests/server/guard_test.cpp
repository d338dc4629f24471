#include "server/guard.hpp"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace manyheads::test {
namespace {

using server::Address;
using server::RequestHead;
using server::Response;
using server::Route;

const Address kAddress{8080, "0123456789abcdef0123456789abcdef"};
const std::string kRoot = "/" + kAddress.token + "/";
const std::string kAsk = kRoot + "ask";

RequestHead head(std::string_view method, std::string_view target) {
  RequestHead head;
  head.method = method;
  head.target = target;
  head.host = "127.0.0.1:8080";
  head.hosts = 1;
  if (method == "POST") {
    head.origin = "http://127.0.0.1:8080";
    head.content_type = "application/json";
    head.origins = head.content_types = 1;
  }
  return head;
}

int status(const RequestHead& asked) {
  const auto routed = server::route(asked, kAddress);
  const auto* refused = std::get_if<Response>(&routed);
  return refused == nullptr ? 200 : refused->status;
}

TEST(Guard, ATokenIsLongAndNeverTheSame) {
  std::set<std::string> tokens;
  for (int i = 0; i < 100; ++i) {
    const std::string token = server::random_token();
    EXPECT_EQ(token.size(), 32u);
    EXPECT_EQ(token.find_first_not_of("0123456789abcdef"), std::string::npos);
    tokens.insert(token);
  }
  EXPECT_EQ(tokens.size(), 100u);
}

TEST(Guard, RoutesOfAPage) {
  const auto routed = [](const RequestHead& asked) { return std::get<Route>(server::route(asked, kAddress)); };
  EXPECT_EQ(routed(head("GET", kRoot)).kind, Route::kAsset);
  EXPECT_EQ(routed(head("GET", kRoot)).name, "");
  EXPECT_EQ(routed(head("GET", kRoot + "?embed=heads")).name, "");
  EXPECT_EQ(routed(head("POST", kAsk)).kind, Route::kAsk);
  const Route named = routed(head("POST", kRoot + "ask?job=a-B_9"));
  EXPECT_EQ(named.kind, Route::kAsk);
  EXPECT_EQ(named.name, "a-B_9");
  EXPECT_EQ(routed(head("GET", kRoot + "job/x")).kind, Route::kShare);
  EXPECT_EQ(routed(head("DELETE", kRoot + "job/x")).kind, Route::kCancel);
  EXPECT_EQ(routed(head("DELETE", kRoot + "job/x")).name, "x");
}

TEST(Guard, OnlyItsOwnHost) {
  for (const char* host : {"127.0.0.1:8080", "localhost:8080"}) {
    RequestHead asked = head("GET", kRoot);
    asked.host = host;
    EXPECT_EQ(status(asked), 200) << host;
  }
  for (const char* host : {"", "127.0.0.1", "127.0.0.1:8081", "localhost", "evil.example:8080", "127.0.0.1:8080.evil",
                           "127.0.0.1:8080 ", "[::1]:8080", "0.0.0.0:8080"}) {
    RequestHead asked = head("GET", kRoot);
    asked.host = host;
    EXPECT_EQ(status(asked), 403) << host;
  }
  for (const std::size_t times : {0, 2}) {
    RequestHead asked = head("GET", kRoot);
    asked.hosts = times;
    EXPECT_EQ(status(asked), 403) << times;
  }
}

TEST(Guard, OnlyItsOwnOrigin) {
  for (const char* origin : {"http://127.0.0.1:8080", "http://localhost:8080"}) {
    RequestHead asked = head("POST", kAsk);
    asked.origin = origin;
    EXPECT_EQ(status(asked), 200) << origin;
  }
  for (const char* origin : {"", "null", "https://127.0.0.1:8080", "http://127.0.0.1", "http://127.0.0.1:80801",
                             "http://evil.example", "file://", "http://127.0.0.1:8080/"}) {
    RequestHead asked = head("POST", kAsk);
    asked.origin = origin;
    EXPECT_EQ(status(asked), 403) << origin;
  }
  RequestHead twice = head("POST", kAsk);
  twice.origins = 2;
  EXPECT_EQ(status(twice), 403);
}

TEST(Guard, OnlyItsTokensPaths) {
  const std::string other(32, '0');
  for (const std::string& target :
       {std::string("/"), std::string("/ask"), "/" + other + "/", "/" + kAddress.token, "/" + kAddress.token + "x/",
        "/" + kAddress.token.substr(1) + "/", "//" + kAddress.token + "/", "/x" + kRoot, kRoot + "job/",
        kRoot + "job/../ask", kRoot + "job/a?b", kRoot + "job/" + std::string(65, 'a')}) {
    EXPECT_EQ(status(head("GET", target)), 404) << target;
  }
  for (const char* target : {"", "*", "x", "http://127.0.0.1:8080/"}) EXPECT_EQ(status(head("GET", target)), 400);
  for (const std::string query : {"?", "?job=", "?job", "?x=1", "?job=a&x=1", "?job=a/b", "?job=%61"}) {
    EXPECT_EQ(status(head("POST", kRoot + "ask" + query)), 400) << query;
  }
}

TEST(Guard, OnlyTheMethodsOfAPath) {
  for (const char* method : {"POST", "PUT", "DELETE", "HEAD", "OPTIONS", "TRACE", "get", ""}) {
    EXPECT_EQ(status(head(method, kRoot)), 405) << method;
  }
  for (const char* method : {"GET", "PUT", "OPTIONS"}) EXPECT_EQ(status(head(method, kRoot + "ask")), 405) << method;
  for (const char* method : {"POST", "PUT"}) EXPECT_EQ(status(head(method, kRoot + "job/a")), 405) << method;
}

TEST(Guard, AQuestionIsJson) {
  for (const char* type : {"", "text/plain", "application/x-www-form-urlencoded", "application/json, text/plain"}) {
    RequestHead asked = head("POST", kAsk);
    asked.content_type = type;
    EXPECT_EQ(status(asked), 415) << type;
  }
  RequestHead none = head("POST", kAsk);
  none.content_types = 0;
  EXPECT_EQ(status(none), 415);
}

TEST(Guard, ARefusalQuotesSafely) {
  EXPECT_EQ(server::refusal(400, "a \"b\" \xff").body, "{\"error\":\"a \\\"b\\\" \xef\xbf\xbd\"}");
}

}  // namespace
}  // namespace manyheads::test
