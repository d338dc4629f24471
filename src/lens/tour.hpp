#pragma once

#include <functional>
#include <manyheads/model/pooling.hpp>
#include <manyheads/model/text_model.hpp>
#include <nlohmann/json.hpp>
#include <string_view>
#include <vector>

#include "lens/text_batches.hpp"
#include "lens/treebank.hpp"

// What the page's tour says of a model beyond one trace.
namespace manyheads::lens {

// examples/tour.conllu: 60 sentences with the three links amod:link, nsubj:link and obl:link.
std::vector<TreebankSentence> tour_treebank();

// Called with the share that is done; false cancels, and the answer is then {"cancelled": true}.
using TourProgress = std::function<bool(double)>;

// How often each head finds the links of the tour's sentences:
// {model, sentences, causal,
//  relations: as relations_json, of every head, from each link's word to its head and back,
//  texts: [{text, links: [{word, head, offset}, ...], hits: [[[layer, head], ...], ...]}, ...]}
// - links: of the three relations, the word's and its head's spelling, and head - word in words of the model.
// - hits: for each of `relations` the heads that are right on this text.
// Throws Error where the model takes a sentence not.
nlohmann::ordered_json tour_relations(const model::TextModel& model, std::string_view name, const BatchOptions& options,
                                      const TourProgress& progress = {});

// What is left of a text's vector with heads switched off (Michel et al. 2019):
// {model, text, other, similarity,
//  alone: [layer][head] {self, other},
//  in_order: [{layer, head, self, other}, ...]}
// - similarity: the cosine between the vectors of the two texts, with every head.
// - self: the cosine between the text's vector with and without the heads. other: between the two texts, both without.
// - alone: without this head alone. in_order: without this head and all before it; those come first that alone change
//   least, of equals the earlier.
// Throws Error for a decoder, and for a text of more tokens than the model takes.
nlohmann::ordered_json tour_ablations(const model::TextModel& model, std::string_view name,
                                      const model::PoolingConfig& pooling, std::string_view text,
                                      const BatchOptions& options, const TourProgress& progress = {});

}  // namespace manyheads::lens
