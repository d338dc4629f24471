#include "view/link.hpp"

#include <algorithm>
#include <charconv>
#include <initializer_list>
#include <string_view>
#include <utility>

#include "base/file.hpp"
#include "base/format.hpp"
#include "cli.hpp"

namespace manyheads::cli {
namespace {

// Words for views, and the links that show them.
constexpr std::pair<const char*, const char*> kViews[] = {{"story", "v=story"},
                                                          {"row", "v=story&step=1"},
                                                          {"sum", "v=story&step=2"},
                                                          {"readers", "v=story&step=3"},
                                                          {"grammar", "v=story&step=4"},
                                                          {"pipeline", "v=pipeline"},
                                                          {"dimensions", "v=dimensions"},
                                                          {"heads", "v=heads&h.show=all"},
                                                          {"scatter", "v=heads&h.show=all&h.all=scatter"},
                                                          {"clusters", "v=heads&h.show=all&h.all=clusters"},
                                                          {"mean", "v=heads&h.show=all&h.all=mean"},
                                                          {"rollout", "v=heads&h.show=all&h.all=rollout"},
                                                          {"map", "v=heads&h.show=one&h.one=map"},
                                                          {"links", "v=heads&h.show=one&h.one=links"},
                                                          {"why", "v=heads&h.show=one&h.one=why"},
                                                          {"distance", "v=heads&h.show=one&h.one=distance"},
                                                          {"compare", "v=heads&h.show=one&h.one=compare"},
                                                          {"corpus", "v=corpus"},
                                                          {"distribution", "v=corpus&c.part=distribution"},
                                                          {"tokens", "v=corpus&c.part=tokens"},
                                                          {"components", "v=corpus&c.part=components"},
                                                          {"distances", "v=corpus&c.part=distances"},
                                                          {"relations", "v=corpus&c.part=relations"}};

int digit(char c) {
  return c >= '0' && c <= '9'   ? c - '0'
         : c >= 'A' && c <= 'F' ? c - 'A' + 10
         : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                : -1;
}

// As URLSearchParams reads it.
std::string decoded(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size() && digit(text[i + 1]) >= 0 && digit(text[i + 2]) >= 0) {
      out += static_cast<char>(16 * digit(text[i + 1]) + digit(text[i + 2]));
      i += 2;
    } else {
      out += text[i] == '+' ? ' ' : text[i];
    }
  }
  return out;
}

std::string link_of(const std::string& given) {
  const std::size_t hash = given.find('#');
  std::string link = hash == std::string::npos ? given : given.substr(hash + 1);
  const std::string word = link.substr(0, link.find('&'));
  if (hash != std::string::npos || word.find('=') != std::string::npos) return link;
  std::string known;
  for (const auto& [name, stands_for] : kViews) {
    if (word == name) return stands_for + link.substr(word.size());
    known += (known.empty() ? "" : ", ") + std::string(name);
  }
  throw UsageError(
      base::format("--view takes a link of the page, or one of {}; got {}", known, base::in_quotes(given)));
}

}  // namespace

Link::Link(const std::string& given) {
  const std::string link = link_of(given);
  for (std::size_t at = 0; at < link.size();) {
    const std::size_t end = std::min(link.find('&', at), link.size());
    const std::string_view part = std::string_view(link).substr(at, end - at);
    const std::size_t equals = std::min(part.find('='), part.size());
    // Of two of one name the first counts.
    values_.emplace(decoded(part.substr(0, equals)), decoded(part.substr(std::min(equals + 1, part.size()))));
    at = end + 1;
  }
}

std::string Link::text(const std::string& name, std::size_t longest) const {
  const auto found = values_.find(name);
  return found == values_.end() || found->second.size() > longest ? "" : found->second;
}

std::string Link::one_of(const std::string& name, std::initializer_list<const char*> choices) const {
  const std::string given = text(name);
  for (const char* choice : choices) {
    if (given == choice) return given;
  }
  return *choices.begin();
}

std::int64_t Link::whole(const std::string& name, std::int64_t least, std::int64_t most, std::int64_t fallback) const {
  const std::string given = text(name, 10);
  std::int64_t value = 0;
  const auto [end, problem] = std::from_chars(given.data(), given.data() + given.size(), value);
  const bool fits = problem == std::errc() && end == given.data() + given.size() && value >= least && value <= most;
  return fits ? value : fallback;
}

bool Link::flag(const std::string& name, bool fallback) const {
  const std::string given = text(name);
  return given == "1" ? true : given == "0" ? false : fallback;
}

std::optional<HeadName> Link::head(const std::string& name) const {
  try {
    if (has(name)) return parse_head(text(name));
  } catch (const UsageError&) {
  }
  return std::nullopt;
}

bool shows_one_head(const Link& link) {
  if (link.one_of("v", {"story", "heads"}) != "heads") return false;
  return link.has("h.show") ? link.one_of("h.show", {"all", "one"}) == "one" : link.has("h.one") && !link.has("h.all");
}

bool shows_map(const Link& link) {
  return shows_one_head(link) && link.one_of("h.one", {"map", "links", "why", "distance", "compare", "off"}) == "map";
}

}  // namespace manyheads::cli
