#include "lamina/checkpoint/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <map>
#include <numeric>

#include "lamina/base/error.h"
#include "lamina/format/safetensors.h"
#include "tests/help.h"

namespace lamina {
namespace {

using testing::HasSubstr;
namespace fs = std::filesystem;

constexpr const char* kIndex = "model.safetensors.index.json";

// A folder with two shards and an index: a, b in the first, c in the second.
class Folder : public testing::Test {
 protected:
  void SetUp() override {
    put("config.json", "{\"model_type\": \"none\"}\n");
    put_shard(kFirst, {"a", "b"});
    put_shard(kSecond, {"c"});
    put_index({{"a", kFirst}, {"b", kFirst}, {"c", kSecond}});
  }

  void put(const std::string& name, std::string_view text) { write_file(folder_ / name, text); }

  // Each tensor holds its own name, as two float32.
  static std::string shard(const std::vector<std::string>& names) {
    safetensors::Header header;
    for (const std::string& name : names)
      header.tensors.push_back({.name = name, .dtype = DType::f32, .shape = {2}});
    safetensors::lay_out(header.tensors);
    std::string bytes = safetensors::write_header(header);
    for (const std::string& name : names) bytes += (name + "0123456").substr(0, 8);
    return bytes;
  }
  void put_shard(const std::string& file, const std::vector<std::string>& names) { put(file, shard(names)); }
  void put_index(const Json& map) {
    put(kIndex, Json{{"metadata", {{"total_size", 24}}}, {"weight_map", map}}.dump());
  }

  std::string refusal() const {
    try {
      open_folder(folder_);
    } catch (const Error& error) {
      const std::string message = error.what();
      EXPECT_THAT(message, HasSubstr(folder_.string()));
      return message;
    }
    ADD_FAILURE() << "was accepted";
    return "";
  }

  static constexpr const char* kFirst = "model-00001-of-00002.safetensors";
  static constexpr const char* kSecond = "model-00002-of-00002.safetensors";
  tests::Folder own_;
  fs::path folder_ = own_.path();
};

using Sharded = Folder;
using Single = Folder;

TEST_F(Sharded, Opens) {
  const Checkpoint checkpoint = open_folder(folder_);
  ASSERT_EQ(checkpoint.tensors.size(), 3U);
  EXPECT_EQ(as_text(checkpoint.find("c")->bytes), "c0123456");
  EXPECT_EQ(checkpoint.shards.size(), 2U);
  EXPECT_EQ(checkpoint.find("d"), nullptr);
}

TEST_F(Sharded, MissingShard) {
  fs::remove(folder_ / kSecond);
  EXPECT_THAT(refusal(), testing::AllOf(HasSubstr(kSecond), HasSubstr("is not there")));
}

TEST_F(Sharded, TensorTheIndexDoesNotName) {
  put_shard(kSecond, {"c", "d"});
  EXPECT_THAT(refusal(), HasSubstr("d stands in model-00002-of-00002.safetensors but not in the index"));
}

TEST_F(Sharded, TensorInTwoShards) {
  put_shard(kSecond, {"b", "c"});
  EXPECT_THAT(refusal(), HasSubstr("b stands in two shards"));
}

TEST_F(Sharded, TensorInAnotherShardThanSaid) {
  put_index({{"a", kFirst}, {"b", kSecond}, {"c", kSecond}});
  EXPECT_THAT(refusal(), HasSubstr("the index puts b into"));
}

TEST_F(Sharded, NameThatNoShardHolds) {
  put_index({{"a", kFirst}, {"b", kFirst}, {"c", kSecond}, {"d", kSecond}});
  EXPECT_THAT(refusal(), HasSubstr("the index names d, but"));
}

TEST_F(Sharded, ShardsThatLeaveTheFolder) {
  for (const char* shard : {"../x.safetensors", "/tmp/x.safetensors", "sub/x.safetensors", "..", "x.bin", "",
                            ".safetensors/.."}) {
    put_index({{"a", shard}});
    EXPECT_THAT(refusal(), HasSubstr("the shard")) << shard;
  }
  put_index({{"a", 3}});
  EXPECT_THAT(refusal(), HasSubstr("not a file name"));
}

// The cache of huggingface_hub is made of links: a shard may be one, to anywhere. Only its name may not
// climb.
TEST_F(Sharded, ShardsThatAreLinks) {
  fs::rename(folder_ / kFirst, folder_ / "blob1");
  fs::rename(folder_ / kSecond, folder_ / "blob2");
  fs::create_symlink("blob1", folder_ / kFirst);
  fs::create_hard_link(folder_ / "blob2", folder_ / kSecond);
  EXPECT_EQ(open_folder(folder_).tensors.size(), 3U);
  fs::remove(folder_ / "blob1");
  EXPECT_THAT(refusal(), testing::AllOf(HasSubstr(kFirst), HasSubstr("is not there")));
}

TEST_F(Sharded, ShardsThatAreNoFiles) {
  fs::remove(folder_ / kFirst);
  fs::create_directory(folder_ / kFirst);
  EXPECT_THAT(refusal(), HasSubstr("is a folder where a file was expected"));
  fs::remove(folder_ / kFirst);
  ASSERT_EQ(::mkfifo((folder_ / kFirst).c_str(), 0600), 0);
  EXPECT_THAT(refusal(), HasSubstr("is a pipe or a device"));
  fs::remove(folder_ / kFirst);
  fs::create_symlink("/dev/zero", folder_ / kFirst);
  EXPECT_THAT(refusal(), HasSubstr("is a pipe or a device"));
}

// What lies beside a model may be odd without being of interest.
TEST_F(Sharded, OddNeighboursAreLeftAlone) {
  fs::create_symlink("loop.json", folder_ / "loop.json");
  fs::create_symlink("gone", folder_ / "gone.json");
  ASSERT_EQ(::mkfifo((folder_ / "pipe.json").c_str(), 0600), 0);
  fs::create_directory(folder_ / "folder.json");
  const Checkpoint checkpoint = open_folder(folder_);
  EXPECT_TRUE(checkpoint.sidecars.empty());
}

TEST_F(Sharded, AFileThatBecameShorterIsNamed) {
  const Checkpoint checkpoint = open_folder(folder_);
  fs::resize_file(folder_ / kSecond, 10);
  try {
    stream(*checkpoint.find("c"), {.as = DType::f16}, [](Bytes) {});
    FAIL() << "was read";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::AllOf(HasSubstr(kSecond), HasSubstr("became shorter")));
  }
}

TEST_F(Sharded, IndexThatIsNone) {
  for (const char* text :
       {"", "[]", "{}", "{\"weight_map\": []}",
        "{\"weight_map\": {\"a\": \"x.safetensors\", \"a\": \"x.safetensors\"}}", "not json"}) {
    put(kIndex, text);
    EXPECT_THAT(refusal(), HasSubstr(kIndex)) << text;
  }
}

TEST_F(Sharded, TwoIndexes) {
  put("other.safetensors.index.json", "{}");
  EXPECT_THAT(refusal(), HasSubstr("holds two indexes"));
}

TEST_F(Sharded, NoIndex) {
  fs::remove(folder_ / kIndex);
  EXPECT_THAT(refusal(), HasSubstr("holds 2 .safetensors files and no"));
}

TEST_F(Sharded, AWrongTotalSizeIsPutRight) {
  put(kIndex, Json{{"metadata", {{"total_size", 7}, {"note", "kept"}}},
                   {"weight_map", {{"c", kSecond}, {"a", kFirst}, {"b", kFirst}}}}
                  .dump());
  const fs::path out = folder_ / "out";
  fs::create_directory(out);
  write_folder(open_folder(folder_), out, {});
  EXPECT_EQ(
      parse_json(read_file(out / kIndex), "index").dump(),
      fmt::format(
          R"({{"metadata":{{"total_size":24,"note":"kept"}},"weight_map":{{"c":"{}","a":"{}","b":"{}"}}}})",
          kSecond, kFirst, kFirst));
}

TEST_F(Sharded, AShardThatEmptiesGoes) {
  Checkpoint checkpoint = open_folder(folder_);
  std::erase_if(checkpoint.tensors, [](const Stored& tensor) { return tensor.name == "c"; });
  const fs::path out = folder_ / "out";
  fs::create_directory(out);
  write_folder(checkpoint, out, {});
  EXPECT_TRUE(fs::exists(out / "model.safetensors"));
  EXPECT_FALSE(fs::exists(out / kIndex));
  EXPECT_EQ(open_folder(out).tensors.size(), 2U);
}

TEST_F(Single, OrderOfTheHeaderIsKept) {
  for (const char* name : {kFirst, kSecond, kIndex}) fs::remove(folder_ / name);
  safetensors::Header header;
  for (const char* name : {"a", "b", "c"})
    header.tensors.push_back({.name = name, .dtype = DType::f32, .shape = {2}});
  safetensors::lay_out(header.tensors);
  header.order = {"c", "a", "b"};  // the data is a, b, c
  header.metadata = {{"format", "pt"}, {"by", "hand"}};
  header.metadata_present = true;
  put("model.safetensors", safetensors::write_header(header) + std::string(24, 'x'));
  const fs::path out = folder_ / "out";
  fs::create_directory(out);
  write_folder(open_folder(folder_), out, {});
  EXPECT_EQ(read_file(folder_ / "model.safetensors"), read_file(out / "model.safetensors"));
}

TEST_F(Single, SaysWhatTheFolderLacks) {
  for (const char* name : {kFirst, kSecond, kIndex}) fs::remove(folder_ / name);
  EXPECT_THAT(refusal(), HasSubstr("holds no .safetensors file"));
  put("pytorch_model.bin", "x");
  EXPECT_THAT(refusal(), HasSubstr("is a pickle"));
  fs::remove(folder_ / "config.json");
  EXPECT_THAT(refusal(), HasSubstr("has no config.json"));
  put("config.json", "[1]");
  EXPECT_THAT(refusal(), HasSubstr("is not a JSON object"));
  fs::remove_all(folder_);
  EXPECT_THAT(refusal(), HasSubstr("there is no such file or folder"));
}

TEST_F(Single, ACutOffFileIsNamed) {
  for (const char* name : {kFirst, kSecond, kIndex}) fs::remove(folder_ / name);
  const std::string whole = shard({"a", "b"});
  for (size_t length : {size_t{0}, size_t{4}, size_t{20}, whole.size() - 1}) {
    put("model.safetensors", std::string_view(whole).substr(0, length));
    EXPECT_THAT(refusal(), HasSubstr("model.safetensors")) << length;
  }
}

TEST_F(Single, SidecarsTravelAndOurOwnFilesDoNot) {
  for (const char* name :
       {"tokenizer.json", "merges.txt", "LICENSE", "README.md", "plan.json", ".hidden.json", "picture.png"})
    put(name, name);
  std::vector<std::string> names;
  for (const Sidecar& sidecar : open_folder(folder_).sidecars) names.push_back(sidecar.name);
  EXPECT_THAT(names, testing::ElementsAre("LICENSE", "merges.txt", "tokenizer.json"));
}

TEST_F(Sharded, CheckEqualSeesEveryDifference) {
  const Checkpoint one = open_folder(folder_);
  EXPECT_NO_THROW(check_equal(one, one, {}));
  Checkpoint other = one;
  other.tensors.pop_back();
  EXPECT_THROW(check_equal(one, other, {}), Error);
  other = one;
  other.tensors[1].bytes = one.tensors[0].bytes;
  EXPECT_THROW(check_equal(one, other, {}), Error);
  other = one;
  other.tensors[1].shape = {1, 2};
  EXPECT_THROW(check_equal(one, other, {}), Error);
  other = one;
  other.tensors[1].name = "z";
  EXPECT_THROW(check_equal(one, other, {}), Error);
}

// --- stream: conversion and row order

std::vector<float> streamed(const Stored& tensor, int64_t paired_heads) {
  std::string bytes;
  stream(tensor, {.as = DType::f32, .paired_heads = paired_heads},
         [&](Bytes piece) { bytes += as_text(piece); });
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

Stored stored(const std::vector<float>& values, Shape shape) {
  return {
      .name = "w", .dtype = DType::f32, .shape = std::move(shape), .bytes = std::as_bytes(std::span(values))};
}

struct Rows {
  int64_t heads, head_dim, columns;
};

class RowOrder : public testing::TestWithParam<Rows> {};
INSTANTIATE_TEST_SUITE_P(Shapes, RowOrder,
                         testing::Values(Rows{1, 2, 3}, Rows{6, 8, 48}, Rows{3, 64, 5}, Rows{4, 6, 0},
                                         Rows{32, 128, 700}),
                         [](const auto& info) {
                           return fmt::format("{}x{}x{}", info.param.heads, info.param.head_dim,
                                              info.param.columns);
                         });

// Row 2j + s of a head in pairs is its row s * D/2 + j: reshape(heads, 2, D/2, ...).swapaxes(1, 2). No
// columns: a bias.
TEST_P(RowOrder, PairsAreTheSwappedHalvesAndBackIsTheIdentity) {
  const auto [heads, head_dim, columns] = GetParam();
  const int64_t width = std::max<int64_t>(columns, 1), rows = heads * head_dim;
  std::vector<float> values(static_cast<size_t>(rows * width));
  std::iota(values.begin(), values.end(), 0.0F);
  const Shape shape = columns > 0 ? Shape{rows, columns} : Shape{rows};
  std::vector<float> expected;
  for (int64_t head = 0; head < heads; ++head) {
    for (int64_t j = 0; j < head_dim / 2; ++j) {
      for (int64_t s : {0, 1}) {
        const auto from = values.begin() + (head * head_dim + s * head_dim / 2 + j) * width;
        expected.insert(expected.end(), from, from + width);
      }
    }
  }
  const std::vector<float> paired = streamed(stored(values, shape), heads);
  EXPECT_EQ(paired, expected);
  Stored back = stored(paired, shape);
  back.paired_heads = heads;
  EXPECT_EQ(streamed(back, 0), values);
  EXPECT_EQ(streamed(back, heads), paired) << "rows that stand as asked stay";
}

TEST(Stream, NarrowsAndWidens) {
  const std::vector<float> values = {1, -2.5F, 0.1F, 65504};
  const Stored wide = stored(values, {2, 2});
  for (DType dtype : {DType::f16, DType::bf16, DType::f64}) {
    std::string bytes;
    stream(wide, {.as = dtype}, [&](Bytes piece) { bytes += as_text(piece); });
    EXPECT_EQ(bytes.size(), static_cast<size_t>(4 * block_bytes(dtype)));
    Stored narrow = wide;
    narrow.dtype = dtype;
    narrow.bytes = as_bytes(bytes);
    const std::vector<float> again = streamed(narrow, 0);
    for (size_t i = 0; i < values.size(); ++i)
      EXPECT_NEAR(again[i], values[i],
                  std::abs(values[i]) * (dtype == DType::f64   ? 0
                                         : dtype == DType::f16 ? 1e-3
                                                               : 4e-3));
  }
}

TEST(Stream, ASilencedTensorIsZeros) {
  const std::vector<float> values(3'000'000, 1.0F);  // more than one piece
  Stored silent = stored(values, {3, 1'000'000});
  silent.zero = true;
  EXPECT_EQ(streamed(silent, 0), std::vector<float>(values.size(), 0.0F));
}

TEST(Stream, RefusesIntegersAsFloats) {
  const std::vector<float> values = {1, 2};
  Stored integers = stored(values, {2});
  integers.dtype = DType::i32;
  EXPECT_THROW(stream(integers, {.as = DType::f32}, [](Bytes) {}), Error);
}

}  // namespace
}  // namespace lamina
