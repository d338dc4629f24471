#include "text_trace.hpp"

#include "text.hpp"

namespace manyheads::cli {

TextTrace trace_text(const TextRequest& request, const Common& common) {
  check_text("TEXT", request.text);
  if (request.pair) check_text("--pair", *request.pair);
  check_model(request.model);
  const model::TextModel model(request.model);
  const EncodedText encoded = encode_text(model, "TEXT", request.text, request.pair, request.truncate);
  lens::TraceOptions options;
  options.text2 = request.pair;
  options.threads.num_threads = common.threads;
  options.bits = common.bits;
  return {lens::make_trace(model.encoder(), encoded.encoding, model_name(request.model), request.text, options),
          encoded.full_size};
}

}  // namespace manyheads::cli
