#include "server/http_server.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <manyheads/error.hpp>
#include <new>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "sanitized.hpp"
#include "server/client.hpp"

namespace manyheads::test {
namespace {

using server::Asset;
using server::HttpServer;
using server::Limits;
using server::Progress;
using server::Response;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

int count_of(const char* variable, int usual) {
  const char* text = std::getenv(variable);
  return text == nullptr ? usual : std::atoi(text);
}

double since(steady_clock::time_point start) {
  return std::chrono::duration<double>(steady_clock::now() - start).count();
}

bool soon(const std::function<bool()>& holds) {
  for (int i = 0; i < 1000; ++i) {
    if (holds()) return true;
    std::this_thread::sleep_for(milliseconds(10));
  }
  return false;
}

constexpr const char* kPage = "<!doctype html><title>manyheads</title>";

// Answers the question it got. "work" goes on until it is cancelled; "long" too, and short ones pass it.
class Server {
 public:
  explicit Server(const Limits& limits = {}, std::string page = kPage)
      : server_(
            {{"", Asset{"text/html; charset=utf-8", std::move(page), "default-src 'none'; script-src 'self'"}}},
            [this](const std::string& question, const Progress& progress) { return answer(question, progress); }, 0,
            limits, [](const std::string& question) {
              if (question == "bad") throw std::runtime_error("no question");
              return question == "long";
            }) {}

  std::uint16_t port() const { return server_.port(); }
  std::string path(const std::string& name = "") const { return "/" + server_.token() + "/" + name; }
  std::string link() const { return server_.link(); }
  Reply get(const std::string& name) const { return answer_to(port(), test::get(port(), path(name))); }
  Reply ask(const std::string& question, const std::string& query = "") const {
    return answer_to(port(), post(port(), path("ask" + query), question));
  }
  std::string question(const std::string& body, const std::string& query = "") const {
    return post(port(), path("ask" + query), body);
  }

  std::atomic<int> working{0}, cancelled{0}, answered{0};

 private:
  Response answer(const std::string& question, const Progress& progress) {
    if (question == "bad") throw Error(ErrorCode::kInvalidArgument, "ask: bad is no question");
    if (question == "odd") throw std::runtime_error("odd");
    if (question == "memory") throw std::bad_alloc();
    if (question == "nothing") throw 1;
    if (question == "work" || question == "long") {
      ++working;
      while (progress(0.25)) std::this_thread::sleep_for(milliseconds(1));
      ++cancelled;
    }
    ++answered;
    return {200, "application/octet-stream", "<" + question + ">"};
  }

  HttpServer server_;
};

TEST(HttpServer, ServesThePageAndLetsNothingElseBeLoaded) {
  const Server server;
  EXPECT_EQ(server.link(), "http://127.0.0.1:" + std::to_string(server.port()) + server.path());
  const Reply page = server.get("");
  EXPECT_EQ(page.status, 200);
  EXPECT_EQ(page.body, kPage);
  EXPECT_EQ(page.fields.at("content-type"), "text/html; charset=utf-8");
  EXPECT_EQ(page.fields.at("content-security-policy"), "default-src 'none'; script-src 'self'");
  EXPECT_EQ(page.fields.at("x-content-type-options"), "nosniff");
  EXPECT_EQ(page.fields.at("referrer-policy"), "no-referrer");
  EXPECT_EQ(page.fields.at("cache-control"), "no-store");
  EXPECT_EQ(page.fields.at("connection"), "close");
  EXPECT_EQ(page.fields.count("access-control-allow-origin"), 0u);
  EXPECT_EQ(server.get("favicon.ico").status, 404);
  EXPECT_EQ(server.get("favicon.ico").fields.at("content-security-policy"),
            "default-src 'none'; frame-ancestors 'none'");
}

TEST(HttpServer, AnswersQuestions) {
  const Server server;
  const Reply reply = server.ask("why");
  EXPECT_EQ(reply.status, 200);
  EXPECT_EQ(reply.body, "<why>");
  EXPECT_EQ(reply.fields.at("content-type"), "application/octet-stream");
  EXPECT_EQ(server.ask("").body, "<>");
  const std::string own = "127.0.0.1:" + std::to_string(server.port());
  const Reply chunked = answer_to(server.port(), "POST " + server.path("ask") + " HTTP/1.1\r\nHost: " + own +
                                                     "\r\nContent-Type: application/json\r\nTransfer-Encoding: "
                                                     "chunked\r\n\r\n2\r\nwh\r\n1\r\ny\r\n0\r\n\r\n");
  EXPECT_EQ(chunked.body, "<why>");
}

TEST(HttpServer, WhatTheHandlerThrowsIsAnAnswer) {
  const Server server;
  EXPECT_EQ(server.ask("bad").status, 400);
  EXPECT_EQ(server.ask("bad").body, "{\"error\":\"ask: bad is no question\"}");
  EXPECT_EQ(server.ask("odd").status, 500);
  EXPECT_EQ(server.ask("memory").body, "{\"error\":\"not enough memory\"}");
  EXPECT_EQ(server.ask("nothing").status, 500);
  EXPECT_EQ(server.ask("why").status, 200);
}

TEST(HttpServer, TakesOnlyItsOwnRequests) {
  const Server server;
  const std::uint16_t port = server.port();
  const auto status = [&](const std::string& request) { return answer_to(port, request).status; };
  EXPECT_EQ(status(get(port, "/")), 404);
  EXPECT_EQ(status(get(port, "/" + std::string(32, 'a') + "/")), 404);
  EXPECT_EQ(status("GET " + server.path() + " HTTP/1.1\r\nHost: evil.example\r\n\r\n"), 403);
  EXPECT_EQ(status("GET " + server.path() + " HTTP/1.1\r\n\r\n"), 403);
  EXPECT_EQ(status(get(port, server.path(), "Host: 127.0.0.1\r\n")), 403);
  EXPECT_EQ(status(get(port, server.path(), "Origin: http://evil.example\r\n")), 403);
  EXPECT_EQ(status("OPTIONS" + get(port, server.path("ask")).substr(3)), 405);
  EXPECT_EQ(status("HEAD" + get(port, server.path()).substr(3)), 405);
  for (const char* name : {"../", "../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd", "/etc/passwd", "..%2fetc%2fpasswd",
                           ".", "\\..\\etc", "job/..%2f..%2fetc%2fpasswd"}) {
    const Reply reply = server.get(name);
    EXPECT_EQ(reply.status, 404) << name;
    EXPECT_EQ(reply.body.rfind("{\"error\":", 0), 0u) << reply.body;
  }
  EXPECT_EQ(server.answered, 0);
}

TEST(HttpServer, RefusesWhatIsTooLong) {
  Limits limits;
  limits.header_bytes = 1000;
  limits.body_bytes = 1000;
  const Server server(limits);
  const std::uint16_t port = server.port();
  EXPECT_EQ(answer_to(port, get(port, server.path(), "X: " + std::string(1000, 'x') + "\r\n")).status, 431);
  EXPECT_EQ(answer_to(port, "GET /" + std::string(100'000, 'x')).status, 431);
  EXPECT_EQ(server.ask(std::string(1000, 'x')).status, 200);
  EXPECT_EQ(server.ask(std::string(1001, 'x')).status, 413);
  EXPECT_EQ(server.ask(std::string(1'000'000, 'x')).status, 413);
  const std::string head = post(port, server.path("ask"), "");
  const std::string without_length = head.substr(0, head.find("Content-Length"));
  EXPECT_EQ(answer_to(port, without_length + "Content-Length: 99999999999999999999\r\n\r\n").status, 400);
  EXPECT_EQ(answer_to(port, without_length + "Content-Length: -1\r\n\r\n").status, 400);
  std::string chunks;
  for (int i = 0; i < 11; ++i) chunks += "64\r\n" + std::string(100, 'x') + "\r\n";
  EXPECT_EQ(answer_to(port, without_length + "Transfer-Encoding: chunked\r\n\r\n" + chunks + "0\r\n\r\n").status, 413);
  EXPECT_EQ(server.answered, 1);
}

// Sends a byte every 20 ms; gives the seconds until the server had enough.
double drip(const Server& server, const std::string& bytes) {
  Client client(server.port());
  const auto start = steady_clock::now();
  for (std::size_t i = 0; since(start) < 10; ++i) {
    if (!client.send(std::string(1, bytes[i % bytes.size()])) || client.closed_within(0.02)) return since(start);
  }
  return 10;
}

TEST(HttpServer, OneDeadlineHoldsHoweverARequestTrickles) {
  Limits limits;
  limits.receive = milliseconds(300);
  const Server server(limits);
  const std::string header = "GET " + server.path() + " HTTP/1.1\r\n" + std::string(5000, 'x');
  const double seconds = drip(server, header);
  EXPECT_GE(seconds, 0.25);
  EXPECT_LT(seconds, 5);
  std::string body = server.question(std::string(5000, 'x'));
  Client half(server.port());
  ASSERT_TRUE(half.send(body.substr(0, body.size() - 1)));
  const auto start = steady_clock::now();
  EXPECT_TRUE(half.closed_within(5));
  EXPECT_LT(since(start), 4);
  Client idle(server.port());
  EXPECT_TRUE(idle.closed_within(5));
  EXPECT_EQ(server.answered, 0);
}

TEST(HttpServer, AReaderThatReadsNothingIsLetGo) {
  Limits limits;
  limits.send = milliseconds(300);
  const std::string page(64 << 20, 'x');
  const Server server(limits, page);
  Client client(server.port());
  ASSERT_TRUE(client.send(get(server.port(), server.path())));
  std::this_thread::sleep_for(milliseconds(1000));
  EXPECT_LT(client.read_all(1).size(), page.size());
}

TEST(HttpServer, WorkTellsItsShareAndCanBeCancelled) {
  const Server server;
  Client client(server.port());
  ASSERT_TRUE(client.send(server.question("work", "?job=map-1")));
  ASSERT_TRUE(soon([&] { return server.working == 1; }));
  Client queued(server.port());
  ASSERT_TRUE(queued.send(server.question("why", "?job=map-2")));
  ASSERT_TRUE(soon([&] { return server.get("job/map-2").status == 200; }));
  EXPECT_EQ(server.get("job/map-1").body, "{\"share\":0.25,\"waiting\":false}");
  EXPECT_EQ(server.get("job/map-2").body, "{\"share\":0,\"waiting\":true}");
  const std::string del = get(server.port(), server.path("job/map-1"));
  EXPECT_EQ(answer_to(server.port(), "DELETE" + del.substr(3)).status, 204);
  const Reply reply = parse(client.read_all());
  EXPECT_EQ(reply.status, 409);
  EXPECT_EQ(reply.body, "{\"error\":\"cancelled\"}");
  EXPECT_EQ(parse(queued.read_all()).body, "<why>");
  EXPECT_EQ(server.get("job/map-1").status, 404);
}

TEST(HttpServer, AQuestionThatWaitsIsCancelledAtOnce) {
  const Server server;
  Client client(server.port()), queued(server.port());
  ASSERT_TRUE(client.send(server.question("work")));
  ASSERT_TRUE(soon([&] { return server.working == 1; }));
  ASSERT_TRUE(queued.send(server.question("why", "?job=second")));
  ASSERT_TRUE(soon([&] { return server.get("job/second").status == 200; }));
  EXPECT_EQ(answer_to(server.port(), "DELETE" + get(server.port(), server.path("job/second")).substr(3)).status, 204);
  EXPECT_EQ(parse(queued.read_all()).status, 409);
  EXPECT_EQ(server.cancelled, 0);
}

TEST(HttpServer, ClosingThePageEndsItsWork) {
  const Server server;
  {
    Client running(server.port()), waiting(server.port());
    ASSERT_TRUE(running.send(server.question("work")));
    ASSERT_TRUE(soon([&] { return server.working == 1; }));
    ASSERT_TRUE(waiting.send(server.question("work", "?job=second")));
    ASSERT_TRUE(soon([&] { return server.get("job/second").status == 200; }));
  }
  EXPECT_TRUE(soon([&] { return server.cancelled == 1; }));
  EXPECT_TRUE(soon([&] { return server.get("job/second").status == 404; }));
  EXPECT_EQ(server.ask("why").body, "<why>");
  EXPECT_EQ(server.working, 1);
}

TEST(HttpServer, ShortQuestionsPassLongOnes) {
  const Server server;
  const auto job = [&](const std::string& name) { return server.get("job/" + name); };
  Client first(server.port()), second(server.port());
  ASSERT_TRUE(first.send(server.question("long", "?job=first")));
  ASSERT_TRUE(soon([&] { return server.working == 1; }));
  ASSERT_TRUE(second.send(server.question("long", "?job=second")));
  ASSERT_TRUE(soon([&] { return job("second").status == 200; }));
  // Both are still there when the short ones, sent later, have their answers.
  for (int i = 0; i < 20; ++i) EXPECT_EQ(server.ask("why").body, "<why>");
  EXPECT_EQ(server.ask("bad").status, 400);
  EXPECT_EQ(job("first").body, "{\"share\":0.25,\"waiting\":false}");
  EXPECT_EQ(job("second").body, "{\"share\":0,\"waiting\":true}");
  EXPECT_EQ(server.working, 1);  // long ones do not pass each other
  const std::string del = get(server.port(), server.path("job/first"));
  EXPECT_EQ(answer_to(server.port(), "DELETE" + del.substr(3)).status, 204);
  EXPECT_EQ(parse(first.read_all()).status, 409);
  ASSERT_TRUE(soon([&] { return server.working == 2; }));
}

TEST(HttpServer, LongQuestionsThatWaitEndWithTheirPageOrAtOnce) {
  const Server server;
  Client running(server.port()), waiting(server.port());
  {
    Client closed(server.port());
    ASSERT_TRUE(running.send(server.question("long")));
    ASSERT_TRUE(soon([&] { return server.working == 1; }));
    ASSERT_TRUE(closed.send(server.question("long", "?job=closed")));
    ASSERT_TRUE(waiting.send(server.question("long", "?job=waiting")));
    for (const char* name : {"job/closed", "job/waiting"}) {
      ASSERT_TRUE(soon([&] { return server.get(name).status == 200; }));
    }
  }
  EXPECT_TRUE(soon([&] { return server.get("job/closed").status == 404; }));
  const std::string del = get(server.port(), server.path("job/waiting"));
  EXPECT_EQ(answer_to(server.port(), "DELETE" + del.substr(3)).status, 204);
  EXPECT_EQ(parse(waiting.read_all()).status, 409);
  EXPECT_EQ(server.working, 1);
  EXPECT_EQ(server.cancelled, 0);
}

TEST(HttpServer, ManyShortAndLongQuestionsAllEnd) {
  const Server server;
  std::vector<std::thread> pages;
  for (int page = 0; page < 8; ++page) {
    pages.emplace_back([&server, page] {
      for (int i = 0; i < 20; ++i) {
        if (page % 2 == 0) {
          EXPECT_EQ(server.ask("why").body, "<why>");
          continue;
        }
        const std::string name = std::to_string(page) + "-" + std::to_string(i);
        Client client(server.port());
        ASSERT_TRUE(client.send(server.question("long", "?job=" + name)));
        const std::string del = get(server.port(), server.path("job/" + name));
        ASSERT_TRUE(soon([&] { return answer_to(server.port(), "DELETE" + del.substr(3)).status == 204; }));
        EXPECT_EQ(parse(client.read_all()).status, 409);
      }
    });
  }
  for (std::thread& page : pages) page.join();
  EXPECT_EQ(server.answered, 80 + server.cancelled);
  EXPECT_EQ(server.working, server.cancelled);
}

TEST(HttpServer, SoManyQuestionsWait) {
  Limits limits;
  limits.waiting_questions = 2;
  const Server server(limits);
  std::vector<Client> clients;
  for (int i = 0; i < 3; ++i) {
    clients.emplace_back(server.port());
    ASSERT_TRUE(clients.back().send(server.question("work", "?job=" + std::to_string(i))));
    ASSERT_TRUE(soon([&] { return server.get("job/" + std::to_string(i)).status == 200; }));
    ASSERT_TRUE(soon([&] { return server.working == 1; }));
  }
  EXPECT_EQ(server.ask("why").status, 503);
}

TEST(HttpServer, EndsWhileQuestionsAreOpen) {
  for (int round = 0; round < 5; ++round) {
    Server server;
    std::vector<Client> clients;
    for (int i = 0; i < 10; ++i) {
      clients.emplace_back(server.port());
      const std::string request = i % 3 == 0 ? server.question("work") : i % 3 == 1 ? server.question("long") : "";
      ASSERT_TRUE(clients.back().send(request.empty() ? "GET " + server.path() : request));
    }
    ASSERT_TRUE(soon([&] { return server.working >= 1; }));
  }
}

TEST(HttpServer, TheOldestThatSendsNothingMakesRoom) {
  Limits limits;
  limits.connections = 4;
  const Server server(limits);
  std::vector<Client> idle;
  for (int i = 0; i < 4; ++i) idle.emplace_back(server.port());
  EXPECT_EQ(server.get("").status, 200);
  EXPECT_TRUE(idle[0].closed_within(5));
  for (int i = 0; i < 20; ++i) idle.emplace_back(server.port());
  EXPECT_EQ(server.ask("why").body, "<why>");
}

TEST(HttpServer, AFreePortOrAnError) {
  const Server server;
  try {
    const HttpServer second(
        {}, [](const std::string&, const Progress&) { return Response{}; }, server.port());
    FAIL() << "the port is taken";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kIo);
    EXPECT_EQ(error.what(), "cannot listen on 127.0.0.1:" + std::to_string(server.port()) + ": Address already in use");
  }
}

// Requests in one thread after the other while others hold connections open; the slowest of them.
double slowest_answer(const Server& server, int requests) {
  double slowest = 0;
  for (int i = 0; i < requests; ++i) {
    const auto start = steady_clock::now();
    EXPECT_EQ(server.ask("why").body, "<why>");
    EXPECT_EQ(server.get("").body, kPage);
    slowest = std::max(slowest, since(start));
  }
  return slowest;
}

TEST(HttpServerLoad, OthersAreAnsweredBesideIdleSlowAndHalfSentConnections) {
  const int connections = count_of("MANYHEADS_SERVER_CONNECTIONS", 50);
  rlimit files{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &files), 0);
  const Server server;  // raises the limit, which holds for the clients too
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &files), 0);
  if (files.rlim_max < static_cast<rlim_t>(2 * connections + 200)) GTEST_SKIP() << "too few open files";
  std::vector<Client> open;
  const std::string question = server.question(std::string(1000, 'x'));
  for (int i = 0; i < connections; ++i) {
    open.emplace_back(server.port());
    ASSERT_TRUE(open.back().connected());
    if (i % 3 == 1) open.back().send("GET " + server.path());
    if (i % 3 == 2) open.back().send(question.substr(0, question.size() - 1));
  }
  std::atomic<bool> stop{false};
  std::thread slow([&] {
    for (std::size_t i = 0; !stop; ++i) {
      if (i % 3 == 1) open[i % open.size()].send("x");
      if (i % 100 == 0) std::this_thread::sleep_for(milliseconds(1));
    }
  });
  const double slowest = slowest_answer(server, 50);
  stop = true;
  slow.join();
  std::printf("server: beside %d open connections the slowest of 50 answers took %.1f ms\n", connections,
              1e3 * slowest);
}

std::size_t resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  std::size_t total = 0, resident = 0;
  statm >> total >> resident;
  return resident * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
}

// A request with a few bytes changed, cut or doubled, or bytes of no meaning.
std::string malformed(const Server& server, std::mt19937& random) {
  const auto below = [&](std::size_t n) { return std::uniform_int_distribution<std::size_t>(0, n - 1)(random); };
  std::string bytes = below(2) == 0 ? server.question("why", "?job=a") : get(server.port(), server.path("job/a"));
  switch (below(5)) {
    case 0:
      bytes.assign(below(400) + 1, 'x');
      for (char& byte : bytes) byte = static_cast<char>(below(256));
      return bytes;
    case 1:
      bytes.resize(below(bytes.size()) + 1);
      break;
    case 2:
      bytes.insert(below(bytes.size()), bytes.substr(0, below(bytes.size())));
      break;
    case 3:
      bytes.insert(bytes.find("\r\n") + 2, "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n");
      break;
    default:
      break;
  }
  for (std::size_t i = 0; i < 1 + below(4); ++i) bytes[below(bytes.size())] = static_cast<char>(below(256));
  return bytes;
}

TEST(HttpServerLoad, MalformedRequestsTakeNothing) {
  const int requests = count_of("MANYHEADS_SERVER_REQUESTS", 5000);
  const Server server;
  std::mt19937 random(1);
  std::size_t before = 0;
  double slowest = 0;
  int told = 0;
  const auto start = steady_clock::now();
  for (int i = 0; i < requests; ++i) {
    Client client(server.port());
    ASSERT_TRUE(client.connected()) << i;
    client.send(malformed(server, random));
    if (i % 8 == 0) told += parse(client.read_all(0.05)).status != 0;
    client.reset();
    if (i == requests / 2) before = resident_bytes();
    if (i % 500 == 0) slowest = std::max(slowest, slowest_answer(server, 1));
  }
  const double seconds = since(start);
  EXPECT_GT(told, requests / 20);
  const double grown = (static_cast<double>(resident_bytes()) - static_cast<double>(before)) / 1e6;
  if (!kSanitized) {
    EXPECT_LT(grown, 4);
  }
  std::printf("server: %d malformed requests in %.1f s, answers beside them within %.1f ms, %.1f MB more\n", requests,
              seconds, 1e3 * slowest, grown);
}

}  // namespace
}  // namespace manyheads::test
