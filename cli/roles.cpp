#include "roles.hpp"

#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "arguments.hpp"

namespace manyheads::cli {
namespace {

void roles(const CLI::App& verb, const RolesRequest& request) {
  const bool texts = !request.texts.empty() || !request.file.empty();
  if (!request.texts.empty() && !request.file.empty()) throw UsageError("TEXTS and --file exclude each other");
  if (request.treebank.empty()) {
    if (!request.relations.empty()) throw UsageError("--relation needs --treebank");
    for (const char* name : {"--ablation", "--clusters"}) {
      if (verb.count(name) > 0 && !texts) throw UsageError(std::string(name) + " needs TEXTS or --file");
    }
    print_roles(request);
    return;
  }
  for (const char* name : {"TEXTS", "--file", "--ablation", "--clusters", "--random-tokens", "--seed", "--legend"}) {
    if (verb.count(name) > 0) throw UsageError(std::string("--treebank takes no ") + name);
  }
  print_relations(request);
}

}  // namespace

void add_roles(CLI::App& app) {
  auto request = std::make_shared<RolesRequest>();
  CLI::App* verb = app.add_subcommand("roles", "What each head of a model does");
  verb->add_option("TEXTS", request->texts, "Texts; scores are means over their tokens")->type_name("");
  verb->add_option("--file", request->file, "Texts, one a line; - is standard input")->type_name("FILE");
  verb->add_flag("--ablation", request->ablation,
                 "Switch off each head in turn and measure how far the output moves: a run for each head");
  verb->add_option("--clusters", request->clusters,
                   "Join heads into N clusters by how alike their weights are on the texts")
      ->transform(whole_number(1))
      ->type_name("N");
  verb->add_option("--random-tokens", request->random_tokens, "Random tokens that stand twice; default 50")
      ->transform(whole_number(2))
      ->type_name("N");
  verb->add_option("--seed", request->seed, "Of the random tokens; default 1")
      ->transform(whole_number(0))
      ->type_name("N");
  verb->add_flag("--legend", request->legend, "Say how each score is worked out, and its source");
  verb->add_option("--model", request->model, "Folder with config.json, model.safetensors and tokenizer.json")
      ->required()
      ->type_name("DIR");
  verb->add_option("--treebank", request->treebank,
                   "Sentences with their trees (CoNLL-U): which heads find a word's partner, beside a fixed offset")
      ->type_name("FILE");
  verb->add_option("--relation", request->relations,
                   "One relation of the treebank, or several as one, \"obj+obl\"; may be repeated. Default: all")
      ->type_name("NAME")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->allow_extra_args(false);
  add_bits(*verb, request->common);
  add_common(*verb, request->common);
  verb->footer(
      "Example: manyheads roles \"The black cat sat on the mat.\" --model models/all-MiniLM-L6-v2\n"
      "Example: manyheads roles --model models/all-MiniLM-L6-v2 --treebank examples/relations.conllu --relation amod\n"
      "Without texts and treebank: what each head does with random tokens that stand twice, and what it writes.");
  verb->callback([verb, request] { roles(*verb, *request); });
}

}  // namespace manyheads::cli
