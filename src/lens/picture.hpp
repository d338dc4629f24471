#pragma once

#include <cstdint>
#include <functional>
#include <manyheads/lens/head_map.hpp>
#include <manyheads/lens/patch.hpp>
#include <manyheads/lens/trace.hpp>
#include <manyheads/tensor.hpp>
#include <map>
#include <optional>
#include <string>

// One head's weights, or a part of them, in at most so many cells: the numbers of a picture.
namespace manyheads::lens {

struct PictureRequest {
  std::size_t layer = 0;
  std::int64_t head = 0;
  Range rows, keys;
  Pool pool = Pool::kMean;
  std::int64_t size = 512;  // the most cells along a side
  bool tracks = false;      // of a whole head: its tracks too
};

struct Picture {
  PictureRequest of;
  std::int64_t side = 1;  // of a cell; the rows and keys of one make it exact
  std::string pool;       // exact, mean or max
  Tensor weights;         // [cells of rows, cells of keys] F32
  std::optional<Tracks> tracks;
};

struct PictureOptions {
  // The head's own sums [Tq] F32, each 0 until it is known: what the picture needs is made and put there.
  Tensor* row_sums = nullptr;
  // Called with the share that is done of a whole head. False cancels.
  std::function<bool(double)> progress{};
  Threads threads{};
};

// Empty where progress cancelled it. Throws Error as patch, pooled_patch and map_head do.
std::optional<Picture> make_picture(const Trace& trace, const PictureRequest& request,
                                    const PictureOptions& options = {});

// As a safetensors file has it.
void add_picture(const Trace& trace, const Picture& picture, StateDict& tensors,
                 std::map<std::string, std::string>& metadata);
void add_tracks(const Tracks& tracks, StateDict& tensors, std::map<std::string, std::string>& metadata);

}  // namespace manyheads::lens
