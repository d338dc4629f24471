// asio 1.74 uses std::exchange without its header.
#include <utility>

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <exception>
#include <list>
#include <manyheads/error.hpp>
#include <optional>
#include <span>
#include <thread>

#include "base/format.hpp"
#include "server/guard.hpp"
#include "server/http_server.hpp"
#include "server/jobs.hpp"

namespace manyheads::server {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::ip::tcp;
using beast::error_code;
using std::chrono::milliseconds;

constexpr const char* kNoPolicy = "default-src 'none'; frame-ancestors 'none'";

std::string_view view(beast::string_view text) { return {text.data(), text.size()}; }

// Files that the process may open beside its connections.
constexpr rlim_t kOtherFiles = 64;

std::size_t raise_open_files() {
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) != 0) return 0;
  if (files.rlim_cur < files.rlim_max) {
    const rlimit raised{files.rlim_max, files.rlim_max};
    if (::setrlimit(RLIMIT_NOFILE, &raised) == 0) files = raised;
  }
  return files.rlim_cur > kOtherFiles ? static_cast<std::size_t>(files.rlim_cur - kOtherFiles) : 1;
}

}  // namespace

class HttpServer::Impl {
 public:
  Impl(std::map<std::string, Asset> assets, Handler handler, std::uint16_t port, const Limits& limits,
       TakesLong takes_long);
  ~Impl();

  const Address& address() const noexcept { return address_; }

 private:
  class Connection;

  void accept();
  bool make_room();
  void serve() noexcept;

  const std::map<std::string, Asset> assets_;
  Limits limits_;
  std::list<Connection*> all_;
  std::list<Connection*> receiving_;  // those that have not yet sent their request, the oldest first
  asio::io_context sockets_{1};       // goes before the lists: it holds the connections
  tcp::acceptor acceptor_{sockets_};
  asio::steady_timer retry_{sockets_};
  Address address_;
  JobQueue jobs_;
  std::thread thread_;
};

// One request and its answer. Everything but a job's work runs on the thread of the sockets.
class HttpServer::Impl::Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(Impl& server, tcp::socket socket) : server_(server), stream_(std::move(socket)) {
    all_ = server_.all_.insert(server_.all_.end(), this);
    receiving_ = server_.receiving_.insert(server_.receiving_.end(), this);
    parser_.header_limit(static_cast<std::uint32_t>(server_.limits_.header_bytes));
    parser_.body_limit(server_.limits_.body_bytes);
  }
  ~Connection() {
    received();
    server_.all_.erase(all_);
  }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  void start() {
    stream_.expires_after(server_.limits_.receive);  // of all that is read until it is set again
    http::async_read_header(stream_, buffer_, parser_,
                            [self = shared_from_this()](error_code error, std::size_t) { self->on_header(error); });
  }

  void close() {
    received();
    stream_.close();
  }

 private:
  void received() {
    if (receiving_ == server_.receiving_.end()) return;
    server_.receiving_.erase(receiving_);
    receiving_ = server_.receiving_.end();
  }

  void on_header(error_code error) {
    if (refused(error)) return;
    const auto& fields = parser_.get();
    const auto field = [&](http::field name) { return view(fields[name]); };
    auto routed = server::route({.method = view(fields.method_string()),
                                 .target = view(fields.target()),
                                 .host = field(http::field::host),
                                 .origin = field(http::field::origin),
                                 .content_type = field(http::field::content_type),
                                 .hosts = fields.count(http::field::host),
                                 .origins = fields.count(http::field::origin),
                                 .content_types = fields.count(http::field::content_type)},
                                server_.address_);
    if (auto* refusal = std::get_if<Response>(&routed)) return respond(std::move(*refusal));
    route_ = std::get<Route>(std::move(routed));
    http::async_read(stream_, buffer_, parser_,
                     [self = shared_from_this()](error_code ended, std::size_t) { self->on_body(ended); });
  }

  // Whether the request cannot be read; then its answer is on its way, where there can be one.
  bool refused(error_code error) {
    if (!error) return false;
    if (error == http::error::header_limit || error == http::error::buffer_overflow) {
      respond(refusal(431, base::format("the request's header is longer than {} bytes", server_.limits_.header_bytes)));
    } else if (error == http::error::body_limit) {
      respond(refusal(413, base::format("the question is longer than {} bytes", server_.limits_.body_bytes)));
    } else if (error == beast::error::timeout) {
      close();
    } else if (error.category() == http::make_error_code(http::error::bad_method).category() &&
               error != http::error::end_of_stream && error != http::error::partial_message) {
      respond(refusal(400, "the request is no HTTP: " + error.message()));
    }
    return true;
  }

  void on_body(error_code error) {
    if (refused(error)) return;
    received();
    switch (route_.kind) {
      case Route::kAsset:
        return send_asset();
      case Route::kAsk:
        return ask();
      case Route::kShare:
      case Route::kCancel:
        return tell_of_job();
    }
  }

  void send_asset() {
    const auto found = server_.assets_.find(route_.name);
    if (found == server_.assets_.end()) return respond(refusal(404, "there is no such path"));
    const Asset& asset = found->second;
    send(200, asset.type, asset.policy, std::span(asset.bytes));
  }

  void tell_of_job() {
    const std::shared_ptr<Job> job = server_.jobs_.find(route_.name);
    if (job == nullptr) return respond(refusal(404, "there is no such question, or it has its answer"));
    if (route_.kind == Route::kShare) {
      return respond({200, "application/json",
                      base::format("{{\"share\":{},\"waiting\":{}}}", std::clamp(job->share.load(), 0.0, 1.0),
                                   !job->started.load())});
    }
    server_.jobs_.cancel(job);
    respond({204, "", ""});
  }

  void ask() {
    job_ = std::make_shared<Job>();
    job_->name = route_.name;
    job_->question = std::move(parser_.get().body());
    // The answer goes over to the thread of the sockets, and the connection with it: it must not end on the worker.
    job_->done = [self = shared_from_this()](Response response) mutable {
      auto& sockets = self->server_.sockets_;
      asio::post(sockets, [connection = std::move(self), answer = std::move(response)]() mutable {
        connection->respond(std::move(answer));
      });
    };
    stream_.expires_never();  // the work may be long; the one who asked can close or cancel
    if (!server_.jobs_.add(job_)) {
      job_ = nullptr;
      return respond(refusal(503, "too many questions wait"));
    }
    watch();
  }

  // Cancels the question when the one who asked has gone.
  void watch() {
    stream_.socket().async_wait(tcp::socket::wait_read, [self = shared_from_this()](error_code error) {
      if (error || self->job_ == nullptr) return;
      char byte;
      error_code gone;
      self->stream_.socket().non_blocking(true, gone);
      const std::size_t n = self->stream_.socket().receive(asio::buffer(&byte, 1), MSG_PEEK, gone);
      // Bytes behind a request are not read: nothing tells of a closing behind them.
      if (n == 0 && gone != asio::error::would_block) self->server_.jobs_.cancel(self->job_);
    });
  }

  void respond(Response response) {
    body_ = std::move(response.body);
    send(response.status, response.type, kNoPolicy, std::span(body_));
  }

  void send(int status, const std::string& type, const std::string& policy, std::span<const char> bytes) {
    received();
    job_ = nullptr;
    error_code ignored;
    stream_.socket().cancel(ignored);  // the watch
    response_.version(11);
    response_.result(static_cast<unsigned>(status));
    response_.keep_alive(false);
    if (!type.empty()) response_.set(http::field::content_type, type);
    response_.set(http::field::cache_control, "no-store");
    response_.set("Content-Security-Policy", policy);
    response_.set("X-Content-Type-Options", "nosniff");
    response_.set("Referrer-Policy", "no-referrer");
    response_.set("Cross-Origin-Resource-Policy", "same-origin");
    response_.set("Cross-Origin-Opener-Policy", "same-origin");
    response_.body() = {bytes.data(), bytes.size()};
    if (status != 204) response_.content_length(bytes.size());
    stream_.expires_after(server_.limits_.send);
    http::async_write(stream_, response_, [self = shared_from_this()](error_code error, std::size_t) {
      if (!error) self->end();
    });
  }

  // Lets a client that still sends read the answer: closing on unread bytes would reset the connection.
  void end() {
    error_code ignored;
    stream_.socket().shutdown(tcp::socket::shutdown_send, ignored);
    stream_.expires_after(std::chrono::seconds(1));
    drain();
  }
  void drain() {
    stream_.async_read_some(asio::buffer(discarded_), [self = shared_from_this()](error_code error, std::size_t) {
      if (!error) self->drain();
    });
  }

  Impl& server_;
  beast::tcp_stream stream_;
  beast::flat_buffer buffer_{16384};
  http::request_parser<http::string_body> parser_;
  Route route_;
  std::shared_ptr<Job> job_;
  std::string body_;
  http::response<http::span_body<const char>> response_;
  std::array<char, 1024> discarded_;
  std::list<Connection*>::iterator all_, receiving_;
};

HttpServer::Impl::Impl(std::map<std::string, Asset> assets, Handler handler, std::uint16_t port, const Limits& limits,
                       TakesLong takes_long)
    : assets_(std::move(assets)),
      limits_(limits),
      jobs_(std::move(handler), std::move(takes_long), limits.waiting_questions) {
  limits_.connections = std::min(limits_.connections, raise_open_files());
  address_.token = random_token();
  error_code error;
  const tcp::endpoint loopback(asio::ip::address_v4::loopback(), port);
  const auto failed = [&] { return static_cast<bool>(error); };
  acceptor_.open(loopback.protocol(), error);
  if (!failed()) acceptor_.set_option(tcp::acceptor::reuse_address(true), error);
  if (!failed()) acceptor_.bind(loopback, error);
  if (!failed()) acceptor_.listen(asio::socket_base::max_listen_connections, error);
  if (failed()) {
    throw Error(ErrorCode::kIo, base::format("cannot listen on 127.0.0.1:{}: {}", port, error.message()));
  }
  ::fcntl(acceptor_.native_handle(), F_SETFD, FD_CLOEXEC);  // not for the browser that the program starts
  address_.port = acceptor_.local_endpoint().port();
  accept();
  thread_ = std::thread([this] { serve(); });
}

HttpServer::Impl::~Impl() {
  sockets_.stop();
  thread_.join();
}

void HttpServer::Impl::serve() noexcept {
  for (;;) {
    try {
      sockets_.run();
      return;
    } catch (const std::exception&) {  // no memory for one connection, which has gone with it
    }
  }
}

void HttpServer::Impl::accept() {
  acceptor_.async_accept([this](error_code error, tcp::socket socket) {
    if (error == asio::error::operation_aborted) return;
    if (error) {  // no descriptor is left, or the like
      make_room();
      retry_.expires_after(milliseconds(10));
      return retry_.async_wait([this](error_code stopped) {
        if (!stopped) accept();
      });
    }
    accept();
    if (all_.size() < limits_.connections || make_room()) {
      std::make_shared<Connection>(*this, std::move(socket))->start();
    }
  });
}

bool HttpServer::Impl::make_room() {
  if (receiving_.empty()) return false;
  receiving_.front()->close();
  return true;
}

HttpServer::HttpServer(std::map<std::string, Asset> assets, Handler handler, std::uint16_t port, const Limits& limits,
                       TakesLong takes_long)
    : impl_(std::make_unique<Impl>(std::move(assets), std::move(handler), port, limits, std::move(takes_long))) {}
HttpServer::~HttpServer() = default;
std::uint16_t HttpServer::port() const noexcept { return impl_->address().port; }
const std::string& HttpServer::token() const noexcept { return impl_->address().token; }
std::string HttpServer::link() const { return base::format("http://127.0.0.1:{}/{}/", port(), token()); }

}  // namespace manyheads::server
