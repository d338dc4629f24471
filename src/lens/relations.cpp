#include "lens/relations.hpp"

#include <algorithm>
#include <cmath>
#include <manyheads/error.hpp>
#include <string_view>
#include <utility>

#include "base/index.hpp"
#include "base/parallel.hpp"
#include "lens/each_row.hpp"

namespace manyheads::lens {
namespace {

// The half on which heads are scored.
constexpr std::size_t kScored = 1;

using base::at;

std::string_view without_subtype(std::string_view relation) { return relation.substr(0, relation.find(':')); }

// Whether "obj+obl" holds "obl:tmod".
bool holds(std::string_view relations, std::string_view relation) {
  for (;;) {
    const std::size_t plus = relations.find('+');
    const std::string_view name = relations.substr(0, plus);
    if (relation == name || (relation.starts_with(name) && relation[name.size()] == ':')) return true;
    if (plus == std::string_view::npos) return false;
    relations.remove_prefix(plus + 1);
  }
}

// The offset that finds most, and how many. Of equals the nearest; of those, the one to the left.
std::pair<std::int64_t, std::int64_t> most_hits(const std::map<std::int64_t, std::int64_t>& hits) {
  std::pair<std::int64_t, std::int64_t> best{0, 0};
  for (const auto& [offset, count] : hits) {
    if (count > best.second || (count == best.second && std::abs(offset) < std::abs(best.first)))
      best = {offset, count};
  }
  return best;
}

}  // namespace

AlignedSentence align(const TreebankSentence& sentence, const model::Encoding& encoding) {
  AlignedSentence aligned;
  // Words of one multiword token lie at one place: a token in it spans them all.
  const std::vector<TreebankWord>& words = sentence.words;
  aligned.word_of.resize(words.size());
  std::vector<std::array<std::size_t, 2>> parts;  // words of the tree [first, last] of each of the words
  std::size_t word = 0;
  for (std::size_t t = 0; t < encoding.size(); ++t) {
    const auto [begin, end] = encoding.offsets[t];
    if (encoding.sequences[t] < 0) continue;
    while (word < words.size() && words[word].offsets[1] <= begin) ++word;
    std::size_t last = word;
    while (last + 1 < words.size() && words[last + 1].offsets[0] < end) ++last;
    if (word == words.size() || begin >= end || words[word].offsets[0] >= end) continue;
    if (!parts.empty() && parts.back()[1] >= word) {
      parts.back()[1] = std::max(parts.back()[1], last);
      aligned.words.back().num_tokens = static_cast<std::int64_t>(t) + 1 - aligned.words.back().first_token;
    } else {
      parts.push_back({word, last});
      aligned.words.push_back({"", static_cast<std::int64_t>(t), 1, 0});
    }
  }
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (parts[i][0] == parts[i][1]) aligned.word_of[parts[i][0]] = i;
  }
  return aligned;
}

std::array<double, 2> wilson(std::int64_t right, std::int64_t n) {
  if (n == 0) return {0, 1};
  constexpr double z = 1.959963984540054;
  const auto count = static_cast<double>(n);
  const double p = static_cast<double>(right) / count, z2 = z * z / count;
  const double middle = p + z2 / 2, half = z * std::sqrt(p * (1 - p) / count + z2 / (4 * count));
  // Whatever the roundings, around the share and within 0 and 1.
  return {std::clamp((middle - half) / (1 + z2), 0.0, p), std::clamp((middle + half) / (1 + z2), p, 1.0)};
}

std::vector<std::string> relations_of(const std::vector<TreebankSentence>& treebank) {
  std::map<std::string, std::int64_t, std::less<>> counts;
  for (const TreebankSentence& sentence : treebank) {
    for (const TreebankWord& word : sentence.words) ++counts[std::string(without_subtype(word.relation))];
  }
  counts.erase("root");
  counts.erase("punct");
  std::vector<std::string> names;
  for (const auto& [name, count] : counts) names.push_back(name);
  std::stable_sort(names.begin(), names.end(),
                   [&](const std::string& a, const std::string& b) { return counts[a] > counts[b]; });
  return names;
}

RelationScorer::RelationScorer(std::vector<std::string> relations, std::int64_t num_layers, std::int64_t num_heads,
                               bool causal)
    : relations_(std::move(relations)),
      num_heads_(num_heads),
      causal_(causal),
      questions_(2 * relations_.size()),
      heads_(at(num_layers * num_heads), std::vector<Tally>(2 * questions_.size())) {
  for (const std::string& name : relations_) {
    if (name.empty() || name.front() == '+' || name.back() == '+' || name.find("++") != std::string::npos) {
      throw Error(ErrorCode::kInvalidArgument, "RelationScorer: \"" + name + "\" is no relation");
    }
  }
}

RelationScorer::Sentence RelationScorer::prepare(const TreebankSentence& tree, const model::Encoding& encoding,
                                                 std::size_t half) {
  AlignedSentence aligned = align(tree, encoding);
  Sentence sentence;
  sentence.words = std::move(aligned.words);
  // Where words see only earlier ones, heads rest on the first token when they look for nothing (Xiao et al. 2023).
  if (causal_ && !sentence.words.empty() && sentence.words[0].first_token == 0) sentence.first_key = 1;
  for (std::size_t q = 0; q < questions_.size(); ++q) {
    Question& question = questions_[q];
    std::map<std::size_t, std::vector<std::size_t>> partners;  // by word of the tree
    for (std::size_t w = 0; w < tree.words.size(); ++w) {
      if (tree.words[w].head < 0 || !holds(relations_[q / 2], tree.words[w].relation)) continue;
      const std::size_t head = at(tree.words[w].head);
      if (q % 2 == 0) {
        partners[w].push_back(head);
      } else {
        partners[head].push_back(w);
      }
    }
    for (const auto& [of, those] : partners) {
      Query query{q, 0, {}};
      bool later = causal_;
      for (const std::size_t partner : those) {
        later = later && partner > of;
        const std::optional<std::size_t> place = aligned.word_of[partner];
        if (!place || !aligned.word_of[of]) continue;
        if (*place >= sentence.first_key && !(causal_ && *place > *aligned.word_of[of])) {
          query.partners.push_back(*place);
        }
      }
      if (query.partners.empty()) {
        ++(later ? question.unseen : question.left_out);
        continue;
      }
      query.word = *aligned.word_of[of];
      ++question.asked[half];
      for (const std::size_t partner : query.partners) {
        ++question.hits[half][static_cast<std::int64_t>(partner) - static_cast<std::int64_t>(query.word)];
      }
      sentence.queries.push_back(std::move(query));
    }
  }
  std::stable_sort(sentence.queries.begin(), sentence.queries.end(),
                   [](const Query& a, const Query& b) { return a.word < b.word; });
  return sentence;
}

std::vector<bool> RelationScorer::read_head(const Trace& trace, const Sentence& sentence, std::size_t half,
                                            std::size_t index) {
  std::vector<bool> right(questions_.size());
  const std::vector<Word>& words = sentence.words;
  std::vector<double> row(words.size());
  std::int64_t token = 0;
  std::size_t word = 0, query = 0;
  const std::size_t layer = index / at(num_heads_);
  for_each_row(trace, layer, static_cast<std::int64_t>(index % at(num_heads_)), [&](const float* weights) {
    const std::int64_t q = token++;
    if (word == words.size() || q < words[word].first_token) return;
    for (std::size_t j = 0; j < words.size(); ++j) {
      for (std::int64_t k = 0; k < words[j].num_tokens; ++k) {
        row[j] += static_cast<double>(weights[words[j].first_token + k]);
      }
    }
    if (token < words[word].first_token + words[word].num_tokens) return;
    std::size_t heaviest = word;
    for (std::size_t j = sentence.first_key; j < (causal_ ? word : words.size()); ++j) {
      if (j != word && (heaviest == word || row[j] > row[heaviest])) heaviest = j;
    }
    for (; query < sentence.queries.size() && sentence.queries[query].word == word; ++query) {
      const Query& asked = sentence.queries[query];
      Tally& tally = heads_[index][2 * asked.question + half];
      for (const std::size_t partner : asked.partners) {
        if (partner == heaviest) {
          ++tally.right;
          right[asked.question] = true;
        }
        tally.weight += row[partner] / static_cast<double>(words[word].num_tokens);
      }
    }
    std::fill(row.begin(), row.end(), 0);
    ++word;
  });
  return right;
}

void RelationScorer::add(const std::vector<TreebankSentence>& treebank, std::span<const BatchText> texts,
                         const Threads& threads) {
  std::vector<Sentence> sentences;
  for (const BatchText& text : texts) {
    sentences.push_back(prepare(treebank.at(text.index), text.encoding, text.index % 2));
  }
  // A head's sums run over the sentences in order, whatever the threads.
  const auto count = static_cast<std::int64_t>(heads_.size());
  std::vector<std::vector<std::vector<bool>>> right(heads_.size());  // by head, text and question
  base::parallel_for(count, base::worker_count(count, threads), threads.executor, [&](std::int64_t head, int) {
    for (std::size_t i = 0; i < texts.size(); ++i) {
      right[at(head)].push_back(sentences[i].queries.empty()
                                    ? std::vector<bool>(questions_.size())
                                    : read_head(texts[i].trace, sentences[i], texts[i].index % 2, at(head)));
    }
  });
  if (!keep_hits_) return;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    Hits hits{texts[i].index, std::vector<std::vector<std::size_t>>(questions_.size())};
    for (std::size_t head = 0; head < heads_.size(); ++head) {
      for (std::size_t q = 0; q < questions_.size(); ++q) {
        if (right[head][i][q]) hits.heads[q].push_back(head);
      }
    }
    hits_.push_back(std::move(hits));
  }
}

std::vector<RelationReading> RelationScorer::finish(std::size_t num_best) const {
  const auto share = [](std::int64_t right, std::int64_t n) {
    return n == 0 ? 0 : static_cast<double>(right) / static_cast<double>(n);
  };
  std::vector<RelationReading> readings;
  for (std::size_t q = 0; q < questions_.size(); ++q) {
    const Question& question = questions_[q];
    RelationReading reading;
    reading.relation = relations_[q / 2];
    reading.to_head = q % 2 == 0;
    reading.chosen_on = question.asked[1 - kScored];
    reading.scored_on = question.asked[kScored];
    reading.unseen = question.unseen;
    reading.left_out = question.left_out;
    const std::pair<std::int64_t, std::int64_t> best = most_hits(question.hits[kScored]);
    if (reading.scored_on > 0) reading.offset = best.first;
    reading.offset_accuracy = share(best.second, reading.scored_on);
    const double chosen_offset = share(most_hits(question.hits[1 - kScored]).second, reading.chosen_on);
    std::vector<std::size_t> order(heads_.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
    const auto tally = [&](std::size_t head, std::size_t half) { return heads_[head][2 * q + half]; };
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
      return tally(a, 1 - kScored).right > tally(b, 1 - kScored).right;
    });
    order.resize(std::min(order.size(), num_best));
    for (const std::size_t i : order) {
      const Tally scored = tally(i, kScored), chosen = tally(i, 1 - kScored);
      HeadOnRelation head;
      head.layer = i / at(num_heads_);
      head.head = static_cast<std::int64_t>(i % at(num_heads_));
      head.chosen_by = share(chosen.right, reading.chosen_on);
      head.accuracy = share(scored.right, reading.scored_on);
      head.interval = wilson(scored.right, reading.scored_on);
      head.mean_weight = reading.scored_on == 0 ? 0 : scored.weight / static_cast<double>(reading.scored_on);
      head.reads = reading.enough() && head.interval[0] > reading.offset_accuracy &&
                   wilson(chosen.right, reading.chosen_on)[0] > chosen_offset;
      reading.best.push_back(head);
    }
    readings.push_back(std::move(reading));
  }
  return readings;
}

}  // namespace manyheads::lens
