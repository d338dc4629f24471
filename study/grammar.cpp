#include "study/grammar.hpp"

#include <algorithm>
#include <cstdlib>
#include <map>
#include <utility>

namespace manyheads::study {
namespace {

enum Class : int {
  kNoun,
  kVerbs,
  kQuality,
  kCompound,
  kPlace,
  kPreposition,
  kManner,
  kArticle,
  kVery,
  kFrom,
  kAnd,
  kComma,
  kStop,
  kClasses
};

const std::array<std::vector<std::string>, kClasses>& words_of_classes() {
  static const std::array<std::vector<std::string>, kClasses> words = {{
      {"cat", "dog", "farmer", "child", "horse", "sailor", "mat", "chair", "bridge", "road", "house", "boat"},
      {"sat", "slept", "stood", "waited", "played", "rested"},
      {"black", "hungry", "old", "quiet", "strange", "wooden", "broken", "small"},
      {"stone", "garden", "city"},
      {"village", "harbour", "forest"},
      {"on", "under", "near"},
      {"quietly", "often", "gladly"},
      {"the"},
      {"very"},
      {"from"},
      {"and"},
      {","},
      {"."},
  }};
  return words;
}

struct Vocabulary {
  std::vector<std::string> words;
  std::vector<int> classes;               // of each word
  std::array<int, kClasses + 1> begin{};  // first word of each class

  Vocabulary() {
    for (int c = 0; c < kClasses; ++c) {
      begin[static_cast<std::size_t>(c)] = static_cast<int>(words.size());
      for (const std::string& word : words_of_classes()[static_cast<std::size_t>(c)]) {
        words.push_back(word);
        classes.push_back(c);
      }
    }
    begin[kClasses] = static_cast<int>(words.size());
  }
};

const Vocabulary& known() {
  static const Vocabulary vocabulary;
  return vocabulary;
}

class Writer {
 public:
  explicit Writer(Random& random) : random_(random) {}

  Sentence write() {
    if (random_.chance(0.25F)) {
      add(kManner);
      if (random_.chance(0.5F)) add(kComma);
    }
    const int subject = noun(0.9F), verb = predicate();
    add(kPreposition);
    const int object = noun(0.7F);
    pairs_.push_back({kVerb, {subject, verb}});
    pairs_.push_back({kObject, {verb, object}});
    if (random_.chance(0.5F)) {
      if (out_.words.back() != known().begin[kComma]) add(kComma);
      add(kAnd);
      const int second = noun(0.4F);
      pairs_.push_back({kVerb, {second, predicate()}});
    }
    if (out_.words.back() == known().begin[kComma]) out_.words.pop_back();
    add(kStop);

    const int count = static_cast<int>(out_.words.size());
    for (std::vector<int>& partner : out_.partner) partner.assign(static_cast<std::size_t>(count), -1);
    for (const auto& [relation, pair] : pairs_) {
      auto& partner = out_.partner[relation];
      partner[static_cast<std::size_t>(pair.first)] = pair.second;
      partner[static_cast<std::size_t>(pair.second)] = pair.first;
    }
    for (int i = kWordsBefore; i < count; ++i) {
      if (class_at(i) <= kQuality) out_.partner[kBefore][static_cast<std::size_t>(i)] = i - kWordsBefore;
    }
    return out_;
  }

  // Whether what the header promises of `draw` holds.
  bool clear() const {
    const int count = static_cast<int>(out_.words.size());
    if (count > kMaxWords) return false;
    for (int i = 0; i < count; ++i) {
      for (int j = i + 1; j < count; ++j) {  // a name names one word
        if (class_at(i) <= kQuality &&
            out_.words[static_cast<std::size_t>(i)] == out_.words[static_cast<std::size_t>(j)]) {
          return false;
        }
      }
      const Class of = class_at(i);
      if (of == kNoun) {
        for (const Relation r : {kVerb, kAdjective, kObject}) {
          if (!nearest(i, out_.partner[r][static_cast<std::size_t>(i)], r == kAdjective ? kQuality : kVerbs))
            return false;
        }
      } else if (of == kQuality && !nearest(i, out_.partner[kAdjective][static_cast<std::size_t>(i)], kNoun)) {
        return false;
      }
    }
    return true;
  }

 private:
  int add(Class of) {
    const int first = known().begin[static_cast<std::size_t>(of)],
              end = known().begin[static_cast<std::size_t>(of) + 1];
    out_.words.push_back(first + random_.below(end - first));
    return static_cast<int>(out_.words.size()) - 1;
  }

  Class class_at(int i) const {
    return static_cast<Class>(known().classes[static_cast<std::size_t>(out_.words[static_cast<std::size_t>(i)])]);
  }

  bool nearest(int i, int partner, Class of) const {
    if (partner < 0) return true;
    for (int j = 0; j < static_cast<int>(out_.words.size()); ++j) {
      if (j != partner && class_at(j) == of && std::abs(j - i) <= std::abs(partner - i)) return false;
    }
    return true;
  }

  // A verb, with an adverb before or behind it or without. Returns the verb's place.
  int predicate() {
    if (random_.chance(0.35F)) add(kManner);
    const int verb = add(kVerbs);
    if (random_.chance(0.35F)) add(kManner);
    return verb;
  }

  // An article, the noun with what stands before and behind it. Returns the noun's place.
  int noun(float with_quality) {
    const bool quality = random_.chance(with_quality), before = quality && random_.chance(0.55F);
    int adjective = -1;
    add(kArticle);
    if (before) {
      if (random_.chance(0.3F)) add(kVery);
      adjective = add(kQuality);
    }
    if (random_.chance(0.4F)) add(kCompound);
    const int place = add(kNoun);
    if (random_.chance(0.3F)) from();
    if (quality && !before) {
      add(kComma);
      if (random_.chance(0.3F)) add(kVery);
      adjective = add(kQuality);
      add(kComma);
    }
    if (adjective >= 0) pairs_.push_back({kAdjective, {place, adjective}});
    return place;
  }

  void from() {
    add(kFrom);
    add(kArticle);
    add(kPlace);
  }

  Random& random_;
  Sentence out_;
  std::vector<std::pair<std::size_t, std::pair<int, int>>> pairs_;
};

}  // namespace

const char* name_of(Relation relation) {
  constexpr std::array kNames = {"verb", "adjective", "object", "before"};
  return kNames[static_cast<std::size_t>(relation)];
}

const char* meaning_of(Relation relation) {
  constexpr std::array kMeanings = {"subject and its verb", "noun and its adjective",
                                    "verb and its object through the preposition", "the word three places before"};
  static_assert(kWordsBefore == 3);
  return kMeanings[static_cast<std::size_t>(relation)];
}

const std::vector<std::string>& vocabulary() { return known().words; }

Sentence draw(Random& random) {
  for (;;) {
    Writer writer(random);
    Sentence sentence = writer.write();
    if (writer.clear()) return sentence;
  }
}

Sentence shuffled(Sentence sentence, Random& random) {
  const int count = static_cast<int>(sentence.words.size());
  for (std::vector<int>& partner : sentence.partner) {
    for (int& place : partner) {
      if (place >= 0) place = random.below(count);
    }
  }
  return sentence;
}

std::string text_of(const Sentence& sentence) {
  std::string text;
  for (const int word : sentence.words) {
    const std::string& form = vocabulary()[static_cast<std::size_t>(word)];
    const bool mark = form == "," || form == ".";
    text += (text.empty() || mark ? "" : " ") + form;
  }
  if (!text.empty() && text[0] >= 'a' && text[0] <= 'z') text[0] = static_cast<char>(text[0] - 'a' + 'A');
  return text;
}

std::array<OffsetBaseline, kRelations> offset_baselines(const std::vector<Sentence>& sentences) {
  std::array<OffsetBaseline, kRelations> found{};
  for (std::size_t r = 0; r < kRelations; ++r) {
    std::map<int, std::int64_t> counts;
    std::map<int, std::map<int, std::int64_t>> of_class;
    for (const Sentence& sentence : sentences) {
      for (std::size_t i = 0; i < sentence.words.size(); ++i) {
        if (sentence.partner[r][i] < 0) continue;
        const int offset = sentence.partner[r][i] - static_cast<int>(i);
        ++counts[offset];
        ++of_class[known().classes[static_cast<std::size_t>(sentence.words[i])]][offset];
        ++found[r].pairs;
      }
    }
    const auto most = [](const std::map<int, std::int64_t>& of) {
      return *std::max_element(of.begin(), of.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
    };
    if (found[r].pairs == 0) continue;
    const auto pairs = static_cast<double>(found[r].pairs);
    found[r].offset = most(counts).first;
    found[r].one = static_cast<double>(most(counts).second) / pairs;
    std::int64_t right = 0;
    for (const auto& [word_class, offsets] : of_class) right += most(offsets).second;
    found[r].each = static_cast<double>(right) / pairs;
  }
  return found;
}

}  // namespace manyheads::study
