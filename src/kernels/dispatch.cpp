#include "kernels/dispatch.hpp"

#include <algorithm>
#include <atomic>
#include <cstdlib>

#include <manyheads/cpu.hpp>
#include <manyheads/error.hpp>

#include "hwy/targets.h"

namespace manyheads {
namespace kernels {

// Empty; naming them keeps their files, isa/*.cpp, in a static link.
void link_avx512();
void link_avx2();
void link_others();

namespace {

struct Target {
  std::string name;
  std::int64_t bit;
  KernelTable (*table)();
  bool (*has_more)();
  int (*place)();
};

std::vector<Target>& targets() {
  static std::vector<Target> list;
  return list;
}

std::string names(const std::vector<std::string>& list) {
  std::string text;
  for (const std::string& name : list) text += (text.empty() ? "" : ", ") + name;
  return text;
}

const KernelTable& table_named(const std::string& name, const std::string& where) {
  for (const KernelTable& table : available_tables()) {
    if (name == table.name) return table;
  }
  std::vector<std::string> built;
  bool known = false;
  for (const Target& target : targets()) {
    built.push_back(target.name);
    known = known || target.name == name;
  }
  if (known) {
    throw Error(ErrorCode::kUnsupported, where + ": this machine does not run the instruction set " + name +
                                             "; it runs " + names(available_isas()));
  }
  throw Error(ErrorCode::kInvalidArgument,
              where + ": no instruction set is called \"" + name + "\"; this build has " + names(built));
}

std::atomic<const KernelTable*> g_active{nullptr};

}  // namespace

TargetRegistration::TargetRegistration(const char* name, std::int64_t target, KernelTable (*table)(),
                                       bool (*has_more)(), int (*place)()) {
  targets().push_back({name, target, table, has_more, place});
}

const std::vector<KernelTable>& available_tables() {
  static const std::vector<KernelTable> tables = [] {
    link_avx512();
    link_avx2();
    link_others();
    std::sort(targets().begin(), targets().end(), [](const Target& a, const Target& b) {
      const int place_a = a.place != nullptr ? a.place() : 0;
      const int place_b = b.place != nullptr ? b.place() : 0;
      return a.bit != b.bit ? a.bit < b.bit : place_a < place_b;
    });
    // What the compiler was allowed to use everywhere runs here. Highway asks for AES too before it counts NEON.
    const std::int64_t runs = hwy::SupportedTargets() | HWY_STATIC_TARGET;
    std::vector<KernelTable> list;
    for (const Target& target : targets()) {
      if ((runs & target.bit) != 0 && (target.has_more == nullptr || target.has_more())) list.push_back(target.table());
    }
    return list;
  }();
  return tables;
}

const KernelTable& active_table() {
  const KernelTable* active = g_active.load(std::memory_order_acquire);
  if (active == nullptr) {
    const char* forced = std::getenv("MANYHEADS_ISA");
    active = forced != nullptr && *forced != '\0' ? &table_named(forced, std::string("MANYHEADS_ISA=") + forced)
                                                  : &available_tables().front();
    g_active.store(active, std::memory_order_release);
  }
  return *active;
}

void set_active_table(const std::string& name) {
  g_active.store(name.empty() ? nullptr : &table_named(name, "set_isa"), std::memory_order_release);
}

}  // namespace kernels

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const kernels::KernelTable& table : kernels::available_tables()) names.emplace_back(table.name);
  return names;
}

std::string active_isa() { return kernels::active_table().name; }

void set_isa(const std::string& name) { kernels::set_active_table(name); }

}  // namespace manyheads
