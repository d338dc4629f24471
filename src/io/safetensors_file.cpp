#include <manyheads/safetensors.hpp>

#include "base/file.hpp"
#include "io/safetensors_bytes.hpp"

namespace manyheads {

SafetensorsFile load_safetensors(const std::filesystem::path& path) {
  return io::read_safetensors(base::map_file(path), path);
}

void save_safetensors(const std::filesystem::path& path, const StateDict& tensors,
                      const std::map<std::string, std::string>& metadata) {
  const io::SafetensorsParts parts = io::safetensors_parts(tensors, metadata, base::path_in_quotes(path));
  base::FileWriter writer(path);
  writer.write(parts.head);
  for (const auto& data : parts.data) writer.write(data.data(), data.size());
  writer.commit();
}

}  // namespace manyheads
