#include "lamina/report/number.h"

#include <gmock/gmock.h>

#include <limits>

namespace lamina::report {
namespace {

using testing::ElementsAre;
using enum Notation;

constexpr double inf = std::numeric_limits<double>::infinity();

std::vector<std::string> column(std::initializer_list<double> values, const Format& format) {
  return written(std::vector<double>(values), format);
}

TEST(Number, CountsHaveThousandsAndNoFraction) {
  EXPECT_THAT(column({0, 7, 49152, -1234567, 999}, whole()),
              ElementsAre("0", "7", "49,152", "-1,234,567", "999"));
}

TEST(Number, FixedKeepsItsDigits) {
  EXPECT_THAT(column({17.416, 1234.5, -0.001}, {fixed, 2, ""}), ElementsAre("17.42", "1,234.50", "0.00"));
}

TEST(Number, AColumnSharesItsPrecision) {
  EXPECT_THAT(column({0.0213, 0.119, 0.5}, {}), ElementsAre("0.0213", "0.1190", "0.5000"));
  EXPECT_THAT(column({1234, 56.7}, {}), ElementsAre("1,234.0", "56.7"));
}

TEST(Number, SmallOnesGetAtMostTwoDigitsMoreThanLargeOnes) {
  EXPECT_THAT(column({0.001234, 12.34}, {}), ElementsAre("0.001", "12.340"));
}

TEST(Number, ExponentsWhereTheSpanIsTooWide) {
  EXPECT_THAT(column({1.23456e-7, 12}, {}), ElementsAre("1.23e-07", "1.20e+01"));
  EXPECT_EQ(written(0, {}), "0");
}

TEST(Number, RoundingUpToTheNextPowerDropsADigit) {
  EXPECT_EQ(written(9.996, {}), "10.0");
  EXPECT_EQ(written(0.09996, {}), "0.100");
  EXPECT_EQ(written(999999, {scaled, 3, ""}), "1.00 M");
}

TEST(Number, PrefixesBelongToThePairAndNotToEachNumber) {
  EXPECT_THAT(column({134515008, 116819136}, {scaled, 4, ""}), ElementsAre("134.5 M", "116.8 M"));
  EXPECT_THAT(column({1.02e9, 0.98e9}, {scaled, 3, "B"}), ElementsAre("1.02 GB", "0.98 GB"));
  EXPECT_EQ(written(512, {scaled, 3, "B"}), "512 B");
  EXPECT_EQ(written(23040, {scaled, 4, "B/token"}), "23.04 kB/token");
}

TEST(Number, UnitsStandBehindUnlessThePrefixHoldsThem) {
  EXPECT_EQ(with_unit(41.25, {fixed, 1, "tokens/s"}), "41.2 tokens/s");
  EXPECT_EQ(with_unit(269e6, {scaled, 3, "FLOPs/token"}), "269 M FLOPs/token");
  EXPECT_EQ(with_unit(269e6, {scaled, 3, "B"}), "269 MB");
  EXPECT_EQ(with_unit(3, whole()), "3");
}

TEST(Number, WhatWasNotMeasuredIsADash) {
  EXPECT_THAT(column({not_measured, 1.5, inf, -inf}, {fixed, 1, ""}), ElementsAre("–", "1.5", "∞", "-∞"));
  EXPECT_THAT(column({not_measured}, {}), ElementsAre("–"));
  EXPECT_THAT(column({}, {}), testing::IsEmpty());
}

TEST(Change, IsRelativeWithItsSign) {
  EXPECT_EQ(change(134515008, 116819136, {scaled, 4, ""}), "-13.2 %");
  EXPECT_EQ(change(17.42, 19.87, {}), "+14.1 %");
  EXPECT_EQ(change(-2, -1, {}), "+50.0 %");
  EXPECT_EQ(change(100, 100.4, {}), "+0.40 %");
}

TEST(Change, OfPercentagesIsInPoints) {
  EXPECT_EQ(change(71.2, 69.9, {fixed, 1, "%"}), "-1.30 points");
}

TEST(Change, HasWordsForTheEdges) {
  EXPECT_EQ(change(5, 5, {}), "unchanged");
  EXPECT_EQ(change(0, 2, {}), "+2.00");
  EXPECT_EQ(change(17, 1700, {}), "x 100.0");
  EXPECT_EQ(change(17, inf, {}), "+∞");
  EXPECT_EQ(change(not_measured, 2, {}), "");
  EXPECT_EQ(change(2, not_measured, {}), "");
}

}  // namespace
}  // namespace lamina::report
