// Of the report of a cut denoiser: the network as the plan leaves it, and what the plan does beside cutting.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>

#include "lamina/base/text.h"
#include "lamina/cli/prune_unet_report.h"

namespace lamina::cli {

using report::Notation;

namespace {

// Behind the label of a part that stays and is not what it was; a word in a cell would have no room.
constexpr const char* kWindowed = "\u229e";  // a square in four
constexpr const char* kHeir = "\u2295";      // a plus in a circle

// What the plan does to a part that stays.
struct Done {
  const char* mark = "";
  std::string tip = {};
};

const asdm::Choice* priced_at(const UnetRun& run, Site site) {
  const auto at = std::ranges::find(run.found.windows, site, &asdm::Choice::site);
  return at == run.found.windows.end() ? nullptr : &*at;
}

// "16 x 16 tokens, and means of cells of 4 x 4".
std::string windows_text(const Windows& windows) {
  std::string text = fmt::format("{0} x {0} tokens", windows.window);
  if (windows.pool > 0) text += fmt::format(", and means of cells of {0} x {0}", windows.pool);
  return text;
}

std::map<int, Done> done_beside(const UnetRun& run) {
  std::map<int, Done> done;
  for (const Edit& edit : run.found.beside) {
    if (const auto* regional = std::get_if<Regional>(&edit)) {
      const Site site = run.subject.blueprint().site(regional->site);
      Done& here = done[site.index];
      here = {.mark = kWindowed, .tip = "sees windows of " + windows_text(regional->windows)};
      if (const asdm::Choice* priced = priced_at(run, site))
        here.tip += fmt::format(": output loss {:.3g}, saves {:.3g} ms", priced->loss, priced->milliseconds);
    } else if (const auto* inherit = std::get_if<Inherit>(&edit)) {
      Done& here = done[run.subject.blueprint().site(inherit->site).index];
      here.mark = kHeir;
      here.tip += fmt::format("{}{} inherits {}", here.tip.empty() ? "" : "; ", inherit->conv,
                              fmt::join(inherit->donors, " and "));
    }
  }
  return done;
}

size_t count_of(const UnetRun& run, bool (*is)(const Edit&)) {
  return static_cast<size_t>(std::ranges::count_if(run.found.beside, is));
}
size_t windows_in(const UnetRun& run) {
  return count_of(run, [](const Edit& edit) { return std::holds_alternative<Regional>(edit); });
}
size_t heirs_in(const UnetRun& run) {
  return count_of(run, [](const Edit& edit) { return std::holds_alternative<Inherit>(edit); });
}

std::string legend_of(const UnetRun& run) {
  std::string text;
  if (windows_in(run) > 0)
    text += fmt::format("{} stays, and sees windows and means of the rest of the map.", kWindowed);
  if (heirs_in(run) > 0)
    text += fmt::format("{}{} stays, and mixes its kernels with those it inherits from ResNets that went.",
                        text.empty() ? "" : " ", kHeir);
  return text;
}

report::Part drawn(const UnetRun& run, Site site, double value, const std::map<int, Done>& done) {
  const Blueprint& blueprint = run.subject.blueprint();
  const Part& part = blueprint.part(site);
  report::Part drawn{.label = part.label(),
                     .state = part.present ? report::Part::State::kept : report::Part::State::cut,
                     .score = value,
                     .note = part.present
                                 ? fmt::format("{} parameters", thousands(blueprint.parameters(site)))
                                 : "gone before this run"};
  if (const auto at = done.find(site.index); at != done.end()) {
    drawn.label += at->second.mark;
    drawn.note += "; " + at->second.tip;
  }
  return drawn;
}

report::Table windows_table(const UnetRun& run) {
  using Kind = report::Column::Kind;
  const Blueprint& blueprint = run.subject.blueprint();
  const unet::Shape2d shape{.height = run.subject.height,
                            .width = run.subject.width,
                            .text_tokens = run.data.scoring.batches[0].inputs.text.size(1)};
  const double whole = unet::macs(run.subject.config, blueprint, shape).total();
  report::Table table{.title = "Windows in place of whole maps",
                      .columns = {{.name = "part", .kind = Kind::label},
                                  {.name = "window", .format = report::whole()},
                                  {.name = "cell", .format = report::whole()},
                                  {.name = "output loss"},
                                  {.name = "saves MMAC", .format = {Notation::fixed, 1, ""}},
                                  {.name = "saves ms", .format = {Notation::fixed, 2, ""}}},
                      .rows = {},
                      .note =
                          "Every place with a map large enough. Sides in tokens; output loss: mean "
                          "squared change when these windows alone are put in. Below zero they take "
                          "longer than the whole map."};
  for (const asdm::Choice& choice : run.found.windows) {
    Blueprint with = blueprint;
    with.parts[static_cast<size_t>(choice.site.index)].windows = choice.windows;
    const bool done = std::ranges::any_of(run.found.beside, [&](const Edit& edit) {
      const auto* regional = std::get_if<Regional>(&edit);
      return regional && blueprint.site(regional->site) == choice.site;
    });
    const bool gone = std::ranges::any_of(run.found.chosen.removed, [&](int i) {
      return run.found.candidates[static_cast<size_t>(i)] == choice.site;
    });
    table.rows.push_back(
        {.cells = {blueprint.part(choice.site).label(), static_cast<double>(choice.windows->window),
                   static_cast<double>(choice.windows->pool), choice.loss,
                   (whole - unet::macs(run.subject.config, with, shape).total()) / 1e6, choice.milliseconds},
         .mark = done   ? "in the plan"
                 : gone ? "cut instead"
                        : ""});
  }
  return table;
}

// Parameters of the kernels that a convolution inherits and of what mixes them.
int64_t added_parameters(const Blueprint& written, const Inherit& inherit) {
  const std::string conv = inherit.site + "." + inherit.conv;
  int64_t count = 0;
  for (const Slot& slot : written.slots) {
    if (!slot.name.starts_with(conv + ".experts.") && !slot.name.starts_with(conv + ".router.")) continue;
    int64_t numbers = 1;
    for (const Axis& axis : slot.axes) numbers *= axis.size();
    count += numbers;
  }
  return count;
}

report::Table heirs_table(const UnetRun& run) {
  using Kind = report::Column::Kind;
  const Opened& opened = run.subject.opened();
  const Blueprint written = declare(apply(opened.checkpoint, opened.blueprint, run.plan)).blueprint;
  report::Table table{.title = "Inherited kernels",
                      .columns = {{.name = "convolution", .kind = Kind::code},
                                  {.name = "inherits from", .kind = Kind::code},
                                  {.name = "kernels", .format = report::whole()},
                                  {.name = "adds parameters", .format = report::whole()}},
                      .rows = {},
                      .note = "The function is what it would be without them until they are trained."};
  for (const Edit& edit : run.found.beside) {
    const auto* inherit = std::get_if<Inherit>(&edit);
    if (!inherit) continue;
    table.rows.push_back(
        {.cells = {inherit->site + "." + inherit->conv, fmt::format("{}", fmt::join(inherit->donors, " ")),
                   static_cast<double>(inherit->donors.size()),
                   static_cast<double>(added_parameters(written, *inherit))}});
  }
  if (const auto& pass = run.found.pass)
    table.note +=
        fmt::format(" All of them take {} ms of a pass of {:.2f}, measured by turns.",
                    pass->heirs > 0 ? fmt::format("{:.2f}", pass->heirs)
                                    : fmt::format("no more than the clock errs by ({:.2f})", pass->heirs),
                    pass->written);
  return table;
}

report::Table rounds_table(const UnetRun& run) {
  report::Table table{
      .title = "Proposed and timed",
      .columns = {{.name = "round", .format = report::whole()},
                  {.name = "budget", .format = {Notation::fixed, 1, "%"}},
                  {.name = "by the sum of the parts", .format = {Notation::fixed, 1, "%"}},
                  {.name = "measured", .format = {Notation::fixed, 1, "%"}}},
      .rows = {},
      .note = fmt::format("Of the whole model's time, medians of {} turns. The next budget for the sum is "
                          "stricter or looser by what the measured plan misses.",
                          run.options.repeats)};
  double number = 0;
  for (const UnetPass::Round& round : run.found.pass->rounds)
    table.rows.push_back({.cells = {++number, 100 * round.keep, 100 * round.predicted, 100 * round.share},
                          .mark = round.share == run.found.pass->share ? "chosen" : ""});
  return table;
}

}  // namespace

report::Network network_of(const UnetRun& run) {
  const Blueprint& blueprint = run.subject.blueprint();
  report::Network network{.title = "The network, and what went",
                          .score_name = fmt::format("criterion {}, when it alone is skipped",
                                                    laptop::criterion_name(run.found.criterion)),
                          .format = {},
                          .scale = report::Scale::logarithmic};
  const std::map<int, Done> done = done_beside(run);
  std::vector<double> value(blueprint.parts.size(), report::not_measured);
  std::vector<bool> gone(blueprint.parts.size(), false);
  for (size_t i = 0; i < run.found.candidates.size(); ++i)
    value[static_cast<size_t>(run.found.candidates[i].index)] = run.found.values[i];
  for (int i : run.found.chosen.removed)
    gone[static_cast<size_t>(run.found.candidates[static_cast<size_t>(i)].index)] = true;
  for (size_t i = 0; i < blueprint.parts.size(); ++i) {
    const Part& part = blueprint.parts[i];
    const std::string& stage = blueprint.stages[static_cast<size_t>(part.block)];
    if (i == 0 || blueprint.parts[i - 1].block != part.block) {
      using Side = report::Block::Side;
      const Side side = stage.starts_with("down") ? Side::down
                        : stage.starts_with("up") ? Side::up
                                                  : Side::middle;
      const std::string number = stage.substr(stage.rfind('.') + 1);  // "down_blocks.0"
      network.blocks.push_back({.name = side == Side::down ? "d" + number
                                        : side == Side::up ? "u" + number
                                                           : "mid",
                                .parts = {},
                                .side = side});
    }
    network.blocks.back().parts.push_back(drawn(run, {static_cast<int>(i)}, value[i], done));
    if (gone[i]) network.blocks.back().parts.back().state = report::Part::State::cut;
  }
  network.note = legend_of(run);
  return network;
}

std::vector<report::Element> edit_tables(const UnetRun& run) {
  std::vector<report::Element> tables;
  if (!run.found.windows.empty()) tables.emplace_back(windows_table(run));
  if (heirs_in(run) > 0) tables.emplace_back(heirs_table(run));
  if (run.found.pass && !run.found.pass->rounds.empty()) tables.emplace_back(rounds_table(run));
  return tables;
}

std::string edits_text(const UnetRun& run) {
  const size_t windows = windows_in(run), heirs = heirs_in(run);
  std::string text;
  if (windows > 0) text = fmt::format("{} see{} windows", windows, windows == 1 ? "s" : "");
  if (heirs > 0)
    text += fmt::format("{}{} convolution{}", text.empty() ? "" : " and ", heirs,
                        heirs == 1 ? " inherits kernels" : "s inherit kernels");
  return text;
}

}  // namespace lamina::cli
