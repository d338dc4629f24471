#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <iterator>
#include <manyheads/attention.hpp>
#include <manyheads/attention_backward.hpp>
#include <manyheads/error.hpp>
#include <manyheads/safetensors.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>

#include "arguments.hpp"
#include "attention/mask_tensors.hpp"
#include "base/file.hpp"
#include "cli.hpp"
#include "out_file.hpp"
#include "tensors.hpp"

namespace manyheads::cli {

namespace {

using namespace std::string_view_literals;

// Every tensor that a file may hold: these, and those of a mask.
constexpr auto kNames = [] {
  constexpr std::array kOthers = {"q"sv,         "k"sv,    "v"sv,    "sinks"sv,        "k_scales"sv,
                                  "v_scales"sv,  "dout"sv, "dlse"sv, "cu_seqlens_q"sv, "cu_seqlens_k"sv,
                                  "page_table"sv};
  std::array<std::string_view, kOthers.size() + std::size(attention_detail::kMaskTensors)> names;
  std::ranges::transform(attention_detail::kMaskTensors, std::ranges::copy(kOthers, names.begin()).out,
                         [](const auto& tensor) { return std::string_view(tensor.name); });
  return names;
}();

struct Attend {
  Common common;
  std::string in;
  std::string out;
  std::string layout = "bhtd";
  std::string causal;
  std::string align;
  std::string window;
  std::optional<double> scale;
  double softcap = 0;
  Dropout dropout;
  std::string out_dtype;
  bool weights = false;
  bool reference = false;
  bool cu_seqlens = false;
  bool explain = false;
  bool int8_products = false;
  bool grad = false;

  bool bthd() const { return layout == "bthd" && !cu_seqlens; }
};

// [B,T,H,D] seen as [B,H,T,D], and back.
template <class View>
View swap_heads(const View& v) {
  return View(v.data(), v.dtype(), {v.size(0), v.size(2), v.size(1), v.size(3)},
              {v.stride(0), v.stride(2), v.stride(1), v.stride(3)});
}

ConstTensorView load_heads(const Attend& request, const StateDict& tensors, const std::string& name) {
  const ConstTensorView view = need(request.in, tensors, name).cview();
  const bool paged = (name == "k" || name == "v") && tensors.contains("page_table");
  const bool packed = request.cu_seqlens && !paged;
  const bool bthd = request.layout == "bthd" && !packed && !paged;
  if (view.rank() != (packed ? 3 : 4)) {
    throw Error(ErrorCode::kInvalidArgument, name + " in " + base::path_in_quotes(request.in) + " needs the axes " +
                                                 (packed  ? "[T,H,D] beside --cu-seqlens"
                                                  : paged ? "[pages,Hkv,page size,D] beside page_table"
                                                  : bthd  ? "[B,T,H,D]"
                                                          : "[B,H,T,D]") +
                                                 ", has " + view.shape().to_string());
  }
  return bthd ? swap_heads(view) : view;
}

Mask make_mask(const Attend& request, const StateDict& tensors) {
  if (!request.causal.empty() && !request.align.empty() && request.causal != request.align) {
    throw UsageError("--causal " + request.causal + " and --align " + request.align + " name two diagonals");
  }
  const std::string& corner = request.causal.empty() ? request.align : request.causal;
  const Alignment alignment = corner.empty()         ? Alignment::kUnspecified
                              : corner == "top-left" ? Alignment::kTopLeft
                                                     : Alignment::kBottomRight;
  Mask mask = mask::align(alignment);
  if (!request.causal.empty()) mask = mask | mask::causal(alignment);
  if (!request.window.empty()) {
    const std::vector<std::int64_t> sides = parse_integers("--window", request.window);
    if (sides.size() != 2 || sides[0] < -1 || sides[1] < -1) {
      throw UsageError("--window takes L,R, each a count of keys or -1 for no bound, got \"" + request.window + "\"");
    }
    mask = mask | mask::window(sides[0], sides[1], alignment);
  }
  for (const auto& [name, option, view] : attention_detail::kMaskTensors) mask.*view = view_of(tensors, name);
  if (mask.q_documents.defined() != mask.k_documents.defined()) {
    throw Error(ErrorCode::kInvalidArgument,
                base::path_in_quotes(request.in) + " has only one of q_documents [B,Tq] and k_documents [B,Tk]");
  }
  return mask;
}

// The backward of the call, with --grad.
struct Backward {
  ConstTensorView dout;
  StateDict results;  // by the names of the inputs, with a "d" in front
  AttentionGradients gradients;
};

Backward make_backward(const Attend& request, const StateDict& tensors) {
  Backward backward;
  if (!request.grad) {
    for (const char* name : {"dout", "dlse"}) {
      if (!tensors.contains(name)) continue;
      throw Error(ErrorCode::kInvalidArgument, base::path_in_quotes(request.in) + " has " + name + ": say --grad");
    }
    return backward;
  }
  backward.dout = load_heads(request, tensors, "dout");
  backward.gradients.dlse = view_of(tensors, "dlse");
  const auto make = [&](const char* name, bool typed) {
    const auto of = tensors.find(name);
    if (of == tensors.end()) return TensorView{};
    const DType type = typed && !request.out_dtype.empty() ? parse_dtype(request.out_dtype) : of->second.dtype();
    return backward.results.emplace(std::string("d") + name, Tensor(type, of->second.shape())).first->second.view();
  };
  const auto heads = [&](const char* name) {
    const TensorView view = make(name, true);
    return request.bthd() ? swap_heads(view) : view;
  };
  backward.gradients.dq = heads("q");
  backward.gradients.dk = heads("k");
  backward.gradients.dv = heads("v");
  backward.gradients.dbias = make("bias", true);
  backward.gradients.dsinks = make("sinks", false);
  backward.gradients.dalibi_slopes = make("alibi_slopes", false);
  return backward;
}

nlohmann::ordered_json explained(const Explanation& e) {
  return {{"bits", e.bits},
          {"threads", e.threads},
          {"query_block_rows", e.query_block_rows},
          {"run_keys", e.run_keys},
          {"chunk_keys", e.chunk_keys},
          {"tasks", e.tasks},
          {"query_blocks_together", e.query_blocks_together},
          {"keys_together", e.keys_together},
          {"kv_splits", e.kv_splits},
          {"runs", e.runs},
          {"skipped_runs", e.skipped_runs},
          {"tuning", e.tuning},
          {"flop", e.flop},
          {"bytes", e.bytes},
          {"workspace_bytes", e.workspace_bytes}};
}

void run(const Attend& request) {
  const OutFile file(request.out, request.common.json);
  const StateDict tensors = load_named(request.in, kNames);
  if (!request.cu_seqlens && (tensors.contains("cu_seqlens_q") || tensors.contains("cu_seqlens_k"))) {
    throw Error(ErrorCode::kInvalidArgument,
                base::path_in_quotes(request.in) + " has cu_seqlens tensors: say --cu-seqlens");
  }
  const ConstTensorView q = load_heads(request, tensors, "q");
  const ConstTensorView k = load_heads(request, tensors, "k");
  const ConstTensorView v = load_heads(request, tensors, "v");

  const bool paged = tensors.contains("page_table");
  AttentionOptions options;
  if (request.cu_seqlens) {
    options.cu_seqlens_q = need(request.in, tensors, "cu_seqlens_q").cview();
    if (!paged) options.cu_seqlens_k = need(request.in, tensors, "cu_seqlens_k").cview();
  }
  options.page_table = view_of(tensors, "page_table");
  options.k_scales = view_of(tensors, "k_scales");
  options.v_scales = view_of(tensors, "v_scales");
  options.mask = make_mask(request, tensors);
  options.scale = request.scale;
  options.softcap = request.softcap;
  options.dropout = request.dropout;
  options.sinks = view_of(tensors, "sinks");
  options.threads.num_threads = request.common.threads;
  options.int8_products = request.int8_products;
  options.bits = request.common.bits;

  Backward backward = make_backward(request, tensors);
  const bool bthd = request.bthd();
  const DType out_type = request.out_dtype.empty() ? q.dtype() : parse_dtype(request.out_dtype);
  Tensor out, lse, weights;
  if (request.cu_seqlens) {
    out = Tensor(out_type, {q.size(0), q.size(1), v.size(v.rank() - 1)});
    lse = Tensor(DType::kF32, {q.size(1), q.size(0)});
  } else {
    const std::int64_t batch = q.size(0), heads = q.size(1), queries = q.size(2), d_v = v.size(3);
    out = Tensor(out_type, bthd ? Dims{batch, queries, heads, d_v} : Dims{batch, heads, queries, d_v});
    lse = Tensor(DType::kF32, {batch, heads, queries});
    if (request.weights && !paged) weights = Tensor(DType::kF32, {batch, heads, queries, k.size(2)});
  }
  if (request.weights && !weights.defined()) {
    throw Error(ErrorCode::kInvalidArgument,
                "--weights takes plain tensors: packed and paged ones have no one Tq and Tk");
  }
  const TensorView out_view = bthd ? swap_heads(out.view()) : out.view();
  const TensorView lse_view = lse.view();
  options.lse = lse_view;

  // What has no gradient is an error before anything is computed.
  std::optional<Explanation> explanation, of_backward;
  if (request.grad) {
    of_backward = explain_backward(q, k, v, out_view, backward.dout, lse_view, backward.gradients, options);
  }
  if (request.reference) {
    attention_reference(q, k, v, out_view, options, request.weights ? weights.view() : TensorView{});
    if (request.grad) attention_backward_reference(q, k, v, backward.dout, backward.gradients, options);
    of_backward.reset();
  } else {
    attention(q, k, v, out_view, options);
    explanation = explain(q, k, v, out_view, options);
    if (request.weights) attention_weights(q, k, lse_view, weights.view(), options);
    if (request.grad) attention_backward(q, k, v, out_view, backward.dout, lse_view, backward.gradients, options);
  }

  StateDict results{{"out", out}, {"lse", lse}};
  if (request.weights) results.emplace("weights", weights);
  results.merge(backward.results);
  file.save([&](const std::string& path) { save_safetensors(path, results); });

  const std::string path = explanation ? explanation->path : "reference, float64";
  if (request.common.json) {
    nlohmann::ordered_json summary{{"out", request.out}, {"path", path}, {"isa", nullptr}};
    if (explanation) {
      summary["isa"] = explanation->isa;
      summary.update(explained(*explanation));
    }
    if (of_backward) {
      summary["backward"] = {{"path", of_backward->path}, {"isa", of_backward->isa}};
      summary["backward"].update(explained(*of_backward));
    }
    for (const auto& [name, tensor] : results) summary["tensors"][name] = describe(tensor);
    print_json(summary);
    return;
  }
  std::string text = describe_text(results) + " in " + file.shown() + " (" + path;
  if (of_backward) text += "; " + of_backward->path;
  if (explanation) text += ", " + explanation->isa;
  std::string details;
  for (const std::optional<Explanation>* e : {&explanation, &of_backward}) {
    if (request.explain && *e) details += (*e)->to_string() + "\n";
  }
  file.report(text + ")\n", details);
}

}  // namespace

void add_attend(CLI::App& app) {
  auto request = std::make_shared<Attend>();
  CLI::App* verb = app.add_subcommand("attend", "Attention on the tensors of a safetensors file");
  verb->add_option(
          "IN", request->in,
          "safetensors with q [B,Hq,Tq,D], k [B,Hkv,Tk,D], v [B,Hkv,Tk,Dv] of F32, BF16 or F16 (k and v also I8 "
          "with k_scales and v_scales [B,Hkv,Tk]); and where present page_table [B,N] (k and v then are "
          "[pages,Hkv,page size,D]), allowed (BOOL, true = attend) or ignored (BOOL, true = ignore), bias, "
          "key_starts [B], key_lengths [B], offsets [B], q_documents [B,Tq] with k_documents [B,Tk], alibi_slopes "
          "[Hq], sinks [Hq]; with --grad also dout (the axes of out) and, where the loss reads lse, dlse "
          "(those of lse)")
      ->required();
  verb->add_option(
          "-o,--out", request->out,
          "safetensors to write, - for standard output: out, and lse [B,Hq,Tq] (F32); with --grad also dq, dk, dv, and "
          "dbias, dsinks, dalibi_slopes where the input has a bias, sinks, slopes")
      ->required();
  verb->add_option("--layout", request->layout, "Axes of q, k, v, out and their gradients: bhtd (default) or bthd")
      ->check(CLI::IsMember({"bhtd", "bthd"}))
      ->type_name("NAME");
  verb->add_flag("--cu-seqlens", request->cu_seqlens,
                 "Packed sequences: q [Tq,Hq,D], k [Tk,Hkv,D], v [Tk,Hkv,Dv], with cu_seqlens_q and cu_seqlens_k [B+1] "
                 "(with page_table only q is packed); out is [Tq,Hq,Dv], lse [Hq,Tq]");
  verb->add_option("--causal", request->causal,
                   "Only keys up to the diagonal, which starts top-left or ends bottom-right; windows and ALiBi count "
                   "from the same diagonal")
      ->check(CLI::IsMember({"top-left", "bottom-right"}))
      ->type_name("CORNER");
  verb->add_option("--align", request->align,
                   "Where the diagonal that windows and ALiBi count from starts or ends, without --causal; default: "
                   "top-left")
      ->check(CLI::IsMember({"top-left", "bottom-right"}))
      ->type_name("CORNER");
  verb->add_option("--window", request->window, "Keys from L before to R behind the diagonal; -1 is no bound")
      ->type_name("L,R");
  verb->add_option("--softcap", request->softcap, "Scores become X tanh(score / X); 0 is off")
      ->transform(finite_number())
      ->type_name("X");
  add_dropout(*verb, request->dropout);
  verb->add_option("--scale", request->scale, "Factor of the scores; default 1/sqrt(D)")
      ->transform(finite_number())
      ->type_name("X");
  verb->add_option("--out-dtype", request->out_dtype,
                   "Type of out and the gradients: f32, bf16 or f16; default: that of q, and each input's")
      ->check(CLI::IsMember({"f32", "bf16", "f16"}))
      ->type_name("TYPE");
  verb->add_flag("--weights", request->weights, "Also write weights [B,Hq,Tq,Tk] (F32)");
  verb->add_flag(
      "--grad", request->grad,
      "Also write the gradients of a loss from dout, its gradient by out. Keys in pages and of I8 have none");
  CLI::Option* reference = verb->add_flag("--reference", request->reference, "Compute the float64 definition instead");
  verb->add_flag(
          "--int8-products", request->int8_products,
          "With I8 keys and values, round queries and weights to bytes too and multiply integers: faster, coarser")
      ->excludes(reference);
  verb->add_flag("--explain", request->explain,
                 "Also print how the call and its backward ran: path, query blocks and KV splits");
  add_bits(*verb, request->common)->excludes(reference);
  add_common(*verb, request->common);
  verb->footer("Example: manyheads attend qkv.safetensors -o out.safetensors --causal top-left --weights");
  verb->callback([request] { run(*request); });
}

}  // namespace manyheads::cli
