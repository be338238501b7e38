#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "lamina/base/bus_error.h"
#include "lamina/base/error.h"
#include "lamina/base/file.h"
#include "lamina/base/hash.h"
#include "lamina/base/json.h"
#include "lamina/base/json_number.h"
#include "lamina/base/staging.h"
#include "lamina/base/text.h"
#include "tests/help.h"

namespace lamina {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using tests::Folder;

template <class Work>
std::string refusal(const Work& work) {
  try {
    work();
  } catch (const Error& error) {
    EXPECT_TRUE(is_utf8(error.what()));
    EXPECT_EQ(std::string(error.what()).find_first_of("\n\r\x1b"), std::string::npos) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "was accepted";
  return "";
}

std::string content(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// ---- JSON

Json parsed(std::string_view text) {
  return parse_json(text, "c.json");
}

struct Malformed {
  std::string name, text, says;
};

TEST(ParseJson, RefusesEveryMalformedText) {
  const std::vector<Malformed> items = {
      {"empty", "", "is empty"},
      {"blank", " \n\t", "is empty"},
      {"cut off in an object", R"({"a": 1)", "cut off"},
      {"cut off in a string", R"({"a)", "cut off"},
      {"cut off in a word", "tru", "cut off"},
      {"two documents", "{} {}", "unexpected character \"{\""},
      {"trailing comma", "[1,]", "unexpected character \"]\""},
      {"comment", "{} // x", "unexpected character \"/\""},
      {"single quotes", "{'a':1}", "unexpected character"},
      {"no value", R"({"a":})", "unexpected character \"}\""},
      {"key without quotes", "{a:1}", "unexpected character \"a\""},
      {"NaN", R"({"a": NaN})", "unexpected character \"N\""},
      {"Infinity", "[Infinity]", "unexpected character \"I\""},
      {"minus Infinity", "[-Infinity]", "not valid JSON"},
      {"leading zero", "[01]", "unexpected character \"1\""},
      {"plus sign", "[+1]", "unexpected character \"+\""},
      {"hexadecimal", "[0x10]", "unexpected character \"x\""},
      {"float that overflows", "[1e999]", "too large"},
      {"2^63", "[9223372036854775808]", "too large"},
      {"2^64-1", "[18446744073709551615]", "too large"},
      {"NUL byte", std::string("{\"a\":1}\0", 8), "NUL"},
      {"NUL byte in a string", std::string("[\"a\0b\"]", 7), "NUL"},
      {"control character in a string", "[\"a\nb\"]", "not valid JSON"},
      {"invalid UTF-8", "[\"a\xff\"]", "UTF-8"},
      {"overlong UTF-8", "[\"\xc0\x80\"]", "UTF-8"},
      {"surrogate in UTF-8", "[\"\xed\xa0\x80\"]", "UTF-8"},
      {"lone surrogate", R"(["\ud800"])", "not valid JSON"},
      {"duplicate key", R"({"a":1,"b":2,"a":3})", "\"a\" stands twice"},
      {"duplicate key, one escaped", R"({"a":1,"\u0061":3})", "\"a\" stands twice"},
      {"duplicate key inside", R"({"x":[{"a":1,"a":1}]})", "\"a\" stands twice"},
      {"duplicate key with an escape sequence", "{\"\\u001b[2J\":1,\"\\u001b[2J\":1}", "\\x1b[2J"},
      {"depth bomb of arrays", std::string(1'000'000, '['), "nested deeper than 64"},
      {"65 levels", std::string(65, '[') + std::string(65, ']'), "nested deeper than 64"},
  };
  for (const Malformed& item : items) {
    SCOPED_TRACE(item.name);
    const std::string message = refusal([&] { parsed(item.text); });
    EXPECT_THAT(message, HasSubstr(item.says));
    EXPECT_THAT(message, StartsWith("c.json: "));
  }
}

TEST(ParseJson, NamesTheLine) {
  EXPECT_THAT(refusal([] { parsed("{\n \"a\": 1,\n \"b\": x\n}"); }), HasSubstr("line 3"));
}

TEST(ParseJson, HoldsItsLimits) {
  EXPECT_NO_THROW(parsed(std::string(64, '[') + std::string(64, ']')));
  EXPECT_THAT(refusal([] { parse_json("[[1]]", "x", {.depth = 1}); }), HasSubstr("nested deeper than 1"));
  EXPECT_THAT(refusal([] { parse_json("[1,2,3]", "x", {.bytes = 6}); }), HasSubstr("allowed"));
  EXPECT_THAT(refusal([] { parse_json("[1,2,3]", "x", {.values = 3}); }), HasSubstr("3 values allowed"));
  EXPECT_NO_THROW(parse_json("[1,2,3]", "x", {.values = 4}));
}

TEST(ParseJson, KeepsKeysInTheirOrderAndNumbersInTheirKind) {
  const std::string text =
      R"({"z":1,"a":1.0,"m":[-1,true,null,"é"],"b":9223372036854775807,"c":-9223372036854775808})";
  EXPECT_EQ(parsed(text).dump(), text);
  EXPECT_EQ(parsed(" 1 "), 1);
}

TEST(ParseJson, ReadsManyKeysInLittleTime) {
  std::string text = "{";
  for (int i = 0; i < 100'000; ++i) text += fmt::format("\"k{}\":{},", i, i);
  text.back() = '}';
  EXPECT_EQ(parsed(text).size(), 100'000U);
}

TEST(JsonReaders, IntegersAreIntegers) {
  const Json json =
      parsed(R"({"n":5,"negative":-1,"f":1.5,"whole":2.0,"s":"5","b":true,"null":null,"big":1e30})");
  EXPECT_EQ(json_integer(json, "n", "c.json"), 5);
  EXPECT_EQ(json_integer_or(json, "missing", 7, "c.json"), 7);
  EXPECT_EQ(json_integer_or(json, "null", 7, "c.json"), 7);
  EXPECT_THAT(refusal([&] { json_integer(json, "missing", "c.json"); }), HasSubstr("\"missing\" is missing"));
  EXPECT_THAT(refusal([&] { json_integer(json, "null", "c.json"); }), HasSubstr("\"null\" is missing"));
  EXPECT_THAT(refusal([&] { json_integer(json, "negative", "c.json", {.min = 0}); }),
              HasSubstr("-1, outside 0"));
  EXPECT_THAT(refusal([&] { json_integer_or(json, "n", 0, "c.json", {.max = 4}); }), HasSubstr("5, outside"));
  for (const char* key : {"f", "whole", "s", "b", "big"}) {
    EXPECT_THAT(refusal([&] { json_integer(json, key, "c.json"); }),
                HasSubstr("where an integer was expected"));
  }
}

TEST(JsonReaders, MessagesStayShort) {
  const Json json = {{"a", std::string(1'000'000, 'x')}, {"e", "x" + fmt::format("{:é>100}", "")}};
  for (const char* key : {"a", "e"}) {
    EXPECT_LT(refusal([&] { json_integer(json, key, "c.json"); }).size(), 150U);
    EXPECT_LT(refusal([&] { json_number_or(json, key, 0, "c.json"); }).size(), 150U);
    EXPECT_LT(refusal([&] { json_bool_or(json, key, false, "c.json"); }).size(), 150U);
  }
}

TEST(JsonNumber, WhatIsNoNumberIsNull) {
  EXPECT_EQ(number_or_null(0.1).dump(), "0.1");
  for (double none : {std::nan(""), HUGE_VAL, -HUGE_VAL}) EXPECT_TRUE(number_or_null(none).is_null()) << none;
}

TEST(JsonReaders, OtherKinds) {
  const Json json = parsed(R"({"n":5,"f":1.5,"s":"text","b":true,"null":null})");
  EXPECT_EQ(json_number_or(json, "n", 0, "c.json"), 5.0);
  EXPECT_EQ(json_number_or(json, "f", 0, "c.json"), 1.5);
  EXPECT_EQ(json_number_or(json, "null", 2.5, "c.json"), 2.5);
  EXPECT_TRUE(json_bool_or(json, "b", false, "c.json"));
  EXPECT_FALSE(json_bool_or(json, "missing", false, "c.json"));
  EXPECT_EQ(json_string(json, "s", "c.json"), "text");
  EXPECT_EQ(json_string_or(json, "null", "else", "c.json"), "else");
  EXPECT_TRUE(json_has(json, "s"));
  EXPECT_FALSE(json_has(json, "null"));
  EXPECT_FALSE(json_has(Json(1), "s"));
  EXPECT_THAT(refusal([&] { json_number_or(json, "s", 0, "c.json"); }), HasSubstr("a number was expected"));
  EXPECT_THAT(refusal([&] { json_bool_or(json, "n", false, "c.json"); }), HasSubstr("true or false"));
  EXPECT_THAT(refusal([&] { json_string(json, "n", "c.json"); }), HasSubstr("a text was expected"));
  EXPECT_THAT(refusal([&] { json_string(Json::array(), "s", "c.json"); }), HasSubstr("is missing"));
}

// ---- Text

TEST(Text, IsUtf8) {
  for (const char* good : {"", "a", "é", "€", "😀", "\xf4\x8f\xbf\xbf", "\xed\x9f\xbf"})
    EXPECT_TRUE(is_utf8(good));
  for (const char* bad : {"\x80", "\xc0\x80", "\xc1\xbf", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xf0\x8f\xbf\xbf",
                          "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "\xe2\x82", "a\xc3"}) {
    EXPECT_FALSE(is_utf8(bad)) << in_quotes(bad);
  }
}

TEST(Text, InQuotesIsSafeToShow) {
  EXPECT_EQ(in_quotes("größe"), "\"größe\"");
  EXPECT_EQ(in_quotes("a\"b\\"), "\"a\\\"b\\\\\"");
  EXPECT_EQ(in_quotes(std::string_view("a\0\n\x1b\x7f\xff", 6)), "\"a\\x00\\x0a\\x1b\\x7f\\xff\"");
  EXPECT_LT(in_quotes(std::string(1000, 'x'), 20).size(), 30U);
  EXPECT_TRUE(in_quotes(std::string(1000, 'x')).ends_with("...\""));
}

TEST(Text, Units) {
  EXPECT_EQ(human_bytes(0), "0 B");
  EXPECT_EQ(human_bytes(999), "999 B");
  EXPECT_EQ(human_bytes(98'400'000), "98.4 MB");
  EXPECT_EQ(human_bytes(999'999), "1.0 MB");
  EXPECT_EQ(human_bytes(~uint64_t{0}), "18.4 EB");
  EXPECT_EQ(human_count(134'515'008), "134.5 M");
  EXPECT_EQ(human_seconds(1.25), "1.2 s");
  EXPECT_EQ(human_seconds(80), "1 min 20 s");
  EXPECT_EQ(human_seconds(3725), "1 h 02 min");
  EXPECT_EQ(thousands(49152), "49,152");
  EXPECT_EQ(thousands(-1234567), "-1,234,567");
  EXPECT_EQ(thousands(-123), "-123");
  EXPECT_EQ(thousands(0), "0");
}

TEST(Text, SplitTrimNearest) {
  EXPECT_EQ(split("a,,b", ','), (std::vector<std::string>{"a", "", "b"}));
  EXPECT_EQ(split("", ','), std::vector<std::string>{""});
  EXPECT_EQ(trim(" \t a b \r\n"), "a b");
  EXPECT_EQ(trim("  "), "");
  const std::vector<std::string> words = {"inspect", "search", "apply"};
  EXPECT_EQ(nearest("serach", words), "search");
  EXPECT_EQ(nearest("aply", words), "apply");
  EXPECT_EQ(nearest("quantize", words), std::nullopt);
  EXPECT_EQ(nearest("x", {}), std::nullopt);
}

// ---- Files

TEST(MappedFile, ReadsAndRefuses) {
  const Folder folder;
  write_file(folder / "a", "hello");
  write_file(folder / "empty", "");
  const auto file = MappedFile::open(folder / "a");
  EXPECT_EQ(as_text(file->bytes()), "hello");
  file->release(file->bytes());
  EXPECT_EQ(as_text(file->bytes()), "hello");  // comes back from the disk
  EXPECT_TRUE(MappedFile::open(folder / "empty")->bytes().empty());
  EXPECT_EQ(read_file(folder / "a"), "hello");
  EXPECT_THAT(refusal([&] { read_file(folder / "a", 4); }), HasSubstr("has 5 bytes where at most 4"));
  EXPECT_THAT(refusal([&] { MappedFile::open(folder / "missing"); }), HasSubstr("No such file"));
  EXPECT_THAT(refusal([&] { MappedFile::open(folder / "."); }), HasSubstr("folder"));
}

TEST(MappedFile, SeesThatTheFileBecameShorter) {
  const Folder folder;
  write_file(folder / "a", std::string(10'000, 'x'));
  const auto file = MappedFile::open(folder / "a");
  EXPECT_NO_THROW(file->check_not_truncated());
  fs::resize_file(folder / "a", 5'000);
  EXPECT_THAT(refusal([&] { file->check_not_truncated(); }), HasSubstr("became shorter"));
}

TEST(MappedFile, DoesNotWaitForAPipe) {
  const Folder folder;
  ASSERT_EQ(mkfifo((folder / "pipe").c_str(), 0600), 0);
  for (const fs::path& path : {folder / "pipe", fs::path("/dev/zero")}) {
    EXPECT_THAT(refusal([&] { MappedFile::open(path); }), HasSubstr("is a pipe or a device"));
    EXPECT_THAT(refusal([&] { read_file(path); }), HasSubstr("is a pipe or a device"));
  }
}

// Another program cuts a file between our look at its size and our touching its bytes.
TEST(MappedFile, ABusErrorNamesTheFileAndEndsTheProgram) {
  const Folder folder;
  write_file(folder / "a", std::string(100'000, 'x'));
  const auto touch_what_is_gone = [&] {
    explain_bus_errors();
    const auto file = MappedFile::open(folder / "a");
    fs::resize_file(folder / "a", 10);
    const volatile std::byte* last = &file->bytes().back();
    _exit(static_cast<int>(*last));
  };
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(touch_what_is_gone(), testing::ExitedWithCode(1), "/a: became shorter while it was being read");
}

TEST(AtomicFile, AppearsAtCommitOnly) {
  const Folder folder;
  write_file(folder / "a", "old");
  {
    AtomicFile file(folder / "a");
    file.write("new ");
    file.write("text");
    EXPECT_EQ(file.written(), 8U);
    EXPECT_EQ(content(folder / "a"), "old");
    file.commit();
    EXPECT_EQ(content(folder / "a"), "new text");
  }
  EXPECT_EQ(folder.entries(), 1U);
}

TEST(AtomicFile, DroppedItLeavesNothing) {
  const Folder folder;
  write_file(folder / "a", "old");
  {
    AtomicFile(folder / "a").write("new");
  }
  EXPECT_EQ(content(folder / "a"), "old");
  EXPECT_EQ(folder.entries(), 1U);
}

TEST(AtomicFile, RefusesAFolderThatIsNotThere) {
  const Folder folder;
  EXPECT_THAT(refusal([&] { AtomicFile(folder / "missing/a"); }), HasSubstr("cannot be written"));
}

TEST(AtomicFile, RefusesWhatIsNoFile) {
  const Folder folder;
  fs::create_directory(folder / "folder");
  ASSERT_EQ(mkfifo((folder / "pipe").c_str(), 0600), 0);
  fs::create_symlink("nowhere", folder / "link");
  EXPECT_THAT(refusal([&] { AtomicFile(folder / "folder"); }), HasSubstr("is a folder"));
  EXPECT_THAT(refusal([&] { AtomicFile(folder / "pipe"); }), HasSubstr("is a pipe or a device"));
  EXPECT_THAT(refusal([&] { AtomicFile(folder / "link"); }), HasSubstr("leads nowhere"));
  EXPECT_THAT(refusal([&] { AtomicFile("/dev/null"); }), HasSubstr("is a pipe or a device"));
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
  EXPECT_EQ(folder.entries(), 3U);
}

TEST(AtomicFile, WritesWhereALinkLeads) {
  const Folder folder;
  write_file(folder / "a", "old");
  fs::create_symlink("a", folder / "link");
  write_file(folder / "link", "new");
  EXPECT_EQ(content(folder / "a"), "new");
  EXPECT_TRUE(fs::is_symlink(folder / "link"));
  EXPECT_EQ(folder.entries(), 2U);
}

TEST(AtomicFile, OneAtATime) {
  const Folder folder;
  {
    AtomicFile first(folder / "a");
    first.write("first");
    EXPECT_THAT(refusal([&] { AtomicFile(folder / "a"); }), HasSubstr("another run is writing it"));
    first.commit();
  }
  EXPECT_EQ(content(folder / "a"), "first");
  EXPECT_EQ(folder.entries(), 1U);
}

TEST(AtomicFile, TakesOverWhatAKilledRunLeft) {
  const Folder folder;
  std::ofstream(folder / "a.partial") << "a longer text than the new one";
  write_file(folder / "a", "new");
  EXPECT_EQ(content(folder / "a"), "new");
  EXPECT_EQ(folder.entries(), 1U);
}

// A limit on the size of files stands in for a full disk: write() fails in the same place.
TEST(AtomicFile, AFullDiskLeavesTheOldFile) {
  const Folder folder;
  write_file(folder / "a", "old");
  rlimit saved{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &saved), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit small = saved;
  small.rlim_cur = 1000;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string message = refusal([&] {
    AtomicFile file(folder / "a");
    file.write(std::string(600, 'x'));
    file.write(std::string(600, 'y'));
    file.commit();
  });
  setrlimit(RLIMIT_FSIZE, &saved);
  std::signal(SIGXFSZ, handler);
  EXPECT_THAT(message, HasSubstr("writing stopped after 1000 bytes"));
  EXPECT_THAT(message, HasSubstr("nothing was replaced"));
  EXPECT_EQ(content(folder / "a"), "old");
  EXPECT_EQ(folder.entries(), 1U);
}

// ---- Folders that appear whole or not at all

using Options = StagedFolder::Options;

void put(const fs::path& folder, std::string_view text) {
  fs::create_directories(folder);
  write_file(folder / "file", text);
}

TEST(StagedFolder, AppearsAtCommitOnly) {
  const Folder folder;
  {
    StagedFolder staged(folder / "above/out/", {});
    write_file(staged.path() / "file", "new");
    EXPECT_FALSE(fs::exists(folder / "above/out"));
    staged.commit();
  }
  EXPECT_EQ(content(folder / "above/out/file"), "new");
  EXPECT_FALSE(fs::exists(folder / "above/out/.lock"));
  EXPECT_FALSE(fs::exists(folder / "above/out.partial"));
}

TEST(StagedFolder, DroppedItLeavesNothing) {
  const Folder folder;
  {
    put(StagedFolder(folder / "a/b/out", {}).path(), "new");
  }
  EXPECT_EQ(folder.entries(), 0U);
  put(folder / "out", "old");
  {
    put(StagedFolder(folder / "out", {.replace = true}).path(), "new");
  }
  EXPECT_EQ(content(folder / "out/file"), "old");
  EXPECT_EQ(folder.entries(), 1U);
}

TEST(StagedFolder, ReplacesOnlyWhenAsked) {
  const Folder folder;
  put(folder / "out", "old");
  EXPECT_THAT(refusal([&] { StagedFolder(folder / "out", {}); }), HasSubstr("exists already"));
  StagedFolder staged(folder / "out", {.replace = true});
  put(staged.path(), "new");
  EXPECT_EQ(content(folder / "out/file"), "old");
  staged.commit();
  EXPECT_EQ(content(folder / "out/file"), "new");
  EXPECT_EQ(folder.entries(), 1U);
}

TEST(StagedFolder, ResumesFromAFolderThatHoldsSomething) {
  const Folder folder;
  {
    StagedFolder staged(folder / "out", {});
    fs::create_directories(staged.path() / "state/step-5");
    put(staged.path(), "half");
    staged.keep();
  }
  {
    StagedFolder staged(folder / "out", {.resume = "state"});
    EXPECT_TRUE(fs::exists(staged.path() / "state/step-5"));
  }  // not lost by a run that changes its mind
  EXPECT_TRUE(fs::exists(folder / "out.partial/state/step-5"));
  fs::remove(folder / "out.partial/state/step-5");
  {
    StagedFolder staged(folder / "out", {.resume = "state"});
  }
  EXPECT_FALSE(fs::exists(folder / "out.partial"));
}

TEST(StagedFolder, TakesAnEmptyFolder) {
  const Folder folder;
  fs::create_directory(folder / "out");
  StagedFolder staged(folder / "out", {});
  put(staged.path(), "new");
  staged.commit();
  EXPECT_EQ(content(folder / "out/file"), "new");
}

TEST(StagedFolder, RefusesWhatItWouldDestroy) {
  const Folder folder;
  put(folder / "models/in", "weights");
  write_file(folder / "file", "x");
  fs::create_symlink("nowhere", folder / "link");
  fs::create_symlink("models", folder / "to_models");
  const fs::path input = folder / "models/in";
  const auto says = [&](const fs::path& out) {
    return refusal([&] { StagedFolder(out, {.replace = true, .inputs = {input}}); });
  };
  EXPECT_THAT(says(input), HasSubstr("is the input"));
  EXPECT_THAT(says(folder / "models/in/"), HasSubstr("is the input"));
  EXPECT_THAT(says(folder / "models"), HasSubstr("holds the input"));
  EXPECT_THAT(says(folder / "to_models"), HasSubstr("holds the input"));
  EXPECT_THAT(says(folder / "models/../models"), HasSubstr("holds the input"));
  put(folder / "models/in/unet", "a part");
  EXPECT_THAT(says(folder / "models/in/unet"), HasSubstr("is a part of the input"));
  EXPECT_EQ(content(folder / "models/in/unet/file"), "a part");
  EXPECT_THAT(says(folder / "file"), HasSubstr("is a file"));
  EXPECT_THAT(says(folder / "file/below"), HasSubstr("cannot be made"));
  EXPECT_THAT(says(folder / "link"), HasSubstr("leads nowhere"));
  for (const char* out : {"", ".", "..", "/", "a/..", "a/."})
    EXPECT_THAT(says(out), HasSubstr("name a new folder")) << out;
  EXPECT_EQ(content(folder / "models/in/file"), "weights");
  EXPECT_EQ(folder.entries(), 4U);
}

TEST(StagedFolder, InsideTheInputIsAllowed) {
  const Folder folder;
  put(folder / "in", "weights");
  StagedFolder staged(folder / "in/out", {.inputs = {folder / "in"}});
  put(staged.path(), "new");
  staged.commit();
  EXPECT_EQ(content(folder / "in/file"), "weights");
  EXPECT_EQ(content(folder / "in/out/file"), "new");
}

TEST(StagedFolder, WritesWhereALinkLeads) {
  const Folder folder;
  put(folder / "there", "old");
  fs::create_symlink("there", folder / "link");
  StagedFolder staged(folder / "link", {.replace = true});
  put(staged.path(), "new");
  staged.commit();
  EXPECT_TRUE(fs::is_symlink(folder / "link"));
  EXPECT_EQ(content(folder / "there/file"), "new");
  EXPECT_EQ(folder.entries(), 2U);
}

TEST(StagedFolder, OneAtATime) {
  const Folder folder;
  StagedFolder first(folder / "out", {});
  put(first.path(), "first");
  EXPECT_THAT(refusal([&] { StagedFolder(folder / "out", {}); }), HasSubstr("another run"));
  first.commit();
  EXPECT_THAT(refusal([&] { StagedFolder(folder / "out", {}); }), HasSubstr("exists already"));
  EXPECT_EQ(content(folder / "out/file"), "first");
  EXPECT_EQ(folder.entries(), 1U);
}

TEST(StagedFolder, DoesNotReplaceWhatCameMeanwhile) {
  const Folder folder;
  {
    StagedFolder staged(folder / "out", {});
    put(staged.path(), "new");
    put(folder / "out", "another program's");
    EXPECT_THAT(refusal([&] { staged.commit(); }),
                HasSubstr("another program has made it meanwhile; the work is in"));
  }
  EXPECT_EQ(content(folder / "out/file"), "another program's");
  EXPECT_EQ(content(folder / "out.partial/file"), "new");
}

TEST(StagedFolder, CleansWhatAKilledRunLeft) {
  const Folder folder;
  put(folder / "out.partial/deep", "half");
  put(folder / "out.replaced", "old");
  put(folder / "out", "older");
  StagedFolder staged(folder / "out", {.replace = true});
  EXPECT_FALSE(fs::exists(folder / "out.partial/deep"));
  put(staged.path(), "new");
  staged.commit();
  EXPECT_EQ(content(folder / "out/file"), "new");
  EXPECT_EQ(folder.entries(), 1U);
}

TEST(StagedFolder, PutsBackWhatAKilledRunMovedAside) {
  const Folder folder;
  put(folder / "out.replaced", "old");
  {
    const StagedFolder staged(folder / "out", {.replace = true});
  }
  EXPECT_EQ(content(folder / "out/file"), "old");
  EXPECT_EQ(folder.entries(), 1U);
}

// What a run leaves to go on from survives a second run that fails; the rest of it does not come along.
TEST(StagedFolder, ResumesFromOneFile) {
  const Folder folder;
  put(folder / "out.partial/stale", "half a model");
  write_file(folder / "out.partial/journal", "steps");
  {
    const StagedFolder staged(folder / "out", {.resume = "journal"});
  }
  EXPECT_EQ(content(folder / "out.partial/journal"), "steps");
  EXPECT_FALSE(fs::exists(folder / "out.partial/stale"));
  {
    const StagedFolder staged(folder / "out", {});
  }
  EXPECT_EQ(folder.entries(), 0U);
}

// Half a folder under its own name would be taken for a damaged one.
TEST(RemoveFolder, TheFolderIsWholeOrGoneWhenItIsKilled) {
  const Folder folder;
  constexpr int kFiles = 300, kRounds = 60;
  int gone = 0;
  for (int round = 0; round < kRounds; ++round) {
    const fs::path path = folder / "state";
    remove_folder(path);
    fs::create_directory(path);
    for (int i = 0; i < kFiles; ++i) std::ofstream(path / std::to_string(i)) << i;
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      remove_folder(path);
      ::_exit(0);
    }
    if (round + 1 < kRounds) {
      ::usleep(static_cast<useconds_t>(50 * round));
      ::kill(child, SIGKILL);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    if (!fs::exists(path)) {
      ++gone;
      continue;
    }
    ASSERT_EQ(std::distance(fs::directory_iterator(path), fs::directory_iterator()), kFiles) << round;
  }
  EXPECT_GT(gone, 0);
  remove_folder(folder / "state");
  remove_folder(folder / "state");
  EXPECT_EQ(folder.entries(), 0U);
}

// ---- Hashes

TEST(Sha256, AgreesWithTheStandard) {
  EXPECT_EQ(sha256_hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  Sha256 hash;
  hash.add("a");
  hash.add("");
  hash.add("bc");
  EXPECT_EQ(hash.hex(), sha256_hex("abc"));
}

}  // namespace
}  // namespace lamina
