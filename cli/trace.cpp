#include <CLI/CLI.hpp>
#include <manyheads/error.hpp>
#include <manyheads/lens/trace.hpp>
#include <nlohmann/json.hpp>
#include <optional>

#include "arguments.hpp"
#include "base/format.hpp"
#include "cli.hpp"
#include "out_file.hpp"
#include "text.hpp"

namespace manyheads::cli {

namespace {

struct TraceRequest {
  Common common;
  std::string text;
  std::string model;
  std::string out;
  std::optional<std::string> pair;
  bool truncate = false;
  bool values = false;
};

void trace(const TraceRequest& request) {
  check_text("TEXT", request.text);
  if (request.pair) check_text("--pair", *request.pair);
  check_model(request.model);
  const OutFile file(request.out, request.common.json);
  const model::TextModel model(request.model);
  const EncodedText encoded = encode_text(model, "TEXT", request.text, request.pair, request.truncate);
  lens::TraceOptions options;
  options.text2 = request.pair;
  options.values = request.values;
  options.row_sums = true;
  // Its cost grows with the square of the text, and would exceed the forward pass's.
  constexpr std::size_t kMostInDouble = 1024;
  options.lse_in_double = encoded.encoding.size() <= kMostInDouble;
  options.threads.num_threads = request.common.threads;
  options.bits = request.common.bits;
  const lens::Trace result =
      lens::make_trace(model.encoder(), encoded.encoding, model_name(request.model), request.text, options);
  file.save([&](const std::string& path) { lens::save_trace(path, result); });
  if (request.common.json) {
    print_json({{"out", request.out},
                {"tokens", result.tokens},
                {"truncated_from", encoded.full_size > result.tokens.size() ? nlohmann::ordered_json(encoded.full_size)
                                                                            : nlohmann::ordered_json(nullptr)},
                {"num_layers", result.layers.size()},
                {"num_heads", result.num_heads(0)},
                {"head_dim", result.layers[0].q.size(2)}});
    return;
  }
  file.report(
      base::format("Wrote {}: q, k{} and lse of {} layers of {} heads for {} tokens{}\n", file.shown(),
                   request.values ? ", v" : "", result.layers.size(), result.num_heads(0), result.tokens.size(),
                   encoded.full_size > result.tokens.size() ? base::format(" (cut from {})", encoded.full_size) : ""));
}

}  // namespace

void add_trace(CLI::App& app) {
  auto request = std::make_shared<TraceRequest>();
  CLI::App* verb = app.add_subcommand("trace", "Queries, keys and lse of every head for a text, as one file");
  verb->add_option("TEXT", request->text, "The text")->transform(plain_text)->required()->type_name("");
  verb->add_option("--model", request->model, "Folder with config.json, model.safetensors and tokenizer.json")
      ->required()
      ->type_name("DIR");
  verb->add_option("-o,--out", request->out, "The safetensors file to write, - for standard output")
      ->required()
      ->type_name("FILE");
  verb->add_option("--pair", request->pair, "A second text: the model sees both, as two segments")
      ->transform(plain_text)
      ->type_name("TEXT2");
  verb->add_flag("--truncate", request->truncate, "Cut a text that has more tokens than the model has positions");
  verb->add_flag("--values", request->values, "Keep v too: the outputs of heads then follow from the file");
  add_bits(*verb, request->common);
  add_common(*verb, request->common);
  verb->footer(
      "Example: manyheads trace \"The black cat sat on the mat.\" --model models/all-MiniLM-L6-v2 -o cat.safetensors");
  verb->callback([request] { trace(*request); });
}

}  // namespace manyheads::cli
