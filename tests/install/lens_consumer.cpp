// Opens a model folder with the installed lens, reads its heads, and keeps a trace. Ends with 0 when all is as it
// should be.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string>

#include <manyheads/error.hpp>
#include <manyheads/lens/links.hpp>
#include <manyheads/lens/read_heads.hpp>
#include <manyheads/lens/roles.hpp>
#include <manyheads/lens/trace.hpp>
#include <manyheads/model/pooling.hpp>
#include <manyheads/model/text_model.hpp>

using namespace manyheads;

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: lens_consumer MODEL TRACE\n");
    return 2;
  }
  const std::string text = "the cat sat";
  const model::TextModel text_model(argv[1]);
  const model::Encoding encoding = text_model.encode(text);
  const model::Encoder& encoder = text_model.encoder();

  const auto batch = model::TokenBatch::from_rows({encoding.ids}, {encoding.type_ids});
  const Tensor sentence = model::pool(encoder.run(batch).cview(), batch.lengths, model::load_pooling(argv[1]));
  const bool embeds = sentence.size(1) == encoder.config().hidden_size;

  lens::save_trace(argv[2], lens::make_trace(encoder, encoding, "a model", text));
  const lens::Trace trace = lens::load_trace(argv[2]);
  Tensor weights(DType::kF32, {trace.num_queries(), trace.num_keys()});
  lens::trace_weights(trace, 0, 0, weights.view());
  double sum = 0;
  for (std::int64_t key = 0; key < trace.num_keys(); ++key) sum += static_cast<double>(weights.as<float>()[key]);
  const bool traces = std::fabs(sum - 1) < 1e-6;

  const auto words = lens::words_of(trace);
  const lens::Link link{lens::find_word(words, "cat"), lens::find_word(words, "sat")};
  const auto heads = lens::read_heads(trace, words, {link}, 1);
  const auto best = lens::rank_heads(heads, {link}).front().best;
  const std::int64_t count = encoder.config().num_layers * encoder.config().num_heads;
  const bool reads = static_cast<std::int64_t>(heads.size()) == count && best.size() == heads.size() &&
                     heads.front().scores.scores.size() == lens::score_rules().size();

  bool refuses = false;
  try {
    lens::find_word(words, "dog");
  } catch (const Error& error) {
    refuses = error.code() == ErrorCode::kInvalidArgument;
  }
  std::printf("lens_consumer: embedding %s, trace %s, heads %s, error %s\n", embeds ? "right" : "wrong",
              traces ? "right" : "wrong", reads ? "right" : "wrong", refuses ? "raised" : "missed");
  return embeds && traces && reads && refuses ? 0 : 1;
}
