#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <iterator>
#include <manyheads/safetensors.hpp>

#include "allocations.hpp"
#include "io/malformed.hpp"
#include "support.hpp"

namespace manyheads::io {
namespace {

namespace fs = std::filesystem;
using test::Malformed;
using test::TemporaryFolder;

std::string little_endian(std::uint64_t value) {
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &value, 8);
  return bytes;
}

std::string file_of(const std::string& header, const std::string& data) {
  return little_endian(header.size()) + header + data;
}

std::string entry(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return "{\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}";
}

std::string read_bytes(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::string error_of(const std::function<void()>& work) { return test::error_of(work, std::nullopt); }

template <class T>
Tensor tensor_of(Dims shape, const std::vector<T>& values) {
  Tensor tensor(dtype_of<T>::value, shape);
  std::copy(values.begin(), values.end(), tensor.as<T>());
  return tensor;
}

struct Type {
  const char* name;
  int bits;
};
constexpr Type kTypes[] = {{"BOOL", 8},    {"U8", 8},      {"I8", 8},          {"I16", 16},        {"U16", 16},
                           {"F16", 16},    {"BF16", 16},   {"I32", 32},        {"U32", 32},        {"F32", 32},
                           {"C64", 64},    {"F64", 64},    {"I64", 64},        {"U64", 64},        {"F8_E4M3", 8},
                           {"F8_E5M2", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"F6_E2M3", 6},
                           {"F6_E3M2", 6}, {"F4", 4}};

std::vector<Malformed> malformed_files() {
  std::vector<Malformed> cases;
  const std::string zeros(64, '\0');
  const auto with_header = [&](const std::string& header, const std::string& expected, std::size_t data = 8) {
    cases.push_back({file_of(header, std::string(data, '\0')), expected});
  };
  const auto with_entry = [&](const std::string& value, const std::string& expected) {
    with_header("{\"a\":" + value + "}", expected);
  };

  // Cut at every byte: in the size, in the header, in the data.
  const std::string header = "{\"a\":" + entry("F32", "[2]", "[0,8]") + "}";
  const std::string whole = file_of(header, std::string(8, '\0'));
  for (std::size_t size = 0; size < whole.size(); ++size) {
    const std::string expected = size < 8                   ? std::to_string(size) + " bytes are too short"
                                 : size < 8 + header.size() ? "truncated: the header claims"
                                                            : "data ends at byte 8";
    cases.push_back({whole.substr(0, size), expected});
  }
  // The header cut at every byte, and its size told as it is.
  for (std::size_t size = 0; size < header.size(); ++size) {
    with_header(header.substr(0, size), size == 0 ? "empty" : "not JSON");
  }

  const auto with_size = [&](std::uint64_t size, const std::string& expected) {
    cases.push_back({little_endian(size) + header + std::string(8, '\0'), expected});
  };
  with_size(header.size() + 1, "not JSON");
  with_size(header.size() - 1, "not JSON");
  with_size(header.size() + 9, "truncated");
  with_size(100'000'000, "truncated: the header claims 100000000 bytes");
  with_size(100'000'001, "at most 100000000");
  with_size(std::uint64_t{1} << 32, "at most 100000000");
  with_size(std::uint64_t{1} << 63, "at most 100000000");
  with_size(~std::uint64_t{0}, "at most 100000000");
  with_size(~std::uint64_t{0} - 7, "at most 100000000");
  cases.push_back({"PK\x03\x04 this is a zip", "not a safetensors file"});

  for (const char* top : {"[]", "\"x\"", "1", "null", "true", "-0.5"}) with_header(top, "must be a JSON object");
  for (const char* value : {"null", "1", "\"F32\"", "[]", "true"}) with_entry(value, "must be an object with dtype");
  with_entry("{}", "dtype is missing");
  with_entry("{\"shape\":[2],\"data_offsets\":[0,8]}", "dtype is missing");
  with_entry("{\"dtype\":\"F32\",\"data_offsets\":[0,8]}", "shape is missing");
  with_entry("{\"dtype\":\"F32\",\"shape\":[2]}", "data_offsets is missing");
  for (const char* value : {"null", "1", "[]", "{}", "true", "[\"F32\"]"}) {
    with_entry("{\"dtype\":" + std::string(value) + ",\"shape\":[2],\"data_offsets\":[0,8]}", "dtype must be a string");
  }
  for (const char* name : {"", "f32", "F31", "FLOAT", "F32 ", "float32", "I128", "\xef\xbc\xa6"}) {
    with_entry(entry(name, "[2]", "[0,8]"), "unknown dtype \"" + std::string(name) + "\"");
  }
  with_entry(entry(std::string(10'000, 'F'), "[2]", "[0,8]"), "unknown dtype");
  with_entry(entry("F\\n\\u001b[2J", "[2]", "[0,8]"), "unknown dtype \"F\\u000a\\u001b[2J\"");

  for (const char* value : {"null", "2", "\"2\"", "{}", "true"}) {
    with_entry(entry("F32", value, "[0,8]"), "shape must be an array");
    with_entry(entry("F32", "[2]", value), "data_offsets must be an array");
  }
  for (const char* value : {"-1", "1.5", "\"2\"", "null", "true", "2.0", "2e0", "-0.0"}) {
    with_entry(entry("F32", "[" + std::string(value) + "]", "[0,8]"), "shape must hold whole numbers");
    with_entry(entry("F32", "[2]", "[0," + std::string(value) + "]"), "data_offsets must hold whole numbers");
    with_entry(entry("F32", "[2]", "[" + std::string(value) + ",8]"), "data_offsets must hold whole numbers");
  }
  for (const char* value : {"[2]", "{}"}) {
    const std::string list = "[" + std::string(value) + ",8]";
    with_entry(entry("F32", list, "[0,8]"), "nested deeper than 3");
    with_entry(entry("F32", "[2]", list), "nested deeper than 3");
  }
  for (const char* value : {"9223372036854775808", "18446744073709551615"}) {
    with_entry(entry("F32", "[" + std::string(value) + "]", "[0,8]"), "shape holds a number above 2^63");
    with_entry(entry("F32", "[2]", "[0," + std::string(value) + "]"), "data_offsets holds a number above 2^63");
  }
  const std::string long_text(100'000, '2');
  with_entry(entry("F32", "[\"" + long_text + "\"]", "[0,8]"), "shape must hold whole numbers from 0 on, not a string");
  with_entry(entry("F32", "[2]", "[0,\"" + long_text + "\"]"), "data_offsets must hold whole numbers");
  with_header("{\"" + long_text + "\":1}", "must be an object with dtype");
  with_header("{\"__metadata__\":{\"" + long_text + "\":1}}", "must be a string");
  std::string ones = "1";
  for (int i = 0; i < 10'000; ++i) ones += ",1";
  with_entry(entry("F32", "[" + ones + "]", "[0,8]"), ",1,...] takes 4");
  with_entry(entry("F32", "[2]", "[" + ones + "]"), "data_offsets must hold 2 numbers, not 10001");
  with_entry(entry("F32", "[18446744073709551616]", "[0,8]"), "shape must hold whole numbers");
  for (const char* shape : {"[4294967296,4294967296]", "[4611686018427387904,4]", "[9223372036854775807]",
                            "[0,4611686018427387904,4611686018427387904]", "[2305843009213693952]",
                            "[65536,65536,65536,65536,65536,65536,65536,65536]"}) {
    with_entry(entry("F32", shape, "[0,8]"), "shape is larger than any file");
  }
  with_entry(entry("F32", "[288230376151711743]", "[0,1152921504606846972]"), "data ends at byte 1152921504606846972");
  for (const char* offsets : {"[]", "[0]", "[8]", "[0,4,8]", "[0,8,8,8]"}) {
    with_entry(entry("F32", "[2]", offsets), "data_offsets must hold 2 numbers");
  }
  with_entry(entry("F32", "[2]", "[8,0]"), "end before they begin");
  with_entry(entry("F32", "[2]", "[9223372036854775807,0]"), "end before they begin");
  with_entry(entry("F32", "[2]", "[0,9223372036854775807]"), "hold 9223372036854775807 bytes");

  // Every type with a byte too few and a byte too many.
  for (const Type& type : kTypes) {
    const int bytes = 4 * type.bits / 8;
    for (const int wrong : {bytes - 1, bytes + 1}) {
      with_header("{\"a\":" + entry(type.name, "[2,2]", "[0," + std::to_string(wrong) + "]") + "}",
                  "hold " + std::to_string(wrong) + " bytes, " + type.name + " [2,2] takes " + std::to_string(bytes),
                  static_cast<std::size_t>(wrong));
    }
  }
  with_entry(entry("F4", "[3]", "[0,2]"), "does not fill whole bytes");
  with_entry(entry("F6_E2M3", "[2]", "[0,2]"), "does not fill whole bytes");
  with_entry(entry("F6_E3M2", "[5]", "[0,4]"), "does not fill whole bytes");
  with_entry(entry("F32", "[]", "[0,8]"), "F32 [] takes 4");
  with_entry(entry("F32", "[0]", "[0,8]"), "F32 [0] takes 0");

  const auto two = [&](const std::string& a, const std::string& b, std::size_t data, const std::string& expected) {
    with_header("{\"a\":" + entry("U8", "[4]", a) + ",\"b\":" + entry("U8", "[4]", b) + "}", expected, data);
  };
  two("[0,4]", "[5,9]", 9, "tensor \"b\": data from byte 5 leaves a gap");
  two("[5,9]", "[0,4]", 9, "tensor \"a\": data from byte 5 leaves a gap");
  two("[1,5]", "[5,9]", 9, "tensor \"a\": data from byte 1 leaves a gap");
  two("[0,4]", "[0,4]", 4, "overlaps");
  two("[0,4]", "[3,7]", 7, "tensor \"b\": data from byte 3 overlaps");
  two("[3,7]", "[0,4]", 7, "tensor \"a\": data from byte 3 overlaps");
  two("[0,4]", "[4,8]", 9, "1 bytes after the last tensor belong to none");
  two("[0,4]", "[4,8]", 7, "tensor \"b\": data ends at byte 8");
  two("[0,4]", "[4,8]", 0, "tensor \"a\": data ends at byte 4");
  with_header("{}", "1 bytes after the last tensor", 1);
  with_header("{\"__metadata__\":{}}", "8 bytes after the last tensor", 8);
  with_header("{\"a\":" + entry("F32", "[0]", "[4,4]") + "}", "leaves a gap", 4);
  with_header("{\"a\":" + entry("F32", "[0]", "[2,2]") + ",\"b\":" + entry("U8", "[4]", "[0,4]") + "}", "overlaps", 4);

  const std::string good = entry("F32", "[2]", "[0,8]");
  with_header("{\"a\":" + good + ",\"a\":" + good + "}", "\"a\" is there twice");
  with_header("{\"a\":" + good + ",\"\\u0061\":" + good + "}", "\"a\" is there twice");
  with_entry("{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}", "\"dtype\" is there twice");
  with_entry("{\"dtype\":\"F32\",\"shape\":[2],\"shape\":[2],\"data_offsets\":[0,8]}", "\"shape\" is there twice");
  with_entry("{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8],\"data_offsets\":[0,8]}",
             "\"data_offsets\" is there twice");
  with_header("{\"__metadata__\":{},\"__metadata__\":{},\"a\":" + good + "}", "\"__metadata__\" is there twice");
  with_header("{\"__metadata__\":null,\"__metadata__\":null,\"a\":" + good + "}", "\"__metadata__\" is there twice");
  with_header("\xef\xbb\xbf{\"a\":" + good + "}", "must begin with {");
  with_header("\xef\xbb\xbf", "must begin with {");
  with_header("{\"a\":{\"x\":{\"y\":1,\"y\":2},\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}",
              "\"y\" is there twice");
  with_header("{\"a\":{\"x\":{},\"x\":[],\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}",
              "\"x\" is there twice");
  with_header("{\"a\":{\"dtype\":[\"F32\"],\"dtype\":\"F32\"}}", "\"dtype\" is there twice");
  with_header("{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"},\"a\":" + good + "}", "\"k\" is there twice");
  for (const char* value : {"[]", "1", "\"x\"", "false"}) {
    with_header("{\"__metadata__\":" + std::string(value) + ",\"a\":" + good + "}", "must be an object of strings");
  }
  for (const char* value : {"null", "1", "[]", "{}", "true", "1.5"}) {
    with_header("{\"__metadata__\":{\"k\":" + std::string(value) + "},\"a\":" + good + "}",
                "the value of \"k\" must be a string");
  }

  for (const Malformed& json : test::not_json("{\"a\":", "}")) with_header(json.bytes, json.expected);
  with_header("{\"\xff\":" + good + "}", "ill-formed UTF-8");
  with_header("{\"__metadata__\":{\"k\":\"\xc3(\"},\"a\":" + good + "}", "ill-formed UTF-8");
  with_header("{\"__metadata__\":{\"\xfe\":\"\"},\"a\":" + good + "}", "ill-formed UTF-8");

  for (const int byte : {2, 128, 255}) {
    const std::string flag = "{\"a\":" + entry("BOOL", "[3]", "[0,3]") + "}";
    cases.push_back({file_of(flag, {0, 1, static_cast<char>(byte)}), "BOOL holds the byte " + std::to_string(byte)});
  }
  return cases;
}

TEST(Safetensors, MalformedFilesAreRefusedEachInItsOwnWords) {
  test::expect_refused(malformed_files(), "bad.safetensors", 300, [](const fs::path& path) { load_safetensors(path); });
}

TEST(Safetensors, WritesAndReadsBackEveryTypeAndShape) {
  const TemporaryFolder folder;
  StateDict tensors;
  tensors["f32"] = tensor_of<float>({2, 3}, {1, 2, 3, 4, 5, -6.5f});
  tensors["f64"] = tensor_of<double>({1}, {0.1});
  tensors["flags"] = tensor_of<bool>({3}, {true, false, true});
  tensors["u8"] = tensor_of<std::uint8_t>({2}, {7, 255});
  tensors["i8"] = tensor_of<std::int8_t>({1}, {-7});
  tensors["i32"] = tensor_of<std::int32_t>({2}, {-1, 1 << 30});
  tensors["i64"] = tensor_of<std::int64_t>({1, 1}, {std::int64_t{1} << 60});
  tensors["scalar"] = tensor_of<float>({}, {42});
  tensors["empty"] = Tensor(DType::kF16, {3, 0, 2});
  tensors["half"] = Tensor(DType::kBF16, {5});
  tensors["name \"with\" \n quotes \xc3\xa9"] = tensor_of<float>({1}, {1});
  const std::map<std::string, std::string> metadata = {{"format", "pt"}, {"\xc3\xa9", "\"\n"}, {"", ""}};
  const fs::path path = folder.path() / "a.safetensors";
  save_safetensors(path, tensors, metadata);

  const SafetensorsFile file = load_safetensors(path);
  EXPECT_EQ(file.metadata, metadata);
  EXPECT_TRUE(file.unsupported.empty());
  ASSERT_EQ(file.tensors.size(), tensors.size());
  for (const auto& [name, tensor] : tensors) {
    const Tensor& read = file.at(name);
    EXPECT_EQ(read.dtype(), tensor.dtype()) << name;
    ASSERT_EQ(read.shape(), tensor.shape()) << name;
    const std::size_t size = static_cast<std::size_t>(tensor.elements()) * size_of(tensor.dtype());
    EXPECT_TRUE(size == 0 || std::memcmp(read.bytes(), tensor.bytes(), size) == 0) << name;
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(read.bytes()) % size_of(read.dtype()), 0u) << name;
  }

  // The header fills whole words, and the same tensors give the same bytes.
  const std::string bytes = read_bytes(path);
  std::uint64_t header = 0;
  std::memcpy(&header, bytes.data(), 8);
  EXPECT_EQ(header % 8, 0u);
  save_safetensors(path, file.tensors, file.metadata);  // over the file that is mapped
  EXPECT_EQ(read_bytes(path), bytes);
  EXPECT_EQ(file.at("f32").as<float>()[5], -6.5f);
}

TEST(Safetensors, TensorsOutliveTheFile) {
  const TemporaryFolder folder;
  const fs::path path = folder.path() / "a.safetensors";
  save_safetensors(path, {{"a", tensor_of<float>({2}, {1, 2})}});
  const Tensor tensor = load_safetensors(path).at("a");
  fs::remove(path);
  EXPECT_EQ(tensor.as<float>()[1], 2);
}

TEST(Safetensors, TakesLeadingAndTrailingWhiteSpaceAndUnknownKeys) {
  const TemporaryFolder folder;
  const std::string header = " \n\t{\"a\": {\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"more\":1}}  ";
  const SafetensorsFile file = load_safetensors(folder.write("a", file_of(header, std::string(4, '\0'))));
  EXPECT_EQ(file.at("a").as<float>()[0], 0);
}

// As Hugging Face's library reads it.
TEST(Safetensors, MetadataMayBeNull) {
  const TemporaryFolder folder;
  for (const char* header : {"{\"__metadata__\":null,", "{\"__metadata__\" : null ,"}) {
    const std::string whole = header + ("\"a\":" + entry("F32", "[1]", "[0,4]")) + "}";
    const SafetensorsFile file = load_safetensors(folder.write("a", file_of(whole, std::string(4, '\0'))));
    EXPECT_TRUE(file.metadata.empty());
    EXPECT_EQ(file.tensors.size(), 1u);
  }
}

// Values that nobody asks for, of every kind and in any order, leave those beside them alone.
TEST(Safetensors, UnknownKeysOfAnyKind) {
  const TemporaryFolder folder;
  const std::string header =
      "{\"a\":{\"n\":null,\"t\":true,\"i\":-1,\"f\":1.5,\"s\":\"F16\",\"l\":[1,\"F16\",null],\"o\":{\"dtype\":\"F16\","
      "\"shape\":7},\"data_offsets\":[0,8],\"x\":[9],\"shape\":[2],\"y\":[],\"dtype\":\"F32\",\"z\":{}},\"b\":" +
      entry("U8", "[0]", "[8,8]") + "}";
  const SafetensorsFile file = load_safetensors(folder.write("a", file_of(header, std::string(8, '\0'))));
  EXPECT_EQ(file.at("a").shape(), Dims({2}));
  EXPECT_EQ(file.at("a").dtype(), DType::kF32);
  EXPECT_EQ(file.at("b").shape(), Dims({0}));
}

TEST(Safetensors, AHeaderTakesTheMemoryOfItsNames) {
  const TemporaryFolder folder;
  const auto factor = [&](const std::string& header, const std::string& expected) {
    const fs::path path = folder.write("a", file_of(header, ""));
    const std::int64_t bytes = test::most_bytes([&] {
      const std::string error = error_of([&] { load_safetensors(path); });
      EXPECT_NE(error.find(expected), std::string::npos) << error;
    });
    return static_cast<double>(bytes) / static_cast<double>(header.size());
  };
  std::string names = "{", texts = "{\"__metadata__\":{", list = "1";
  for (int i = 0; i < 100'000; ++i) {
    const std::string name = (i > 0 ? ",\"" : "\"") + std::to_string(i) + "\":";
    names += name + entry("U8", "[0]", "[0,0]");
    texts += name + "\"\"";
    list += ",1,1";
  }
  EXPECT_LT(factor(names + "}", "no error"), 8);
  EXPECT_LT(factor(texts + "}}", "no error"), 16);  // two strings and a node of the map for ten characters
  EXPECT_LT(factor("{\"a\":{\"dtype\":[" + list + "]}}", "dtype must be a string"), 1);
  EXPECT_LT(factor("{\"a\":" + entry("U8", "[" + list + "]", "[0,1]") + "}", "data ends at byte 1"), 1);
  EXPECT_LT(factor("{\"a\":" + entry("U8", "[0]", "[" + list + "]") + "}", "must hold 2 numbers"), 1);
}

TEST(Safetensors, CopiesWhatIsNotAligned) {
  const TemporaryFolder folder;
  const std::string header = "{\"a\":" + entry("U8", "[1]", "[0,1]") + ",\"b\":" + entry("F32", "[1]", "[1,5]") + "}";
  const float value = 2.5f;
  std::string data(5, '\x07');
  std::memcpy(data.data() + 1, &value, 4);
  const SafetensorsFile file = load_safetensors(folder.write("a", file_of(header, data)));
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(file.at("b").bytes()) % 4, 0u);
  EXPECT_EQ(file.at("b").as<float>()[0], 2.5f);
  EXPECT_EQ(file.at("a").as<std::uint8_t>()[0], 7);
}

TEST(Safetensors, TypesThatNoTensorHoldsStopOnlyTheirOwnUse) {
  const TemporaryFolder folder;
  std::string header = "{\"good\":" + entry("F32", "[1]", "[0,4]");
  int end = 4;
  const auto add = [&](const std::string& name, const std::string& dtype, const std::string& shape, int bytes) {
    header +=
        ",\"" + name + "\":" + entry(dtype, shape, "[" + std::to_string(end) + "," + std::to_string(end + bytes) + "]");
    end += bytes;
  };
  add("u16", "U16", "[2]", 4);
  add("f8", "F8_E4M3", "[3]", 3);
  add("f4", "F4", "[2]", 1);
  add("deep", "F32", "[1,1,1,1,1,1,1,1,1]", 4);
  const SafetensorsFile file =
      load_safetensors(folder.write("a.st", file_of(header + "}", std::string(static_cast<std::size_t>(end), '\0'))));
  EXPECT_EQ(file.tensors.size(), 1u);
  EXPECT_EQ(file.unsupported.size(), 4u);
  EXPECT_NO_THROW(file.at("good"));
  EXPECT_NE(error_of([&] { file.at("u16"); }).find("a.st\": tensor \"u16\" is U16"), std::string::npos);
  EXPECT_NE(error_of([&] { file.at("deep"); }).find("F32 of rank 9"), std::string::npos);
  EXPECT_NE(error_of([&] { file.at("none"); }).find("tensor \"none\" is missing"), std::string::npos);
}

TEST(Safetensors, RefusesWhatItCannotWrite) {
  const TemporaryFolder folder;
  const fs::path path = folder.path() / "a";
  const Tensor one = tensor_of<float>({1}, {1});
  EXPECT_NE(error_of([&] { save_safetensors(path, {{"a", Tensor()}}); }).find("\"a\" is not defined"),
            std::string::npos);
  EXPECT_NE(error_of([&] { save_safetensors(path, {{"__metadata__", one}}); }).find("cannot be called"),
            std::string::npos);
  EXPECT_NE(error_of([&] { save_safetensors(path, {{"\xff", one}}); }).find("not UTF-8"), std::string::npos);
  EXPECT_NE(error_of([&] { save_safetensors(path, {{"a", one}}, {{"k", "\xff"}}); }).find("not UTF-8"),
            std::string::npos);
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

}  // namespace
}  // namespace manyheads::io
