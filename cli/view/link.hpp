#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <map>
#include <optional>
#include <string>

#include "findings.hpp"

namespace manyheads::cli {

// What stands behind # in the address of a page: its state, as viewer/src/state/link.ts reads it. A value that fits not
// is as one that is not there.
class Link {
 public:
  // A view's word, a page's whole address, or what stands behind its #. A word may be followed by more:
  // "links&head=2.8". Throws UsageError where the word names no view.
  explicit Link(const std::string& given);

  std::string text(const std::string& name, std::size_t longest = 60) const;                      // empty: not given
  std::string one_of(const std::string& name, std::initializer_list<const char*> choices) const;  // else the first
  std::int64_t whole(const std::string& name, std::int64_t least, std::int64_t most, std::int64_t fallback) const;
  bool flag(const std::string& name, bool fallback) const;
  std::optional<HeadName> head(const std::string& name) const;
  bool has(const std::string& name) const { return values_.count(name) != 0; }
  void set(const std::string& name, const std::string& value) { values_[name] = value; }

 private:
  std::map<std::string, std::string> values_;
};

// Of the view Heads one head alone: its detail, where the link names one and no overview.
bool shows_one_head(const Link& link);
// The map of one head.
bool shows_map(const Link& link);

}  // namespace manyheads::cli
