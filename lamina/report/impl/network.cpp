#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "lamina/report/impl/drawings.h"
#include "lamina/report/impl/markup.h"

namespace lamina::report::impl {

namespace {

constexpr double column_width = 352;
constexpr double gap = 16;
constexpr double row_height = 24;
constexpr double cell_height = 21;
constexpr double cell_gap = 3;
constexpr double name_width = 30;
// What characters of a label and of a number take at most, about.
constexpr double label_character = 7.5, number_character = 6.6;
// A cell narrower than this has less room around its label.
constexpr double narrow = 60;
// From this many blocks on, a stack stands in two columns.
constexpr size_t many_blocks = 13;

class Drawing {
 public:
  explicit Drawing(const Network& network) : network_(network), range_(score_range(network)) {
    std::vector<double> scores;
    for (const Block& block : network.blocks) {
      for (const Part& part : block.parts) scores.push_back(part.score);
    }
    texts_ = shown(scores, network.format, network.scale);
  }

  // `row` and `first_column` are where the arrow keys find the cells.
  std::string row(size_t block_index, double x, double y, double width, size_t row,
                  size_t first_column) const {
    const Block& block = network_.blocks[block_index];
    std::string out = fmt::format("<text class=\"name\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
                                  coordinate(x + name_width - 7), coordinate(y + 15), escaped(block.name));
    const double cell_width =
        (width - name_width) / static_cast<double>(std::max<size_t>(1, block.parts.size()));
    for (size_t i = 0; i < block.parts.size(); ++i) {
      out += cell(block.parts[i], first_number(block_index) + i,
                  x + name_width + static_cast<double>(i) * cell_width, y, cell_width - cell_gap, row,
                  first_column + i);
    }
    return out + "\n";
  }

 private:
  size_t first_number(size_t block_index) const {
    size_t count = 0;
    for (size_t i = 0; i < block_index; ++i) count += network_.blocks[i].parts.size();
    return count;
  }

  std::string cell(const Part& part, size_t number, double x, double y, double width, size_t row,
                   size_t column) const {
    const bool kept = part.state == Part::State::kept;
    const bool scored = !std::isnan(part.score);
    const std::string verb = part.state == Part::State::silenced ? "silenced" : "cut";
    std::string tip = part.label + (kept ? ", kept" : ", " + verb);
    if (!kept && part.step > 0) tip += fmt::format(" at step {}", part.step);
    if (scored) {
      tip +=
          fmt::format("; {} {}", network_.score_name.empty() ? "score" : network_.score_name, texts_[number]);
      if (const std::string unit = unit_behind(network_.format); !unit.empty()) tip += " " + unit;
    }
    if (!part.note.empty()) tip += "; " + part.note;
    const std::string look = !kept    ? verb
                             : scored ? fmt::format("r{}", ramp_step(range_, part.score))
                                      : "plain";
    const std::string right = kept            ? (scored ? texts_[number] : "")
                              : part.step > 0 ? fmt::format("step {}", part.step)
                                              : verb;
    const double inset = width < narrow ? 3 : 8;
    std::string out = fmt::format(
        "<g class=\"cell {}\" data-row=\"{}\" data-column=\"{}\"><title>{}</title>"
        "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"3\"/><text x=\"{}\" y=\"{}\">{}</text>",
        look, row, column, escaped(tip), coordinate(x), coordinate(y), coordinate(width),
        coordinate(cell_height), coordinate(x + inset), coordinate(y + 15), escaped(part.label));
    // A narrow cell has room for its name alone; the number is in its title and in the text below the
    // drawing.
    const double room = width - 2 * inset - label_character * static_cast<double>(part.label.size()) -
                        number_character * static_cast<double>(right.size());
    if (!right.empty() && width >= 100 && room >= 0) {
      out += fmt::format("<text class=\"number\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
                         coordinate(x + width - 8), coordinate(y + 15), escaped(right));
    }
    return out + "</g>";
  }

  const Network& network_;
  std::optional<Range> range_;
  std::vector<std::string> texts_;
};

std::string svg(const char* look, double width, double height, const std::string& label,
                const std::string& body) {
  return fmt::format(
      "<svg class=\"{0}\" viewBox=\"0 0 {1} {2}\" width=\"{1}\" height=\"{2}\" role=\"group\" "
      "aria-label=\"{3}\">\n{4}</svg>\n",
      look, coordinate(width), coordinate(height), escaped(label), body);
}

std::string draw_stack(const Network& network) {
  const Drawing drawing(network);
  const size_t count = network.blocks.size();
  const size_t columns = count >= many_blocks ? 2 : 1;
  const size_t rows = (count + columns - 1) / columns;
  size_t widest = 0;
  for (const Block& block : network.blocks) widest = std::max(widest, block.parts.size());
  std::string out;
  for (size_t column = 0; column < columns; ++column) {
    const size_t first = column * rows, last = std::min(count, first + rows);
    std::string body;
    for (size_t i = first; i < last; ++i) {
      body += drawing.row(i, 0, static_cast<double>(i - first) * row_height, column_width, i - first,
                          column * widest);
    }
    if (first == last) continue;
    const std::string label =
        fmt::format("blocks {} to {}", network.blocks[first].name, network.blocks[last - 1].name);
    out += svg("stack", column_width, static_cast<double>(last - first) * row_height, label, body);
  }
  return out;
}

// Down on the left, up on the right with equal levels side by side, the middle below between them.
std::string draw_u(const Network& network) {
  const Drawing drawing(network);
  size_t downs = 0, ups = 0, middles = 0, widest = 0;
  for (const Block& block : network.blocks) {
    downs += block.side == Block::Side::down;
    ups += block.side == Block::Side::up;
    middles += block.side == Block::Side::middle || block.side == Block::Side::stack;
    widest = std::max(widest, block.parts.size());
  }
  const size_t arms = std::max(downs, ups);
  std::string body;
  size_t down = arms - downs, middle = arms, up = ups;
  for (size_t i = 0; i < network.blocks.size(); ++i) {
    const auto at = [&](size_t row, double x, size_t first_column) {
      body += drawing.row(i, x, static_cast<double>(row) * row_height, column_width, row, first_column);
    };
    switch (network.blocks[i].side) {
      case Block::Side::down:
        at(down++, 0, 0);
        break;
      case Block::Side::up:
        at(--up + (arms - ups), column_width + gap, 2 * widest);
        break;
      default:
        at(middle++, (column_width + gap) / 2, widest);
        break;
    }
  }
  return svg("u", 2 * column_width + gap, static_cast<double>(arms + middles) * row_height,
             "the network as a U", body);
}

}  // namespace

std::optional<Range> score_range(const Network& network) {
  std::vector<double> scores;
  for (const Block& block : network.blocks) {
    for (const Part& part : block.parts) {
      if (part.state == Part::State::kept) scores.push_back(part.score);
    }
  }
  return Range::of(scores, network.scale);
}

std::string draw_network(const Network& network) {
  const bool u =
      std::ranges::any_of(network.blocks, [](const Block& block) { return block.side == Block::Side::down; });
  return u ? draw_u(network) : draw_stack(network);
}

}  // namespace lamina::report::impl
