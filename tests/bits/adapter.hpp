#pragma once

#include <string>
#include <vector>

#include "cases.hpp"

// What the library does with the calls. adapter.cpp, head_passes.cpp and model.cpp alone name it.
namespace bits {

// An instruction set, and the family of bits that F32 calls ask for there; empty: they ask for none.
struct Way {
  std::string isa, bits;
};
std::vector<Way> ways();  // that this build holds and this machine runs
void use(const Way& way);
// Of bits, of "f32", "bf16" or "int8" in the way in use; empty where that would be no other than without the asking.
std::string family(const std::string& products);

struct Results {
  std::vector<Array> out, lse, weights;
};
inline Results fresh(const AttentionCall& call) {
  return {.out = {call.out.fresh()}, .lse = {call.lse.fresh()}, .weights = {}};
}
// On the default number of threads.
Results run(const AttentionCall& call);
Results run(const LayerCall& call);

struct Answers {
  std::string group, products;
  std::vector<Array> results;
};
// The texts of MiniLM, F32 ones with the family asked for, with weights of F32 and of BF16: its hidden states, and q,
// k, v and lse of every head. Not where the model's folder or the text part of the library is missing.
bool has_model();
std::vector<Answers> model_texts(const std::string& bits);
// The passes over heads that maps and scores take, of drawn queries and keys: all that they write.
std::vector<Answers> head_passes();

}  // namespace bits
