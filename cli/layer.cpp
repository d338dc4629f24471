#include <CLI/CLI.hpp>
#include <manyheads/cpu.hpp>
#include <manyheads/error.hpp>
#include <manyheads/safetensors.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "arguments.hpp"
#include "base/file.hpp"
#include "cli.hpp"
#include "out_file.hpp"
#include "tensors.hpp"
#include "view/layer_file.hpp"

namespace manyheads::cli {

namespace {

struct LayerRequest {
  Common common;
  std::string weights_file;
  std::string in;
  std::string out;
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;
  bool causal = false;
  bool add_zero_attn = false;
  bool weights = false;
  bool grad = false;
  Dropout dropout;
};

void run(const LayerRequest& request) {
  const OutFile file(request.out, request.common.json);
  const StateDict state = load_named(request.weights_file, view::kLayerStateNames);
  const StateDict inputs = load_named(request.in, view::kLayerInputNames);
  if (!request.grad && inputs.contains("dy")) {
    throw Error(ErrorCode::kInvalidArgument, base::path_in_quotes(request.in) + " has dy: say --grad");
  }
  const view::LayerResult result = view::run_layer(state, inputs,
                                                   {.state_place = base::path_in_quotes(request.weights_file),
                                                    .input_place = base::path_in_quotes(request.in),
                                                    .heads = request.heads,
                                                    .kv_heads = request.kv_heads,
                                                    .causal = request.causal,
                                                    .add_zero_attn = request.add_zero_attn,
                                                    .weights = request.weights,
                                                    .gradients = request.grad ? view::layer_gradients : nullptr,
                                                    .dropout = request.dropout,
                                                    .bits = request.common.bits,
                                                    .threads = {.num_threads = request.common.threads}});
  const StateDict& results = result.tensors;
  file.save([&](const std::string& path) { save_safetensors(path, results); });

  const MultiHeadAttentionConfig& config = result.config;
  if (request.common.json) {
    nlohmann::ordered_json summary{
        {"out", request.out},
        {"isa", active_isa()},
        {"bits", request.common.bits.empty() ? active_bits(config.dtype) : request.common.bits},
        {"d_model", config.d_model},
        {"num_heads", config.num_heads},
        {"num_kv_heads", config.num_kv_heads},
        {"d_k", result.d_k},
        {"kdim", config.kdim},
        {"vdim", config.vdim},
        {"bias", config.bias},
        {"add_bias_kv", config.add_bias_kv},
        {"add_zero_attn", config.add_zero_attn},
        {"parameters", result.parameters}};
    for (const auto& [name, tensor] : results) summary["tensors"][name] = describe(tensor);
    print_json(summary);
    return;
  }
  file.report(describe_text(results) + " in " + file.shown() + " (d_model " + std::to_string(config.d_model) + ", " +
              std::to_string(config.num_heads) + " heads of " + std::to_string(result.d_k) + ", " + active_isa() +
              ")\n");
}

}  // namespace

void add_layer(CLI::App& app) {
  auto request = std::make_shared<LayerRequest>();
  CLI::App* verb = app.add_subcommand("layer", "The multi-head attention layer on a state_dict of PyTorch");
  verb->add_option("WEIGHTS", request->weights_file,
                   "safetensors with the state_dict of torch.nn.MultiheadAttention; its sizes are read from it")
      ->required();
  verb->add_option("IN", request->in,
                   "safetensors with query [B,T,E], and where present key [B,S,kdim] (else query), value [B,S,vdim] "
                   "(else key), key_padding_mask [B,S] and attn_mask [T,S] or [B*H,T,S] (BOOL true = ignore, a float "
                   "is added), head_scale [H] (F32, 0 switches a head off); with --grad also dy, as query")
      ->required();
  verb->add_option("-o,--out", request->out,
                   "safetensors to write, - for standard output: output [B,T,E], in the type of query; with --grad in "
                   "F32 dquery, dkey, dvalue and dhead_scale, each where the input has its tensor, and of each weight "
                   "grad.NAME")
      ->required();
  verb->add_option("--heads", request->heads, "Number of heads; it divides d_model")
      ->required()
      ->transform(whole_number())
      ->type_name("N");
  verb->add_option("--kv-heads", request->kv_heads, "Heads of keys and values, shared by groups; default --heads")
      ->transform(whole_number(1))
      ->type_name("N");
  verb->add_flag("--causal", request->causal, "A query sees the keys up to its own place");
  verb->add_flag("--add-zero-attn", request->add_zero_attn, "One more key and value of zeros");
  verb->add_flag("--weights", request->weights, "Also write weights [B,H,T,S] (F32)");
  verb->add_flag("--grad", request->grad,
                 "Also write the gradients of a loss from dy, its gradient by output. A query without key, and a key "
                 "without value, have the sum of what they stand for. Float masks get none");
  add_dropout(*verb, request->dropout);
  add_bits(*verb, request->common);
  add_common(*verb, request->common);
  verb->footer("Example: manyheads layer mha.safetensors in.safetensors -o out.safetensors --heads 8 --weights");
  verb->callback([request] { run(*request); });
}

}  // namespace manyheads::cli
