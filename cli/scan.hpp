#pragma once

#include <cstdint>
#include <filesystem>
#include <manyheads/tensor.hpp>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "cli.hpp"

// The arguments of `scan`, and its parts.
namespace manyheads::cli {

struct ScanRequest {
  Common common;
  std::vector<std::string> texts;
  std::string model, out, show, head, sort;
  bool json_lines = false;
  std::int64_t seed = 1;
};

void scan_texts(const ScanRequest& request);
void show_scan(const ScanRequest& request);

// What a scan that was stopped goes on from: SCAN.part beside SCAN.
struct ScanPart {
  std::map<std::string, std::string> settings;  // what the scan depends on; must be the same
  std::uint64_t texts_hash = 0;                 // of what was read
  std::int64_t parts = 0;                       // of the texts that were read
  std::int64_t windows = 0;                     // of the last one that are in the scan
  StateDict state;
};
std::filesystem::path part_path(const std::string& out);
void save_part(const std::filesystem::path& path, const ScanPart& part);
// None where there is no such file. Throws Error where it belongs to a scan of other settings.
std::optional<ScanPart> load_part(const std::filesystem::path& path,
                                  const std::map<std::string, std::string>& settings);

// A hash of the files of a model's folder, as hexadecimal digits.
std::string model_hash(const std::string& folder);

// While it lives, Ctrl-C and its like do not end the program but are remembered. A second one ends it.
class StopOnSignals {
 public:
  StopOnSignals();
  ~StopOnSignals();
  StopOnSignals(const StopOnSignals&) = delete;
  StopOnSignals& operator=(const StopOnSignals&) = delete;

  static bool stopped();
  // Ends the program by the signal, as if it had not been remembered.
  [[noreturn]] static void die();
};

}  // namespace manyheads::cli
