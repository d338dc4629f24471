#pragma once

#include <cstdint>
#include <filesystem>
#include <manyheads/parallel.hpp>
#include <manyheads/tensor.hpp>
#include <map>
#include <string>
#include <vector>

#include "lens/text_scorer.hpp"
#include "model/llama_config.hpp"

// What the heads of a decoder write: how much reading a token raises that token's logit (Elhage et al. 2021).
namespace manyheads::lens {

// The path from token t, read by head h of layer l with weight 1, to the logit of token s:
//   M[s,t] = u_s g_final W_O W_V g_l e_t
// - e_t is t's embedding over its root mean square, as the layer's norm reads it where no layer before it has written;
//   g_l and g_final are the gains of the layer's norm and of the last one, W_V and W_O the head's own.
// - u_s is row s of the unembedding minus the mean of its rows: logits matter up to what all have in common.
// - Left out: the last norm's division, biases, and what other layers make of either end.
// Three scores of each head:
// - copying: the sum of M's eigenvalues over the sum of their absolute values, from -1 to 1. M [V,V] and the head's
//   W_V g_l (sum over t of e_t u_t) g_final W_O [D,D] have the same eigenvalues but for zeros. 0 where all are 0.
// - copying_share: the share of tokens t with M[t,t] > 0, of so many at even steps through the vocabulary.
// - copying_logit: the mean of M[t,t] over these.
constexpr std::int64_t kCopyingTokens = 1000;

// Throws Error that names `place` and the tensor that does not fit the config. Products run in F32 over 4,096 tokens at
// most, sums of these in double.
std::vector<RoleScore> copying_scores(const model::LlamaConfig& config, const StateDict& tensors,
                                      const std::map<std::string, std::string>& unsupported, const std::string& place,
                                      const Threads& threads = {});

// The same of a decoder's folder.
std::vector<RoleScore> copying_scores(const std::filesystem::path& folder, const Threads& threads = {});

}  // namespace manyheads::lens
