#include <cstddef>
#include <filesystem>
#include <manyheads/error.hpp>
#include <manyheads/safetensors.hpp>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/file.hpp"
#include "base/format.hpp"
#include "layer/convert.hpp"
#include "model/checkpoint.hpp"
#include "model/text_model.hpp"
#include "text.hpp"
#include "view.hpp"
#include "view/opened.hpp"
#include "view/page.hpp"

namespace manyheads::cli {
namespace {

namespace fs = std::filesystem;

void make_folder(const fs::path& folder) {
  std::error_code problem;
  fs::create_directories(folder, problem);
  if (problem || !fs::is_directory(folder)) {
    throw Error(ErrorCode::kIo, "--export-site: cannot make the folder " + base::path_in_quotes(folder) +
                                    (problem ? ": " + problem.message() : ": a file of that name is there"));
  }
}

void write(const fs::path& path, std::string_view bytes) {
  base::FileWriter file(path);
  file.write(bytes);
  file.commit();
}

// The weights in one file, every float of the type that the site has.
void write_weights(const fs::path& from, const fs::path& to, DType type) {
  SafetensorsFile checkpoint = model::load_checkpoint(from);
  for (auto& [name, tensor] : checkpoint.tensors) {
    if (base::is_float(tensor.dtype()) && tensor.dtype() != type) tensor = layer::converted(tensor.cview(), type);
  }
  save_safetensors(to, checkpoint.tensors, checkpoint.metadata);
}

}  // namespace

void export_site(const ViewRequest& request) {
  const std::string_view built = page_that_computes();
  Opened opened(request);
  const fs::path& from = opened.model()->parts().module.folder;
  const fs::path site = request.site, folder = site / "model";
  make_folder(folder);
  nlohmann::ordered_json files = nlohmann::ordered_json::array();
  for (const char* name : {"config.json", "tokenizer.json", "tokenizer_config.json"}) {
    if (!fs::exists(from / name)) continue;
    write(folder / name, base::map_file(from / name).text());
    files.push_back(name);
  }
  const fs::path weights = folder / "model.safetensors";
  write_weights(from, weights, request.site_dtype == "f32" ? DType::kF32 : DType::kBF16);
  files.push_back("model.safetensors");

  // The tour shows them at one of its steps alone, so they are fetched there.
  const auto aside = [&](const HeadName& head, const std::string& packed) {
    const std::string name = base::format("answers/pipeline-{}.{}.bin", head.layer, head.head);
    write(site / name, packed);
    return name;
  };
  make_folder(site / "answers");
  nlohmann::ordered_json start = opened.start("site", request.heads, aside);
  start["model"] = {{"name", model_name(request.model)},
                    {"folder", "model/"},
                    {"dtype", request.site_dtype == "f32" ? "F32" : "BF16"},
                    {"bytes", fs::file_size(weights)},
                    {"files", files}};
  nlohmann::ordered_json first = opened.first("site");
  first["model"] = start["model"];
  if (!request.study.empty()) {
    write(site / kStudy, base::map_file(request.study).text());
    start["study"] = first["study"] = kStudy;
  }
  const std::string page = page_with(built, start, first);
  write(site / "index.html", page);
  if (request.common.json) {
    return print_json({{"out", request.site}, {"page_bytes", page.size()}, {"weights_bytes", fs::file_size(weights)}});
  }
  print(base::format(
      "Wrote {}: index.html ({:.1f} MB), and model/ ({:.1f} MB), which a page loads when its text is changed. "
      "Put the folder on any static host, or try it: python3 -m http.server -d {}\n",
      base::escaped(request.site), 1e-6 * static_cast<double>(page.size()),
      1e-6 * static_cast<double>(fs::file_size(weights)), base::escaped(request.site)));
}

}  // namespace manyheads::cli
