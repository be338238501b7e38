// A report as a value: text, tables, series, dot plots, heat maps, picture grids and one drawing, the
// network; in front of them a verdict. It holds no clock, no path and no tensor, so the same value gives the
// same bytes of HTML and of JSON. Strings are UTF-8 (what is not becomes U+FFFD); a number that was not
// measured is NaN; an infinite one is shown as such.
#pragma once

#include <concepts>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "lamina/base/json.h"
#include "lamina/report/number.h"

namespace lamina::report {

// Empty lines part paragraphs, or the items of a list; `backticks` make code; nothing else is markup.
struct Text {
  enum class Form { prose, list, code };  // code comes with a button that copies it
  std::string text = {};
  Form form = Form::prose;
};

struct Column {
  enum class Kind {
    number,
    label,
    prose,
    code
  };  // prose keeps its line breaks and shares the width with its like
  std::string name = {};
  Kind kind = Kind::number;
  Format format = {};  // of numbers
};

// A part of a cell's text that is set apart, with what it is called: an entity, a word that changed.
struct Stretch {
  size_t begin = 0, end = 0;  // bytes
  std::string name = {};      // "PER"
  bool wrong = false;
};

// Nothing, a number or a string, in prose with stretches that are set apart.
class Cell {
 public:
  Cell() = default;
  template <std::convertible_to<double> Number>
  Cell(Number number) : value_(static_cast<double>(number)) {}
  Cell(std::string text) : value_(std::move(text)) {}
  Cell(const char* text) : value_(std::string(text)) {}
  // In the order of the text, none over another.
  Cell(std::string text, std::vector<Stretch> stretches)
      : value_(std::move(text)), stretches_(std::move(stretches)) {}

  const double* number() const { return std::get_if<double>(&value_); }
  const std::string* text() const { return std::get_if<std::string>(&value_); }
  const std::vector<Stretch>& stretches() const { return stretches_; }

 private:
  std::variant<std::monostate, double, std::string> value_;
  std::vector<Stretch> stretches_;
};

struct TableRow {
  std::vector<Cell> cells = {};
  std::string mark = {};  // a word that sets the row apart: "chosen", "worst of 24"
};

struct Table {
  std::string title = {};
  std::vector<Column> columns = {};
  std::vector<TableRow> rows = {};
  std::string note = {};
};

enum class Scale { linear, logarithmic };

struct Axis {
  std::string name = {};  // "sub-layers removed"
  Format format = {};
  Scale scale = Scale::linear;
};

struct Curve {
  enum class Role {
    method,
    baseline,
    reference
  };  // reference: a level to compare with, such as the uncut model
  std::string name = {};
  Role role = Role::baseline;
  std::vector<double> x = {};
  std::vector<double> y = {};
  std::vector<double> low = {};  // the band of an interval, both or neither
  std::vector<double> high = {};
};

struct Series {
  std::string title = {};
  Axis x = {};
  Axis y = {};
  std::vector<Curve> curves = {};
  std::optional<double> chosen = {};  // an x of the first curve of role method
  std::string note = {};              // what the band is, how many samples
};

// Values with their intervals beside each other on one axis, a row each: what a chart of curves is for things
// that have no order.
struct DotRow {
  struct Value {
    double value = not_measured;
    double low = not_measured, high = not_measured;  // both or neither
  };
  std::string name = {};
  std::vector<bool> pattern = {};  // drawn in front of the name as small squares, filled and hollow
  std::vector<Value> values = {};  // one for each of the plot's groups
  std::string note = {};           // said behind the value: "2.0 x the tokens"
  std::string mark = {};           // a word that sets the row apart: "chosen"
};

struct DotPlot {
  std::string title = {};
  Axis axis = {};
  std::vector<std::string> groups = {};  // "test", "development"; two at most, the first is the one meant
  std::vector<DotRow> rows = {};
  double reference = not_measured;  // a level to compare with
  std::string reference_name = {};
  std::string note = {};  // what the interval is, of how many
};

struct HeatCell {
  enum class Sort {
    measured,
    bound,
    absent
  };  // bound: given up early, the value is a lower bound; absent: nothing to measure
  double value = not_measured;
  Sort sort = Sort::measured;
  bool chosen = false;
};

struct HeatMap {
  std::string title = {};
  std::string column_axis = {};  // "candidate"
  std::string row_axis = {};     // "step"
  std::vector<std::string> columns = {};
  std::vector<std::string> rows = {};
  std::vector<HeatCell> cells = {};  // row after row
  std::string value_name = {};       // "score"
  Format format = {};
  Scale scale = Scale::linear;
  std::string note = {};
};

struct Picture {
  std::string bytes = {};  // a whole PNG, JPEG or WebP file
  std::string text = {};   // what is to be seen, for those who cannot see it
};

struct Pictures {
  std::string title = {};
  std::vector<std::string> columns = {};  // "before", "after"
  std::vector<std::string> rows = {};     // the prompts
  std::vector<Picture> pictures = {};     // row after row; one without bytes leaves its place empty
  std::string note = {};
};

// One part of the network. `score`: how much it matters, by the method that chose.
struct Part {
  enum class State { kept, cut, silenced };
  std::string label = {};  // "A27"
  State state = State::kept;
  double score = not_measured;
  int step = 0;           // 1, 2, ...: when it went; 0 for a part that stayed
  std::string note = {};  // more to say about it on hover: "885,888 parameters"
};

struct Block {
  enum class Side { stack, down, middle, up };  // a network with a `down` block is drawn as a U
  std::string name = {};                        // "27"
  std::vector<Part> parts = {};
  Side side = Side::stack;
};

struct Network {
  std::string title = {};
  std::vector<Block> blocks = {};  // in reading order
  std::string score_name = {};     // "rise of held-out loss when it alone is cut"
  Format format = {};
  Scale scale = Scale::linear;
  std::string note = {};
};

using Element = std::variant<Text, Table, Series, DotPlot, HeatMap, Pictures, Network>;

struct Section {
  std::string title = {};
  std::vector<Element> elements = {};
  bool folded = false;
};

struct Figure {
  enum class Better { lower, higher, neither };
  std::string name = {};  // "Held-out perplexity"
  double before = not_measured;
  double after = not_measured;
  Format format = {};
  Better better = Better::neither;
  std::string measured = {};          // how: "on 512 x 1,024 tokens of wiki.test, float32"
  double uncertainty = not_measured;  // plus or minus, of `after`
};

struct Verdict {
  std::string sentence = {};
  std::vector<Figure> figures = {};  // four to six
};

struct Report {
  std::string title = {};    // "FinerCut: 8 of 60 sub-layers cut from SmolLM2-135M-Instruct"
  std::string date = {};     // "2026-11-24"
  std::string version = {};  // of lamina
  std::string command = {};  // what makes this report again
  Verdict verdict = {};
  std::vector<Section> sections = {};
};

// Throws Error that names the section and the element when lengths do not fit together or a picture is none.
void check(const Report& report);

// Every number that the page shows, by the rules of report.schema.json.
Json to_json(const Report& report);
std::string_view json_schema();

// One page that asks nothing of the network: drawings as SVG, curves as SVG that a script makes readable
// point by point.
std::string to_html(const Report& report);

// "A27 F27 A26": the parts that were cut, in the order in which they went.
std::string cut_list(const Network& network);

// "better", "worse", "same", or empty where the figure has no direction or was not measured twice.
std::string_view judgement(const Figure& figure);

}  // namespace lamina::report
