// manyheads for bench/peers/peers.py: reads a request a line and answers a line, "ok ..." or "error ...".
//
//   prepare attention FOLDER f32|bf16|f16 B H T D full|causal W inputs q, k, v; W keys that a query sees, 0: all
//   prepare training FOLDER f32|bf16|f16 B H T D full|causal W  the same, and dout; out is dq, dk and dv
//   prepare decode FOLDER f32|bf16|f16 HQ HKV KEYS D COPIES     the same; every run takes the next copy of k and v
//   prepare linear FOLDER f32|bf16 IN OUT ROWS                inputs x, bias of F32 and weight, which keeps its type
//   prepare layer FOLDER B T D_MODEL HEADS                    inputs x and the state_dict's tensors
//   prepare layertraining FOLDER B T D_MODEL HEADS            the same and dy; out is dx and the gradients in the order
//   of
//                     the tensors above. A run packs the weights first, as after a step
//   prepare bert FOLDER f32|bf16 B T MODEL                    input ids; the type is the weights'
//   prepare prefill FOLDER f32|bf16 T MODEL               input ids; the last hidden state of all tokens
//   prepare generate FOLDER f32|bf16 B KEYS MODEL         input ids [B,KEYS + 1]; a run decodes one token of each
//   sequence
//                     behind KEYS in a cache of the weights' type, and its logits
//   prepare trace FOLDER f32|bf16 T MODEL                 input ids; a run writes a trace of the forward to FOLDER
//   time SECONDS      seconds a run of the case prepared last, over enough runs to fill SECONDS
//   limit f32|bf16|f16|memory    GFLOP/s of multiply-adds; bf16: of F32 ones, of its dot product or of tiles, whichever
//                     is fastest; memory: GB/s of reading it
//   isa               the instruction set in use
//   bits NAME         the family of bits of F32 calls from now on, "-": the instruction set's own
//
// Tensors are files of FOLDER, bare; prepare runs the case once and writes `out` there.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <iostream>
#include <manyheads/attention.hpp>
#include <manyheads/attention_backward.hpp>
#include <manyheads/cpu.hpp>
#include <manyheads/error.hpp>
#include <manyheads/lens/trace.hpp>
#include <manyheads/model/decoder.hpp>
#include <manyheads/model/encoder.hpp>
#include <manyheads/multi_head_attention.hpp>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "bench/cases/sampling.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/isa/roofline_probe.hpp"
#include "kernels/roofline.hpp"
#include "layer/linear.hpp"

namespace {

using manyheads::Dims;
using manyheads::DType;
using manyheads::Tensor;

[[noreturn]] void refuse(const std::string& message) {
  throw manyheads::Error(manyheads::ErrorCode::kInvalidArgument, message);
}

std::size_t bytes_of(const Tensor& tensor) {
  return static_cast<std::size_t>(tensor.elements()) * manyheads::size_of(tensor.dtype());
}

Tensor read(const std::string& path, DType type, const Dims& shape) {
  Tensor tensor(type, shape);
  std::ifstream file(path, std::ios::binary);
  const std::size_t bytes = bytes_of(tensor);
  if (!file.read(static_cast<char*>(tensor.view().data()), static_cast<std::streamsize>(bytes)) ||
      file.peek() != std::ifstream::traits_type::eof()) {
    refuse(path + " does not hold " + std::to_string(bytes) + " bytes");
  }
  return tensor;
}

void write(const std::string& path, const Tensor& tensor) {
  std::ofstream file(path, std::ios::binary);
  file.write(static_cast<const char*>(tensor.bytes()), static_cast<std::streamsize>(bytes_of(tensor)));
  if (!file.flush()) refuse("cannot write " + path);
}

template <class T>
T next(std::istream& words) {
  T value;
  if (!(words >> value)) refuse("a word is missing or is not a number");
  return value;
}

// One run of a case; returns its output.
using Run = std::function<Tensor()>;

DType next_type(std::istream& words) {
  const auto name = next<std::string>(words);
  if (name == "f32") return DType::kF32;
  if (name == "bf16") return DType::kBF16;
  if (name != "f16") refuse("unknown type " + name);
  return DType::kF16;
}

// A call on q, k and v of one shape.
struct AttentionWork {
  DType type;
  Dims shape{0, 0, 0, 0};
  Tensor q, k, v, out;
  std::shared_ptr<manyheads::Workspace> workspace = std::make_shared<manyheads::Workspace>();
  manyheads::AttentionOptions options;

  AttentionWork(std::istream& words, const std::string& folder, int threads) : type(next_type(words)) {
    for (int i = 0; i < 4; ++i) shape[i] = next<std::int64_t>(words);
    const auto mode = next<std::string>(words);
    if (mode != "full" && mode != "causal") refuse("unknown mode " + mode);
    const auto window = next<std::int64_t>(words);
    q = read(folder + "/q", type, shape);
    k = read(folder + "/k", type, shape);
    v = read(folder + "/v", type, shape);
    out = Tensor(type, shape);
    if (mode == "causal") options.mask = manyheads::mask::causal();
    if (window > 0) options.mask = options.mask | manyheads::mask::window(window - 1, 0);
    options.threads.num_threads = threads;
    options.workspace = workspace.get();
  }
  void attend() { manyheads::attention(q.view(), k.view(), v.view(), out.view(), options); }
};

Run prepare_attention(std::istream& words, const std::string& folder, int threads) {
  return [work = AttentionWork(words, folder, threads)]() mutable {
    work.attend();
    return work.out;
  };
}

Run prepare_training(std::istream& words, const std::string& folder, int threads) {
  AttentionWork work(words, folder, threads);
  const Dims shape = work.shape;
  const Tensor dout = read(folder + "/dout", work.type, shape);
  Tensor lse(DType::kF32, {shape[0], shape[1], shape[2]}),
      results(work.type, {3, shape[0], shape[1], shape[2], shape[3]});
  const manyheads::TensorView of_lse = lse.view();
  work.options.lse = of_lse;
  manyheads::AttentionGradients gradients;
  manyheads::TensorView* const all[] = {&gradients.dq, &gradients.dk, &gradients.dv};
  for (std::size_t i = 0; i < 3; ++i) {
    *all[i] = {static_cast<char*>(results.view().data()) + i * bytes_of(dout), work.type, shape};
  }
  return [=]() mutable {
    work.attend();
    manyheads::attention_backward(work.q.view(), work.k.view(), work.v.view(), work.out.view(), dout.view(),
                                  lse.cview(), gradients, work.options);
    return results;
  };
}

Run prepare_decode(std::istream& words, const std::string& folder, int threads) {
  const DType type = next_type(words);
  const auto heads = next<std::int64_t>(words), kv_heads = next<std::int64_t>(words);
  const auto keys = next<std::int64_t>(words), d = next<std::int64_t>(words), copies = next<std::int64_t>(words);
  const Dims one{1, kv_heads, keys, d};
  const Tensor q = read(folder + "/q", type, {1, heads, 1, d});
  const auto copied = [&](const char* name) {
    const Tensor first = read(folder + "/" + name, type, one);
    Tensor all(type, {copies, kv_heads, keys, d});
    for (std::int64_t i = 0; i < copies; ++i) {
      std::memcpy(static_cast<char*>(all.view().data()) + static_cast<std::size_t>(i) * bytes_of(first), first.bytes(),
                  bytes_of(first));
    }
    return all;
  };
  const Tensor k = copied("k"), v = copied("v");
  const auto workspace = std::make_shared<manyheads::Workspace>();
  Tensor out(type, q.shape());
  return [=, turn = std::int64_t{0}]() mutable {
    const std::size_t at = static_cast<std::size_t>(turn++ % copies) * (bytes_of(k) / static_cast<std::size_t>(copies));
    const auto copy = [&](const Tensor& all) {
      return manyheads::ConstTensorView(static_cast<const char*>(all.bytes()) + at, type, one);
    };
    manyheads::AttentionOptions options;
    options.threads.num_threads = threads;
    options.workspace = workspace.get();
    manyheads::attention(q.view(), copy(k), copy(v), out.view(), options);
    return out;
  };
}

// A layer and its input.
struct LayerWork {
  Dims shape{0, 0, 0};
  std::shared_ptr<manyheads::MultiHeadAttention> layer;
  manyheads::StateDict state;
  std::vector<std::string> names{"in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"};
  Tensor x, y;
  std::shared_ptr<manyheads::Workspace> workspace = std::make_shared<manyheads::Workspace>();
  manyheads::MultiHeadAttentionOptions options;

  LayerWork(std::istream& words, const std::string& folder, int threads) {
    shape[0] = next<std::int64_t>(words);
    shape[1] = next<std::int64_t>(words);
    manyheads::MultiHeadAttentionConfig config;
    config.d_model = shape[2] = next<std::int64_t>(words);
    config.num_heads = next<std::int64_t>(words);
    layer = std::make_shared<manyheads::MultiHeadAttention>(config);
    for (const std::string& name : names) {
      state[name] = read(folder + "/" + name, DType::kF32, layer->state_dict().at(name).shape());
    }
    layer->load_state_dict(state);
    x = read(folder + "/x", DType::kF32, shape);
    y = Tensor(DType::kF32, shape);
    options.threads.num_threads = threads;
    options.workspace = workspace.get();
  }
};

Run prepare_layer(std::istream& words, const std::string& folder, int threads) {
  return [work = LayerWork(words, folder, threads)]() mutable {
    work.layer->forward(work.x.view(), work.y.view(), work.options);
    return work.y;
  };
}

Run prepare_layer_training(std::istream& words, const std::string& folder, int threads) {
  LayerWork work(words, folder, threads);
  const Tensor dy = read(folder + "/dy", DType::kF32, work.shape);
  std::int64_t count = work.x.elements() + work.layer->parameter_count(), at = 0;
  Tensor all(DType::kF32, {count});
  manyheads::MultiHeadAttentionGradients gradients;
  const auto take = [&](const Tensor& of) {
    const manyheads::TensorView view(all.as<float>() + at, DType::kF32, of.shape());
    at += of.elements();
    return view;
  };
  gradients.dquery = take(work.x);
  for (const std::string& name : work.names) gradients.parameters[name] = take(work.state.at(name));
  return [=, kept = manyheads::MultiHeadAttentionActivations()]() mutable {
    work.layer->load_state_dict(work.state);
    work.options.activations = &kept;
    work.layer->forward(work.x.view(), work.y.view(), work.options);
    work.layer->backward(work.x.view(), kept, dy.view(), gradients, work.options);
    return all;
  };
}

Run prepare_linear(std::istream& words, const std::string& folder, int threads) {
  const DType type = next_type(words);
  const auto in = next<std::int64_t>(words), out = next<std::int64_t>(words), rows = next<std::int64_t>(words);
  const Tensor x = read(folder + "/x", DType::kF32, {rows, in}), weight = read(folder + "/weight", type, {out, in}),
               bias = read(folder + "/bias", DType::kF32, {out});
  const auto linear = std::make_shared<const manyheads::layer::Linear>(weight.cview(), bias.cview(), type);
  manyheads::Threads workers;
  workers.num_threads = threads;
  const auto workspace =
      std::make_shared<manyheads::base::AlignedBuffer<float>>(linear->workspace_floats(rows, workers) + 1);
  Tensor y(DType::kF32, {rows, out});
  return [=]() mutable {
    linear->run(x.as<float>(), rows, in, y.as<float>(), out, manyheads::layer::Activation::kNone, workers,
                workspace->data());
    return y;
  };
}

Run prepare_bert(std::istream& words, const std::string& folder, int threads) {
  const DType weights = next_type(words);
  manyheads::model::TokenBatch input;
  input.batch = next<std::int64_t>(words);
  input.tokens = next<std::int64_t>(words);
  std::string model;
  std::getline(words >> std::ws, model);  // a path may hold spaces
  const Tensor ids = read(folder + "/ids", DType::kI64, {input.batch, input.tokens});
  input.ids.assign(ids.as<std::int64_t>(), ids.as<std::int64_t>() + ids.elements());
  const std::shared_ptr<const manyheads::model::Encoder> encoder = manyheads::model::load_encoder(model, weights);
  const auto workspace = std::make_shared<manyheads::Workspace>();
  return [=] {
    manyheads::model::EncoderOptions options;
    options.threads.num_threads = threads;
    options.workspace = workspace.get();
    return encoder->run(input, options);
  };
}

// A decoder and the ids [rows,tokens] it reads.
struct DecoderWork {
  std::shared_ptr<const manyheads::model::Decoder> decoder;
  Tensor ids;
  std::shared_ptr<manyheads::Workspace> workspace = std::make_shared<manyheads::Workspace>();
  DType weights = DType::kF32;
  int threads = 1;

  DecoderWork(std::istream& words, const std::string& folder, std::int64_t more, int count) : threads(count) {
    weights = next_type(words);
    const auto rows = more > 0 ? next<std::int64_t>(words) : 1;
    const auto tokens = next<std::int64_t>(words) + more;
    std::string model;
    std::getline(words >> std::ws, model);
    ids = read(folder + "/ids", DType::kI64, {rows, tokens});
    decoder = manyheads::model::load_decoder(model, weights);
  }
  std::span<const std::int64_t> row(std::int64_t r) const {
    const auto tokens = static_cast<std::size_t>(ids.size(1));
    return {ids.as<std::int64_t>() + static_cast<std::size_t>(r) * tokens, tokens};
  }
  manyheads::model::EncoderOptions options() const {
    manyheads::model::EncoderOptions options;
    options.threads.num_threads = threads;
    options.workspace = workspace.get();
    return options;
  }
};

manyheads::model::TokenBatch one_row(const DecoderWork& work) {
  const auto row = work.row(0);
  return manyheads::model::TokenBatch::from_rows({{row.begin(), row.end()}});
}

Run prepare_prefill(std::istream& words, const std::string& folder, int threads) {
  const DecoderWork work(words, folder, 0, threads);
  return [=] { return work.decoder->run(one_row(work), work.options()); };
}

Run prepare_generate(std::istream& words, const std::string& folder, int threads) {
  const DecoderWork work(words, folder, 1, threads);
  const auto cache = std::make_shared<manyheads::model::DecoderCache>(
      work.decoder->config(), manyheads::model::DecoderCacheOptions{.dtype = work.weights});
  std::vector<manyheads::model::DecoderChunk> chunks;
  const auto keys = static_cast<std::size_t>(work.ids.size(1)) - 1;
  for (std::int64_t r = 0; r < work.ids.size(0); ++r) {
    manyheads::model::DecoderChunk chunk{cache->add(), work.row(r).first(keys)};
    work.decoder->extend(*cache, {&chunk, 1}, work.options());
    chunk.ids = work.row(r).last(1);
    chunks.push_back(chunk);
  }
  return [=] {
    for (const auto& chunk : chunks) cache->truncate(chunk.sequence, static_cast<std::int64_t>(keys));
    const Tensor hidden = work.decoder->extend(*cache, chunks, work.options());
    return work.decoder->logits(hidden.cview(), work.options().threads);
  };
}

Run prepare_trace(std::istream& words, const std::string& folder, int threads) {
  const DecoderWork work(words, folder, 0, threads);
  manyheads::model::Encoding encoding;
  encoding.ids.assign(work.row(0).begin(), work.row(0).end());
  const std::size_t tokens = encoding.ids.size();
  encoding.type_ids.assign(tokens, 0);
  encoding.tokens.assign(tokens, "x");
  encoding.words.resize(tokens);
  encoding.sequences.assign(tokens, 0);
  encoding.special.assign(tokens, false);
  for (std::size_t t = 0; t < tokens; ++t) {
    encoding.offsets.push_back({static_cast<std::int64_t>(t), static_cast<std::int64_t>(t) + 1});
  }
  const std::string text(tokens, 'x');
  return [=] {
    manyheads::lens::TraceOptions options;
    options.threads.num_threads = threads;
    manyheads::lens::save_trace(folder + "/trace.safetensors",
                                manyheads::lens::make_trace(*work.decoder, encoding, "smollm2", text, options));
    return Tensor(DType::kF32, {1});
  };
}

Run prepare(std::istream& words, int threads) {
  const auto kind = next<std::string>(words);
  const auto folder = next<std::string>(words);
  Run run;
  if (kind == "attention") {
    run = prepare_attention(words, folder, threads);
  } else if (kind == "training") {
    run = prepare_training(words, folder, threads);
  } else if (kind == "decode") {
    run = prepare_decode(words, folder, threads);
  } else if (kind == "layer") {
    run = prepare_layer(words, folder, threads);
  } else if (kind == "layertraining") {
    run = prepare_layer_training(words, folder, threads);
  } else if (kind == "linear") {
    run = prepare_linear(words, folder, threads);
  } else if (kind == "bert") {
    run = prepare_bert(words, folder, threads);
  } else if (kind == "prefill") {
    run = prepare_prefill(words, folder, threads);
  } else if (kind == "generate") {
    run = prepare_generate(words, folder, threads);
  } else if (kind == "trace") {
    run = prepare_trace(words, folder, threads);
  } else {
    refuse("unknown case " + kind);
  }
  write(folder + "/out", run());
  return run;
}

// Of memory what it reads; else the rate of F32 multiply-adds and, for bf16, of its dot product or of tiles where one
// is faster: which it is depends on the machine. Taken for as long as what it is compared to: both see the same share
// of a busy machine.
double limit(manyheads::kernels::Roofline& limits, const std::string& type, int threads) {
  const manyheads::kernels::KernelTable& table = manyheads::kernels::active_table();
  if (type == "memory") return limits.memory(table, threads);
  double most = limits.arithmetic(table.probes.fma, threads, 0.02);
  if (type != "bf16") return most;
  for (const auto work : {manyheads::kernels::bf16_dot_probe(), manyheads::kernels::amx_tile_probe()}) {
    if (work != nullptr) most = std::max(most, limits.arithmetic(work, threads, 0.02));
  }
  return most;
}

double seconds_a_run(const Run& run, double least) {
  const auto sample = [&](int runs) {
    const double begin = manyheads::bench::seconds_now();
    for (int i = 0; i < runs; ++i) run();
    return (manyheads::bench::seconds_now() - begin) / runs;
  };
  const double one = sample(1);
  return sample(static_cast<int>(std::clamp(least / std::max(one, 1e-7), 1.0, 1e6)));
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc == 2 ? std::atoi(argv[1]) : 0;
  if (threads < 1) {
    std::fprintf(stderr, "usage: peers_ours THREADS\n");
    return 2;
  }
  manyheads::kernels::Roofline limits;
  Run run;
  std::optional<manyheads::kernels::TableScope> family;
  std::string line;
  while (std::getline(std::cin, line)) {
    try {
      std::istringstream words(line);
      const auto verb = next<std::string>(words);
      std::ostringstream answer;
      answer.precision(9);
      if (verb == "prepare") {
        run = prepare(words, threads);
        answer << "prepared";
      } else if (verb == "time") {
        if (!run) refuse("nothing is prepared");
        answer << seconds_a_run(run, next<double>(words));
      } else if (verb == "limit") {
        answer << limit(limits, next<std::string>(words), threads);
      } else if (verb == "isa") {
        answer << manyheads::active_isa();
      } else if (verb == "bits") {
        const auto name = next<std::string>(words);
        run = nullptr;  // its workspace is the other family's
        family.reset();
        if (name != "-") {
          family.emplace(manyheads::kernels::table_with("peers_ours", name, manyheads::kernels::Products::kF32));
        }
        answer << manyheads::active_bits();
      } else {
        refuse("unknown request " + verb);
      }
      std::cout << "ok " << answer.str() << std::endl;
    } catch (const std::exception& error) {
      std::cout << "error " << error.what() << std::endl;
    }
  }
}
