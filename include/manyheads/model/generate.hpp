#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <manyheads/model/decoder.hpp>
#include <manyheads/parallel.hpp>
#include <span>
#include <string_view>
#include <vector>

namespace manyheads::model {

// How the next token is chosen from its logits.
//   temperature 0   greedy: the largest logit, the lowest id among equals
//   else            drawn from softmax(logits / temperature), of which top_p keeps the likeliest tokens: as many as it
//                   takes for their probabilities to reach top_p
// Sums are float64 in a fixed order. A draw depends on the seed, the prompt's number and the token's place among the
// new ones alone.
struct Sampling {
  double temperature = 0;  // 0 or more, finite
  double top_p = 1;        // above 0, up to 1
  std::uint64_t seed = 0;
};

// Why a text ended.
enum class Stop {
  kEndToken,     // the model wrote an end token, which is the last of the ids
  kMaxTokens,    // GenerateOptions::max_tokens are written
  kModelLength,  // the model takes no more tokens
  kCancelled,
};

struct NewToken {
  std::size_t prompt = 0;  // which
  std::int64_t id = 0;
};

// What was written behind a prompt.
struct Generated {
  std::vector<std::int64_t> ids;
  std::vector<double> log_probabilities;  // natural, of the softmax of the logits as they are; empty unless asked for
  Stop stop = Stop::kCancelled;
};

struct GenerateOptions {
  std::int64_t max_tokens = 128;  // most new tokens of a prompt
  Sampling sampling{};
  std::vector<std::int64_t> end_tokens{};
  bool log_probabilities = false;
  DType cache = DType::kF32;                  // what keys and values are kept as (DecoderCacheOptions)
  std::int64_t chunk = 512;                   // most tokens of prompts that one pass reads
  std::int64_t batch = 32;                    // most texts that are written together
  const std::atomic<bool>* cancel = nullptr;  // looked at before each pass; true ends every text
  // Called for each token, and for each text that has begun once it has ended. What they throw ends the run.
  std::function<void(const NewToken&)> on_token{};
  std::function<void(std::size_t prompt, const Generated&)> on_end{};
  // Called after each pass with the heads of its new tokens, sequence by sequence, before its on_token.
  std::function<void(std::span<const LayerHeads>)> on_heads{};
  Threads threads{};
  std::string_view bits{};  // the family of bits that the run must have (cpu.hpp), empty: the fastest's
};

// Continues each prompt, several at a time: one pass reads the next tokens of prompts and takes one token further each
// text that is being written. What all prompts begin with is read once.
// - The ids do not depend on chunk, batch, the other prompts' texts or the threads.
// - Prompts hold ids, special ones included, and at least one. A text that ends leaves its place to the next.
// Throws Error that names the prompt (an empty one, one longer than the model takes, an id outside the vocabulary) or
// the option, or says that the model's logits are not numbers.
std::vector<Generated> generate(const Decoder& decoder, std::span<const std::vector<std::int64_t>> prompts,
                                const GenerateOptions& options = {});

}  // namespace manyheads::model
