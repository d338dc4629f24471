// Safetensors files. The input: how many bytes of data follow the header (two bytes), and the header.
#include <cstring>
#include <manyheads/safetensors.hpp>

#include "harness.hpp"

using namespace manyheads;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  static const fuzz::Folder folder;
  if (size < 2) return 0;
  const std::size_t data_size = bytes[0] + 256u * bytes[1];
  const std::string header(reinterpret_cast<const char*>(bytes) + 2, size - 2);
  const auto path = folder.write("a", fuzz::safetensors_file(header, std::string(data_size, '\1')));
  SafetensorsFile file;
  if (!fuzz::taken([&] { file = load_safetensors(path); })) return 0;

  std::size_t total = 0;
  for (const auto& [name, tensor] : file.tensors) {
    const std::size_t bytes_of = static_cast<std::size_t>(tensor.elements()) * size_of(tensor.dtype());
    const auto* first = static_cast<const unsigned char*>(tensor.bytes());
    for (std::size_t i = 0; i < bytes_of; ++i) fuzz::require(first[i] == 1, "a byte of another place");
    total += bytes_of;
  }
  fuzz::require(total <= data_size, "more data than there is");

  // Written and read again, it is the same.
  const auto again = folder.path() / "b";
  save_safetensors(again, file.tensors, file.metadata);
  const SafetensorsFile back = load_safetensors(again);
  fuzz::require(back.metadata == file.metadata, "other metadata");
  fuzz::require(back.tensors.size() == file.tensors.size(), "another number of tensors");
  for (const auto& [name, tensor] : file.tensors) {
    const Tensor& other = back.at(name);
    fuzz::require(other.dtype() == tensor.dtype() && other.shape() == tensor.shape(), "another tensor");
  }
  return 0;
}
