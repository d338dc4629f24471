#pragma once

#include <cstdint>
#include <functional>
#include <manyheads/tensor.hpp>
#include <optional>
#include <string>
#include <vector>

namespace manyheads::bench {

// One line of the result. The machine's roofline has lines too.
struct Row {
  std::string name{};
  std::string dtype = "f32";  // of keys and values
  std::optional<std::int64_t> heads{};
  std::optional<std::int64_t> kv_heads{};
  std::optional<std::int64_t> head_dim{};
  std::optional<std::int64_t> tokens{};  // of decode: the keys
  std::int64_t batch = 1;
  int threads = 1;
  bool causal = false;
  bool by_time = false;           // shown by the time of a call, which says more than a rate
  std::optional<double> share{};  // of all pairs of a query and a key that the mask allows
  std::string over{};             // what `ratio` is over; empty: the row has none
  std::string isa{};
  std::string limit{};  // "memory", "fma", or for bf16 "dot" or "tile" where the machine has them and they are faster
  std::optional<double> limit_gflops{};
  std::optional<double> gflops{};
  std::optional<double> limit_gbs{};
  std::optional<double> gbs{};
  std::optional<double> ratio{};      // time over that of `over`
  std::optional<double> seconds{};    // of one run
  std::optional<double> megabytes{};  // that a run takes beside its inputs, at most
  std::optional<double> max_error{};  // against float64, over a few rows

  std::optional<double> fraction() const {
    if (limit_gflops && gflops) return *gflops / *limit_gflops;
    if (limit_gbs && gbs) return *gbs / *limit_gbs;
    return std::nullopt;
  }
};

// A case with its inputs, made when its turn comes: all at once would be large.
struct PreparedCase {
  std::function<void()> work;
  std::function<void()> base;     // what the ratio is over; empty: nothing
  std::function<double()> error;  // after the work has run
};

// What a row measures.
struct Case {
  Row row;
  double flop = 0;
  double bytes = 0;       // read from memory; above 0: memory is the limit
  double base_share = 1;  // the ratio is over this part of the base's time
  bool measures_memory = false;
  std::function<PreparedCase()> prepare;
};

struct Size {
  bool quick = false;
  int threads = 1;  // at most
};

std::vector<Case> attention_cases(const Size& size);
std::vector<Case> backward_cases(const Size& size);
std::vector<Case> decode_cases(const Size& size);
std::vector<Case> layer_cases(const Size& size);
std::vector<Case> lens_cases(const Size& size);
std::vector<Case> scan_cases(const Size& size);

// 1, and size.threads where it is another.
std::vector<int> thread_counts(const Size& size);

// Rows to compare with float64: the first, the last and some between.
std::vector<std::int64_t> probe_rows(std::int64_t count);

std::string dtype_name(DType type);
double element(const ConstTensorView& view, std::int64_t at);  // of dense memory
// Between dense tensors of as many elements.
double largest_difference(const ConstTensorView& a, const ConstTensorView& b);

}  // namespace manyheads::bench
