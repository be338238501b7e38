#include "lamina/format/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <chrono>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include "lamina/format/format_test.h"

namespace lamina::gguf {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr uint32_t kString = 8, kArray = 9;

std::string text(std::string_view value) {
  std::string bytes;
  append<uint64_t>(bytes, value.size());
  return bytes.append(value);
}

template <class... Numbers>
std::string numbers(Numbers... values) {
  std::string bytes;
  (append(bytes, values), ...);
  return bytes;
}

// A metadata pair: key, type, and the bytes of its value.
std::string pair_of(std::string_view key, uint32_t type, std::string_view value) {
  return text(key) + numbers(type).append(value);
}

std::string array_of(uint32_t element, uint64_t count, std::string_view items) {
  return pair_of("x.array", kArray, numbers(element, count).append(items));
}

struct Tensor {
  std::string name = "t";
  std::vector<uint64_t> sizes = {8};  // as in the file: innermost first
  uint32_t type = 0;                  // F32
  uint64_t offset = 0;
};

std::string info_of(const Tensor& tensor) {
  std::string bytes = text(tensor.name) + numbers(static_cast<uint32_t>(tensor.sizes.size()));
  for (const uint64_t size : tensor.sizes) append(bytes, size);
  return bytes + numbers(tensor.type, tensor.offset);
}

struct Parts {
  std::string_view magic = "GGUF";
  uint32_t version = 3;
  std::vector<std::string> pairs = {};
  std::vector<Tensor> tensors = {};
  size_t data_bytes = 0;
  uint64_t alignment = 32;
};

std::string file_of(const Parts& parts) {
  std::string bytes(parts.magic);
  bytes += numbers(parts.version, uint64_t{parts.tensors.size()}, uint64_t{parts.pairs.size()});
  for (const std::string& pair : parts.pairs) bytes += pair;
  for (const Tensor& tensor : parts.tensors) bytes += info_of(tensor);
  bytes.resize((bytes.size() + parts.alignment - 1) / parts.alignment * parts.alignment, '\0');
  return bytes.append(parts.data_bytes, '\x2A');
}

std::string with_pair(std::string pair) {
  return file_of({.pairs = {std::move(pair)}});
}
std::string with_tensor(Tensor tensor, size_t data_bytes = 32) {
  return file_of({.tensors = {std::move(tensor)}, .data_bytes = data_bytes});
}
// The start of a file with counts that may lie.
std::string with_counts(uint64_t tensors, uint64_t pairs, std::string_view rest = "") {
  return "GGUF" + numbers(uint32_t{3}, tensors, pairs).append(rest);
}
std::string with_alignment(uint32_t type, std::string_view value) {
  return with_pair(pair_of("general.alignment", type, value));
}

File parsed(std::string_view bytes) {
  return parse(as_bytes(bytes), "m.gguf");
}

struct Malformed {
  std::string name;
  std::string bytes;
  std::string says;
};

std::vector<Malformed> malformed_files() {
  const std::string good = with_tensor({});
  const std::string rank_lie = "GGUF" + numbers(uint32_t{3}, uint64_t{1}, uint64_t{0}) + text("t");
  return {
      // The file and its counts.
      {"empty", "", "is empty"},
      {"only the magic", "GGUF", "was cut off"},
      {"half a magic", "GG", "does not begin with \"GGUF\""},
      {"other magic", file_of({.magic = "GGML"}), "does not begin with \"GGUF\""},
      {"magic reversed", file_of({.magic = "FUGG"}), "does not begin with \"GGUF\""},
      {"git-LFS pointer", "version https://git-lfs.github.com/spec/v1\n", "git-LFS pointer"},
      {"HTML", "<!doctype html><html>", "HTML page"},
      {"zip", std::string("PK\x03\x04\0\0", 6), "zip archive"},
      {"version 0", file_of({.version = 0}), "version 0"},
      {"version 1", file_of({.version = 1}), "version 1"},
      {"version 4", file_of({.version = 4}), "version 4"},
      {"big endian, version 3", file_of({.version = 0x03000000}), "big-endian"},
      {"big endian, version 2", file_of({.version = 0x02000000}), "big-endian"},
      {"2^63 tensors", with_counts(uint64_t{1} << 63, 0), "9223372036854775808 tensors"},
      {"2^64-1 tensors", with_counts(~uint64_t{0}, 0), "tensors"},
      {"2^63 pairs", with_counts(0, uint64_t{1} << 63), "metadata pairs"},
      {"2^64-1 pairs", with_counts(0, ~uint64_t{0}), "metadata pairs"},
      {"one pair too many", with_counts(0, 1), "metadata pairs"},
      {"one tensor too many", with_counts(1, 0), "tensors"},
      {"more tensors than fit", with_counts(5, 0, std::string(95, '\0')), "5 tensors"},
      // Metadata.
      {"key longer than the file", with_counts(0, 1, numbers(uint64_t{1000}) + std::string(20, 'a')),
       "bytes of text"},
      {"key of 2^64-1 bytes", with_counts(0, 1, numbers(~uint64_t{0}) + std::string(20, 'a')),
       "bytes of text"},
      {"empty key", with_pair(pair_of("", 0, "1")), "name is empty"},
      {"key with control characters", with_pair(pair_of("a\x1b[2J", 0, "1")), "control characters"},
      {"key not UTF-8", with_pair(pair_of("a\xff", 0, "1")), "not UTF-8"},
      {"key very long", with_pair(pair_of(std::string(5000, 'k'), 0, "1")), "has 5000 bytes"},
      {"duplicate key",
       file_of({.pairs = {pair_of("a", 0, "1"), pair_of("b", 0, "1"), pair_of("a", 0, "1")}}),
       "\"a\" stands twice"},
      {"type 13", with_pair(pair_of("a", 13, std::string(16, '\0'))), "type number 13"},
      {"type 2^32-1", with_pair(pair_of("a", ~uint32_t{0}, std::string(16, '\0'))), "type number 4294967295"},
      {"bool 2", with_pair(pair_of("a", 7, "\x02")), "0 or 1"},
      {"u64 above 2^63-1", with_pair(pair_of("a", 10, numbers(uint64_t{1} << 63))), "above 2^63-1"},
      {"text longer than the file", with_pair(pair_of("a", kString, numbers(uint64_t{1} << 40))),
       "bytes of text"},
      {"text of 2^64-1 bytes", with_pair(pair_of("a", kString, numbers(~uint64_t{0}))), "bytes of text"},
      {"value cut off", with_counts(0, 1, pair_of("abcd", 10, "1234")), "was cut off"},
      {"array of arrays", with_pair(array_of(kArray, 1, numbers(uint32_t{0}, uint64_t{1}))),
       "array of arrays"},
      {"empty array of arrays", with_pair(array_of(kArray, 0, "")), "array of arrays"},
      {"array of unknown type", with_pair(array_of(13, 1, "11111111")), "type number 13"},
      {"array of 2^63 items", with_pair(array_of(0, uint64_t{1} << 63, "1")), "elements of an array"},
      {"array of 2^61 items of 8 bytes", with_pair(array_of(10, uint64_t{1} << 61, "1")),
       "elements of an array"},
      {"array of 2^64-1 texts", with_pair(array_of(kString, ~uint64_t{0}, "")), "elements of an array"},
      {"array one item too long", with_counts(0, 1, array_of(0, 4, "123")), "elements of an array"},
      {"array of bools with a 7", with_pair(array_of(7, 2, "\x01\x07")), "0 or 1"},
      {"array of u64 above 2^63-1", with_pair(array_of(10, 1, numbers(~uint64_t{0}))), "above 2^63-1"},
      {"array of texts, one too long",
       with_counts(0, 1, array_of(kString, 2, text("ab") + numbers(uint64_t{7}) + "123456")),
       "bytes of text"},
      // The alignment.
      {"alignment 0", with_alignment(4, numbers(uint32_t{0})), "power of two"},
      {"alignment 3", with_alignment(4, numbers(uint32_t{3})), "power of two"},
      {"alignment 2^21", with_alignment(4, numbers(uint32_t{1} << 21)), "power of two"},
      {"alignment 2^30", with_alignment(4, numbers(uint32_t{1} << 30)), "power of two"},
      {"alignment 2^32-1", with_alignment(4, numbers(~uint32_t{0})), "power of two"},
      {"alignment of type u64", with_alignment(10, numbers(uint64_t{32})), "uint64 where uint32"},
      {"alignment of type i32", with_alignment(5, numbers(int32_t{32})), "int32 where uint32"},
      {"alignment of type text", with_alignment(kString, text("32")), "string where uint32"},
      // Tensors.
      {"name longer than the file", with_counts(1, 0, numbers(uint64_t{1} << 50) + std::string(30, 'a')),
       "bytes of text"},
      {"empty name", with_tensor({.name = ""}), "name is empty"},
      {"name with newline", with_tensor({.name = "a\nb"}), "control characters"},
      {"name with NUL", with_tensor({.name = std::string("a\0b", 3)}), "control characters"},
      {"name not UTF-8", with_tensor({.name = "\xc0\xaf"}), "not UTF-8"},
      {"name ..", with_tensor({.name = "../x"}), "climbs out"},
      {"name very long", with_tensor({.name = std::string(5000, 'n')}), "has 5000 bytes"},
      {"duplicate tensor",
       file_of({.tensors = {{.name = "a"}, {.name = "a", .offset = 32}}, .data_bytes = 64}),
       "\"a\" stands twice"},
      {"5 axes", with_tensor({.sizes = {1, 1, 1, 1, 1}}), "has 5 axes"},
      {"2^32-1 axes", rank_lie + numbers(~uint32_t{0}) + std::string(64, '\1'), "has 4294967295 axes"},
      {"size 2^63", with_tensor({.sizes = {uint64_t{1} << 63}}), "above 2^63-1"},
      {"size 2^64-1", with_tensor({.sizes = {~uint64_t{0}}}), "above 2^63-1"},
      {"elements overflow", with_tensor({.sizes = {uint64_t{1} << 32, uint64_t{1} << 32}}), "more elements"},
      {"elements overflow to 4", with_tensor({.sizes = {4, (uint64_t{1} << 62) + 1}}), "more elements"},
      {"elements overflow beside a zero", with_tensor({.sizes = {0, uint64_t{1} << 32, uint64_t{1} << 32}}),
       "more elements"},
      {"bytes overflow", with_tensor({.sizes = {uint64_t{1} << 62}}), "more bytes"},
      {"type 4, long gone", with_tensor({.type = 4}), "type number 4"},
      {"type 1000", with_tensor({.type = 1000}), "type number 1000"},
      {"type 2^32-1", with_tensor({.type = ~uint32_t{0}}), "type number 4294967295"},
      {"type IQ2_XS", with_tensor({.sizes = {256}, .type = 17}), "IQ2_XS is not supported"},
      {"type MXFP4", with_tensor({.sizes = {32}, .type = 39}), "MXFP4 is not supported"},
      {"row that does not divide into blocks", with_tensor({.sizes = {33}, .type = 3}, 64), "blocks of 32"},
      {"rank 0 of blocks", with_tensor({.sizes = {}, .type = 8}, 64), "blocks of 32"},
      {"offset unaligned", with_tensor({.offset = 8}, 64), "not a multiple of the alignment 32"},
      {"offset past the end", with_tensor({.offset = 64}), "needs 32 bytes from 64"},
      {"offset 2^64-32", with_tensor({.offset = ~uint64_t{31}}), "needs 32 bytes from"},
      {"data past the end", with_tensor({.sizes = {9}}), "needs 36 bytes from 0"},
      {"data far past the end", with_tensor({.sizes = {uint64_t{1} << 60}}),
       "needs 4611686018427387904 bytes"},
      {"overlap",
       file_of({.tensors = {{.name = "a", .sizes = {16}}, {.name = "b", .offset = 32}}, .data_bytes = 64}),
       "\"a\" and \"b\" overlap"},
      {"same place", file_of({.tensors = {{.name = "a"}, {.name = "b"}}, .data_bytes = 64}), "overlap"},
      {"data cut off", good.substr(0, good.size() - 1), "was cut off"},
      {"no data", good.substr(0, good.size() - 32), "was cut off"},
  };
}

TEST(GgufParse, RefusesEveryMalformedFile) {
  for (const Malformed& item : malformed_files()) {
    SCOPED_TRACE(item.name);
    const std::string message = refusal([&] { parsed(item.bytes); });
    EXPECT_THAT(message, HasSubstr(item.says));
    EXPECT_THAT(message, StartsWith("m.gguf: "));
  }
}

// One of every kind of value, and two tensors.
std::string rich_file() {
  File file;
  file.metadata = {
      {"general.architecture", make_string("llama")},
      {"a.u8", {Type::u8, int64_t{255}}},
      {"a.i8", {Type::i8, int64_t{-128}}},
      {"a.u16", {Type::u16, int64_t{65535}}},
      {"a.i16", {Type::i16, int64_t{-32768}}},
      {"a.u32", make_u32(4294967295)},
      {"a.i32", {Type::i32, int64_t{-2147483648}}},
      {"a.u64", make_u64(uint64_t{1} << 62)},
      {"a.i64", {Type::i64, std::numeric_limits<int64_t>::min()}},
      {"a.f32", make_f32(0.1F)},
      {"a.f64", {Type::f64, 0.1}},
      {"a.bool", make_bool(true)},
      {"a.texts", make_strings({"", "\xff not UTF-8", "größe"})},
      {"a.i32s", make_i32s({-1, 0, 1})},
      {"a.u32s", make_u32s({})},
      {"a.f32s", make_f32s({0.5, -1.0})},
      {"a.bools", {Type::array, Array{Type::boolean, std::vector<int64_t>{1, 0}}}},
      {"a.f64s", {Type::array, Array{Type::f64, std::vector<double>{1e300}}}},
      {"a.u8s", {Type::array, Array{Type::u8, std::vector<int64_t>{0, 255}}}},
      {"general.alignment", make_u32(64)},
  };
  file.alignment = 64;
  file.tensors = {{.name = "token_embd.weight", .dtype = DType::f16, .shape = {3, 5}},
                  {.name = "blk.0.ffn_up.weight", .dtype = DType::q4_1, .shape = {2, 64}}};
  lay_out(file);
  EXPECT_EQ(file.tensors[1].offset, 64U);
  EXPECT_EQ(file.tensors[1].bytes, 80U);
  return write_header(file) + std::string(64 + 80, '\x2A');
}

TEST(GgufParse, RefusesEveryPrefixOfAFile) {
  const std::string good = rich_file();
  EXPECT_NO_THROW(parsed(good));
  for (size_t size = 0; size < good.size(); ++size) {
    SCOPED_TRACE(size);
    refusal([&] { parsed(good.substr(0, size)); });
  }
}

TEST(GgufParse, SurvivesEveryByteChanged) {
  const std::string good = rich_file();
  for (size_t at = 0; at < good.size(); ++at) {
    for (const char value : {'\x00', '\x01', '\x7F', '\x80', '\xFF'}) {
      std::string bad = good;
      bad[at] = value;
      try {
        parsed(bad);
      } catch (const Error&) {
      }
    }
  }
}

TEST(GgufParse, ReadsEveryKindOfValue) {
  const File file = parsed(rich_file());
  EXPECT_EQ(file.string("general.architecture"), "llama");
  EXPECT_EQ(file.integer("a.u8"), 255);
  EXPECT_EQ(file.integer("a.i8"), -128);
  EXPECT_EQ(file.integer("a.u16"), 65535);
  EXPECT_EQ(file.integer("a.i16"), -32768);
  EXPECT_EQ(file.integer("a.u32"), 4294967295);
  EXPECT_EQ(file.integer("a.i32"), -2147483648);
  EXPECT_EQ(file.integer("a.u64"), int64_t{1} << 62);
  EXPECT_EQ(file.integer("a.i64"), std::numeric_limits<int64_t>::min());
  EXPECT_EQ(file.number_or("a.f32", 0), double{0.1F});
  EXPECT_EQ(file.number_or("a.f64", 0), 0.1);
  EXPECT_EQ(file.number_or("a.u8", 0), 255);
  EXPECT_TRUE(std::get<bool>(file.find("a.bool")->data));
  EXPECT_EQ(file.strings("a.texts"), (std::vector<std::string>{"", "\xff not UTF-8", "größe"}));
  EXPECT_EQ(file.integers("a.i32s"), (std::vector<int64_t>{-1, 0, 1}));
  EXPECT_EQ(file.integers("a.bools"), (std::vector<int64_t>{1, 0}));
  EXPECT_TRUE(file.integers("a.u32s").empty());
  EXPECT_EQ(file.numbers("a.f32s"), (std::vector<double>{0.5, -1.0}));
  EXPECT_EQ(file.alignment, 64U);
  ASSERT_EQ(file.tensors.size(), 2U);
  EXPECT_EQ(file.tensors[0].shape, (Shape{3, 5}));
  EXPECT_EQ(file.tensors[1].dtype, DType::q4_1);
  EXPECT_EQ(file.data_start % 64, 0U);
}

TEST(GgufFile, ReadersNameTheKeyAndBothTypes) {
  const File file = parsed(rich_file());
  EXPECT_EQ(file.integer_or("missing", 7), 7);
  EXPECT_EQ(file.number_or("missing", 7.5), 7.5);
  EXPECT_EQ(file.string_or("missing", "x"), "x");
  EXPECT_EQ(file.find("missing"), nullptr);
  EXPECT_THAT(refusal([&] { file.integer("missing"); }), HasSubstr("has no \"missing\""));
  EXPECT_THAT(refusal([&] { file.string("missing"); }), HasSubstr("has no \"missing\""));
  EXPECT_THAT(refusal([&] { file.strings("missing"); }), HasSubstr("has no \"missing\""));
  EXPECT_THAT(refusal([&] { file.integer("a.f32"); }),
              HasSubstr("\"a.f32\" of type float32 where an integer"));
  EXPECT_THAT(refusal([&] { file.integer_or("a.bool", 0); }), HasSubstr("type bool"));
  EXPECT_THAT(refusal([&] { file.integer("a.i32s"); }), HasSubstr("type array"));
  EXPECT_THAT(refusal([&] { file.number_or("general.architecture", 0); }), HasSubstr("where a number"));
  EXPECT_THAT(refusal([&] { file.string_or("a.u8", ""); }), HasSubstr("where a text"));
  EXPECT_THAT(refusal([&] { file.strings("a.u8"); }), HasSubstr("where an array of texts"));
  // Arrays that everybody knows, with the wrong element type.
  EXPECT_THAT(refusal([&] { file.strings("a.i32s"); }), HasSubstr("array of int32 where an array of texts"));
  EXPECT_THAT(refusal([&] { file.integers("a.texts"); }),
              HasSubstr("array of string where an array of integers"));
  EXPECT_THAT(refusal([&] { file.numbers("a.i32s"); }), HasSubstr("array of int32 where an array of floats"));
}

TEST(GgufParse, AcceptsRankZeroZeroSizesAndVersionTwo) {
  const File scalar = parsed(with_tensor({.sizes = {}}));
  EXPECT_EQ(scalar.tensors[0].shape, Shape{});
  EXPECT_EQ(scalar.tensors[0].bytes, 4U);
  const File none = parsed(with_tensor({.sizes = {0, 7}}, 0));
  EXPECT_EQ(none.tensors[0].shape, (Shape{7, 0}));
  EXPECT_EQ(none.tensors[0].bytes, 0U);
  EXPECT_EQ(parsed(file_of({.version = 2})).version, 2U);
}

TEST(GgufParse, AcceptsTensorsInAnyOrderWithGapsAndBytesAfterThem) {
  const File file = parsed(file_of(
      {.tensors = {{.name = "late", .offset = 128}, {.name = "early", .offset = 32}}, .data_bytes = 1000}));
  EXPECT_EQ(file.tensors[0].name, "late");
  EXPECT_EQ(file.tensors[0].offset, 128U);
}

TEST(GgufParse, AcceptsAFileThatEndsBeforeThePadding) {
  std::string bytes = with_pair(pair_of("a", 0, "1"));
  while (bytes.back() == '\0') bytes.pop_back();
  EXPECT_EQ(parsed(bytes).data_start, 64U);
}

TEST(GgufParse, ShowsThatAModelIsSplit) {
  const File file = parsed(with_pair(pair_of("split.count", 2, numbers(uint16_t{5}))));
  EXPECT_EQ(file.integer_or("split.count", 1), 5);
}

// Counts that lie reach no allocation: a header of a few MB, asking for everything, ends at once.
TEST(GgufParse, HostileCountsCostNoMemory) {
  const std::string zeros(8'000'000, '\0');
  rusage before{}, after{};
  getrusage(RUSAGE_SELF, &before);
  const auto start = std::chrono::steady_clock::now();
  refusal([&] { parsed(with_counts(zeros.size() / 24, 0, zeros)); });
  refusal([&] { parsed(with_counts(0, zeros.size() / 13, zeros)); });
  refusal([&] { parsed(with_counts(0, 1, array_of(kString, 1'000'000, zeros.substr(0, 7'999'900)))); });
  refusal([&] { parsed(with_counts(0, 2, array_of(0, 8'000'000, zeros))); });
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
  getrusage(RUSAGE_SELF, &after);
  EXPECT_LT(after.ru_maxrss - before.ru_maxrss, 400'000) << "kB";
}

TEST(GgufParse, ManyKeysAreReadInLinearTime) {
  std::vector<std::string> pairs;
  for (int i = 0; i < 200'000; ++i) pairs.push_back(pair_of(fmt::format("k{}", i), 0, "1"));
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(parsed(file_of({.pairs = std::move(pairs)})).metadata.size(), 200'000U);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
}

TEST(GgufWrite, LoadThenSaveIsTheIdentity) {
  const std::string bytes = rich_file();
  const File file = parsed(bytes);
  EXPECT_EQ(write_header(file), bytes.substr(0, file.data_start));
}

TEST(GgufWrite, EveryTensorTypeReturns) {
  for (const DType dtype : {DType::f64, DType::f32, DType::f16, DType::bf16, DType::i64, DType::i32,
                            DType::i16, DType::i8, DType::q4_0, DType::q4_1, DType::q5_0, DType::q5_1,
                            DType::q8_0, DType::q2_k, DType::q3_k, DType::q4_k, DType::q5_k, DType::q6_k}) {
    File file;
    file.tensors = {{.name = "t", .dtype = dtype, .shape = {2, 256}}};
    lay_out(file);
    const File back = parsed(write_header(file) + std::string(file.tensors[0].bytes, '\0'));
    EXPECT_EQ(back.tensors[0].dtype, dtype) << dtype_name(dtype);
    EXPECT_EQ(back.tensors[0].bytes, byte_count(dtype, {2, 256}, "t"));
  }
  for (const DType dtype : {DType::u64, DType::u8, DType::boolean, DType::f8_e4m3}) {
    File file;
    file.tensors = {{.name = "t", .dtype = dtype, .shape = {2}}};
    lay_out(file);
    EXPECT_THAT(refusal([&] { write_header(file); }), HasSubstr("GGUF has no type")) << dtype_name(dtype);
  }
}

TEST(GgufWrite, RefusesMoreThanFourAxes) {
  File file;
  file.tensors = {{.name = "conv", .dtype = DType::f32, .shape = {1, 1, 1, 1, 1}}};
  lay_out(file);
  EXPECT_THAT(refusal([&] { write_header(file); }), HasSubstr("\"conv\" has 5 axes"));
}

// Real files: what a model's own writer wrote comes back byte for byte.
TEST(GgufWrite, RealHeadersReturnByteForByte) {
  const std::filesystem::path data = "../shared/data";
  if (!std::filesystem::exists(data)) GTEST_SKIP() << "needs the shared data folder beside the checkout";
  for (const char* name :
       {"weights/stories260K/stories260K.gguf", "tokenizers/gguf/ggml-vocab-bert-bge.gguf",
        "tokenizers/gguf/ggml-vocab-deepseek-coder.gguf", "tokenizers/gguf/ggml-vocab-refact.gguf",
        "tokenizers/gpt2/ggml-vocab-gpt-2.gguf", "tokenizers/llama-spm/ggml-vocab-llama-spm.gguf"}) {
    SCOPED_TRACE(name);
    const auto mapped = MappedFile::open(data / name);
    const File file = parse(mapped->bytes(), name);
    const std::string header = write_header(file);
    EXPECT_EQ(header.size(), file.data_start);
    // A vocabulary has no tensors, and its file ends before the padding.
    const auto start = as_text(mapped->bytes()).substr(0, header.size());
    EXPECT_TRUE(std::string_view(header).substr(0, start.size()) == start);
    EXPECT_GT(file.strings("tokenizer.ggml.tokens").size(), 100U);
  }
}

}  // namespace
}  // namespace lamina::gguf
