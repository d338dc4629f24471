#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>

#include "server/http_server.hpp"

namespace manyheads::server {

// 32 letters from the system's randomness: 128 bits. Throws Error (kIo) where it gives none.
std::string random_token();

// Whose requests the server takes.
struct Address {
  std::uint16_t port = 0;
  std::string token;
};

// The head of a request. Views into the connection's buffer.
struct RequestHead {
  std::string_view method, target;
  std::string_view host, origin, content_type;
  std::size_t hosts = 0, origins = 0, content_types = 0;  // how many such fields it has
};

// What a request asks for.
struct Route {
  enum Kind { kAsset, kAsk, kShare, kCancel };
  Kind kind = kAsset;
  std::string name;  // the asset's, or the job's; empty where a question has none
};

// The route of a request, or the answer that refuses it: 400 for a malformed target, 403 for a foreign Host or Origin,
// 404 for another token or path, 405 for the method, 415 for a question that is no JSON.
std::variant<Route, Response> route(const RequestHead& head, const Address& address);

// {"error": text}
Response refusal(int status, std::string_view text);

}  // namespace manyheads::server
