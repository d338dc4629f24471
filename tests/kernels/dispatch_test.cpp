#include "kernels/dispatch.hpp"
#include "kernels/isa/roofline_probe.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <manyheads/cpu.hpp>
#include <manyheads/error.hpp>
#include <set>
#include <string>

#include "attention/call.hpp"

namespace manyheads::test {
namespace {

// Sets MANYHEADS_ISA and makes the library read it anew; puts both back.
class Dispatch : public testing::Test {
 protected:
  Dispatch() {
    const char* text = std::getenv("MANYHEADS_ISA");
    had_ = text != nullptr;
    if (had_) before_ = text;
  }
  ~Dispatch() override {
    if (had_) {
      ::setenv("MANYHEADS_ISA", before_.c_str(), 1);
    } else {
      ::unsetenv("MANYHEADS_ISA");
    }
    set_isa("");
  }
  static void force(const std::string& name) {
    ::setenv("MANYHEADS_ISA", name.c_str(), 1);
    set_isa("");
  }

 private:
  bool had_ = false;
  std::string before_;
};

TEST_F(Dispatch, NamesAreUniqueAndTheFirstIsTheDefault) {
  const std::vector<std::string> names = available_isas();
  ASSERT_FALSE(names.empty());
  EXPECT_EQ(std::set<std::string>(names.begin(), names.end()).size(), names.size());
  ::unsetenv("MANYHEADS_ISA");
  set_isa("");
  EXPECT_EQ(active_isa(), names.front());
}

TEST_F(Dispatch, EachCanBeChosenAndExplainSaysSo) {
  for (const std::string& name : available_isas()) {
    set_isa(name);
    EXPECT_EQ(active_isa(), name);
    Call call({.tq = 4, .tk = 9});
    EXPECT_EQ(explain(call.q.view(), call.k.view(), call.v.view(), call.out.mutable_view()).isa, name);
    force(name);
    EXPECT_EQ(active_isa(), name);
    EXPECT_EQ(call.wrong(), "");
  }
}

TEST_F(Dispatch, SetIsaGoesBeforeTheVariable) {
  force(available_isas().front());
  set_isa(available_isas().back());
  EXPECT_EQ(active_isa(), available_isas().back());
}

TEST_F(Dispatch, AnUnknownNameFailsLoudly) {
  for (const std::string name : {"avx3", "AVX2", "avx2 ", "x"}) {
    const std::string text = error_of([&] { set_isa(name); });
    EXPECT_TRUE(contains(text, "set_isa: no instruction set is called \"" + name + "\"; this build has ")) << text;
    force(name);
    const std::string forced = error_of([] { active_isa(); });
    EXPECT_TRUE(contains(forced, "MANYHEADS_ISA=" + name + ": no instruction set is called")) << forced;
    // Each call says so, not the first alone, and computes nothing.
    Call call({.tq = 4, .tk = 9});
    EXPECT_TRUE(contains(error_of([&] { call.run(); }), "MANYHEADS_ISA=" + name));
    EXPECT_EQ(call.out_at(0, 0, 0, 0), 777.0);
  }
}

TEST_F(Dispatch, AnUnknownNameLeavesTheChosenOne) {
  set_isa(available_isas().back());
  error_of([] { set_isa("none"); });
  EXPECT_EQ(active_isa(), available_isas().back());
}

TEST_F(Dispatch, AnEmptyVariableIsNone) {
  force("");
  EXPECT_EQ(active_isa(), available_isas().front());
}

TEST_F(Dispatch, TablesAreWhole) {
  for (const kernels::KernelTable& table : kernels::available_tables()) {
    for (const kernels::AttentionKernels* kernels : {&table.f32, &table.bf16, &table.bf16_int8, &table.int8}) {
      EXPECT_GT(kernels->query_block_rows, 0) << table.name;
      EXPECT_LE(kernels->query_block_rows, 64) << table.name;
      EXPECT_TRUE(kernels->workspace_floats && kernels->forward && kernels->row_state_floats && kernels->combine &&
                  kernels->packed_kv_floats && kernels->pack_kv && kernels->on_packed_kv)
          << table.name;
    }
    EXPECT_GT(table.linear.panel, 0);
    EXPECT_GT(table.linear.block_rows, 0);
    EXPECT_TRUE(table.probs && table.linear.linear && table.layer_norm && table.rms_norm && table.rotary &&
                table.swiglu && table.probes.fma && table.probes.read)
        << table.name;
  }
}

TEST_F(Dispatch, TheUnitsOfWorkCountWhatTheyDo) {
  for (const kernels::KernelTable& table : kernels::available_tables()) {
    float value = 0.5f;
    const double once = table.probes.fma(1000, &value);
    EXPECT_GT(once, 0);
    EXPECT_DOUBLE_EQ(table.probes.fma(2000, &value), 2 * once);
    std::vector<float> data(4096, 1.0f);
    for (const int multiplies : {0, 8, 32}) {
      EXPECT_EQ(table.probes.read(data.data(), 4096, multiplies, data.data()), 4096.0f) << table.name;
    }
  }
  if (kernels::bf16_dot_probe() != nullptr) {
    float value = 0.5f;
    EXPECT_GT(kernels::bf16_dot_probe()(1000, &value), 0);
  }
}

}  // namespace
}  // namespace manyheads::test
