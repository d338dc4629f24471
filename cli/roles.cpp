#include "roles.hpp"

#include <CLI/CLI.hpp>
#include <memory>

namespace manyheads::cli {

void add_roles(CLI::App& app) {
  auto request = std::make_shared<RolesRequest>();
  CLI::App* verb = app.add_subcommand("roles", "What each head of a model does");
  verb->add_option("--model", request->model, "Folder with config.json, model.safetensors and tokenizer.json")
      ->required()
      ->type_name("DIR");
  verb->add_option("--treebank", request->treebank,
                   "Sentences with their trees (CoNLL-U): which heads find a word's partner, beside a fixed offset")
      ->required()
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
      "Example: manyheads roles --model models/all-MiniLM-L6-v2 --treebank examples/relations.conllu --relation amod");
  verb->callback([request] { print_relations(*request); });
}

}  // namespace manyheads::cli
