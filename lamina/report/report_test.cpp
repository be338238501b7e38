#include "lamina/report/report.h"

#include <gmock/gmock.h>

#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <regex>
#include <set>

#include "lamina/base/error.h"
#include "lamina/base/file.h"
#include "lamina/report/embedded_test_files.h"
#include "lamina/report/impl/drawings.h"
#include "lamina/report/impl/example.h"
#include "lamina/report/impl/golden.h"
#include "lamina/report/impl/markup.h"
#include "lamina/report/impl/picture.h"
#include "lamina/report/report_assets.h"

namespace lamina::report {
namespace {

using impl::Range;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

constexpr double inf = std::numeric_limits<double>::infinity();

size_t count(std::string_view text, std::string_view what) {
  size_t found = 0;
  for (size_t at = 0; (at = text.find(what, at)) != std::string_view::npos; at += what.size()) ++found;
  return found;
}

std::string replaced(std::string text, std::string_view what, std::string_view by) {
  for (size_t at = 0; (at = text.find(what, at)) != std::string::npos; at += by.size())
    text.replace(at, what.size(), by);
  return text;
}

Report with(Element element) {
  return {.title = "t", .sections = {{.title = "s", .elements = {std::move(element)}}}};
}

std::string message(const Report& report) {
  try {
    check(report);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

// ---- the page

TEST(Html, OfASmallReportIsAsItWasLookedAt) {
  // The assets are files of their own: the golden file holds the page around them.
  std::string html = to_html(impl::small_example());
  for (const EmbeddedFile& file : report_assets())
    html = replaced(html, file.bytes, fmt::format("[{}]", file.name));
  html = std::regex_replace(html, std::regex("'sha256-[^']*'"), "'sha256-...'");
  impl::expect_golden("report_small.html", html);
}

TEST(Json, OfASmallReportIsAsItWasLookedAt) {
  impl::expect_golden("report_small.json", to_json(impl::small_example()).dump(1) + "\n");
}

TEST(Html, IsTheSameBytesForTheSameReport) {
  EXPECT_EQ(to_html(impl::pruning_example()), to_html(impl::pruning_example()));
  EXPECT_EQ(to_json(impl::pruning_example()).dump(), to_json(impl::pruning_example()).dump());
}

TEST(Html, AsksNothingOfTheNetwork) {
  const std::string html = to_html(impl::pruning_example());
  EXPECT_THAT(html, HasSubstr("default-src 'none'"));
  EXPECT_EQ(count(html, "<link "), 1u);  // the empty icon, so that browsers look for none
  EXPECT_EQ(count(html, "src="), 0u + count(html, "img-src="));
  EXPECT_EQ(count(html, "@import"), 0u);
  std::set<std::string> addresses;
  const std::regex address("https?://[A-Za-z0-9./_-]*");
  for (std::sregex_iterator at(html.begin(), html.end(), address), end; at != end; ++at)
    addresses.insert(at->str());
  // Names, not places: the SVG namespace, and where the chart script comes from.
  addresses.erase("http://www.w3.org/2000/svg");
  addresses.erase("https://github.com/leeoniya/uPlot");
  EXPECT_THAT(addresses, testing::IsEmpty());
}

TEST(Html, EmbedsTheChartScriptOnceAndOnlyForCurves) {
  const std::string_view script = embedded(report_assets(), "assets/uplot/uPlot.iife.min.js");
  EXPECT_EQ(count(to_html(impl::pruning_example()), script), 1u);
  EXPECT_EQ(count(to_html(impl::unet_example()), script), 0u);
}

TEST(Html, StaysUnderTwoMegabytes) {
  EXPECT_LT(to_html(impl::pruning_example()).size(), 500'000u);
  // 80 blocks, 40 steps: the largest stacks that are cut today.
  HeatMap map{.title = "large", .column_axis = "candidate", .row_axis = "step", .value_name = "score"};
  Network network{.title = "large"};
  for (int part = 0; part < 160; ++part)
    map.columns.push_back(fmt::format("{}{}", part % 2 ? "F" : "A", part / 2));
  for (int block = 0; block < 80; ++block) {
    network.blocks.push_back({.name = std::to_string(block),
                              .parts = {{.label = fmt::format("A{}", block), .score = std::sqrt(block)},
                                        {.label = fmt::format("F{}", block), .score = std::cbrt(block)}}});
  }
  for (int step = 0; step < 40; ++step) {
    map.rows.push_back(std::to_string(step + 1));
    for (int part = 0; part < 160; ++part) map.cells.push_back({.value = std::sin(step * 160 + part) + 1.5});
  }
  Report report = with(map);
  report.sections[0].elements.emplace_back(network);
  EXPECT_LT(to_html(report).size(), 2'000'000u);
}

TEST(Html, ShowsNoNumberThatTheJsonDoesNotHold) {
  for (const Report& report : {impl::small_example(), impl::pruning_example(), impl::unet_example()}) {
    std::set<double> held;
    const std::function<void(const Json&)> collect = [&](const Json& value) {
      if (value.is_number()) held.insert(value.get<double>());
      if (value.is_structured()) std::ranges::for_each(value, collect);
    };
    collect(to_json(report));
    const std::string html = to_html(report);
    const std::regex number("<data value=\"([^\"]*)\">");
    size_t shown = 0;
    for (std::sregex_iterator at(html.begin(), html.end(), number), end; at != end; ++at, ++shown) {
      EXPECT_TRUE(held.contains(std::stod((*at)[1]))) << at->str();
    }
    EXPECT_GT(shown, 5u);
  }
}

TEST(Html, DoesNotRunWhatAModelWrote) {
  const std::string nasty =
      "</script><script>alert(1)</script>\"'><img src=x onerror=alert(2)>\xff\xfe\x1b[2J `<b>`";
  Network network{.title = nasty,
                  .blocks = {{.name = nasty, .parts = {{.label = nasty, .score = 1, .note = nasty}}}},
                  .score_name = nasty,
                  .format = {Notation::fixed, 1, nasty},
                  .note = nasty};
  Series series{.title = nasty,
                .x = {nasty, {Notation::fixed, 1, nasty}},
                .y = {nasty, {Notation::fixed, 1, nasty}},
                .curves = {{.name = nasty, .role = Curve::Role::method, .x = {1, 2}, .y = {1, 2}}},
                .chosen = 1,
                .note = nasty};
  HeatMap map{.title = nasty,
              .column_axis = nasty,
              .row_axis = nasty,
              .columns = {nasty},
              .rows = {nasty},
              .cells = {{.value = 1}},
              .value_name = nasty,
              .format = {Notation::fixed, 1, nasty},
              .note = nasty};
  Table table{.title = nasty,
              .columns = {{nasty, Column::Kind::prose},
                          {nasty, Column::Kind::code},
                          {nasty, Column::Kind::label},
                          {nasty, Column::Kind::number, {Notation::fixed, 1, nasty}}},
              .rows = {{.cells = {nasty, nasty, nasty, 1}, .mark = nasty}},
              .note = nasty};
  const std::string png = "\x89PNG\r\n\x1a\n";
  table.rows[0].cells[0] = Cell(nasty, {{.begin = 2, .end = 9, .name = nasty, .wrong = true}});
  DotPlot dots{.title = nasty,
               .axis = {nasty, {Notation::fixed, 1, nasty}},
               .groups = {nasty, nasty},
               .rows = {{.name = nasty, .values = {{1, 0, 2}, {}}, .note = nasty, .mark = nasty}},
               .reference = 1,
               .reference_name = nasty,
               .note = nasty};
  Pictures pictures{
      .title = nasty, .columns = {nasty}, .rows = {nasty}, .pictures = {{png, nasty}}, .note = nasty};
  const Report report{
      .title = nasty,
      .date = nasty,
      .version = nasty,
      .command = nasty,
      .verdict = {.sentence = nasty,
                  .figures = {{.name = nasty,
                               .before = 1,
                               .after = 2,
                               .format = {Notation::fixed, 1, nasty},
                               .measured = nasty}}},
      .sections = {{.title = nasty,
                    .elements = {Text{.text = nasty}, Text{.text = nasty, .form = Text::Form::code}, network,
                                 series, dots, map, table, pictures}}}};
  const std::string html = to_html(report);
  EXPECT_EQ(count(html, "<script>"), 1u);
  EXPECT_EQ(count(html, "</script>"), 2u);  // ours and the data of the one chart
  EXPECT_EQ(count(html, "<img "), 1u);
  EXPECT_EQ(count(html, "\x1b"), 0u);
  EXPECT_THAT(html, HasSubstr("\uFFFD"));
  EXPECT_NO_THROW(parse_json(to_json(report).dump(), "the report"));
}

TEST(Html, AnEmptyReportIsAPage) {
  EXPECT_THAT(to_html({}), AllOf(HasSubstr("<!doctype html>"), HasSubstr("</html>")));
  const Report hollow{
      .sections = {{.elements = {Text{}, Table{}, Series{}, DotPlot{}, HeatMap{}, Pictures{}, Network{}}}}};
  EXPECT_THAT(to_html(hollow), HasSubstr("Nothing was measured here."));
  EXPECT_EQ(to_json(hollow)["sections"][0]["elements"].size(), 7u);
}

TEST(Html, SaysWhereAnAxisStarts) {
  Series series{.y = {"loss", {Notation::fixed, 2, ""}},
                .curves = {{.name = "a", .role = Curve::Role::method, .x = {0, 1}, .y = {17, 18}}}};
  EXPECT_THAT(to_html(with(series)), HasSubstr("The vertical axis starts at 16.9, not at 0."));
  series.curves[0].y = {1, 18};
  EXPECT_THAT(to_html(with(series)), Not(HasSubstr("The vertical axis starts")));
}

TEST(Html, AChangeForTheWorseLooksLikeOneForTheBetter) {
  Report report{
      .verdict = {.figures = {{.name = "n", .before = 10, .after = 20, .better = Figure::Better::lower}}}};
  const std::string worse = to_html(report);
  report.verdict.figures[0].better = Figure::Better::higher;
  EXPECT_THAT(worse, HasSubstr(", worse"));
  EXPECT_EQ(replaced(worse, ", worse", ", better"), to_html(report));
}

TEST(Html, SetsStretchesOfProseApart) {
  const Table table{
      .columns = {{"said", Column::Kind::prose}},
      .rows = {{.cells = {Cell("a <b> c", {{.begin = 2, .end = 5, .name = "X&Y", .wrong = true}})}}}};
  EXPECT_THAT(to_html(with(table)),
              HasSubstr("a <span class=\"stretch wrong\">&lt;b&gt; <b>X&amp;Y</b></span> c</td>"));
  const Json cell = to_json(with(table))["sections"][0]["elements"][0]["rows"][0]["cells"][0];
  EXPECT_EQ(cell.dump(),
            R"({"parts":[{"text":"a "},{"text":"<b>","name":"X&Y","wrong":true},{"text":" c"}]})");
}

TEST(Html, ADotPlotPlacesValuesAndCutsLongIntervals) {
  DotPlot plot{.axis = {"F1", {Notation::fixed, 1, ""}},
               .groups = {"test"},
               .rows = {{.name = "a", .pattern = {true, false}, .values = {{10, 9, 11}}},
                        {.name = "b", .values = {{20}}}}};
  const std::string short_ones = to_html(with(plot));
  EXPECT_EQ(count(short_ones, "<circle class=\"first\""), 2u);
  EXPECT_EQ(count(short_ones, "<path class=\"interval first\""), 1u);
  EXPECT_THAT(short_ones, Not(HasSubstr("with an arrow")));
  // The second interval would leave the dots a hundredth of the width.
  plot.rows[1].values[0] = {20, -500, 540};
  const std::string long_one = to_html(with(plot));
  EXPECT_EQ(count(long_one, "<path class=\"interval first\""), 4u);
  EXPECT_THAT(long_one, HasSubstr("An interval with an arrow goes on beyond the axis."));
  EXPECT_THAT(long_one, Not(HasSubstr("The axis starts")));
  EXPECT_THAT(short_ones, HasSubstr("The axis starts at 8.45, not at 0."));
  EXPECT_THAT(long_one, HasSubstr("b: test 20.0 (-500.0 to 540.0)"));
  const auto x_of = [&](const std::string& html, size_t which) {
    size_t at = 0;
    for (size_t i = 0; i <= which; ++i) at = html.find("<circle class=\"first\" cx=\"", at) + 26;
    return std::stod(html.substr(at));
  };
  EXPECT_GT(x_of(long_one, 1) - x_of(long_one, 0), 100);
}

TEST(Html, TextKnowsParagraphsListsAndCode) {
  EXPECT_THAT(to_html(with(Text{.text = "a\n\nb `c<d` 14 %"})),
              HasSubstr("<p>a</p>\n<p>b <code>c&lt;d</code> 14\u00A0%</p>"));
  EXPECT_THAT(to_html(with(Text{.text = "a\n\nb", .form = Text::Form::list})),
              HasSubstr("<ul>\n<li>a</li>\n<li>b</li>\n</ul>"));
  EXPECT_THAT(to_html(with(Text{.text = "one ` tick"})), HasSubstr("<p>one ` tick</p>"));
  EXPECT_THAT(to_html(with(Text{.text = "x --y", .form = Text::Form::code})),
              HasSubstr("<code>x <span class=\"word\">--y</span></code>"));
}

// ---- the JSON

TEST(Json, KeepsEveryBitOfANumber) {
  const Table table{.columns = {{"x"}},
                    .rows = {{.cells = {0.1}},
                             {.cells = {1.0 / 3}},
                             {.cells = {5e-324}},
                             {.cells = {1.7976931348623157e308}},
                             {.cells = {-0.0}}}};
  const Json cells =
      parse_json(to_json(with(table)).dump(), "the report")["sections"][0]["elements"][0]["rows"];
  for (size_t i = 0; i < table.rows.size(); ++i)
    EXPECT_EQ(cells[i]["cells"][0].get<double>(), *table.rows[i].cells[0].number());
  EXPECT_THAT(to_json(with(table)).dump(), HasSubstr("[0.1]"));
}

TEST(Json, HasNullForWhatWasNotMeasuredAndWordsForInfinity) {
  const Table table{
      .columns = {{"x"}},
      .rows = {{.cells = {not_measured}}, {.cells = {inf}}, {.cells = {-inf}}, {.cells = {Cell()}}}};
  const Json rows = to_json(with(table))["sections"][0]["elements"][0]["rows"];
  EXPECT_TRUE(rows[0]["cells"][0].is_null());
  EXPECT_EQ(rows[1]["cells"][0], "inf");
  EXPECT_EQ(rows[2]["cells"][0], "-inf");
  EXPECT_TRUE(rows[3]["cells"][0].is_null());
}

TEST(Json, HoldsTheChangesThatThePageShows) {
  const Json figure =
      to_json({.verdict = {.figures = {{.name = "n",
                                        .before = 8,
                                        .after = 6,
                                        .better = Figure::Better::lower}}}})["verdict"]["figures"][0];
  EXPECT_EQ(figure["change"], -2.0);
  EXPECT_EQ(figure["change_percent"], -25.0);
  EXPECT_EQ(figure["judgement"], "better");
}

TEST(Json, HoldsTheHashOfAPictureInsteadOfItsBytes) {
  const Json picture = to_json(impl::unet_example())["sections"][1]["elements"][0]["pictures"];
  EXPECT_EQ(picture[0]["media_type"], "image/png");
  EXPECT_EQ(picture[0]["sha256"].get<std::string>().size(), 64u);
  EXPECT_TRUE(picture[3].is_null());
}

TEST(Json, SchemaIsJson) {
  EXPECT_EQ(parse_json(json_schema(), "the schema")["properties"]["lamina_report"]["const"], 1);
}

// ---- what does not fit together

TEST(Check, NamesTheSectionAndTheElement) {
  EXPECT_EQ(message(with(Table{.columns = {{"a"}, {"b"}}, .rows = {{.cells = {1}}}})),
            "report, section \"s\", element 1: row 1 of the table has 1 cells and the table 2 columns: give "
            "each column a cell");
}

TEST(Check, RefusesAWrongKindOfCell) {
  EXPECT_THAT(message(with(Table{.columns = {{"a"}}, .rows = {{.cells = {"text"}}}})),
              HasSubstr("holds a text in the column \"a\""));
  EXPECT_THAT(message(with(Table{.columns = {{"a", Column::Kind::label}}, .rows = {{.cells = {1}}}})),
              HasSubstr("holds a number in the column \"a\""));
}

TEST(Check, RefusesCurvesThatCannotBeDrawn) {
  const auto of = [](Curve curve, Scale scale = Scale::linear) {
    return message(with(Series{.y = {.scale = scale}, .curves = {std::move(curve)}}));
  };
  EXPECT_THAT(of({.name = "c", .x = {1, 2}, .y = {1}}), HasSubstr("give one y for each x"));
  EXPECT_THAT(of({.name = "c", .x = {1}, .y = {1}, .low = {1}}), HasSubstr("1 lower and 0 upper ends"));
  EXPECT_THAT(of({.name = "c", .x = {2, 1}, .y = {1, 1}}), HasSubstr("sort its points by x"));
  EXPECT_THAT(of({.name = "c", .x = {1, 1}, .y = {1, 1}}), HasSubstr("sort its points by x"));
  EXPECT_THAT(of({.name = "c", .x = {not_measured}, .y = {1}}), HasSubstr("an x that is not finite"));
  EXPECT_THAT(of({.name = "c", .x = {1}, .y = {0}}, Scale::logarithmic), HasSubstr("not above 0"));
  EXPECT_EQ(of({.name = "c", .x = {1, 2}, .y = {not_measured, inf}}, Scale::logarithmic), "no error");
}

TEST(Check, RefusesStretchesThatDoNotFit) {
  const auto of = [](std::vector<Stretch> stretches, Column::Kind kind = Column::Kind::prose) {
    return message(
        with(Table{.columns = {{"a", kind}}, .rows = {{.cells = {Cell("words", std::move(stretches))}}}}));
  };
  EXPECT_EQ(of({{.begin = 0, .end = 2}, {.begin = 2, .end = 5}}), "no error");
  EXPECT_THAT(of({{.begin = 0, .end = 3}, {.begin = 2, .end = 5}}), HasSubstr("none over another"));
  EXPECT_THAT(of({{.begin = 0, .end = 6}}), HasSubstr("in a text of 5 bytes"));
  EXPECT_THAT(of({{.begin = 3, .end = 2}}), HasSubstr("none over another"));
  EXPECT_THAT(of({{.begin = 0, .end = 2}}, Column::Kind::label), HasSubstr("not of prose"));
}

TEST(Check, RefusesDotsThatCannotBeDrawn) {
  const auto of = [](DotRow::Value value, Scale scale = Scale::linear) {
    return message(
        with(DotPlot{.axis = {.scale = scale}, .groups = {"g"}, .rows = {{.name = "r", .values = {value}}}}));
  };
  EXPECT_EQ(of({}), "no error");
  EXPECT_EQ(of({1, 0.5, 2}, Scale::logarithmic), "no error");
  EXPECT_THAT(of({1, 0, 2}, Scale::logarithmic), HasSubstr("not above 0"));
  EXPECT_THAT(of({1, 2, 3}), HasSubstr("around the value"));
  EXPECT_THAT(of({1, 0.5, not_measured}), HasSubstr("both ends"));
  EXPECT_THAT(message(with(DotPlot{.groups = {"a", "b"}, .rows = {{.values = {{1}}}}})),
              HasSubstr("1 values for 2 groups"));
  EXPECT_THAT(message(with(DotPlot{.groups = {"a", "b", "c"}})), HasSubstr("3 groups"));
}

TEST(Check, RefusesGridsWithHoles) {
  EXPECT_THAT(message(with(HeatMap{.columns = {"a", "b"}, .rows = {"1"}, .cells = {{}}})),
              HasSubstr("1 cells for 1 rows and 2 columns"));
  EXPECT_THAT(message(with(Pictures{.columns = {"a"}, .rows = {"1"}})),
              HasSubstr("0 pictures for 1 rows and 1 columns"));
  EXPECT_THAT(message(with(Pictures{.columns = {"a"}, .rows = {"1"}, .pictures = {{"GIF89a", ""}}})),
              HasSubstr("no PNG, JPEG or WebP"));
}

TEST(Check, RefusesAStepForWhatStayed) {
  EXPECT_THAT(message(with(Network{.blocks = {{.parts = {{.label = "A0", .step = 1}}}}})),
              HasSubstr("\"A0\" has the step 1"));
}

TEST(CutList, IsInTheOrderInWhichTheyWent) {
  const Network network{
      .blocks = {{.parts = {{.label = "A0", .state = Part::State::cut, .step = 2}, {.label = "F0"}}},
                 {.parts = {{.label = "A1", .state = Part::State::cut, .step = 1}}}}};
  EXPECT_EQ(cut_list(network), "A1 A0");
  EXPECT_EQ(cut_list({}), "");
}

TEST(Judgement, NeedsADirectionAndTwoMeasurements) {
  const auto of = [](double before, double after, Figure::Better better) {
    return judgement({.before = before, .after = after, .better = better});
  };
  EXPECT_EQ(of(1, 2, Figure::Better::lower), "worse");
  EXPECT_EQ(of(1, 2, Figure::Better::higher), "better");
  EXPECT_EQ(of(1, 2, Figure::Better::neither), "");
  EXPECT_EQ(of(2, 2, Figure::Better::lower), "same");
  EXPECT_EQ(of(not_measured, 2, Figure::Better::lower), "");
}

// ---- scales

TEST(Range, LeavesOutWhatCannotBePlaced) {
  const std::vector<double> values = {not_measured, inf, -3, 0, 5};
  EXPECT_EQ(Range::of(values, Scale::linear)->low(), -3);
  EXPECT_EQ(Range::of(values, Scale::logarithmic)->low(), 5);
  EXPECT_FALSE(Range::of(std::vector<double>{not_measured}, Scale::linear));
}

TEST(Range, PlacesAndClamps) {
  const auto range = *Range::of(std::vector<double>{1, 100}, Scale::logarithmic);
  EXPECT_DOUBLE_EQ(range.place(10), 0.5);
  EXPECT_EQ(range.place(0), 0);
  EXPECT_EQ(range.place(inf), 1);
  EXPECT_TRUE(std::isnan(range.place(not_measured)));
  EXPECT_EQ(impl::ramp_step(range, 100), impl::ramp_steps - 1);
  EXPECT_EQ(impl::ramp_step(range, 1), 0);
}

TEST(Range, TicksAreRoundAndInside) {
  const auto ticks = [](double low, double high, Scale scale, int count) {
    return Range::of(std::vector<double>{low, high}, scale)->ticks(count);
  };
  EXPECT_THAT(ticks(0, 16, Scale::linear, 8), ElementsAre(0, 2, 4, 6, 8, 10, 12, 14, 16));
  EXPECT_THAT(ticks(15.8, 20.1, Scale::linear, 6), ElementsAre(16, 17, 18, 19, 20));
  EXPECT_THAT(ticks(14, 1400, Scale::logarithmic, 6), ElementsAre(20, 50, 100, 200, 500, 1000));
  EXPECT_THAT(ticks(15, 25, Scale::logarithmic, 6), ElementsAre(16, 18, 20, 22, 24));
  EXPECT_THAT(ticks(3, 3, Scale::linear, 6), ElementsAre(3));
  EXPECT_LE(ticks(1e-12, 1e12, Scale::logarithmic, 6).size(), 10u);
  EXPECT_THAT(Range::of(std::vector<double>{0, 2}, Scale::linear)->ticks(8, 1), ElementsAre(0, 1, 2));
}

// ---- colours

double luminance(const std::string& colour) {
  const auto channel = [&](size_t i) {
    const double value = std::stoi(colour.substr(1 + 2 * i, 2), nullptr, 16) / 255.0;
    return value <= 0.04045 ? value / 12.92 : std::pow((value + 0.055) / 1.055, 2.4);
  };
  return 0.2126 * channel(0) + 0.7152 * channel(1) + 0.0722 * channel(2);
}

double contrast(const std::string& a, const std::string& b) {
  const double x = luminance(a), y = luminance(b);
  return (std::max(x, y) + 0.05) / (std::min(x, y) + 0.05);
}

TEST(Colours, AreLegibleInLightAndDarkAndInGrey) {
  const std::string css(embedded(report_assets(), "assets/page.css"));
  const size_t dark = css.find("@media screen and (prefers-color-scheme: dark)");
  ASSERT_NE(dark, std::string::npos);
  for (const std::string& block :
       {css.substr(0, dark), css.substr(dark, css.find("* { box-sizing") - dark)}) {
    std::map<std::string, std::string> colours;
    const std::regex variable("--([a-z0-9]+): (#[0-9a-f]{6})[;\\s]");
    for (std::sregex_iterator at(block.begin(), block.end(), variable), end; at != end; ++at)
      colours[(*at)[1]] = (*at)[2];
    ASSERT_GE(colours.size(), 26u);
    for (const auto& [text, ground] : {std::pair{"ink", "page"},
                                       {"quiet", "page"},
                                       {"accent", "page"},
                                       {"method", "page"},
                                       {"ink", "soft"},
                                       {"quiet", "soft"},
                                       {"focus", "page"}}) {
      EXPECT_GE(contrast(colours[text], colours[ground]), 4.5) << text << " on " << ground;
    }
    EXPECT_GE(contrast(colours["baseline"], colours["page"]), 3) << "lines of baselines";
    double before = contrast(colours["r0"], colours["page"]);
    for (int step = 0; step < impl::ramp_steps; ++step) {
      const std::string fill = colours[fmt::format("r{}", step)], text = colours[fmt::format("t{}", step)];
      EXPECT_GE(contrast(fill, text), 4.5) << "step " << step;
      if (step > 0) {
        EXPECT_GT(contrast(fill, colours["page"]), 1.08 * before)
            << "step " << step << " must stand out more than the one before";
      }
      before = contrast(fill, colours["page"]);
    }
  }
}

// ---- small parts

TEST(Picture, Base64) {
  EXPECT_EQ(impl::base64(""), "");
  EXPECT_EQ(impl::base64("f"), "Zg==");
  EXPECT_EQ(impl::base64("fo"), "Zm8=");
  EXPECT_EQ(impl::base64("foo"), "Zm9v");
  EXPECT_EQ(impl::base64("\xff\xfe\xfd"), "//79");
}

TEST(Markup, CleansWhatIsNoText) {
  EXPECT_EQ(impl::clean("a\tb\nc"), "a\tb\nc");
  EXPECT_EQ(impl::clean("\xff"), "\uFFFD");
  EXPECT_EQ(impl::clean("\xe2\x82"), "\uFFFD\uFFFD");
  EXPECT_EQ(impl::clean("\x1b[0m"), "\uFFFD[0m");
  EXPECT_EQ(impl::clean("\xc2\x9b"), "\uFFFD");  // a control character of two bytes
  EXPECT_EQ(impl::clean(std::string_view("\0", 1)), "\uFFFD");
  EXPECT_EQ(impl::clean("h\u00e9 \u4e16 \U0001F600"), "h\u00e9 \u4e16 \U0001F600");
}

TEST(Embedded, IsByteForByteTheFile) {
  EXPECT_EQ(embedded(embedded_test_files(), "impl/every_byte.bin"),
            read_file("lamina/report/impl/every_byte.bin"));
  for (const EmbeddedFile& file : report_assets())
    EXPECT_EQ(file.bytes, read_file("lamina/report/" + std::string(file.name))) << file.name;
  EXPECT_THROW(embedded(report_assets(), "no such file"), Error);
}

TEST(Assets, FitIntoAScriptElement) {
  for (const EmbeddedFile& file : report_assets()) {
    EXPECT_EQ(file.bytes.find("</s"), std::string_view::npos) << file.name;
    EXPECT_EQ(file.bytes.find("<!--"), std::string_view::npos) << file.name;
    EXPECT_EQ(file.bytes.find('\r'), std::string_view::npos)
        << file.name << ": a carriage return would change the hash in the page";
  }
}

}  // namespace
}  // namespace lamina::report
