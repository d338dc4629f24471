#pragma once

#include <cstdint>
#include <filesystem>
#include <manyheads/tensor.hpp>
#include <map>
#include <string>
#include <vector>

namespace manyheads::lens {

// What a scan found, as docs/scan.md lays it out in a file.
struct ScanFile {
  std::string place;  // the file it was read from, for messages
  std::string model;
  std::string bits;  // the family of bits that it was computed with
  bool causal = false;
  std::int64_t max_tokens = 0;  // of a passage
  std::int64_t passages = 0;
  std::int64_t tokens = 0;  // special ones counted
  std::int64_t seed = 0;
  struct File {
    std::string name;
    bool json_lines = false;
  };
  std::vector<File> files;
  struct ScoreName {
    std::string name, formula, source;
  };
  std::vector<ScoreName> scores;
  std::map<std::int64_t, std::string> tokens_by_id;  // of the tokens that ask and are asked
  StateDict tensors;

  std::int64_t layers() const { return tensors.at("score_mean").size(0); }
  std::int64_t heads() const { return tensors.at("score_mean").size(1); }
  // The text of a row of the table of passages as the file holds it; empty where it does not.
  std::string kept_text(std::int64_t row) const;
};

// Writes a file beside `path` and renames it.
void save_scan(const std::filesystem::path& path, const ScanFile& scan);

// Reads a file that may come from anyone. Throws Error (kMalformedFile) that names the file and the field or tensor.
ScanFile load_scan(const std::filesystem::path& path);

}  // namespace manyheads::lens
