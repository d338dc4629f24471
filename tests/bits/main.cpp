// Hashes of what 3,000 calls of attention, 300 of layers, passes over 60 heads and MiniLM's texts give at each
// instruction set of the machine. A row is a family of bits and a group of 20 calls that multiply alike: every
// instruction set of the family has its hash.
//   manyheads_bits                   rows: family, group, hashes of out, lse and weights
//   manyheads_bits --table FILE      compares with the rows of FILE; ends with one line of counts
//   manyheads_bits --every           a row for each call and instruction set, with what it is
// Also --isa NAME (this one alone) and --only TEXT (groups whose name holds TEXT).
#include <array>
#include <exception>
#include <fstream>
#include <iostream>
#include <map>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "adapter.hpp"
#include "hash.hpp"

namespace bits {
namespace {

struct Arguments {
  std::optional<std::string> table, isa;
  std::string only;
  bool every = false;
};

struct Hashes {
  Hash out, lse, weights;

  void add(const Results& results) {
    out.add(results.out);
    lse.add(results.lse);
    weights.add(results.weights);
  }
  std::string to_string() const { return out.to_string() + ' ' + lse.to_string() + ' ' + weights.to_string(); }
};

struct Row {
  std::string isa, family, group, hashes;
};

class Recorder {
 public:
  explicit Recorder(const Arguments& arguments) : arguments_(arguments) {
    for (const Way& way : ways()) {
      if (!arguments.isa || way.isa == *arguments.isa) ways_.push_back(way);
    }
    if (ways_.empty()) use({*arguments.isa, ""});  // says what this machine runs
  }

  template <class Call>
  void record(const Call& call, int number) {
    if (call.group.find(arguments_.only) == std::string::npos) return;
    calls_.add(call.to_string());
    for (const Array* array : call.inputs()) {
      if (array->given()) calls_.add(*array);
    }
    for (const Way& way : ways_) {
      use(way);
      const std::string of_family = family(call.products());
      if (of_family.empty()) continue;
      Results results;
      try {
        results = run(call);
      } catch (const std::exception& error) {
        throw std::runtime_error("call " + std::to_string(number) + " (" + call.to_string() + "): " + error.what());
      }
      hashes_[{way.isa, of_family, call.group + "/" + call.products()}].add(results);
      if (!arguments_.every) continue;
      Hashes own;
      own.add(results);
      std::cout << way.isa << ' ' << of_family << ' ' << number << ' ' << own.to_string() << ' ' << call.to_string()
                << '\n';
    }
  }
  void record_model() {
    for (const Way& way : ways_) {
      use(way);
      record(way, model_texts(way.bits));
    }
  }
  // Maps and scores multiply F32 as it is, whatever is asked for.
  void record_passes() {
    for (const Way& way : ways_) {
      if (!way.bits.empty()) continue;
      use(way);
      record(way, head_passes());
    }
  }

  std::string calls() const { return calls_.to_string(); }
  std::vector<Row> rows() const {
    std::vector<Row> rows;
    for (const auto& [key, hashes] : hashes_) rows.push_back({key[0], key[1], key[2], hashes.to_string()});
    return rows;
  }

 private:
  void record(const Way& way, const std::vector<Answers>& list) {
    for (const Answers& answers : list) {
      if (answers.group.find(arguments_.only) == std::string::npos) continue;
      hashes_[{way.isa, family(answers.products), answers.group}].add(
          {.out = answers.results, .lse = {}, .weights = {}});
    }
  }

  const Arguments& arguments_;
  std::vector<Way> ways_;
  Hash calls_;
  std::map<std::array<std::string, 3>, Hashes> hashes_;  // by instruction set, family, group
};

using Groups = std::map<std::string, std::string>;  // group -> hashes

struct Table {
  std::string calls;
  std::map<std::string, Groups> families;
};

Table read_table(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error("cannot read " + path);
  Table table;
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string family, group, hashes;
    words >> family >> group;
    std::getline(words >> std::ws, hashes);
    if (family == "calls") table.calls = group;
    if (!hashes.empty() && family != "#") table.families[family][group] = hashes;
  }
  return table;
}

// Which of out, lse and weights two rows differ in.
std::string difference(const std::string& expected, const std::string& got) {
  std::istringstream a(expected), b(got);
  std::string text;
  for (const char* name : {"out", "lse", "weights"}) {
    std::string x, y;
    a >> x;
    b >> y;
    if (x != y) text += (text.empty() ? "" : ", ") + std::string(name);
  }
  return text;
}

// Ends with "N passed, N failed, N skipped"; true when nothing failed.
bool compare(const Recorder& recorder, const Table& table, bool all_calls) {
  int passed = 0, failed = 0, skipped = 0;
  if (all_calls && recorder.calls() != table.calls) {
    std::cerr << "FAILED: the calls are not those of the table: " << recorder.calls() << ", the table's " << table.calls
              << '\n';
    ++failed;
  }
  std::map<std::string, int> unknown;
  for (const Row& row : recorder.rows()) {
    const auto family = table.families.find(row.family);
    if (family == table.families.end()) {
      ++unknown[row.isa + ": " + row.family];
      ++skipped;
      continue;
    }
    const auto expected = family->second.find(row.group);
    const std::string differs =
        expected == family->second.end() ? "every hash (it has no such row)" : difference(expected->second, row.hashes);
    (differs.empty() ? passed : failed) += 1;
    if (differs.empty()) continue;
    std::cerr << row.isa << ' ' << row.family << ' ' << row.group << ": FAILED: the table differs in " << differs
              << '\n';
  }
  for (const auto& [what, count] : unknown) {
    std::cerr << what << ": " << count << " skipped: not in the table; scripts/bits --record adds it\n";
  }
  if (!has_model()) {
    std::cerr << "model: 2 skipped: scripts/fetch-model brings it\n";
    skipped += 2;
  }
  std::cout << passed << " passed, " << failed << " failed, " << skipped << " skipped\n";
  return failed == 0;
}

Arguments read_arguments(int count, char** values) {
  Arguments arguments;
  for (int i = 1; i < count; ++i) {
    const std::string name = values[i];
    const auto next = [&]() -> std::string {
      if (++i == count) throw std::runtime_error(name + " needs a value");
      return values[i];
    };
    if (name == "--table") {
      arguments.table = next();
    } else if (name == "--isa") {
      arguments.isa = next();
    } else if (name == "--only") {
      arguments.only = next();
    } else if (name == "--every") {
      arguments.every = true;
    } else {
      throw std::runtime_error("unknown argument " + name);
    }
  }
  return arguments;
}

bool main_of(const Arguments& arguments) {
  std::optional<Table> table;
  if (arguments.table) table = read_table(*arguments.table);
  Recorder recorder(arguments);
  for (int i = 0; i < kAttentionCalls; ++i) recorder.record(attention_call(i), i);
  for (int i = 0; i < kLayerCalls; ++i) recorder.record(layer_call(i), i);
  recorder.record_passes();
  if (has_model()) recorder.record_model();
  if (table) return compare(recorder, *table, arguments.only.empty());
  if (arguments.every) return true;
  std::cout << "calls " << recorder.calls() << '\n';
  std::map<std::pair<std::string, std::string>, Row> rows;  // one for each family and group
  for (const Row& row : recorder.rows()) {
    const auto [at, is_new] = rows.try_emplace({row.family, row.group}, row);
    if (at->second.hashes == row.hashes) continue;
    throw std::runtime_error(row.family + " " + row.group + " differs between " + at->second.isa + " and " + row.isa +
                             " in " + difference(at->second.hashes, row.hashes));
  }
  for (const auto& [key, row] : rows) std::cout << row.family << ' ' << row.group << ' ' << row.hashes << '\n';
  return true;
}

}  // namespace
}  // namespace bits

int main(int count, char** values) {
  try {
    return bits::main_of(bits::read_arguments(count, values)) ? 0 : 1;
  } catch (const std::exception& error) {
    std::cerr << "manyheads_bits: " << error.what() << '\n';
    return 2;
  }
}
