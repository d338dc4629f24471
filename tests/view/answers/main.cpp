// The native session's answers, for the tests of its WebAssembly. A line of input is {"open_trace": FILE},
// {"open_tensors": FILE}, {"open_model": [NAME, CONFIG FILE, WEIGHTS FILE]} or a question; an answer is its size [4
// bytes], its kind (0 JSON, 1 tensors, 2 an error) [1 byte] and its bytes.
#include <cstdint>
#include <fstream>
#include <iostream>
#include <iterator>
#include <manyheads/error.hpp>
#include <nlohmann/json.hpp>
#include <string>

#include "view/session.hpp"

namespace {

std::string bytes_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void put(char kind, const std::string& bytes) {
  const auto size = static_cast<std::uint32_t>(bytes.size());
  std::cout.write(reinterpret_cast<const char*>(&size), sizeof size);
  std::cout.put(kind);
  std::cout.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

}  // namespace

int main() {
  manyheads::view::Session session("native", {.num_threads = 1});
  for (std::string line; std::getline(std::cin, line);) {
    const auto json = nlohmann::json::parse(line);
    try {
      if (json.contains("open_trace")) {
        put(0, std::to_string(session.open_trace(bytes_of(json["open_trace"]))));
      } else if (json.contains("open_tensors")) {
        put(0, std::to_string(session.open_tensors(bytes_of(json["open_tensors"]))));
      } else if (json.contains("open_model")) {
        const auto& files = json["open_model"];
        put(0, std::to_string(session.open_model(manyheads::view::read_model(
                   {.name = files[0], .config = bytes_of(files[1]), .weights = bytes_of(files[2])}))));
      } else {
        const manyheads::view::Answer answer = session.ask(line);
        put(answer.kind == manyheads::view::Answer::Kind::kJson ? 0 : 1, answer.bytes);
      }
    } catch (const manyheads::Error& error) {
      put(2, error.what());
    }
  }
}
