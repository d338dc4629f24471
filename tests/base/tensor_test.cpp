#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <limits>
#include <manyheads/error.hpp>
#include <manyheads/tensor.hpp>
#include <manyheads/version.hpp>
#include <string>
#include <vector>

#include "attention/call.hpp"
#include "base/checked.hpp"

namespace manyheads::test {
namespace {

constexpr std::int64_t kLargest = std::numeric_limits<std::int64_t>::max();

TEST(Tensors, DimsHoldUpToEightSizes) {
  const Dims eight{1, 2, 3, 4, 5, 6, 7, 8};
  EXPECT_EQ(eight.rank(), 8);
  EXPECT_EQ(eight[7], 8);
  EXPECT_EQ(eight.to_string(), "[1,2,3,4,5,6,7,8]");
  EXPECT_EQ(Dims{}.to_string(), "[]");
  EXPECT_TRUE((Dims{1, 2} == Dims{1, 2}));
  EXPECT_FALSE((Dims{1, 2} == Dims{1, 2, 1}));
  EXPECT_FALSE((Dims{1, 2} == Dims{1, 3}));
  EXPECT_EQ(error_of([] { Dims{1, 2, 3, 4, 5, 6, 7, 8, 9}; }), "a tensor of 9 dimensions: at most 8 are taken");
  const std::vector<std::int64_t> many(1000, 1);
  EXPECT_TRUE(contains(error_of([&] { Dims(std::span<const std::int64_t>(many)); }), "1000 dimensions"));
}

TEST(Tensors, ElementCountIsChecked) {
  EXPECT_EQ(element_count({}), 1);
  EXPECT_EQ(element_count({3, 4, 5}), 60);
  EXPECT_EQ(element_count({3, 0, 5}), 0);
  EXPECT_EQ(element_count({kLargest}), kLargest);
  EXPECT_EQ(element_count({std::int64_t{1} << 31, std::int64_t{1} << 31}), std::int64_t{1} << 62);
  for (const Dims& shape : {Dims{kLargest, 2}, Dims{std::int64_t{1} << 32, std::int64_t{1} << 31},
                            Dims{std::int64_t{1} << 32, std::int64_t{1} << 32},  // wraps to 0
                            Dims{0, kLargest, 3}}) {
    EXPECT_EQ(error_of([&] { element_count(shape); }), "shape " + shape.to_string() + " holds more than 2^63 elements");
    EXPECT_TRUE(contains(error_of([&] { contiguous_strides(shape); }), "holds more than 2^63 elements"));
    float x = 0;
    EXPECT_TRUE(contains(error_of([&] { ConstTensorView(&x, shape); }), "holds more than 2^63 elements"));
    EXPECT_TRUE(contains(error_of([&] { Tensor(DType::kBool, shape); }), "holds more than 2^63 elements"));
  }
  EXPECT_EQ(error_of([] { element_count({2, -1}); }), "shape [2,-1] has a negative size");
}

TEST(Tensors, Strides) {
  EXPECT_TRUE((contiguous_strides({2, 3, 4}) == Dims{12, 4, 1}));
  EXPECT_TRUE((contiguous_strides({2, 0, 4}) == Dims{4, 4, 1}));
  EXPECT_TRUE((contiguous_strides({}) == Dims{}));
}

TEST(Tensors, ViewsSayWhetherTheyAreContiguous) {
  std::vector<float> data(24);
  EXPECT_TRUE(ConstTensorView(data.data(), Dims{2, 3, 4}).contiguous());
  EXPECT_TRUE(ConstTensorView(data.data(), Dims{2, 3, 4}, Dims{12, 4, 1}).contiguous());
  EXPECT_TRUE(ConstTensorView(data.data(), Dims{1, 3, 4}, Dims{-7, 4, 1}).contiguous());
  EXPECT_TRUE(ConstTensorView(data.data(), Dims{2, 0, 4}, Dims{9, 9, 9}).contiguous());
  EXPECT_FALSE(ConstTensorView(data.data(), Dims{2, 3, 4}, Dims{12, 1, 3}).contiguous());
  EXPECT_FALSE(ConstTensorView(data.data(), Dims{2, 2, 4}, Dims{12, 4, 1}).contiguous());
  EXPECT_FALSE(ConstTensorView(data.data() + 23, Dims{24}, Dims{-1}).contiguous());
}

TEST(Tensors, ViewsThatCannotBe) {
  float x = 0;
  EXPECT_EQ(error_of([&] {
              ConstTensorView(&x, Dims{1, 1}, Dims{1});
            }),
            "a view of shape [1,1] with strides [1]: one stride for each dimension is needed");
  EXPECT_EQ(error_of([] { ConstTensorView(nullptr, DType::kF32, Dims{2}); }), "a view of shape [2] on a null pointer");
  EXPECT_EQ(error_of([] { ConstTensorView(nullptr, DType::kF32, Dims{2, 0}); }), "no error");
  EXPECT_FALSE(ConstTensorView().defined());
  EXPECT_TRUE(ConstTensorView(nullptr, DType::kF32, Dims{0}).defined());
}

// Nothing steps along an axis of one element, nor anywhere in an empty view.
TEST(Tensors, AStrideThatIsNeverTakenMayBeAnything) {
  float x[4] = {1, 2, 3, 4};
  constexpr std::int64_t kLowest = std::numeric_limits<std::int64_t>::min();
  for (const std::int64_t stride : {kLargest, kLowest, kLowest + 1, kLargest / 8, std::int64_t{1} << 60}) {
    const ConstTensorView first(x, Dims{1, 4}, Dims{stride, 1}), last(x, Dims{4, 1}, Dims{1, stride});
    EXPECT_TRUE(first.contiguous());
    EXPECT_TRUE(last.contiguous());
    EXPECT_EQ(element(first, {0, 3}), 4.0);
    EXPECT_EQ(element(last, {3, 0}), 4.0);
    const ConstTensorView empty(x, Dims{0, 3, 5}, Dims{stride, stride, stride});
    EXPECT_TRUE(empty.contiguous());
    for (const ConstTensorView& view : {first, last, empty}) {
      for (int axis = 0; axis < view.rank(); ++axis) {  // far from where products with sizes wrap
        EXPECT_LE(std::abs(view.stride(axis)), std::int64_t{1} << 60);
      }
    }
    EXPECT_TRUE(contains(error_of([&] { ConstTensorView(x, Dims{2, 2}, Dims{stride, 1}); }), "beyond the address space"));
  }
  // Those that are distances in memory are kept.
  EXPECT_TRUE((ConstTensorView(x, Dims{1, 4}, Dims{-7, 1}).strides() == Dims{-7, 1}));
  EXPECT_TRUE((ConstTensorView(x, Dims{0, 4}, Dims{9, 2}).strides() == Dims{9, 2}));
}

TEST(Tensors, OwnZeroFilledAlignedMemoryThatCopiesShare) {
  Tensor a(DType::kF32, {3, 5});
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(a.bytes()) % 64, 0u);
  for (int i = 0; i < 15; ++i) EXPECT_EQ(a.as<float>()[i], 0.0f);
  const Tensor b = a;
  a.as<float>()[4] = 2.0f;
  EXPECT_EQ(b.as<float>()[4], 2.0f);
  EXPECT_EQ(b.elements(), 15);
  EXPECT_TRUE(b.defined());
  EXPECT_FALSE(Tensor().defined());
  Tensor empty(DType::kI64, {0, 7});
  EXPECT_EQ(empty.elements(), 0);
  EXPECT_TRUE(empty.defined());
}

TEST(Tensors, WhatMemoryCannotHoldIsOutOfMemory) {
  EXPECT_TRUE(contains(error_of([] { Tensor(DType::kF64, {std::int64_t{1} << 61}); }, ErrorCode::kOutOfMemory),
                       "larger than memory"));
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "a sanitizer ends the program where memory runs out";
#endif
  EXPECT_NE(error_of([] { Tensor(DType::kF32, {std::int64_t{1} << 59}); }, ErrorCode::kOutOfMemory), "no error");
}

TEST(Tensors, AMappedOneIsReadOnlyAndKeepsItsOwner) {
  auto owner = std::make_shared<std::vector<float>>(4, 1.5f);
  const float* data = owner->data();
  std::weak_ptr<std::vector<float>> watch = owner;
  Tensor tensor(std::move(owner), data, DType::kF32, {4});
  EXPECT_TRUE(contains(error_of([&] { tensor.view(); }), "read-only"));
  EXPECT_EQ(static_cast<const float*>(tensor.cview().data())[3], 1.5f);
  tensor = Tensor();
  EXPECT_TRUE(watch.expired());
}

TEST(Tensors, TypesHaveASizeAndAName) {
  struct Row {
    DType type;
    std::size_t size;
    const char* name;
  };
  for (const Row& row : {Row{DType::kF32, 4, "F32"}, Row{DType::kBF16, 2, "BF16"}, Row{DType::kF16, 2, "F16"},
                         Row{DType::kF64, 8, "F64"}, Row{DType::kBool, 1, "BOOL"}, Row{DType::kU8, 1, "U8"},
                         Row{DType::kI8, 1, "I8"}, Row{DType::kI32, 4, "I32"}, Row{DType::kI64, 8, "I64"}}) {
    EXPECT_EQ(size_of(row.type), row.size);
    EXPECT_STREQ(name_of(row.type), row.name);
  }
}

TEST(Tensors, ElementsAreOfTheTensorsOwnType) {
  Tensor tensor(DType::kBF16, {2, 3});
  EXPECT_EQ(tensor.as<bfloat16>()[5].bits, 0);
  EXPECT_EQ(error_of([&] { tensor.as<float>(); }), "Tensor::as: the tensor is BF16 [2,3], not F32");
  const Tensor& read_only = tensor;
  EXPECT_EQ(error_of([&] { read_only.as<std::int64_t>(); }), "Tensor::as: the tensor is BF16 [2,3], not I64");
}

TEST(Tensors, RowsOfTokensAsAttentionTakesThem) {
  Tensor tensor(DType::kF32, {2, 5, 3, 4});  // [B,T,H,D]
  const TensorView heads = from_bthd(tensor.view());
  EXPECT_EQ(heads.shape(), (Dims{2, 3, 5, 4}));
  EXPECT_EQ(heads.strides(), (Dims{60, 4, 12, 1}));
  EXPECT_EQ(heads.data(), tensor.view().data());
  EXPECT_EQ(from_bthd(tensor.cview()).strides(), heads.strides());
  EXPECT_EQ(error_of([&] { from_bthd(ConstTensorView(tensor.as<float>(), {2, 3})); }),
            "from_bthd: the tensor is [2,3], expected [B,T,H,D]");
}

TEST(Version, IsThatOfTheHeaders) {
  EXPECT_EQ(version(), std::to_string(MANYHEADS_VERSION_MAJOR) + "." + std::to_string(MANYHEADS_VERSION_MINOR) + "." +
                           std::to_string(MANYHEADS_VERSION_PATCH));
}

TEST(Checked, ReportsOverflow) {
  std::int64_t out = 0;
  EXPECT_TRUE(base::multiply(3, -4, &out));
  EXPECT_EQ(out, -12);
  EXPECT_FALSE(base::multiply(kLargest, 2, &out));
  EXPECT_TRUE(base::add(kLargest, -1, &out));
  EXPECT_FALSE(base::add(kLargest, 1, &out));
}

}  // namespace
}  // namespace manyheads::test
