// Model folders. The input: config.json, and behind a zero byte the header of model.safetensors. The weights are small
// numbers, as many as the header asks for within a bound.
#include <manyheads/model/encoder.hpp>
#include <manyheads/safetensors.hpp>

#include "harness.hpp"
#include "io/json.hpp"

using namespace manyheads;

namespace {

// The largest end that the header names.
std::size_t data_size(const std::string& header) {
  constexpr std::uint64_t kMost = 1 << 20;
  std::uint64_t largest = 0;
  const io::Json value = io::Json::parse(header, nullptr, false);
  if (!value.is_object()) return 0;
  for (const auto& [name, entry] : value.items()) {
    if (!entry.is_object() || !entry.contains("data_offsets") || !entry["data_offsets"].is_array()) continue;
    for (const io::Json& end : entry["data_offsets"]) {
      if (end.is_number_unsigned()) largest = std::max(largest, end.get<std::uint64_t>());
    }
  }
  return static_cast<std::size_t>(std::min(largest, kMost));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  static const fuzz::Folder folder;
  const std::vector<std::string> parts = fuzz::split({reinterpret_cast<const char*>(bytes), size}, 2);
  std::string data(data_size(parts[1]), '\0');
  // Bytes that are small numbers as F32, BF16 and F16 alike: 0x3c3c.
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = i % 3 == 0 ? '\x3c' : '\x3b';
  folder.write("config.json", parts[0]);
  folder.write("model.safetensors", fuzz::safetensors_file(parts[1], data));
  fuzz::taken([&] {
    const auto encoder = model::load_encoder(folder.path());
    const model::EncoderConfig& config = encoder->config();
    fuzz::require(config.hidden_size > 0, "no hidden size");
    model::EncoderOptions options;
    options.threads.num_threads = 1;
    const Tensor hidden = encoder->run(model::TokenBatch::from_rows({{0, 1, 2}, {0}}), options);
    fuzz::require(hidden.shape() == Dims({2, 3, config.hidden_size}), "another shape");
  });
  return 0;
}
