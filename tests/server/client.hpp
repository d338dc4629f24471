#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace manyheads::test {

// A connection of a test to 127.0.0.1, which sends what no browser would.
class Client {
 public:
  explicit Client(std::uint16_t port);
  ~Client();
  Client(Client&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  bool connected() const { return fd_ >= 0; }
  bool send(const std::string& bytes);  // false where the other side has closed
  // All that comes until the other side closes, or nothing came for so many seconds.
  std::string read_all(double seconds = 20);
  bool closed_within(double seconds);  // whatever comes before is dropped
  void reset();                        // closes at once, and tells so: no port waits behind

 private:
  int fd_ = -1;
};

// An answer taken apart.
struct Reply {
  int status = 0;                             // 0: it is no HTTP answer
  std::map<std::string, std::string> fields;  // names in small letters
  std::string body;
};
Reply parse(const std::string& bytes);

// One request and its answer.
Reply answer_to(std::uint16_t port, const std::string& request);

// The bytes of a request as a browser sends it. `extra` are further fields, each ended by \r\n.
std::string get(std::uint16_t port, const std::string& path, const std::string& extra = "");
std::string post(std::uint16_t port, const std::string& path, const std::string& body);

}  // namespace manyheads::test
