#include <filesystem>

#include "adapter.hpp"

#ifdef MANYHEADS_BITS_MODEL
#include <manyheads/model/text_model.hpp>

namespace bits {
namespace {

namespace mh = manyheads;

Array array_of(const mh::ConstTensorView& view) {
  Array array{.type = Type::kF32, .shape = {}, .strides = {}, .memory = {}};
  std::int64_t extent = 1;
  for (int i = 0; i < view.rank(); ++i) {
    array.shape.push_back(view.size(i));
    array.strides.push_back(view.stride(i));
    extent += (view.size(i) - 1) * view.stride(i);
  }
  const auto* from = static_cast<const unsigned char*>(view.data());
  array.memory = std::make_shared<std::vector<unsigned char>>(from, from + extent * 4);
  return array;
}

}  // namespace

bool has_model() { return std::filesystem::exists(MANYHEADS_BITS_MODEL "/config.json"); }

std::vector<Answers> model_texts(const std::string& bits) {
  std::vector<Answers> list;
  for (const mh::DType weights : {mh::DType::kF32, mh::DType::kBF16}) {
    const bool bf16 = weights == mh::DType::kBF16;
    if (bf16 && !bits.empty()) continue;
    const mh::model::TextModel model(MANYHEADS_BITS_MODEL, weights);
    Answers texts{bf16 ? "model/minilm-bf16" : "model/minilm", bf16 ? "bf16" : "f32", {}};
    for (const char* text :
         {"The black cat sat on the mat.", "a", "Zwölf Boxkämpfer jagen Viktor quer über den großen Deich.",
          "Attention is a weighted mean of values; the weights come from queries and keys."}) {
      const mh::model::Encoding encoding = model.encode(text);
      std::vector<mh::model::LayerHeads> layers;
      mh::model::EncoderOptions options;
      options.bits = bits;
      options.layers = &layers;
      const mh::Tensor hidden =
          model.encoder().run(mh::model::TokenBatch::from_rows({encoding.ids}, {encoding.type_ids}), options);
      texts.results.push_back(array_of(hidden.view()));
      for (const mh::model::LayerHeads& layer : layers) {
        const mh::model::EntryHeads heads = layer.entry();
        for (const mh::ConstTensorView& of : {heads.q, heads.k, heads.v, heads.lse})
          texts.results.push_back(array_of(of));
      }
    }
    list.push_back(std::move(texts));
  }
  return list;
}

}  // namespace bits

#else
namespace bits {
bool has_model() { return false; }
std::vector<Answers> model_texts(const std::string&) { return {}; }
}  // namespace bits
#endif
