#include "lamina/report/chart.h"

#include <gmock/gmock.h>

#include <cmath>

#include "lamina/base/text.h"

namespace lamina::report {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;

TEST(Sparkline, OneCharacterAValueFromSmallestToLargest) {
  const double values[] = {4, 3, 2, 1, 0.5};
  EXPECT_EQ(sparkline(values, 10, {}), "█▆▄▂▁");
  EXPECT_EQ(sparkline(values, 10, {.unicode = false}), "#=-__");
}

TEST(Sparkline, MoreValuesThanWidthAreMeans) {
  std::vector<double> values;
  for (int i = 0; i < 1000; ++i) values.push_back(1000 - i);
  const std::string line = sparkline(values, 8, {});
  EXPECT_EQ(line, "█▇▆▅▄▃▂▁");
  EXPECT_EQ(display_width(line), 8);
}

TEST(Sparkline, NothingOneAndEqualValues) {
  EXPECT_EQ(sparkline({}, 8, {}), "");
  const double equal[] = {2, 2, 2};
  EXPECT_EQ(sparkline(equal, 8, {}), "▅▅▅");
  const double broken[] = {1, NAN, 2};
  EXPECT_EQ(sparkline(broken, 8, {}), "▁?█");
  EXPECT_EQ(sparkline(equal, 0, {}), "");
}

Series falling() {
  Series series{.x = {.name = "step", .format = whole()}, .y = {.name = "loss"}};
  Curve train{.name = "train"}, validation{.name = "validation"};
  for (int i = 1; i <= 100; ++i) train.x.push_back(i), train.y.push_back(4.0 * std::exp(-i / 30.0) + 1);
  validation.x = {1, 50, 100}, validation.y = {5, 3, 2};
  series.curves = {train, validation};
  return series;
}

TEST(Chart, FitsItsWidthAndNamesEnds) {
  for (const int width : {30, 60, 80}) {
    const std::string chart = terminal_chart(falling(), {.width = width}, 6);
    const std::vector<std::string> lines = split(chart, '\n');
    ASSERT_EQ(lines.size(), 9U) << chart;  // six of the chart, the axis, the names, the end
    for (const std::string& line : lines) EXPECT_LE(display_width(line), width) << chart;
    EXPECT_THAT(lines[0], HasSubstr("5.00"));
    EXPECT_THAT(lines[5], HasSubstr("1.14"));
    EXPECT_THAT(lines[6], EndsWith("100"));
    EXPECT_THAT(lines[7], HasSubstr("● validation"));
  }
}

TEST(Chart, FirstPointIsAtTheTopLeftLastAtTheBottomRight) {
  Series series = falling();
  series.curves.pop_back();
  const std::vector<std::string> lines =
      split(terminal_chart(series, {.unicode = false, .width = 50}, 5), '\n');
  EXPECT_THAT(lines[0], HasSubstr("|."));
  EXPECT_THAT(lines[4], EndsWith("."));
  EXPECT_EQ(display_width(lines[4]), 50);
}

TEST(Chart, PlainWhereThereIsNoUnicode) {
  for (const unsigned char letter : terminal_chart(falling(), {.unicode = false})) EXPECT_LT(letter, 0x80);
}

TEST(Chart, NothingToShow) {
  EXPECT_EQ(terminal_chart({}, {}), "");
  Series series = falling();
  for (Curve& curve : series.curves) curve.y.assign(curve.y.size(), NAN);
  EXPECT_EQ(terminal_chart(series, {}), "");
  EXPECT_EQ(terminal_chart(falling(), {.width = 8}), "");
}

TEST(Chart, NamesCannotMoveTheCursor) {
  Series series = falling();
  series.curves[0].name = "\x1b[2Jtrain\n";
  EXPECT_THAT(terminal_chart(series, {}), Not(HasSubstr("\x1b")));
}

}  // namespace
}  // namespace lamina::report
