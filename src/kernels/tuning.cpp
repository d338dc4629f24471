#include "kernels/tuning.hpp"

#include <charconv>
#include <cstdlib>
#include <string_view>

#if defined(__linux__)
#include <unistd.h>
#endif

#include "base/fail.hpp"
#include "kernels/isa/processor.hpp"

namespace manyheads::kernels {
namespace {

constexpr const char* kVariable = "MANYHEADS_TUNING";

struct Field {
  const char* name;
  std::int64_t Tuning::* value;
  std::int64_t least;
};

constexpr Field kFields[] = {
    {"l1_bytes", &Tuning::l1_bytes, 1024},
    {"l2_bytes", &Tuning::l2_bytes, 1024},
    {"l3_bytes", &Tuning::l3_bytes, 1024},
    {"flop_per_worker", &Tuning::flop_per_worker, 1},
    {"key_bytes_per_worker", &Tuning::key_bytes_per_worker, 1},
    {"linear_flop_per_worker", &Tuning::linear_flop_per_worker, 1},
    {"linear_bytes_per_worker", &Tuning::linear_bytes_per_worker, 1},
    {"tasks_per_worker", &Tuning::tasks_per_worker, 1},
    {"blocks_per_packed_head", &Tuning::blocks_per_packed_head, 1},
    {"packed_kv_bytes", &Tuning::packed_kv_bytes, 0},
    {"alone_bytes", &Tuning::alone_bytes, 0},
    {"keys_together_bytes", &Tuning::keys_together_bytes, 0},
    {"blocks_together", &Tuning::blocks_together, 1},
    {"groups_per_worker", &Tuning::groups_per_worker, 1},
    {"long_document", &Tuning::long_document, 1},
    {"linear_depth", &Tuning::linear_depth, 2},
    {"linear_bf16_depth", &Tuning::linear_bf16_depth, 64},
    {"linear_prefetch_words", &Tuning::linear_prefetch_words, 0},
    {"linear_blocks_per_task", &Tuning::linear_blocks_per_task, 1},
    {"encoder_block_rows", &Tuning::encoder_block_rows, 1},
    {"encoder_least_rows", &Tuning::encoder_least_rows, 1},
    {"encoder_packed_tokens", &Tuning::encoder_packed_tokens, 0},
    {"written_mask_bytes", &Tuning::written_mask_bytes, 1},
    {"prefetch_to_l2", &Tuning::prefetch_to_l2, 0},
};
constexpr std::int64_t kMost = std::int64_t{1} << 40;

Tuning detected() {
  Tuning tuning;
#if defined(_SC_LEVEL1_DCACHE_SIZE)
  const auto cache = [](int name, std::int64_t& bytes) {
    if (const long found = ::sysconf(name); found > 0) bytes = found;
  };
  cache(_SC_LEVEL1_DCACHE_SIZE, tuning.l1_bytes);
  cache(_SC_LEVEL2_CACHE_SIZE, tuning.l2_bytes);
  cache(_SC_LEVEL3_CACHE_SIZE, tuning.l3_bytes);
#endif
  tuning.prefetch_to_l2 = prefetches_into_l2() ? 1 : 0;
  return tuning;
}

void override(Tuning& tuning, std::string_view text) {
  while (!text.empty()) {
    const std::string_view one = text.substr(0, text.find(','));
    text.remove_prefix(std::min(text.size(), one.size() + 1));
    const std::size_t equals = one.find('=');
    const std::string_view name = one.substr(0, equals);
    const Field* field = nullptr;
    for (const Field& each : kFields) field = name == each.name ? &each : field;
    if (field == nullptr || equals == std::string_view::npos) {
      base::fail(kVariable, base::format("\"{}\" sets no figure of the tuning; there are {}", one, tuning.to_string()));
    }
    const std::string_view digits = one.substr(equals + 1);
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (error != std::errc{} || end != digits.data() + digits.size() || value < field->least || value > kMost) {
      base::fail(kVariable,
                 base::format("{} is \"{}\", expected a whole number of {} to 2^40", name, digits, field->least));
    }
    tuning.*field->value = value;
  }
}

}  // namespace

std::string Tuning::to_string() const {
  std::string text;
  for (const Field& field : kFields) {
    text += base::format("{}{}={}", text.empty() ? "" : ",", field.name, this->*field.value);
  }
  return text;
}

Tuning tuned(const char* text) {
  Tuning here = detected();
  if (text != nullptr) override(here, text);
  if (here.alone_bytes == 0) here.alone_bytes = 2 * here.l2_bytes;
  if (here.keys_together_bytes == 0) here.keys_together_bytes = here.l2_bytes / 4;
  here.linear_depth = here.linear_depth / 2 * 2;  // pairs stay together
  return here;
}

const Tuning& tuning() {
  static const Tuning tuning = tuned(std::getenv(kVariable));
  return tuning;
}

}  // namespace manyheads::kernels
