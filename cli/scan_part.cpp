#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <csignal>
#include <cstdlib>
#include <manyheads/error.hpp>
#include <manyheads/safetensors.hpp>

#include "base/file.hpp"
#include "base/format.hpp"
#include "io/json.hpp"
#include "scan.hpp"
#include "scan_texts.hpp"

namespace manyheads::cli {
namespace {

constexpr int kSignals[] = {SIGHUP, SIGINT, SIGTERM, SIGXCPU};

volatile std::sig_atomic_t pending = 0;
struct sigaction before[std::size(kSignals)];

void restore_signals() {
  for (std::size_t i = 0; i < std::size(kSignals); ++i) ::sigaction(kSignals[i], &before[i], nullptr);
}

void remember(int signal) {
  pending = signal;
  restore_signals();
}

constexpr const char* kVersion = "manyheads_scan_part";

}  // namespace

StopOnSignals::StopOnSignals() {
  pending = 0;
  struct sigaction stop{};
  stop.sa_handler = remember;
  for (std::size_t i = 0; i < std::size(kSignals); ++i) ::sigaction(kSignals[i], nullptr, &before[i]);
  for (std::size_t i = 0; i < std::size(kSignals); ++i) {
    // One ignored from the start, by nohup or in the background, stays so.
    if (before[i].sa_handler != SIG_IGN) ::sigaction(kSignals[i], &stop, nullptr);
  }
}

StopOnSignals::~StopOnSignals() { restore_signals(); }

bool StopOnSignals::stopped() { return pending != 0; }

void StopOnSignals::die() {
  restore_signals();
  ::raise(pending);
  std::_Exit(1);  // the signal was blocked
}

std::filesystem::path part_path(const std::string& out) { return out + ".part"; }

void save_part(const std::filesystem::path& path, const ScanPart& part) {
  save_safetensors(path, part.state,
                   {{kVersion, "1"},
                    {"settings", io::Json(part.settings).dump(-1, ' ', false, io::Json::error_handler_t::replace)},
                    {"texts_hash", std::to_string(part.texts_hash)},
                    {"parts", std::to_string(part.parts)},
                    {"windows", std::to_string(part.windows)}});
}

std::optional<ScanPart> load_part(const std::filesystem::path& path,
                                  const std::map<std::string, std::string>& settings) {
  std::error_code problem;
  if (!std::filesystem::exists(path, problem)) return std::nullopt;
  const SafetensorsFile file = load_safetensors(path);
  const std::string shown = base::path_in_quotes(path);
  const auto fail = [&](const std::string& what) {
    throw Error(ErrorCode::kMalformedFile, shown + " " + what + "; remove it to begin anew");
  };
  const auto field = [&](const char* key) -> const std::string& {
    const auto it = file.metadata.find(key);
    if (it == file.metadata.end()) fail(base::format("is no part of a scan: the metadata has no {}", key));
    return it->second;
  };
  const auto number = [&]<class T>(const char* key, T* value) {
    const std::string& text = field(key);
    const auto [end, bad] = std::from_chars(text.data(), text.data() + text.size(), *value);
    if (bad != std::errc() || end != text.data() + text.size()) fail(base::format("has no number as its {}", key));
  };
  if (field(kVersion) != "1") fail("is of another version of the program");
  ScanPart part;
  const io::Json found = io::parse_json(field("settings"), shown + ": metadata settings").value;
  for (const auto& [name, value] : settings) {
    const bool same = found.is_object() && found.contains(name) && found.at(name).is_string() &&
                      found.at(name).get<std::string>() == value;
    if (!same) fail("belongs to a scan with another " + name);
  }
  part.settings = settings;
  number("texts_hash", &part.texts_hash);
  number("parts", &part.parts);
  number("windows", &part.windows);
  if (part.parts < 0 || part.windows < 0) fail("has a number below 0");
  part.state = file.tensors;
  return part;
}

std::string model_hash(const std::string& folder) {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string extension = entry.path().extension().string();
    if (entry.is_regular_file() && (extension == ".json" || extension == ".safetensors")) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  std::uint64_t hash = kNoBytes;
  for (const std::filesystem::path& path : files) {
    const std::string name = path.filename().string();
    const base::MappedFile file = base::map_file(path);
    hash = hash_bytes(hash_bytes(hash, name.data(), name.size()), file.bytes.get(), file.size);
  }
  return base::format("{:016x}", hash);
}

}  // namespace manyheads::cli
