#include "lens/link_reader.hpp"

#include <algorithm>
#include <utility>

namespace manyheads::lens {

LinkReader::LinkReader(const std::vector<Word>& words, std::vector<Link> asked, std::size_t num_strongest,
                       bool skips_first)
    : words_(words),
      links_(std::move(asked)),
      num_strongest_(num_strongest),
      skips_first_(skips_first),
      row_(words.size()),
      weights_(links_.size()) {
  const bool pair = std::any_of(words.begin(), words.end(),
                                [&](const Word& word) { return word.sequence != words.front().sequence; });
  if (!words.empty()) offsets_.resize((2 * words.size() - 1) * (pair ? 2 : 1));
}

// The place of the link's offset in offsets_.
std::size_t LinkReader::place(const Link& link) const {
  const std::size_t n = words_.size();
  const bool across = words_[link.query].sequence != words_[link.key].sequence;
  return link.key + n - 1 - link.query + (across ? 2 * n - 1 : 0);
}

void LinkReader::add(const float* row) {
  const std::int64_t token = token_++;
  if (word_ == words_.size() || token < words_[word_].first_token) return;
  for (std::size_t j = 0; j < words_.size(); ++j) {
    const Word& key = words_[j];
    for (std::int64_t k = 0; k < key.num_tokens; ++k) row_[j] += static_cast<double>(row[key.first_token + k]);
  }
  if (token_ == words_[word_].first_token + words_[word_].num_tokens) finish_word();
}

void LinkReader::finish_word() {
  for (std::size_t i = 0; i < links_.size(); ++i) {
    if (links_[i].query == word_) {
      weights_[i] = row_[links_[i].key] / static_cast<double>(words_[word_].num_tokens);
    }
  }
  for (std::size_t j = 0; j < words_.size(); ++j) {
    const WeighedLink link{{word_, j}, row_[j] / static_cast<double>(words_[word_].num_tokens), {}};
    row_[j] = 0;
    Offset& offset = offsets_[place(link.link)];
    offset.sum += link.weight;
    ++offset.count;
    if (word_ == j || !(link.weight > 0) || (skips_first_ && words_[j].first_token == 0)) continue;
    std::vector<WeighedLink>& heaviest = offset.heaviest;
    if (heaviest.size() == num_strongest_ && (heaviest.empty() || !ranks_before(link, heaviest.back()))) continue;
    heaviest.insert(std::upper_bound(heaviest.begin(), heaviest.end(), link, ranks_before), link);
    if (heaviest.size() > num_strongest_) heaviest.pop_back();
  }
  ++word_;
}

std::optional<double> LinkReader::mean_without(const Link& link, double weight) const {
  const Offset& offset = offsets_[place(link)];
  if (offset.count < 2) return std::nullopt;
  const double others = offset.sum - weight;
  return others < 0 ? 0 : others / static_cast<double>(offset.count - 1);  // a rounding may fall below 0
}

std::vector<WeighedLink> LinkReader::asked() const {
  std::vector<WeighedLink> result;
  for (std::size_t i = 0; i < links_.size(); ++i) {
    result.push_back({links_[i], weights_[i], mean_without(links_[i], weights_[i])});
  }
  return result;
}

std::vector<WeighedLink> LinkReader::strongest() const {
  const auto before = [](const WeighedLink& a, const WeighedLink& b) {
    if (ranks_before(a, b) || ranks_before(b, a)) return ranks_before(a, b);
    return a.link.query != b.link.query ? a.link.query < b.link.query : a.link.key < b.link.key;
  };
  std::vector<WeighedLink> links;  // the best so far, in order
  for (const Offset& offset : offsets_) {
    for (WeighedLink link : offset.heaviest) {
      link.offset_mean = mean_without(link.link, link.weight);
      if (links.size() == num_strongest_ && !before(link, links.back())) continue;
      links.insert(std::upper_bound(links.begin(), links.end(), link, before), link);
      if (links.size() > num_strongest_) links.pop_back();
    }
  }
  return links;
}

}  // namespace manyheads::lens
