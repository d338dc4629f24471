#include "lens/picture.hpp"

#include <algorithm>
#include <manyheads/error.hpp>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "base/format.hpp"
#include "lens/trace_check.hpp"

namespace manyheads::lens {
namespace {

// Makes the sums of `rows` that are not known yet.
void fill_row_sums(const Trace& trace, const PictureRequest& request, Tensor& sums, const Threads& threads) {
  float* const to = sums.as<float>();
  std::int64_t begin = request.rows.begin, end = request.rows.end;
  while (begin < end && to[begin] != 0.0f) ++begin;
  while (begin < end && to[end - 1] != 0.0f) --end;
  if (begin == end) return;
  const std::vector<float> found = row_sums(trace, request.layer, request.head, {begin, end}, threads);
  std::copy(found.begin(), found.end(), to + begin);
}

}  // namespace

std::optional<Picture> make_picture(const Trace& trace, const PictureRequest& request, const PictureOptions& options) {
  check_head("make_picture", trace, request.layer, request.head);
  check_ranges("make_picture", trace, request.rows, request.keys);
  if (request.rows.size() == 0 || request.keys.size() == 0 || request.size < 1) {
    throw Error(ErrorCode::kInvalidArgument,
                base::format("make_picture: {} cells along a side of queries {} to {} and keys {} to {}", request.size,
                             request.rows.begin, request.rows.end, request.keys.begin, request.keys.end));
  }
  Picture picture;
  picture.of = request;
  const bool whole = request.rows.size() == trace.num_queries() && request.keys.size() == trace.num_keys();
  picture.side = (std::max(request.rows.size(), request.keys.size()) - 1) / request.size + 1;
  picture.pool = picture.side == 1 ? "exact" : request.pool == Pool::kMax ? "max" : "mean";
  Tensor own;
  Tensor* sums = options.row_sums;
  if (sums == nullptr) {
    own = Tensor(DType::kF32, {trace.num_queries()});
    std::fill_n(own.as<float>(), own.elements(), 0.0f);
    sums = &own;
  }
  const bool from_pyramid = whole && picture.side > 64;
  if (from_pyramid || (whole && request.tracks)) {
    std::optional<HeadMap> made =
        map_head(trace, request.layer, request.head, {.progress = options.progress, .threads = options.threads});
    if (!made) return std::nullopt;
    std::copy(made->row_sum.begin(), made->row_sum.end(), sums->as<float>());
    if (request.tracks) picture.tracks = std::move(made->tracks);
    if (from_pyramid) {
      std::size_t level = 0;
      while (made->levels[level].side < picture.side) ++level;
      picture.side = made->levels[level].side;
      picture.weights = request.pool == Pool::kMax ? made->levels[level].max : made->levels[level].mean;
      return picture;
    }
  } else {
    fill_row_sums(trace, request, *sums, options.threads);
  }
  const PatchOptions patch_options{.row_sum = sums->view(), .threads = options.threads};
  if (picture.side == 1) {
    picture.weights = Tensor(DType::kF32, {request.rows.size(), request.keys.size()});
    patch(trace, request.layer, request.head, request.rows, request.keys, picture.weights.view(), patch_options);
  } else {
    picture.weights = pooled_patch(trace, request.layer, request.head, request.rows, request.keys, picture.side,
                                   request.pool, patch_options);
  }
  return picture;
}

void add_picture(const Trace& trace, const Picture& picture, StateDict& tensors,
                 std::map<std::string, std::string>& metadata) {
  const PictureRequest& of = picture.of;
  tensors["weights"] = picture.weights;
  metadata["model"] = trace.model;
  metadata["layer"] = std::to_string(of.layer);
  metadata["head"] = std::to_string(of.head);
  metadata["rows"] = base::format("[{}, {}]", of.rows.begin, of.rows.end);
  metadata["keys"] = base::format("[{}, {}]", of.keys.begin, of.keys.end);
  metadata["pool"] = picture.pool;
  metadata["exact"] = "true";  // every row was divided by its own sum
  metadata["bound"] = "0";
  metadata["cell"] = std::to_string(picture.side);
  if (picture.tracks) add_tracks(*picture.tracks, tensors, metadata);
}

void add_tracks(const Tracks& tracks, StateDict& tensors, std::map<std::string, std::string>& metadata) {
  const auto doubles = [](const std::vector<double>& values) {
    Tensor tensor(DType::kF64, {static_cast<std::int64_t>(values.size())});
    std::copy(values.begin(), values.end(), tensor.as<double>());
    return tensor;
  };
  tensors["column_mass"] = doubles(tracks.column_mass);
  tensors["entropy"] = doubles(tracks.entropy);
  tensors["distance_mass"] = doubles(tracks.distance_mass);
  tensors["top_weights"] = tracks.top_weights;
  tensors["top_keys"] = tracks.top_keys;
  metadata["first_distance"] = std::to_string(tracks.first_distance);
  metadata["distance_mean"] = nlohmann::ordered_json(tracks.distance_mean).dump();
  metadata["distance_variance"] = nlohmann::ordered_json(tracks.distance_variance).dump();
}

}  // namespace manyheads::lens
