#include "lamina/report/model_card.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "lamina/base/text.h"
#include "lamina/report/impl/markup.h"

namespace lamina::report {

namespace {

using impl::clean;

// Always in double quotes: no name is ever taken for a number, a date or `no`. JSON strings are YAML strings.
std::string yaml(std::string_view text) {
  return Json(clean(text)).dump();
}

std::string one_line(std::string_view text) {
  std::string line = clean(text);
  std::ranges::replace(line, '\n', ' ');
  std::ranges::replace(line, '\t', ' ');
  return line;
}

// Characters that Markdown would read as something else get a backslash.
std::string markdown(std::string_view text) {
  std::string out;
  for (const char letter : one_line(text)) {
    if (std::string_view("\\*_[]<>|#").find(letter) != std::string_view::npos) out += '\\';
    out += letter;
  }
  return out;
}

// A fence longer than any run of backticks inside.
std::string fenced(std::string_view code, std::string_view language) {
  const std::string text = clean(code);
  size_t longest = 0, run = 0;
  for (const char letter : text) longest = std::max(longest, run = letter == '`' ? run + 1 : 0);
  const std::string fence(std::max<size_t>(3, longest + 1), '`');
  return fence + one_line(language) + "\n" + text + (text.ends_with('\n') ? "" : "\n") + fence + "\n";
}

std::string front_matter(const ModelCard& card) {
  std::string out = "---\n";
  if (!card.base_model.empty()) out += "base_model: " + yaml(card.base_model) + "\n";
  if (!card.license.empty()) out += "license: " + yaml(card.license) + "\n";
  if (!card.languages.empty()) {
    out += "language:\n";
    for (const std::string& language : card.languages) out += "- " + yaml(language) + "\n";
  }
  if (!card.library.empty()) out += "library_name: " + yaml(card.library) + "\n";
  if (!card.pipeline.empty()) out += "pipeline_tag: " + yaml(card.pipeline) + "\n";
  out += "tags:\n- \"lamina\"\n";
  for (const std::string& tag : card.tags) {
    if (tag != "lamina") out += "- " + yaml(tag) + "\n";
  }
  std::vector<Metric> metrics = card.metrics;
  std::erase_if(metrics, [](const Metric& metric) { return !std::isfinite(metric.value); });
  if (!metrics.empty()) {
    // One result for each run of metrics with the same task and data.
    out += "model-index:\n- name: " + yaml(card.title) + "\n  results:\n";
    const Metric* last = nullptr;
    for (const Metric& metric : metrics) {
      if (!last || last->task != metric.task || last->dataset != metric.dataset ||
          last->dataset_name != metric.dataset_name) {
        out += fmt::format(
            "  - task:\n      type: {}\n    dataset:\n      name: {}\n      type: {}\n    metrics:\n",
            yaml(metric.task), yaml(metric.dataset_name), yaml(metric.dataset));
      }
      out += fmt::format("    - type: {}\n      name: {}\n      value: {}\n", yaml(metric.type),
                         yaml(metric.name), metric.value);
      last = &metric;
    }
  }
  return out + "---\n";
}

std::string figure_table(const std::vector<Figure>& figures) {
  std::string out = "| | before | after | change | how it was measured |\n|---|---:|---:|---:|---|\n";
  for (const Figure& figure : figures) {
    const double values[] = {figure.before, figure.after, figure.uncertainty};
    const std::vector<std::string> texts = written(values, figure.format);
    const std::string unit = unit_behind(figure.format);
    const std::string_view word = judgement(figure);
    std::string changed = change(figure.before, figure.after, figure.format);
    if (!word.empty() && word != "same") changed += fmt::format(", {}", word);
    out += fmt::format("| {}{} | {} | {}{} | {} | {} |\n", markdown(figure.name),
                       unit.empty() ? "" : " (" + markdown(unit) + ")", texts[0], texts[1],
                       std::isnan(figure.uncertainty) ? "" : " ± " + texts[2], changed,
                       markdown(figure.measured));
  }
  return out;
}

std::string list_of(const std::vector<std::string>& items) {
  std::string out;
  for (const std::string& item : items) out += "- " + markdown(item) + "\n";
  return out;
}

}  // namespace

std::string to_markdown(const ModelCard& card) {
  std::string out = front_matter(card) + "\n# " + markdown(card.title) + "\n";
  if (!card.summary.empty()) out += "\n" + markdown(card.summary) + "\n";
  if (!card.figures.empty()) out += "\n## What was measured\n\n" + figure_table(card.figures);
  if (!card.openings.empty()) {
    out += "\n## How to open it\n";
    for (const Opening& opening : card.openings) {
      out += fmt::format("\n{} ({})\n\n{}", markdown(opening.tool),
                         opening.checked.empty() ? "not checked" : "checked: " + markdown(opening.checked),
                         fenced(opening.code, opening.language));
    }
  }
  if (!card.limits.empty()) out += "\n## What does not hold\n\n" + list_of(card.limits);
  if (!card.plan.empty()) out += "\n## The plan\n\nWhat went, in order:\n\n" + list_of(card.plan);
  if (!card.command.empty()) out += "\n## How to make it again\n\n" + fenced(card.command, "sh");
  if (!card.version.empty()) {
    out += fmt::format("\nMade with lamina {}{}.\n", markdown(card.version),
                       card.date.empty() ? "" : " on " + markdown(card.date));
  }
  return out;
}

}  // namespace lamina::report
