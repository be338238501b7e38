#include "lamina/report/terminal.h"

#include <gmock/gmock.h>

#include "lamina/base/text.h"
#include "lamina/report/impl/example.h"

namespace lamina::report {
namespace {

using testing::HasSubstr;
using testing::Not;

int longest_line(const std::string& text) {
  int longest = 0;
  for (const std::string& line : split(text, '\n')) longest = std::max(longest, display_width(line));
  return longest;
}

bool is_ascii(std::string_view text) {
  return std::ranges::all_of(text, [](char letter) { return static_cast<unsigned char>(letter) < 0x80; });
}

const Table sizes{.title = "Sizes",
                  .columns = {{"File", Column::Kind::code},
                              {"Size", Column::Kind::number, {Notation::scaled, 3, "B"}},
                              {"Parts", Column::Kind::number, whole()}},
                  .rows = {{.cells = {"model.safetensors", 269060552, 60}},
                           {.cells = {"世界", 1e6, 7}, .mark = "chosen"},
                           {.cells = {"x", not_measured, Cell()}}}};

TEST(DisplayWidth, CountsColumnsAndNotBytes) {
  EXPECT_EQ(display_width("abc"), 3);
  EXPECT_EQ(display_width("h\u00e9llo"), 5);
  EXPECT_EQ(display_width("\u4e16\u754c"), 4);        // CJK
  EXPECT_EQ(display_width("\uff21"), 2);              // full-width A
  EXPECT_EQ(display_width("\U0001F600"), 2);          // emoji
  EXPECT_EQ(display_width("e\u0301"), 1);             // combining accent
  EXPECT_EQ(display_width("\u1112\u1161\u11ab"), 2);  // conjoining jamo
  EXPECT_EQ(display_width("\u200b\ufeff"), 0);
  EXPECT_EQ(display_width("·○▸…"), 4);
}

TEST(TerminalTable, SetsNumbersToTheRight) {
  EXPECT_EQ(terminal_table(sizes, {}),
            "Sizes\n"
            "File                 Size  Parts\n"
            "model.safetensors  269 MB     60\n"
            "世界                 1 MB      7  chosen\n"
            "x                       –      –\n");
}

TEST(TerminalTable, FitsAnyWidth) {
  for (int width = 1; width <= 80; ++width) {
    EXPECT_LE(longest_line(terminal_table(sizes, {.width = width})), width);
    EXPECT_LE(longest_line(terminal_table(sizes, {.unicode = false, .width = width})), width);
  }
  EXPECT_THAT(terminal_table(sizes, {.width = 34}), HasSubstr("269 MB"));  // text gives way first
}

TEST(TerminalTable, IsAsciiWhereThatIsAll) {
  EXPECT_TRUE(is_ascii(terminal_table(sizes, {.unicode = false})));
}

TEST(TerminalTable, LetsNoTextMoveTheCursor) {
  const Table table{.columns = {{"a\x1b[2J", Column::Kind::label}},
                    .rows = {{.cells = {"x\ny\r\x1b]0;title\x07\xff"}}}};
  for (const bool unicode : {true, false}) {
    const std::string text = terminal_table(table, {.unicode = unicode});
    EXPECT_EQ(text.find('\x1b'), std::string::npos);
    EXPECT_EQ(text.find('\r'), std::string::npos);
    EXPECT_EQ(std::ranges::count(text, '\n'), 2);
  }
}

TEST(TerminalTable, HasEscapesOnlyWithColour) {
  EXPECT_THAT(terminal_table(sizes, {}), Not(HasSubstr("\x1b")));
  EXPECT_THAT(terminal_table(sizes, {.colour = true}), HasSubstr("\x1b[1mSizes\x1b[0m"));
}

TEST(TerminalTable, OfNothing) {
  EXPECT_EQ(terminal_table({}, {}), "");
  EXPECT_EQ(terminal_table({.columns = {{"a"}}}, {}), "a\n");
}

TEST(TerminalVerdict, IsTheSentenceAndTheFigures) {
  EXPECT_EQ(terminal_verdict(impl::pruning_example().verdict, {}),
            "The model is 13 % smaller and decodes 14 % faster; on text that the search never\n"
            "read, perplexity rises from 17.42 to 19.87.\n"
            "\n"
            "                               before           after   change\n"
            "Parameters                    134.5 M         116.8 M  -13.2 %  better\n"
            "File                         269.1 MB        233.7 MB  -13.2 %  better\n"
            "Compute (FLOPs/token)         269.7 M         233.1 M  -13.6 %  better\n"
            "Key-value cache        23.04 kB/token  19.20 kB/token  -16.7 %  better\n"
            "Speed (tokens/s)                 41.8            47.6  +13.9 %  better\n"
            "Held-out perplexity             17.42           19.87  +14.1 %  worse\n");
}

TEST(TerminalVerdict, FitsNarrowWindows) {
  for (int width = 20; width <= 80; ++width)
    EXPECT_LE(longest_line(terminal_verdict(impl::pruning_example().verdict, {.width = width})), width);
}

Tick tick(std::string phase, double done, double total) {
  return {.phase = std::move(phase), .done = done, .total = total, .detail = {}};
}

TEST(ProgressLine, TellsDoneRateAndTimeLeft) {
  EXPECT_EQ(
      progress_line({.phase = "search", .done = 217, .total = 480, .detail = "best F27 0.0213"}, 67.8, {}),
      "search  217/480  45 %  3.2/s  1 min 22 s left  best F27 0.0213");
}

TEST(ProgressLine, WithoutATotalHasNoPercent) {
  EXPECT_EQ(progress_line(tick("read", 1500, 0), 10, {}), "read  1,500  150/s");
}

TEST(ProgressLine, GivesNoRateFromNothing) {
  EXPECT_EQ(progress_line(tick("search", 0, 480), 30, {}), "search  0/480  0 %");
  EXPECT_EQ(progress_line(tick("search", 1, 480), 0.2, {}), "search  1/480  0 %");
}

TEST(ProgressLine, SlowWorkIsCountedInSecondsEach) {
  EXPECT_EQ(progress_line(tick("layers", 2, 4), 20, {}), "layers  2/4  50 %  10 s each  20 s left");
}

TEST(ProgressLine, NeverSaysMoreThanAll) {
  EXPECT_EQ(progress_line(tick("p", 12, 10), 2, {}), "p  10/10  100 %  5.0/s");
}

TEST(ProgressLine, DropsWhatDoesNotFit) {
  const Tick tick{.phase = "search", .done = 217, .total = 480, .detail = "best F27 0.0213"};
  EXPECT_EQ(progress_line(tick, 67.8, {.width = 30}), "search  217/480  45 %  3.2/s");
  for (int width = 1; width <= 80; ++width)
    EXPECT_LE(display_width(progress_line(tick, 67.8, {.width = width})), width);
}

TEST(StackLine, HasOneCharacterAPart) {
  using enum StackCell;
  const std::vector<StackCell> cells = {kept, kept, cut, tried, kept};
  EXPECT_EQ(stack_line(cells, {}), "··○▸·");
  EXPECT_EQ(stack_line(cells, {.unicode = false}), "..o>.");
  EXPECT_THAT(stack_line(cells, {.colour = true}), HasSubstr("\x1b[33m▸\x1b[0m"));
  EXPECT_EQ(stack_line({}, {}), "");
}

TEST(StackLine, ShowsTheSurroundingsOfWhatIsTried) {
  std::vector<StackCell> cells(160, StackCell::kept);
  cells[100] = StackCell::tried;
  const std::string line = stack_line(cells, {});
  EXPECT_EQ(display_width(line), 80);
  EXPECT_TRUE(line.starts_with("…") && line.ends_with("…"));
  EXPECT_THAT(line, HasSubstr("▸"));
  cells[100] = StackCell::kept;
  cells[0] = StackCell::tried;
  EXPECT_TRUE(stack_line(cells, {.unicode = false}).starts_with(">..."));
  EXPECT_TRUE(stack_line(cells, {.unicode = false}).ends_with("~"));
  for (int width = 1; width < 170; ++width)
    EXPECT_LE(display_width(stack_line(cells, {.width = std::max(3, width)})), std::max(3, width));
}

TEST(StyleFor, RespectsTheSurroundings) {
  const Surroundings usual{
      .terminal = true, .columns = 120, .term = "xterm-256color", .no_color = "", .locale = "en_GB.UTF-8"};
  const auto of = [&](auto change) {
    Surroundings around = usual;
    change(around);
    return style_for(around);
  };
  EXPECT_TRUE(style_for(usual).colour);
  EXPECT_TRUE(style_for(usual).unicode);
  EXPECT_EQ(style_for(usual).width, 80);
  EXPECT_FALSE(of([](Surroundings& s) { s.no_color = "1"; }).colour);
  EXPECT_FALSE(of([](Surroundings& s) { s.term = "dumb"; }).colour);
  EXPECT_FALSE(of([](Surroundings& s) { s.term = "dumb"; }).unicode);
  EXPECT_FALSE(of([](Surroundings& s) { s.terminal = false; }).colour);
  EXPECT_FALSE(of([](Surroundings& s) { s.locale = "C"; }).unicode);
  EXPECT_FALSE(of([](Surroundings& s) { s.locale = ""; }).unicode);
  EXPECT_TRUE(of([](Surroundings& s) { s.locale = "C.utf8"; }).unicode);
  EXPECT_EQ(of([](Surroundings& s) { s.columns = 40; }).width, 40);
  EXPECT_EQ(of([](Surroundings& s) { s.columns = 0; }).width, 80);
}

}  // namespace
}  // namespace lamina::report
