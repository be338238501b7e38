#include "lamina/plan/undo.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "lamina/base/error.h"
#include "lamina/checkpoint/numbers.h"
#include "lamina/format/safetensors.h"
#include "tests/help.h"

namespace lamina {
namespace {

using testing::HasSubstr;
namespace fs = std::filesystem;

// A model of two tensors in a file of another name than usual, and one with a row, a column and a config
// changed and a tensor added.
class Undo : public testing::Test {
 protected:
  void SetUp() override {
    for (const char* sub : {"original", "edited", "again"}) fs::create_directory(folder_ / sub);
    Checkpoint c;
    c.config = {{"a", 1}};
    c.config_text = "{ \"a\":1 }";
    c.shards.push_back({.name = "weights.safetensors", .metadata = {}, .metadata_present = false});
    for (const char* tensor : {"down", "up"}) {
      Stored stored{.name = tensor, .dtype = DType::bf16, .shape = {6, 4}};
      own(stored, std::vector<std::byte>(48, std::byte{0x3f}));
      c.tensors.push_back(std::move(stored));
    }
    write_folder(c, folder_ / "original", {});
    original_ = open_folder(folder_ / "original");
    edited_ = original_;
    edited_.config["a"] = 2;
    change(edited_.tensors[0], {2, 6, 10, 14, 18, 22});  // the third column
    change(edited_.tensors[1], {4, 5, 6, 7});            // the second row
    Stored bias{.name = "bias", .dtype = DType::bf16, .shape = {4}, .zero = true};
    edited_.tensors.insert(edited_.tensors.begin() + 1, std::move(bias));
    write_folder(edited_, folder_ / "edited", {});
  }

  static void change(Stored& tensor, const std::vector<int64_t>& indices) {
    Numbers numbers(tensor);
    for (int64_t index : indices) numbers.set(index, 7);
    std::move(numbers).put(tensor);
  }
  std::string refusal_of_write() const {
    try {
      write_undo(original_, edited_, folder_ / "edited");
    } catch (const Error& error) {
      return error.what();
    }
    return "was accepted";
  }
  std::string refusal() const {
    try {
      undo(folder_ / "edited");
    } catch (const Error& error) {
      return error.what();
    }
    return "was accepted";
  }
  Json document() const { return parse_json(read_file(folder_ / "edited/undo.json"), "undo.json"); }
  std::string refusal_with(const std::function<void(Json&)>& change) const {
    const Json good = document();
    Json bad = good;
    change(bad);
    write_file(folder_ / "edited/undo.json", bad.dump());
    const std::string message = refusal();
    write_file(folder_ / "edited/undo.json", good.dump());
    return message;
  }

  tests::Folder own_;
  fs::path folder_ = own_.path();
  Checkpoint original_, edited_;
};

TEST_F(Undo, KeepsWhatChangedAndGivesItBack) {
  write_undo(original_, edited_, folder_ / "edited");
  EXPECT_EQ(document().at("changed").dump(),
            R"([{"tensor":"down","axis":1,"indices":[2]},{"tensor":"up","axis":0,"indices":[1]}])");
  EXPECT_EQ(document().at("added"), Json({"bias"}));
  EXPECT_EQ(document().at("original").at("weights_sha256"), original_.hash());
  write_folder(undo(folder_ / "edited"), folder_ / "again", {});
  for (const char* file : {"config.json", "weights.safetensors"})
    EXPECT_EQ(read_file(folder_ / "original" / file), read_file(folder_ / "again" / file)) << file;
  EXPECT_FALSE(fs::exists(folder_ / "again/undo.json"));
}

TEST_F(Undo, AnUnchangedModelIsUndoneToItself) {
  fs::remove_all(folder_ / "edited");
  fs::create_directory(folder_ / "edited");
  write_folder(original_, folder_ / "edited", {});
  write_undo(original_, original_, folder_ / "edited");
  write_folder(undo(folder_ / "edited"), folder_ / "again", {});
  EXPECT_EQ(read_file(folder_ / "original/weights.safetensors"),
            read_file(folder_ / "again/weights.safetensors"));
}

TEST_F(Undo, IsNotWrittenForWhatItCannotUndo) {
  Checkpoint cut = edited_;
  std::swap(cut, edited_);
  edited_.tensors.erase(edited_.tensors.begin());
  EXPECT_THAT(refusal_of_write(), HasSubstr("down was cut, which no undo file keeps"));
  edited_ = cut;
  write_folder(edited_, folder_ / "edited", {.dtype = DType::f32, .watch = {}});
  EXPECT_THAT(refusal_of_write(), HasSubstr("whose types are left as they came"));
  EXPECT_FALSE(fs::exists(folder_ / "edited/undo.json"));
}

TEST_F(Undo, DoesNotTrustWhatItReads) {
  EXPECT_THAT(refusal(), HasSubstr("holds no undo.json"));
  write_undo(original_, edited_, folder_ / "edited");
  ASSERT_EQ(refusal(), "was accepted");
  EXPECT_THAT(refusal_with([](Json& j) { j = 3; }), HasSubstr("not a JSON object"));
  EXPECT_THAT(refusal_with([](Json& j) { j["lamina_undo"] = 2; }), HasSubstr("newer"));
  EXPECT_THAT(refusal_with([](Json& j) { j["more"] = 2; }), HasSubstr("\"more\""));
  EXPECT_THAT(refusal_with([](Json& j) { j.erase("changed"); }), HasSubstr("\"changed\""));
  EXPECT_THAT(refusal_with([](Json& j) { j["added"] = {"nothing"}; }), HasSubstr("is no tensor"));
  EXPECT_THAT(refusal_with([](Json& j) { j["changed"][0]["tensor"] = "nothing"; }),
              HasSubstr("is no tensor"));
  EXPECT_THAT(refusal_with([](Json& j) { j["changed"][0]["tensor"] = "up"; }), HasSubstr("another shape"));
  for (const Json& indices : {Json{4}, Json{-1}, Json{1.5}, Json{"2"}, Json(3), Json()}) {
    EXPECT_THAT(refusal_with([&](Json& j) { j["changed"][0]["indices"] = indices; }), HasSubstr("indices"))
        << indices;
  }
  EXPECT_THAT(refusal_with([](Json& j) { j["changed"][0]["indices"] = {2, 2}; }), HasSubstr("rising"));
  EXPECT_THAT(refusal_with([](Json& j) { j["changed"][0]["indices"] = {1, 2}; }), HasSubstr("another shape"));
  EXPECT_THAT(refusal_with([](Json& j) { j["changed"][0].erase("axis"); }), HasSubstr("another shape"));
  EXPECT_THAT(refusal_with([](Json& j) { j["changed"][0]["axis"] = 2; }), HasSubstr("axis"));
  EXPECT_THAT(refusal_with([](Json& j) { j["original"]["config"] = "{"; }), HasSubstr("undo.json"));

  std::string weights = read_file(folder_ / "edited/weights.safetensors");
  weights.back() = static_cast<char>(weights.back() + 1);
  write_file(folder_ / "edited/weights.safetensors", weights);
  EXPECT_THAT(refusal(), HasSubstr("are not those that it was written for"));
}

}  // namespace
}  // namespace lamina
