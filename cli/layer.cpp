#include <CLI/CLI.hpp>
#include <array>
#include <manyheads/cpu.hpp>
#include <manyheads/error.hpp>
#include <manyheads/multi_head_attention.hpp>
#include <manyheads/safetensors.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "arguments.hpp"
#include "base/file.hpp"
#include "cli.hpp"
#include "out_file.hpp"
#include "tensors.hpp"

namespace manyheads::cli {

namespace {

using namespace std::string_view_literals;

constexpr std::array kStateNames = {"in_proj_weight"sv, "q_proj_weight"sv,   "k_proj_weight"sv,
                                    "v_proj_weight"sv,  "in_proj_bias"sv,    "bias_k"sv,
                                    "bias_v"sv,         "out_proj.weight"sv, "out_proj.bias"sv};
constexpr std::array kInputNames = {"query"sv, "key"sv, "value"sv, "key_padding_mask"sv, "attn_mask"sv};

struct Layer {
  Common common;
  std::string weights_file;
  std::string in;
  std::string out;
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;
  bool causal = false;
  bool add_zero_attn = false;
  bool weights = false;
};

std::int64_t columns(const Layer& request, const StateDict& state, const std::string& name) {
  const Tensor& weight = need(request.weights_file, state, name);
  const bool square = name == "out_proj.weight";  // a file must not have us allocate sizes that it does not hold
  if (weight.rank() != 2 || weight.size(0) < 1 || (square && weight.size(0) != weight.size(1))) {
    throw Error(ErrorCode::kInvalidArgument, name + " in " + base::path_in_quotes(request.weights_file) +
                                                 " needs the axes " + (square ? "[d_model,d_model]" : "[out,in]") +
                                                 ", has " + weight.shape().to_string());
  }
  return weight.size(1);
}

// The state_dict says everything but the head counts and add_zero_attn.
MultiHeadAttentionConfig infer_config(const Layer& request, const StateDict& state) {
  MultiHeadAttentionConfig config;
  config.d_model = columns(request, state, "out_proj.weight");
  config.num_heads = request.heads;
  config.num_kv_heads = request.kv_heads;
  if (state.count("in_proj_weight") == 0) {
    if (state.count("q_proj_weight") == 0) {
      throw Error(ErrorCode::kInvalidArgument,
                  base::path_in_quotes(request.weights_file) + " has neither in_proj_weight nor q_proj_weight");
    }
    config.kdim = columns(request, state, "k_proj_weight");
    config.vdim = columns(request, state, "v_proj_weight");
  }
  config.bias = state.count("in_proj_bias") != 0;
  config.add_bias_kv = state.count("bias_k") != 0;
  config.add_zero_attn = request.add_zero_attn;
  config.dtype = need(request.weights_file, state, "out_proj.weight").dtype();
  return config;
}

ConstTensorView sequence(const Layer& request, const StateDict& tensors, const std::string& name) {
  const ConstTensorView view = need(request.in, tensors, name).cview();
  if (view.rank() != 3) {
    throw Error(ErrorCode::kInvalidArgument, name + " in " + base::path_in_quotes(request.in) +
                                                 " needs the axes [B,T,E], has " + view.shape().to_string());
  }
  return view;
}

void run(const Layer& request) {
  const OutFile file(request.out, request.common.json);
  const StateDict state = load_named(request.weights_file, kStateNames);
  const StateDict tensors = load_named(request.in, kInputNames);
  MultiHeadAttention layer(infer_config(request, state));
  layer.load_state_dict(state);

  const ConstTensorView query = sequence(request, tensors, "query");
  const bool has_key = tensors.count("key") != 0;
  if (tensors.count("value") != 0 && !has_key) {
    throw Error(ErrorCode::kInvalidArgument, base::path_in_quotes(request.in) + " has a value and no key");
  }
  const ConstTensorView key = has_key ? sequence(request, tensors, "key") : query;
  const ConstTensorView value = tensors.count("value") != 0 ? sequence(request, tensors, "value") : key;

  MultiHeadAttentionOptions options;
  options.key_padding_mask = view_of(tensors, "key_padding_mask");
  options.attn_mask = view_of(tensors, "attn_mask");
  if (request.causal) options.mask = mask::causal(Alignment::kTopLeft);  // as torch's tril
  options.threads.num_threads = request.common.threads;
  options.bits = request.common.bits;

  StateDict results;
  Tensor output(query.dtype(), query.shape());
  results.emplace("output", output);
  TensorView weights_view;
  if (request.weights) {
    const std::int64_t added = (layer.config().add_bias_kv ? 1 : 0) + (layer.config().add_zero_attn ? 1 : 0);
    Tensor weights(DType::kF32, {query.size(0), request.heads, query.size(1), key.size(1) + added});
    weights_view = weights.view();
    options.weights = weights_view;
    results.emplace("weights", weights);
  }
  layer.forward(query, key, value, output.view(), options);
  file.save([&](const std::string& path) { save_safetensors(path, results); });

  const MultiHeadAttentionConfig& config = layer.config();
  if (request.common.json) {
    nlohmann::ordered_json summary{{"out", request.out},
                                   {"isa", active_isa()},
                                   {"bits", options.bits.empty() ? active_bits(config.dtype) : request.common.bits},
                                   {"d_model", config.d_model},
                                   {"num_heads", config.num_heads},
                                   {"num_kv_heads", config.num_kv_heads},
                                   {"d_k", layer.d_k()},
                                   {"kdim", config.kdim},
                                   {"vdim", config.vdim},
                                   {"bias", config.bias},
                                   {"add_bias_kv", config.add_bias_kv},
                                   {"add_zero_attn", config.add_zero_attn},
                                   {"parameters", layer.parameter_count()}};
    for (const auto& [name, tensor] : results) summary["tensors"][name] = describe(tensor);
    print_json(summary);
    return;
  }
  file.report(describe_text(results) + " in " + file.shown() + " (d_model " + std::to_string(config.d_model) + ", " +
              std::to_string(config.num_heads) + " heads of " + std::to_string(layer.d_k()) + ", " + active_isa() +
              ")\n");
}

}  // namespace

void add_layer(CLI::App& app) {
  auto request = std::make_shared<Layer>();
  CLI::App* verb = app.add_subcommand("layer", "The multi-head attention layer on a state_dict of PyTorch");
  verb->add_option("WEIGHTS", request->weights_file,
                   "safetensors with the state_dict of torch.nn.MultiheadAttention; its sizes are read from it")
      ->required();
  verb->add_option("IN", request->in,
                   "safetensors with query [B,T,E], and where present key [B,S,kdim] (else query), value [B,S,vdim] "
                   "(else key), key_padding_mask [B,S] and attn_mask [T,S] or [B*H,T,S] (BOOL true = ignore, a float "
                   "is added)")
      ->required();
  verb->add_option("-o,--out", request->out,
                   "safetensors to write, - for standard output: output [B,T,E], in the type of query")
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
  add_bits(*verb, request->common);
  add_common(*verb, request->common);
  verb->footer("Example: manyheads layer mha.safetensors in.safetensors -o out.safetensors --heads 8 --weights");
  verb->callback([request] { run(*request); });
}

}  // namespace manyheads::cli
