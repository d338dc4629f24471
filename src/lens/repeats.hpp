#pragma once

#include <cstddef>
#include <cstdint>
#include <manyheads/lens/trace.hpp>
#include <manyheads/model/text_model.hpp>
#include <manyheads/parallel.hpp>
#include <optional>
#include <string_view>
#include <vector>

#include "lens/head_scorer.hpp"
#include "lens/text_scorer.hpp"

// What heads do with random tokens that stand twice in a row: nothing but the first copy tells the second.
namespace manyheads::lens {

// Of a head on a text whose `copied` tokens from `first` on stand there once more behind themselves.
struct RepeatScores {
  double prefix_matching = 0;
  double duplicate_token = 0;
  HeadScores of_all;  // over all tokens
};
RepeatScores score_repeat(const Trace& trace, std::size_t layer, std::int64_t head, std::int64_t first,
                          std::int64_t copied);

struct RepeatOptions {
  std::int64_t tokens = 50;    // different ones, drawn from the vocabulary; fewer where the model takes fewer
  std::int64_t sequences = 4;  // means are over so many
  std::uint64_t seed = 1;
  Threads threads{};
  std::string_view bits{};
};

struct RepeatReading {
  std::int64_t tokens = 0;                           // that stand twice
  std::vector<std::vector<std::int64_t>> sequences;  // the ids of each draw, special tokens among them
  std::vector<RoleScore> scores;
  // Of a decoder: the mean loss in nats of the tokens behind the first of each copy.
  std::optional<double> first_loss, second_loss;
};

// Throws Error where the model does not take two tokens twice.
RepeatReading read_repeats(const model::TextModel& model, const RepeatOptions& options = {});

}  // namespace manyheads::lens
