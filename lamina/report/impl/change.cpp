#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "lamina/report/impl/drawings.h"
#include "lamina/report/impl/markup.h"

namespace lamina::report::impl {

std::string draw_change(const Figure& figure) {
  const double largest = std::max(figure.before, figure.after);
  const bool drawable = std::isfinite(figure.before) && std::isfinite(figure.after) &&
                        std::min(figure.before, figure.after) >= 0 && largest > 0;
  if (!drawable) return {};
  const auto bar = [&](const char* look, double value, int y) {
    return fmt::format("<rect class=\"{}\" y=\"{}\" width=\"{}\" height=\"5\"/>", look, y,
                       coordinate(200 * value / largest));
  };
  // Stretched to the card's width: only lengths carry meaning here.
  return "<svg class=\"change\" viewBox=\"0 0 200 12\" preserveAspectRatio=\"none\" aria-hidden=\"true\">" +
         bar("was", figure.before, 0) + bar("is", figure.after, 7) + "</svg>";
}

}  // namespace lamina::report::impl
