// Model folders, encoders' and decoders'. The input: config.json, and behind a zero byte the header of
// model.safetensors. The weights are small numbers, as many as the header asks for within a bound.
#include <cstring>
#include <manyheads/model/decoder.hpp>
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

// A decoder's forward on a cache gives the bits of `hidden`, which run() gave for tokens 0, 1, 2.
void decode(const model::Decoder& decoder, const Tensor& hidden, const model::EncoderOptions& options) {
  const std::int64_t e = decoder.config().hidden_size;
  model::DecoderCache cache(decoder.config());
  const auto sequence = cache.add();
  for (const std::vector<std::int64_t>& ids : {std::vector<std::int64_t>{0, 1}, {2}}) {
    const std::int64_t before = cache.length(sequence);
    const model::DecoderChunk chunk{sequence, ids};
    const Tensor part = decoder.extend(cache, {&chunk, 1}, options);
    fuzz::require(part.shape() == Dims({std::ssize(ids), e}), "another shape from a cache");
    fuzz::require(std::memcmp(part.as<float>(), hidden.as<float>() + before * e,
                              static_cast<std::size_t>(part.elements()) * sizeof(float)) == 0,
                  "other bits from a cache");
    const Tensor logits = decoder.logits(part.cview(), options.threads);
    fuzz::require(logits.shape() == Dims({std::ssize(ids), decoder.config().vocab_size}), "another shape of logits");
  }
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
    if (const auto* decoder = dynamic_cast<const model::Decoder*>(encoder.get())) decode(*decoder, hidden, options);
  });
  return 0;
}
