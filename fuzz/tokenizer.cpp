// Tokenizer files. The input: a tokenizer.json and, behind a zero byte, a text for it.
#include "model/tokenizer.hpp"

#include "base/utf8.hpp"
#include "harness.hpp"
#include "model/text_stream.hpp"

using namespace manyheads;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  static const fuzz::Folder folder;
  const std::vector<std::string> parts = fuzz::split({reinterpret_cast<const char*>(bytes), size}, 2);
  const auto path = folder.write("tokenizer.json", parts[0]);
  fuzz::taken([&] {
    const model::Tokenizer tokenizer(path);
    for (const bool pair : {false, true}) {
      const model::Encoding e = pair ? tokenizer.encode_pair(parts[1], "a b") : tokenizer.encode(parts[1]);
      fuzz::require(e.type_ids.size() == e.size() && e.tokens.size() == e.size() && e.offsets.size() == e.size() &&
                        e.words.size() == e.size() && e.sequences.size() == e.size() && e.special.size() == e.size(),
                    "lists of different lengths");
      for (std::size_t i = 0; i < e.size(); ++i) {
        const std::size_t own = e.sequences[i] == 1 ? 3 : parts[1].size();
        fuzz::require(0 <= e.offsets[i][0] && e.offsets[i][0] <= e.offsets[i][1] &&
                          (e.special[i] || e.offsets[i][1] <= static_cast<std::int64_t>(own)),
                      "offsets outside the text");
        fuzz::require(e.sequences[i] >= -1 && e.sequences[i] <= (pair ? 1 : 0), "a text that is not there");
      }
      std::string streamed;
      model::TextStream stream(tokenizer);
      for (const std::int64_t id : e.ids) streamed += stream.push(id);
      streamed += stream.finish();
      fuzz::require(base::is_utf8(streamed) && base::is_utf8(tokenizer.decode(e.ids, pair)), "text that is no UTF-8");
    }
  });
  return 0;
}
