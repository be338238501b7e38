#include "lamina/format/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <string>
#include <vector>

#include "lamina/base/hash.h"
#include "lamina/format/format_test.h"

namespace lamina::safetensors {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

// A file with the given header, told the truth about its length, and `data_bytes` of data.
std::string file_of(std::string_view json, size_t data_bytes = 0) {
  std::string bytes;
  append<uint64_t>(bytes, json.size());
  bytes += json;
  bytes.append(data_bytes, '\x2A');
  return bytes;
}

std::string with_length(uint64_t length, std::string_view rest = "{}") {
  std::string bytes;
  append(bytes, length);
  return bytes.append(rest);
}

// One tensor "a" of four bytes, with one thing changed.
std::string one_tensor(std::string_view dtype, std::string_view shape, std::string_view offsets) {
  return file_of(fmt::format(R"({{"a":{{"dtype":{},"shape":{},"data_offsets":{}}}}})", dtype, shape, offsets),
                 4);
}

std::string named(std::string_view escaped_name) {
  return file_of(fmt::format(R"({{"{}":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}}})", escaped_name),
                 4);
}

std::string two_tensors(std::string_view first, std::string_view second, size_t data_bytes = 8) {
  return file_of(fmt::format(R"({{"a":{{"dtype":"F32","shape":[1],"data_offsets":{}}},)"
                             R"("b":{{"dtype":"F32","shape":[1],"data_offsets":{}}}}})",
                             first, second),
                 data_bytes);
}

Header parsed(std::string_view bytes) {
  return parse_header(as_bytes(bytes), "m.safetensors");
}

void expect_same(const Header& a, const Header& b) {
  ASSERT_EQ(a.tensors.size(), b.tensors.size());
  for (size_t i = 0; i < a.tensors.size(); ++i) {
    EXPECT_EQ(a.tensors[i].name, b.tensors[i].name);
    EXPECT_EQ(a.tensors[i].dtype, b.tensors[i].dtype);
    EXPECT_EQ(a.tensors[i].shape, b.tensors[i].shape);
    EXPECT_EQ(a.tensors[i].begin, b.tensors[i].begin);
    EXPECT_EQ(a.tensors[i].end, b.tensors[i].end);
  }
  EXPECT_EQ(a.order, b.order);
  EXPECT_EQ(a.metadata, b.metadata);
  EXPECT_EQ(a.metadata_present, b.metadata_present);
}

struct Malformed {
  std::string name;
  std::string bytes;
  std::string says;
};

std::vector<Malformed> malformed_files() {
  const std::string good = one_tensor(R"("F32")", "[1]", "[0,4]");
  std::string nested = R"({"a":)";
  nested.append(100'000, '[').append(100'000, ']').append("}");
  return {
      // The file and its length prefix.
      {"empty", "", "is empty"},
      {"seven bytes", std::string(7, '\0'), "has 7 bytes"},
      {"no header", with_length(0, ""), "does not begin with {"},
      {"no header, then data", with_length(0), "does not begin with {"},
      {"header of one byte", with_length(1, "{"), "does not end with }"},
      {"length 2^63", with_length(uint64_t{1} << 63), "not a safetensors file"},
      {"length 2^64-1", with_length(~uint64_t{0}), "not a safetensors file"},
      {"length 2^64-8", with_length(~uint64_t{0} - 7), "not a safetensors file"},
      {"length above 100 MB", with_length(100'000'001), "claims a header of 100000001"},
      {"length above the file", with_length(3), "was cut off"},
      {"length at the limit, above the file", with_length(100'000'000), "was cut off"},
      {"cut off in the header", good.substr(0, 20), "was cut off"},
      {"cut off in the data", good.substr(0, good.size() - 1), "was cut off"},
      {"cut off before the data", good.substr(0, good.size() - 4),
       "has 0 bytes of data where its header names 4"},
      {"one byte after the data", good + "\n", "has 1 bytes after the last tensor"},
      {"a zip archive after the data", good + "PK\x03\x04....", "after the last tensor"},
      // Files of another kind.
      {"git-LFS pointer", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
       "git-LFS pointer"},
      {"HTML", "<!DOCTYPE html><html></html>", "HTML page"},
      {"HTML after blank lines", "\n\n <HTML lang=en><body>Sign in</body>", "HTML page"},
      {"zip", std::string("PK\x03\x04\x14\0\0\0\0\0", 10), "zip archive"},
      {"pickle", "\x80\x02}q\x01.........", "pickle"},
      {"GGUF", std::string("GGUF\3\0\0\0\0\0\0\0\0\0\0\0", 16), "GGUF"},
      // The text of the header.
      {"an array", file_of("[]"), "does not begin with {"},
      {"a blank before the object", file_of(" {}"), "does not begin with {"},
      {"not UTF-8", named("a\xff"), "UTF-8"},
      {"overlong UTF-8", named("a\xc0\xaf"), "UTF-8"},
      {"lone surrogate", named(R"(\ud800)"), "JSON"},
      {"NUL byte in the header", file_of(std::string("{\"a\0\":1}", 8)), "NUL"},
      {"padded with tabs", file_of("{}\t\t"), "does not end with }"},
      {"padded with NUL", file_of(std::string("{}\0\0", 4)), "does not end with }"},
      {"padded with newlines", file_of("{}\n"), "does not end with }"},
      {"second object", file_of("{}{}"), "JSON"},
      {"trailing comma", file_of(R"({"__metadata__":{},})"), "JSON"},
      {"comment", file_of("{/* */}"), "JSON"},
      {"cut off JSON", file_of(R"({"a":{"dtype":"F32"})"), "JSON"},
      {"depth bomb", file_of(nested), "nested deeper"},
      {"four levels", file_of(R"({"a":{"dtype":"F32","shape":[[1]],"data_offsets":[0,4]}})", 4),
       "nested deeper"},
      // Names and metadata.
      {"duplicate tensor",
       file_of(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
               R"("a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
               8),
       "stands twice"},
      {"duplicate tensor, one escaped",
       file_of(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
               R"("\u0061":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
               8),
       "stands twice"},
      {"duplicate metadata", file_of(R"({"__metadata__":{},"__metadata__":{}})"), "stands twice"},
      {"duplicate metadata key", file_of(R"({"__metadata__":{"a":"1","a":"2"}})"), "stands twice"},
      {"metadata is a list", file_of(R"({"__metadata__":[]})"), "not an object of texts"},
      {"metadata is null", file_of(R"({"__metadata__":null})"), "not an object of texts"},
      {"metadata with a number", file_of(R"({"__metadata__":{"a":1}})"), "where a text was expected"},
      {"metadata with an object", file_of(R"({"__metadata__":{"a":{}}})"), "where a text was expected"},
      {"empty name", named(""), "name is empty"},
      {"name with NUL", named(R"(a\u0000b)"), "control characters"},
      {"name with newline", named(R"(a\nb)"), "control characters"},
      {"name with escape", named(R"(a\u001b[2J)"), "control characters"},
      {"name of 1 MB", named(std::string(1'000'000, 'a')), "has 1000000 bytes"},
      {"name ..", named(".."), "climbs out"},
      {"name with ..", named("a/../../b"), "climbs out"},
      // One entry.
      {"entry is null", file_of(R"({"a":null})"), "where an object was expected"},
      {"entry is a list", file_of(R"({"a":[0,4]})"), "where an object was expected"},
      {"entry is empty", file_of(R"({"a":{}})"), "\"dtype\" is missing"},
      {"unknown key", file_of(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}})", 4),
       "no key \"x\""},
      {"duplicate key", file_of(R"({"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 4),
       "stands twice"},
      {"dtype missing", file_of(R"({"a":{"shape":[1],"data_offsets":[0,4]}})", 4), "\"dtype\" is missing"},
      {"dtype unknown", one_tensor(R"("Q4_1")", "[1]", "[0,4]"), "\"Q4_1\" is not known"},
      {"dtype in small letters", one_tensor(R"("f32")", "[1]", "[0,4]"), "is not known"},
      {"dtype a number", one_tensor("32", "[1]", "[0,4]"), "where a text was expected"},
      {"dtype of control characters", one_tensor(R"("F32\n\u001b")", "[1]", "[0,4]"), "is not known"},
      {"dtype F4", one_tensor(R"("F4")", "[8]", "[0,4]"), "smaller than a byte"},
      {"dtype F6_E2M3", one_tensor(R"("F6_E2M3")", "[4]", "[0,3]"), "smaller than a byte"},
      {"dtype F8_E8M0", one_tensor(R"("F8_E8M0")", "[4]", "[0,4]"), "is not known"},
      {"shape missing", file_of(R"({"a":{"dtype":"F32","data_offsets":[0,4]}})", 4), "\"shape\" is missing"},
      {"shape null", one_tensor(R"("F32")", "null", "[0,4]"), "where a list was expected"},
      {"shape a number", one_tensor(R"("F32")", "1", "[0,4]"), "where a list was expected"},
      {"shape negative", one_tensor(R"("F32")", "[-1]", "[0,4]"), "holds \"-1\""},
      {"shape twice negative", one_tensor(R"("F32")", "[-1,-1]", "[0,4]"), "holds \"-1\""},
      {"shape a float", one_tensor(R"("F32")", "[1.0]", "[0,4]"), "holds \"1.0\""},
      {"shape with exponent", one_tensor(R"("F32")", "[1e0]", "[0,4]"), "holds \"1.0\""},
      {"shape a text", one_tensor(R"("F32")", R"(["1"])", "[0,4]"), "whole number"},
      {"shape a bool", one_tensor(R"("F32")", "[true]", "[0,4]"), "whole number"},
      {"shape 2^63", one_tensor(R"("F32")", "[9223372036854775808]", "[0,4]"), "too large"},
      {"shape 2^63-1", one_tensor(R"("F32")", "[9223372036854775807]", "[0,4]"), "more bytes"},
      {"shape 2^64", one_tensor(R"("F32")", "[18446744073709551616]", "[0,4]"), "whole number"},
      {"shape 2^62 + 1 wraps to 4 bytes", one_tensor(R"("F32")", "[4611686018427387905]", "[0,4]"),
       "more bytes"},
      {"product overflows", one_tensor(R"("U8")", "[4294967296,4294967296]", "[0,4]"), "more elements"},
      {"product overflows beside a zero", one_tensor(R"("U8")", "[4294967296,4294967296,0]", "[0,0]"),
       "more elements"},
      {"rank 9", one_tensor(R"("F32")", "[1,1,1,1,1,1,1,1,1]", "[0,4]"), "has 9 axes"},
      {"offsets missing", file_of(R"({"a":{"dtype":"F32","shape":[1]}})", 4), "\"data_offsets\" is missing"},
      {"one offset", one_tensor(R"("F32")", "[1]", "[0]"), "two numbers"},
      {"three offsets", one_tensor(R"("F32")", "[1]", "[0,4,8]"), "two numbers"},
      {"offsets a number", one_tensor(R"("F32")", "[1]", "4"), "two numbers"},
      {"offset negative", one_tensor(R"("F32")", "[1]", "[-4,0]"), "holds \"-4\""},
      {"offset a float", one_tensor(R"("F32")", "[1]", "[0,4.0]"), "holds \"4.0\""},
      {"offset a text", one_tensor(R"("F32")", "[1]", R"(["0","4"])"), "whole number"},
      {"offset 2^63", one_tensor(R"("F32")", "[1]", "[9223372036854775808,9223372036854775812]"),
       "too large"},
      {"offsets reversed", one_tensor(R"("F32")", "[1]", "[4,0]"), "ends before that"},
      {"offsets past the end", one_tensor(R"("F32")", "[2]", "[0,8]"), "was cut off"},
      {"offsets far past the end", one_tensor(R"("U8")", "[9223372036854775807]", "[0,9223372036854775807]"),
       "was cut off"},
      {"too few bytes", one_tensor(R"("F32")", "[2]", "[0,4]"), "the data has 4 bytes"},
      {"too many bytes", one_tensor(R"("F16")", "[1]", "[0,4]"), "the data has 4 bytes"},
      {"starts late", two_tensors("[4,8]", "[8,12]", 12), "a gap is between them"},
      {"gap", two_tensors("[0,4]", "[8,12]", 12), "a gap is between them"},
      {"overlap", two_tensors("[0,4]", "[2,6]", 6), "they overlap"},
      {"same place", two_tensors("[0,4]", "[0,4]", 4), "they overlap"},
      {"data without tensors", file_of("{}", 4), "after the last tensor"},
  };
}

TEST(SafetensorsParse, RefusesEveryMalformedFile) {
  for (const Malformed& item : malformed_files()) {
    SCOPED_TRACE(item.name);
    const std::string message = refusal([&] { parsed(item.bytes); });
    EXPECT_THAT(message, HasSubstr(item.says));
    EXPECT_THAT(message, StartsWith("m.safetensors: "));
  }
}

TEST(SafetensorsParse, RefusesEveryPrefixOfAFile) {
  const std::string good = two_tensors("[4,8]", "[0,4]");
  EXPECT_NO_THROW(parsed(good));
  for (size_t size = 0; size < good.size(); ++size) {
    SCOPED_TRACE(size);
    refusal([&] { parsed(good.substr(0, size)); });
  }
}

TEST(SafetensorsParse, AHostileHeaderCostsLittleMemory) {
  std::string shape(40'000'000, '0');
  for (size_t i = 1; i < shape.size(); i += 2) shape[i] = ',';
  shape.pop_back();
  const std::string bytes = one_tensor(R"("F32")", "[" + shape + "]", "[0,4]");
  rusage before{}, after{};
  getrusage(RUSAGE_SELF, &before);
  EXPECT_THAT(refusal([&] { parsed(bytes); }), HasSubstr("values allowed"));
  getrusage(RUSAGE_SELF, &after);
  EXPECT_LT(after.ru_maxrss - before.ru_maxrss, 300'000) << "kB; the bound on values keeps it near 100 MB";
}

TEST(SafetensorsParse, AcceptsRankZeroAndZeroSizes) {
  const auto header = parsed(file_of(R"({"scalar":{"dtype":"F32","shape":[],"data_offsets":[0,4]},)"
                                     R"("none":{"dtype":"F16","shape":[0],"data_offsets":[4,4]},)"
                                     R"("wide":{"dtype":"I64","shape":[5,0,7],"data_offsets":[0,0]}})",
                                     4));
  ASSERT_EQ(header.tensors.size(), 3U);
  EXPECT_EQ(header.tensors[0].name, "wide");  // by place
  EXPECT_EQ(header.tensors[1].name, "scalar");
  EXPECT_EQ(header.tensors[1].shape, Shape{});
  EXPECT_EQ(header.tensors[2].shape, Shape{0});
  EXPECT_EQ(header.order, (std::vector<std::string>{"scalar", "none", "wide"}));
}

TEST(SafetensorsParse, AcceptsAFileWithoutTensors) {
  EXPECT_TRUE(parsed(file_of("{}")).tensors.empty());
  EXPECT_FALSE(parsed(file_of("{}")).metadata_present);
  EXPECT_TRUE(parsed(file_of(R"({"__metadata__":{}})")).metadata_present);
}

// The first two bytes of this length are those of a pickle.
TEST(SafetensorsParse, AcceptsAHeaderOf640Bytes) {
  EXPECT_TRUE(parsed(file_of("{}" + std::string(638, ' '))).tensors.empty());
}

// The format asks for contiguous data, not for aligned data; who reads has to cope.
TEST(SafetensorsParse, AcceptsUnalignedData) {
  const auto header = parsed(file_of(
      R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"F32","shape":[1],"data_offsets":[3,7]}})",
      7));
  EXPECT_EQ(header.tensors[1].begin, 3U);
}

TEST(SafetensorsParse, AcceptsNamesThatOnlyLookOdd) {
  for (const char* name : {"a..b", "...", "encoder/layer.0/kernel", "größe", R"(say \"a\")", " "}) {
    EXPECT_NO_THROW(parsed(named(name))) << name;
  }
}

TEST(SafetensorsParse, AcceptsEveryTypeOfTheFormatItKnows) {
  for (const char* name : {"F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8",
                           "BOOL", "F8_E4M3", "F8_E5M2"}) {
    const auto dtype = dtype_of(name);
    ASSERT_TRUE(dtype) << name;
    EXPECT_EQ(name_of(*dtype), name);
    const auto bytes = byte_count(*dtype, {3}, name);
    const std::string file = file_of(
        fmt::format(R"({{"a":{{"dtype":"{}","shape":[3],"data_offsets":[0,{}]}}}})", name, bytes), bytes);
    EXPECT_EQ(parsed(file).tensors[0].dtype, *dtype);
  }
  EXPECT_THAT(refusal([] { name_of(DType::q4_1); }), HasSubstr("q4_1"));
}

TEST(SafetensorsWrite, LoadThenSaveIsTheIdentity) {
  for (
      const std::string& bytes : {
          file_of("{}      "),
          file_of(R"({"__metadata__":{}}     )"),
          file_of(
              R"({"__metadata__":{"format":"pt","b":"line\nbreak \u0001 é \" \\ / "},"b":{"dtype":"F32","shape":)"
              R"([2,1],"data_offsets":[2,10]},"a":{"dtype":"BF16","shape":[],"data_offsets":[0,2]}}      )",
              10),
      }) {
    const Header header = parsed(bytes);
    EXPECT_EQ(header.data_start % 8, 0U);
    EXPECT_EQ(write_header(header), bytes.substr(0, header.data_start));
  }
}

// The header that safetensors 0.8's save_file wrote for torch tensors, byte for byte.
TEST(SafetensorsWrite, AgreesWithTheReferenceWriter) {
  const std::string json =
      "{\"__metadata__\":{\"b\":\"1\",\"a\":\"line\\nbreak \x7f \xc3\xa9 \xe2\x80\xa8 \\u0001\"},"
      "\"y\":{\"dtype\":\"I64\",\"shape\":[2,2],\"data_offsets\":[0,32]},"
      "\"e\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[32,32]},"
      "\"x\xc3\xa9/y \\\\\":{\"dtype\":\"F16\",\"shape\":[5],\"data_offsets\":[32,42]}}       ";
  ASSERT_EQ(json.size(), 0xF0U);
  const std::string bytes = file_of(json, 42);
  const Header header = parsed(bytes);
  EXPECT_EQ(header.tensors[2].name, "x\xc3\xa9/y \\");
  EXPECT_EQ(write_header(header), bytes.substr(0, header.data_start));
}

TEST(SafetensorsWrite, AHeaderMadeByHandParses) {
  Header header;
  header.metadata = {{"format", "pt"}};
  header.metadata_present = true;
  header.tensors = {{.name = "b", .dtype = DType::f32, .shape = {2, 3}},
                    {.name = "a\"", .dtype = DType::u8, .shape = {5}},
                    {.name = "c", .dtype = DType::f64, .shape = {}},
                    {.name = "d", .dtype = DType::f16, .shape = {0, 9}}};
  lay_out(header.tensors);
  EXPECT_EQ(header.tensors[2].begin, 29U);
  EXPECT_EQ(header.tensors[3].end, 37U);
  const std::string bytes = write_header(header);
  EXPECT_EQ(bytes.size() % 8, 0U);
  const Header back = parsed(bytes + std::string(37, '\0'));
  header.order = {"b", "a\"", "c", "d"};
  expect_same(back, header);
  EXPECT_EQ(back.data_start, bytes.size());
}

TEST(SafetensorsWrite, KeepsTheOrderOfWhatIsLeftAfterACut) {
  Header header = parsed(two_tensors("[4,8]", "[0,4]"));
  EXPECT_EQ(header.order, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(header.tensors[0].name, "b");
  header.tensors.erase(header.tensors.begin());
  header.tensors.push_back({.name = "new", .dtype = DType::f32, .shape = {1}});
  lay_out(header.tensors);
  const Header back = parsed(write_header(header) + std::string(8, '\0'));
  EXPECT_EQ(back.order, (std::vector<std::string>{"a", "new"}));
}

TEST(SafetensorsWrite, LayOutRefusesOverflow) {
  std::vector<TensorInfo> tensors = {{.name = "a", .dtype = DType::u8, .shape = {int64_t{1} << 62}},
                                     {.name = "b", .dtype = DType::u8, .shape = {int64_t{1} << 62}}};
  EXPECT_THAT(refusal([&] { lay_out(tensors); }), HasSubstr("\"b\""));
}

// ---- The index of a model in shards.

std::string index_of(std::string_view weight_map) {
  return fmt::format(R"({{"metadata":{{"total_size":8}},"weight_map":{}}})", weight_map);
}

Index parsed_index(std::string_view text) {
  return parse_index(text, "model.safetensors.index.json");
}

TEST(SafetensorsIndex, RefusesEveryMalformedIndex) {
  const auto shard = [](std::string_view file) { return index_of(fmt::format(R"({{"a":"{}"}})", file)); };
  const std::vector<Malformed> items = {
      {"empty", "", "is empty"},
      {"git-LFS pointer", "version https://git-lfs.github.com/spec/v1\n", "git-LFS pointer"},
      {"HTML", "<html>", "HTML page"},
      {"a list", "[]", "not a JSON object"},
      {"a number", "1", "not a JSON object"},
      {"cut off", R"({"weight_map":{"a":"b.safe)", "cut off"},
      {"no weight_map", "{}", "\"weight_map\" is missing"},
      {"weight_map a list", index_of("[]"), "\"weight_map\" is not"},
      {"weight_map null", index_of("null"), "\"weight_map\" is not"},
      {"weight_map empty", index_of("{}"), "\"weight_map\" is not"},
      {"two weight_maps", R"({"weight_map":{"a":"b.safetensors"},"weight_map":{}})", "stands twice"},
      {"tensor in two shards", index_of(R"({"a":"x.safetensors","a":"y.safetensors"})"), "stands twice"},
      {"shard a number", index_of(R"({"a":1})"), "not a file name"},
      {"shard null", index_of(R"({"a":null})"), "not a file name"},
      {"shard empty", shard(""), "empty"},
      {"shard in a folder", shard("sub/x.safetensors"), "not a plain file name"},
      {"shard in the folder itself", shard("./x.safetensors"), "not a plain file name"},
      {"shard above", shard("../x.safetensors"), "climbs out"},
      {"shard far above", shard("a/../../x.safetensors"), "climbs out"},
      {"shard is ..", shard(".."), "climbs out"},
      {"shard is .", shard("."), "not a plain file name"},
      {"shard absolute", shard("/etc/x.safetensors"), "not a plain file name"},
      {"shard with backslashes", shard(R"(..\\x.safetensors)"), "not a plain file name"},
      {"shard on a drive", shard("C:x.safetensors"), "not a plain file name"},
      {"shard with NUL", shard(R"(x\u0000.safetensors)"), "control characters"},
      {"shard with newline", shard(R"(x\n.safetensors)"), "control characters"},
      {"shard with a very long name", shard(std::string(5000, 'x') + ".safetensors"), "has 5012 bytes"},
      {"shard of pickles", shard("pytorch_model.bin"), "not a .safetensors file"},
      {"shard in capitals", shard("MODEL.SAFETENSORS"), "not a .safetensors file"},
      {"shard without an ending", shard("safetensors"), "not a .safetensors file"},
      {"shard with only an ending", shard(".safetensors"), "not a .safetensors file"},
      {"tensor with NUL", index_of(R"({"a\u0000":"x.safetensors"})"), "control characters"},
      {"tensor without a name", index_of(R"({"":"x.safetensors"})"), "name is empty"},
      {"deep", index_of(R"({"a":[[[[[[[[[1]]]]]]]]]})"), "nested deeper"},
  };
  for (const Malformed& item : items) {
    SCOPED_TRACE(item.name);
    const std::string message = refusal([&] { parsed_index(item.bytes); });
    EXPECT_THAT(message, HasSubstr(item.says));
    EXPECT_THAT(message, StartsWith("model.safetensors.index.json: "));
  }
}

TEST(SafetensorsIndex, KeepsTheDocumentAndTheOrder) {
  const std::string text =
      index_of(R"({"b":"model-00002-of-00002.safetensors","a":"model-00001-of-00002.safetensors"})");
  const Index index = parsed_index(text);
  EXPECT_EQ(index.document.dump(), text);
  const std::vector<std::pair<std::string, std::string>> expected = {
      {"b", "model-00002-of-00002.safetensors"}, {"a", "model-00001-of-00002.safetensors"}};
  EXPECT_EQ(index.weights, expected);
}

TEST(SafetensorsIndex, ReadsAMillionTensors) {
  std::string map = "{";
  for (int i = 0; i < 1'000'000; ++i) {
    fmt::format_to(std::back_inserter(map), "{}\"t{}\":\"model-{:05}.safetensors\"", i == 0 ? "" : ",", i,
                   i / 1000);
  }
  EXPECT_EQ(parsed_index(index_of(map + "}")).weights.size(), 1'000'000U);
}

}  // namespace
}  // namespace lamina::safetensors
