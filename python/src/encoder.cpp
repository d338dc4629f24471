#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <filesystem>
#include <manyheads/attention.hpp>
#include <manyheads/error.hpp>
#include <manyheads/model/encoder.hpp>

#include "arguments.hpp"

namespace manyheads::python {
namespace {

// A run: hidden states, and what every head saw.
struct Run {
  Tensor hidden;
  std::vector<model::LayerHeads> layers;
  double scale = 1;
  bool causal = false;
};

struct PythonEncoder {
  std::shared_ptr<const model::Encoder> encoder;
  std::string folder;
};

// The weights of one head for one entry, [T,T].
nb::object weights_of(const Run& run, std::int64_t layer, std::int64_t head, std::int64_t entry) {
  const auto refuse = [](const char* what, std::int64_t value, std::int64_t count) {
    throw nb::index_error(("EncoderRun.weights: " + std::string(what) + " is " + std::to_string(value) +
                           ", expected 0 to " + std::to_string(count - 1))
                              .c_str());
  };
  const auto layers = static_cast<std::int64_t>(run.layers.size());
  if (layers == 0) throw nb::value_error("EncoderRun.weights: the run kept no heads: call the encoder with heads=True");
  if (layer < 0 || layer >= layers) refuse("layer", layer, layers);
  const model::LayerHeads& of = run.layers[static_cast<std::size_t>(layer)];
  const auto entries = static_cast<std::int64_t>(of.row_starts.size()) - 1;
  if (entry < 0 || entry >= entries) refuse("entry", entry, entries);
  const model::EntryHeads heads = of.entry(entry);
  if (head < 0 || head >= heads.q.size(0)) refuse("head", head, heads.q.size(0));
  // One head as [1,1,T,D].
  const auto one = [](const ConstTensorView& view, std::int64_t at) {
    const char* data = static_cast<const char*>(view.data()) + at * view.stride(0) * 4;
    return view.rank() == 3 ? ConstTensorView(data, view.dtype(), {1, 1, view.size(1), view.size(2)},
                                              {0, 0, view.stride(1), view.stride(2)})
                            : ConstTensorView(data, view.dtype(), {1, 1, view.size(1)}, {0, 0, view.stride(1)});
  };
  const std::int64_t group = heads.q.size(0) / heads.k.size(0), tokens = heads.q.size(1);
  Tensor weights(DType::kF32, {1, 1, tokens, tokens});
  AttentionOptions options;
  options.scale = run.scale;
  if (run.causal) options.mask = mask::causal(Alignment::kTopLeft);
  without_gil([&] {
    attention_weights(one(heads.q, head), one(heads.k, head / group), one(heads.lse, head), weights.view(), options);
  });
  return numpy_of(weights, true).attr("reshape")(tokens, tokens);
}

}  // namespace

void bind_encoder(nb::module_& module) {
  using nb::literals::operator""_a;
  nb::class_<Run>(module, "EncoderRun", "What an encoder gave: hidden states, and the weights of any head.")
      .def_prop_ro(
          "hidden", [](const Run& run) { return numpy_of(run.hidden, true); },
          "The last hidden states, float32 [B,T,E]; rows behind a length are 0.")
      .def("weights", weights_of, "layer"_a, "head"_a, "entry"_a = 0,
           "The weights of a head for one entry, float32 [T,T], rebuilt from its q, k and lse.");
  nb::class_<PythonEncoder>(module, "Encoder",
                            R"(An encoder from a folder as the hub lays it out (config.json, model.safetensors): BERT,
RoBERTa, DistilBERT, or a decoder of the Llama family.

dtype: what the projections keep their weights as, 'float32' or 'bfloat16'.

    encoder = mh.Encoder("models/all-MiniLM-L6-v2")
    run = encoder([[101, 4937, 102]], heads=True)
    run.hidden.shape, run.weights(layer=2, head=8).shape)")
      .def(
          "__init__",
          [](PythonEncoder* self, const std::filesystem::path& folder, const std::string& dtype) {
            if (dtype != "float32" && dtype != "bfloat16") {
              throw nb::value_error(("Encoder: dtype is '" + dtype + "', expected 'float32' or 'bfloat16'").c_str());
            }
            std::shared_ptr<const model::Encoder> encoder;
            without_gil(
                [&] { encoder = model::load_encoder(folder, dtype == "bfloat16" ? DType::kBF16 : DType::kF32); });
            new (self) PythonEncoder{std::move(encoder), folder.string()};
          },
          "folder"_a, nb::kw_only(), "dtype"_a = "float32")
      .def(
          "__call__",
          [](const PythonEncoder& self, const std::vector<std::vector<std::int64_t>>& ids,
             const std::vector<std::vector<std::int64_t>>& type_ids, bool heads, int num_threads,
             const std::string& bits) {
            Run run;
            run.scale = self.encoder->config().scale;
            run.causal = self.encoder->config().causal;
            model::EncoderOptions options;
            if (heads) options.layers = &run.layers;
            options.threads.num_threads = num_threads;
            options.bits = bits;
            without_gil([&] { run.hidden = self.encoder->run(model::TokenBatch::from_rows(ids, type_ids), options); });
            return run;
          },
          "ids"_a, "type_ids"_a = std::vector<std::vector<std::int64_t>>{}, nb::kw_only(), "heads"_a = false,
          "num_threads"_a = 0, "bits"_a = "",
          "Runs rows of token ids, which may differ in length. heads=True keeps q, k and lse of every head.")
      .def_ro("folder", &PythonEncoder::folder, "Where it came from.")
      .def_prop_ro(
          "num_layers", [](const PythonEncoder& self) { return self.encoder->config().num_layers; },
          "The number of layers.")
      .def_prop_ro(
          "num_heads", [](const PythonEncoder& self) { return self.encoder->config().num_heads; },
          "The heads of a layer.")
      .def_prop_ro(
          "hidden_size", [](const PythonEncoder& self) { return self.encoder->config().hidden_size; },
          "E, the width of the hidden states.")
      .def_prop_ro(
          "max_tokens", [](const PythonEncoder& self) { return self.encoder->config().max_position_embeddings; },
          "The most tokens of a row.");
}

}  // namespace manyheads::python
