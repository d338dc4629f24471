#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

namespace manyheads::server {

// What one question gives back.
struct Response {
  int status = 200;
  std::string type = "application/json";
  std::string body;
};

// Of a question being worked on: takes the share that is done, gives false where the work should end.
using Progress = std::function<bool(double)>;

// Answers the body of POST ask. Called on either of the server's two workers, so for two questions at once. An Error
// becomes 400 with its message, another exception 500.
using Handler = std::function<Response(const std::string& question, const Progress& progress)>;

// Whether the answer to a question takes long, so that short ones pass it. Null, or an exception: it does not.
using TakesLong = std::function<bool(const std::string& question)>;

// A file that the server holds.
struct Asset {
  std::string type;
  std::string bytes;
  std::string policy;  // its content security policy
};

struct Limits {
  std::size_t connections = 2048;  // at once; fewer where the process may open fewer files
  std::size_t header_bytes = 8192;
  std::size_t body_bytes = 1 << 20;
  std::size_t waiting_questions = 64;
  std::chrono::milliseconds receive{10'000};  // from the connection to the end of the request, however it trickles
  std::chrono::milliseconds send{30'000};     // from the first byte of the answer to its last
};

// Serves a page and its questions to this machine alone.
// - Listens on 127.0.0.1. Every path begins with a random token; Host and Origin must be the server's own.
// - GET /TOKEN/NAME gives an asset, the page is the one named "". POST /TOKEN/ask gives the handler's answer; with
//   ?job=ID its progress is at GET /TOKEN/job/ID, and DELETE /TOKEN/job/ID cancels it. A question whose connection
//   closes is cancelled too.
// - One thread serves all sockets, two others run the handler, for short and for long questions: no connection waits
//   for another's bytes, and no short question for a long one. Of either kind the first that came goes first.
// - A connection takes one request. Where there are too many, the oldest that has not yet sent its request goes.
// - Raises the process's soft limit on open files to the hard one.
class HttpServer {
 public:
  // Listens from here on. Port 0: a free one. Throws Error (kIo) where it cannot.
  HttpServer(std::map<std::string, Asset> assets, Handler handler, std::uint16_t port = 0, const Limits& limits = {},
             TakesLong takes_long = {});
  ~HttpServer();  // cancels the questions being worked on, waits for them, and closes all connections
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  std::uint16_t port() const noexcept;
  const std::string& token() const noexcept;
  std::string link() const;  // http://127.0.0.1:PORT/TOKEN/

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace manyheads::server
