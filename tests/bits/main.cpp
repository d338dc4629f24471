// Hashes of what 2,000 calls of attention and 300 of layers give at each instruction set of the machine.
//   manyheads_bits                   rows: instruction set, group of 20 calls, hashes of out, lse and weights
//   manyheads_bits --table FILE      compares with the rows of FILE; ends with one line of counts
//   manyheads_bits --every           a row for each call, with what it is
// Also --isa NAME (this one alone) and --only TEXT (groups whose name holds TEXT).
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

// Instruction set -> group -> what its calls gave.
using Rows = std::map<std::string, std::map<std::string, std::string>>;

class Recorder {
 public:
  Recorder(const Arguments& arguments, std::vector<std::string> isas) : arguments_(arguments), isas_(std::move(isas)) {}

  template <class Call>
  void record(const Call& call, int number) {
    if (call.group.find(arguments_.only) == std::string::npos) return;
    calls_.add(call.to_string());
    for (const Array* array : call.inputs()) {
      if (array->given()) calls_.add(*array);
    }
    for (const std::string& isa : isas_) {
      use(isa);
      Results results;
      try {
        results = run(call);
      } catch (const std::exception& error) {
        throw std::runtime_error("call " + std::to_string(number) + " (" + call.to_string() + "): " + error.what());
      }
      hashes_[isa][call.group].add(results);
      if (!arguments_.every) continue;
      Hashes own;
      own.add(results);
      std::cout << isa << ' ' << number << ' ' << own.to_string() << ' ' << call.to_string() << '\n';
    }
  }

  std::string calls() const { return calls_.to_string(); }
  Rows rows() const {
    Rows rows;
    for (const auto& [isa, groups] : hashes_) {
      for (const auto& [group, hashes] : groups) rows[isa][group] = hashes.to_string();
    }
    return rows;
  }

 private:
  const Arguments& arguments_;
  std::vector<std::string> isas_;
  Hash calls_;
  std::map<std::string, std::map<std::string, Hashes>> hashes_;
};

struct Table {
  std::string calls;
  Rows rows;
};

Table read_table(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error("cannot read " + path);
  Table table;
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string isa, group, hashes;
    words >> isa >> group;
    std::getline(words >> std::ws, hashes);
    if (isa == "calls") table.calls = group;
    if (!hashes.empty() && isa != "#") table.rows[isa][group] = hashes;
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
  const auto rows_of = [](const Rows& rows, const std::string& isa) {
    const auto at = rows.find(isa);
    return at == rows.end() ? nullptr : &at->second;
  };
  const Rows rows = recorder.rows();
  for (const auto& [isa, groups] : rows) {
    const auto* recorded = rows_of(table.rows, isa);
    // The emulation beside the same vectors gives the bits of the tiles.
    if (recorded == nullptr && isa == "amx_bf16") recorded = rows_of(rows, "amx_emulated_avx512");
    if (recorded == nullptr) {
      std::cerr << isa << ": " << groups.size() << " skipped: not in the table; scripts/bits --record adds it\n";
      skipped += static_cast<int>(groups.size());
      continue;
    }
    for (const auto& [group, hashes] : groups) {
      const auto expected = recorded->find(group);
      const std::string differs =
          expected == recorded->end() ? "every hash (it has no such row)" : difference(expected->second, hashes);
      (differs.empty() ? passed : failed) += 1;
      if (!differs.empty()) std::cerr << isa << ' ' << group << ": FAILED: the table differs in " << differs << '\n';
    }
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
  Recorder recorder(arguments, arguments.isa ? std::vector{*arguments.isa} : instruction_sets());
  for (int i = 0; i < kAttentionCalls; ++i) recorder.record(attention_call(i), i);
  for (int i = 0; i < kLayerCalls; ++i) recorder.record(layer_call(i), i);
  if (table) return compare(recorder, *table, arguments.only.empty());
  if (arguments.every) return true;
  std::cout << "calls " << recorder.calls() << '\n';
  for (const auto& [isa, groups] : recorder.rows()) {
    for (const auto& [group, hashes] : groups) std::cout << isa << ' ' << group << ' ' << hashes << '\n';
  }
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
