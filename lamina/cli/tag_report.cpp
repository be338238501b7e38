// The page of `lamina tag train`: which blocks' mask to take away, by how much that helps, and what the
// numbers do not say. Every sentence about the outcome is made from its numbers.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/cli/card.h"
#include "lamina/cli/cli.h"
#include "lamina/cli/tag_numbers.h"

namespace lamina::cli {

using report::Cell;
using report::Column;
using report::Notation;
using Kind = report::Column::Kind;
using namespace tagging;

namespace {

constexpr double kNone = report::not_measured;
constexpr size_t kExamples = 40, kConfusions = 12;
constexpr size_t kWordsShown = 60, kWordsAround = 8, kLongestWord = 60;

const report::Format kPercent{Notation::fixed, 2, ""};

double mean_over_runs(const TagArm& arm, auto&& value) {
  double sum = 0;
  int64_t count = 0;
  for (const unmask::RunResult& run : arm.runs) {
    if (broke(run)) continue;
    sum += static_cast<double>(value(run)), ++count;
  }
  return count ? sum / static_cast<double>(count) : kNone;
}

// ---- the verdict

// Seconds as what people say.
std::pair<double, const char*> time_unit(double seconds) {
  if (seconds >= 3 * 3600) return {3600, "h"};
  if (seconds >= 3 * 60) return {60, "min"};
  return {1, "s"};
}

report::Verdict verdict_of(const TagOutcome& outcome) {
  using Better = report::Figure::Better;
  report::Verdict verdict{.sentence = headline(outcome)};
  const TagArm* chosen = chosen_of(outcome);
  if (!chosen) return verdict;
  const TagArm* causal = causal_of(outcome);
  if (causal == chosen) causal = nullptr;
  const auto before = [&](auto&& value) { return causal ? value(*causal) : kNone; };
  for (const HeldOut set : {HeldOut::test, HeldOut::development}) {
    const SeedMean f1 = f1_of(*chosen, set);
    if (f1.count == 0) continue;
    const double other = before([&](const TagArm& arm) { return f1_of(arm, set).mean; });
    verdict.figures.push_back(
        {.name = set == HeldOut::test ? "Test F1" : "Development F1",
         .before = other,
         .after = f1.mean,
         .format = {Notation::fixed, 2, "%"},
         .better = Better::higher,
         .measured = fmt::format("strict, entities; {}{}",
                                 f1.count == 1 ? "one seed" : fmt::format("mean of {} seeds", f1.count),
                                 std::isfinite(other) ? fmt::format("; before: {}", arm_code(*causal)) : ""),
         .uncertainty = f1.has_interval() ? f1.half() : kNone});
  }
  const auto set = told(outcome);
  if (const TagArm* rival = rival_of(outcome); rival && set) {
    if (const auto gain = difference(chosen, rival, *set)) {
      verdict.figures.push_back(
          {.name = fmt::format("Against {}", rival->name),
           .before = f1_of(*rival, *set).mean,
           .after = f1_of(*chosen, *set).mean,
           .format = {Notation::fixed, 2, "%"},
           .better = Better::higher,
           .measured = fmt::format("{} F1; before: {}; the uncertainty is that of the difference",
                                   *set == HeldOut::test ? "test" : "development", arm_said(*rival)),
           .uncertainty = gain->has_interval() ? (gain->high - gain->low) / 2 : kNone});
    }
  }
  verdict.figures.push_back({.name = "Compute a sentence",
                             .before = before([](const TagArm& arm) { return arm.compute; }),
                             .after = chosen->compute,
                             .format = {Notation::fixed, 2, "x"},
                             .better = Better::lower,
                             .measured = "tokens through the model, of the causal mask without repetition"});
  const auto seconds = [](const TagArm& arm) {
    return mean_over_runs(arm, [](const unmask::RunResult& run) { return run.seconds; });
  };
  if (const double after = seconds(*chosen); std::isfinite(after)) {
    const auto [unit, name] = time_unit(after);
    verdict.figures.push_back({.name = "Training of one run",
                               .before = before(seconds) / unit,
                               .after = after / unit,
                               .format = {Notation::significant, 3, name},
                               .better = Better::lower,
                               .measured = "mean over seeds, with the looks at the development set"});
  }
  if (runs_of(outcome) > 1) {
    const auto [unit, name] = time_unit(seconds_of(outcome));
    verdict.figures.push_back({.name = "All training",
                               .after = seconds_of(outcome) / unit,
                               .format = {Notation::significant, 3, name},
                               .measured = fmt::format("{} runs", thousands(runs_of(outcome)))});
  }
  return verdict;
}

// ---- the plans

// "4 of 5" where runs broke.
std::string runs_said(const TagArm& arm) {
  const auto whole = std::ranges::count_if(arm.runs, [](const auto& run) { return !broke(run); });
  return whole == std::ssize(arm.runs) ? fmt::format("{}", arm.runs.size())
                                       : fmt::format("{} of {}", whole, arm.runs.size());
}

report::DotPlot plans_plot(const TagOutcome& outcome, HeldOut set) {
  report::DotPlot plot{.title = "F1 of every arm, best on top",
                       .axis = {.name = "F1", .format = {Notation::fixed, 2, "%"}},
                       .groups = {set_name(set)}};
  const bool both = set == HeldOut::test && any_score(outcome, HeldOut::development);
  if (both) plot.groups.emplace_back(set_name(HeldOut::development));
  std::vector<const TagArm*> arms;
  // What a classifier alone gives lies far from all others: the table tells it.
  for (const TagArm& arm : outcome.arms) {
    if (!arm.probe || outcome.arms.size() == 1 || &arm == chosen_of(outcome)) arms.push_back(&arm);
  }
  const auto key = [&](const TagArm* arm) {
    const double mean = f1_of(*arm, set).mean;
    return std::isfinite(mean) ? -mean : INFINITY;
  };
  std::ranges::stable_sort(arms, {}, key);
  for (const TagArm* arm : arms) {
    report::DotRow row{.name = arm->name, .pattern = pattern_of(*arm, outcome)};
    const auto value = [&](HeldOut of) {
      const SeedMean f1 = f1_of(*arm, of);
      return report::DotRow::Value{f1.mean, f1.low, f1.high};
    };
    row.values.push_back(value(set));
    if (both) row.values.push_back(value(HeldOut::development));
    if (f1_of(*arm, set).count == 0) row.note = arm->runs.empty() ? "not trained" : "broke";
    if (std::isfinite(arm->compute) && !same_compute(arm->compute))
      row.note += fmt::format("{}{:.1f} x the tokens", row.note.empty() ? "" : ", ", arm->compute);
    if (arm == chosen_of(outcome)) row.mark = outcome.searched ? "chosen" : "written";
    plot.rows.push_back(std::move(row));
  }
  if (const TagArm* causal = causal_of(outcome)) {
    plot.reference = f1_of(*causal, set).mean;
    plot.reference_name = causal->name;
  }
  plot.note = fmt::format(
      "A square is {}, the one nearest the input on the left; filled: its causal mask is gone. A dot is the "
      "mean over seeds, its line the 95 % interval of the mean; an arm of one seed has none.",
      by_groups(outcome) ? "a group of blocks" : "a block");
  return plot;
}

report::Table plans_table(const TagOutcome& outcome, HeldOut set) {
  std::vector<HeldOut> sets{set};
  if (set == HeldOut::test && any_score(outcome, HeldOut::development)) sets.push_back(HeldOut::development);
  const TagArm* causal = causal_of(outcome);
  if (causal && f1_of(*causal, set).count == 0) causal = nullptr;  // nothing to compare with
  const auto with_interval = [&](const TagArm& arm) { return f1_of(arm, set).has_interval(); };
  const bool intervals = std::ranges::any_of(outcome.arms, with_interval);
  report::Table table{
      .title = "F1 by plan, per cent",
      .columns = {{.name = "arm", .kind = Kind::label}, {.name = "runs", .kind = Kind::label}}};
  for (const HeldOut of : sets) {
    table.columns.push_back(
        {.name = of == HeldOut::test ? "test" : "dev", .kind = Kind::number, .format = kPercent});
    if (intervals) table.columns.push_back({.name = "±", .kind = Kind::number, .format = kPercent});
  }
  if (causal) table.columns.push_back({.name = "less " + causal->name, .kind = Kind::label});
  if (causal && intervals) table.columns.push_back({.name = "p", .kind = Kind::label});
  table.columns.push_back({.name = "compute", .kind = Kind::number, .format = {Notation::fixed, 2, ""}});
  int64_t compared = 0;
  bool any_broke = false;
  for (const TagArm& arm : outcome.arms) {
    report::TableRow row{.cells = {arm.name, runs_said(arm)}};
    for (const HeldOut of : sets) {
      const SeedMean f1 = f1_of(arm, of);
      row.cells.emplace_back(f1.mean);
      if (intervals) row.cells.emplace_back(f1.has_interval() ? f1.half() : kNone);
    }
    const auto gain = difference(&arm, causal, set);
    if (causal) row.cells.emplace_back(&arm == causal ? "" : gain ? signed_interval(*gain) : "–");
    if (causal && intervals) row.cells.emplace_back(gain && gain->has_interval() ? p_said(gain->p) : "");
    compared += gain && gain->has_interval() ? 1 : 0;
    row.cells.emplace_back(arm.compute);
    const bool some_broke = std::ranges::any_of(arm.runs, broke);
    any_broke = any_broke || some_broke;
    if (&arm == chosen_of(outcome)) {
      row.mark = outcome.searched ? "chosen" : "written";
    } else if (some_broke) {
      row.mark = "broke";
    }
    table.rows.push_back(std::move(row));
  }
  if (intervals) table.note = "±: half the 95 % interval of the mean over seeds (Student's t). ";
  if (causal && compared > 0) {
    table.note += fmt::format(
        "Differences are on the {} and paired by seed, with a 95 % interval and the two-sided p of the "
        "paired "
        "t test. ",
        set_name(set));
  } else if (causal) {
    table.note += fmt::format("Differences are on the {}, seed against the same seed. ", set_name(set));
  }
  if (compared > 1)
    table.note += fmt::format(
        "Each p is that of one comparison alone, and {} stand here: of so many equal arms {:.1f} would be "
        "expected below 0.05. ",
        compared, 0.05 * static_cast<double>(compared));
  table.note += "Compute: tokens through the model a sentence, of the causal mask without repetition.";
  if (any_broke) table.note += " Runs that broke are in no mean.";
  return table;
}

std::vector<std::string> plans_said(const TagOutcome& outcome, HeldOut set) {
  std::vector<std::string> said;
  const TagArm* chosen = chosen_of(outcome);
  const HeldOut by = any_score(outcome, HeldOut::development) ? HeldOut::development : set;
  if (const auto found = correction_of(outcome, by)) {
    const auto shown = correction_of(outcome, set);
    const bool apart = set != by && shown;
    said.push_back(
        fmt::format("The mean over {} plans is {} on the {}{}, the chosen one's {}{}.", found->plans,
                    percent(found->mean), set_name(by),
                    apart ? fmt::format(" and {} on the {}", percent(shown->mean), set_name(set)) : "",
                    percent(found->best), apart ? fmt::format(" and {}", percent(shown->best)) : ""));
    if (std::isfinite(found->expected)) {
      const double over = found->best - found->mean;
      said.push_back(fmt::format(
          "Were all {} plans equal, the best of them by the {} would be expected {:.2f} points over their "
          "mean "
          "({:.2f} times {:.2f}, the standard deviation of a mean of {}; that of one run is {:.2f}). The "
          "chosen one lies {:.2f} over it, which is {}.",
          found->plans, set_name(by), found->expected, found->factor, found->deviation,
          counted(found->runs, "seed", "seeds"), found->run_deviation, over,
          over > found->expected ? "more than choice alone gives" : "no more than choice alone gives"));
    } else {
      said.push_back(
          fmt::format("With one seed a plan the noise of a run is not known. The best of {} equal plans is "
                      "expected {:.2f} "
                      "standard deviations of a run over their mean.",
                      found->plans, found->factor));
    }
    const TagArm* best = nullptr;
    for (const TagArm& arm : outcome.arms) {
      if (is_plan(arm) && f1_of(arm, set).count && (!best || f1_of(arm, set).mean > f1_of(*best, set).mean))
        best = &arm;
    }
    if (set == HeldOut::test && best && best != chosen)
      said.push_back(
          fmt::format("The best plan by the test set, {} with {}, is not the chosen one: the test set "
                      "had no say.",
                      arm_code(*best), percent(f1_of(*best, set).mean)));
  }
  for (const TagArm& arm : outcome.arms) {
    if (!arm.probe) continue;
    if (const auto gain = difference(chosen, &arm, set))
      said.push_back(
          fmt::format("A classifier on the frozen model ({}) has {}; training the rest as well gives "
                      "{}{}.",
                      arm_code(arm), percent(f1_of(arm, set).mean), points(*gain),
                      gain->has_interval() ? fmt::format(" ({})", interval_said(*gain)) : ""));
  }
  return said;
}

// Compute and quality in one chart, when something was fed several times: the causal mask and the choice.
std::optional<report::Series> repetition_series(const TagOutcome& outcome, HeldOut set) {
  report::Series series{
      .title = "F1 against compute, repetition beside the plan",
      .x = {.name = "tokens through the model a sentence, of the causal mask",
            .format = {Notation::fixed, 1, ""}},
      .y = {.name = fmt::format("F1 on the {}", set_name(set)), .format = {Notation::fixed, 2, "%"}}};
  const TagArm* chosen = chosen_of(outcome);
  std::map<std::string, std::map<double, const TagArm*>> masks;  // by mask, then by compute
  bool whole = true;
  for (const TagArm& arm : outcome.arms) {
    const bool meant = arm.mask.blocks.empty() || (chosen && arm.mask == chosen->mask);
    if (meant && !arm.probe && std::isfinite(arm.compute) && f1_of(arm, set).count > 0) {
      masks[arm.mask.name].try_emplace(arm.compute, &arm);
      whole = whole && arm.compute == std::floor(arm.compute);
    }
  }
  bool banded = false;
  for (const auto& [mask, arms] : masks) {
    if (arms.size() < 2) continue;
    report::Curve curve{.name = mask + " repeated"};
    bool all = true;
    for (const auto& [compute, arm] : arms) {
      const SeedMean f1 = f1_of(*arm, set);
      curve.x.push_back(compute), curve.y.push_back(f1.mean);
      curve.low.push_back(f1.low), curve.high.push_back(f1.high);
      all = all && f1.has_interval();
    }
    if (!all) curve.low.clear(), curve.high.clear();
    banded = banded || all;
    series.curves.push_back(std::move(curve));
  }
  if (series.curves.empty()) return std::nullopt;
  if (whole) series.x.format = report::whole();
  if (chosen && !chosen->probe && f1_of(*chosen, set).count > 0 && std::isfinite(chosen->compute)) {
    series.curves.push_back({.name = chosen->name,
                             .role = report::Curve::Role::method,
                             .x = {chosen->compute},
                             .y = {f1_of(*chosen, set).mean}});
    series.chosen = chosen->compute;
  }
  series.note = fmt::format("A sentence fed r + 1 times costs r + 1 times the tokens.{}",
                            banded ? " Bands are 95 % intervals of means over seeds." : "");
  return series;
}

// ---- what the papers say, and what this run says

report::Table claims_table(const std::vector<Claim>& claims, HeldOut set) {
  report::Table table{.title = "What was published, and what this run says",
                      .columns = {{.name = "here", .kind = Kind::prose},
                                  {.name = "claim", .kind = Kind::prose},
                                  {.name = "difference, points of F1", .kind = Kind::prose}}};
  for (const Claim& claim : claims) {
    // Prose has no markup.
    std::string what = claim.what;
    std::erase(what, '`');
    std::string measured = claim.found ? signed_interval(*claim.found) : "–";
    if (claim.found && claim.found->has_interval()) measured += fmt::format(", p {}", p_said(claim.found->p));
    table.rows.push_back({.cells = {claim_verdict(claim.found), what, measured}});
  }
  table.note = fmt::format(
      "On the {}, paired by seed, 95 % intervals. Shown: the interval lies above 0. The claims are those of "
      "arXiv 2401.14556 (unmasking) and 2601.17585 (repetition), made on models of 1.7 to 9 billion "
      "parameters.",
      set_name(set));
  return table;
}

// ---- errors

report::Table types_table(const TagOutcome& outcome, std::optional<HeldOut> set) {
  const unmask::RunResult* control = control_run_of(outcome);
  const label::Score* other =
      control && set && !broke(*control) && score_of(*control, *set) ? &*score_of(*control, *set) : nullptr;
  const report::Format share{Notation::fixed, 1, "%"};
  report::Table table{.title = "By type",
                      .columns = {{.name = "type", .kind = Kind::label},
                                  {.name = "precision", .format = share},
                                  {.name = "recall", .format = share},
                                  {.name = "F1", .format = share}}};
  if (other)
    table.columns.push_back({.name = fmt::format("F1 of {}", causal_of(outcome)->name), .format = share});
  table.columns.push_back({.name = "expected", .format = report::whole()});
  table.columns.push_back({.name = "predicted", .format = report::whole()});
  table.columns.push_back({.name = "right", .format = report::whole()});
  std::vector<std::pair<std::string, label::Counts>> types(outcome.score.types.begin(),
                                                           outcome.score.types.end());
  std::ranges::stable_sort(types, std::greater<>{}, [](const auto& type) { return type.second.gold; });
  const auto row = [&](const std::string& name, const label::Counts& counts, double before) {
    report::TableRow line{.cells = {name, counts.predicted ? 100 * counts.precision() : kNone,
                                    counts.gold ? 100 * counts.recall() : kNone, 100 * counts.f1()}};
    if (other) line.cells.emplace_back(before);
    for (const int64_t count : {counts.gold, counts.predicted, counts.correct})
      line.cells.emplace_back(static_cast<double>(count));
    table.rows.push_back(std::move(line));
  };
  row("all", outcome.score.all, other ? 100 * other->all.f1() : kNone);
  for (const auto& [name, counts] : types) {
    double before = kNone;
    if (other) {
      const auto it = other->types.find(name);
      if (it != other->types.end()) before = 100 * it->second.f1();
    }
    row(name, counts, before);
  }
  table.note = fmt::format(
      "Of the run that was written{}: an entity is right when its type, its first and its last word are. "
      "The mean of the types' F1 is {:.1f} %; {:.1f} % of {} words have the right tag.",
      set ? fmt::format(", on the {}", set_name(*set)) : "", 100 * outcome.score.macro_f1(),
      outcome.score.words
          ? 100.0 * static_cast<double>(outcome.score.words_right) / static_cast<double>(outcome.score.words)
          : 0.0,
      thousands(outcome.score.words));
  if (other)
    table.note += fmt::format(" Beside it the run of {} with the same seed.", arm_code(*causal_of(outcome)));
  return table;
}

constexpr label::Fault kFaults[] = {label::Fault::missed, label::Fault::invented, label::Fault::wrong_type,
                                    label::Fault::wrong_ends, label::Fault::wrong_both};

const char* fault_meaning(label::Fault fault) {
  switch (fault) {
    case label::Fault::missed:
      return "expected, and nothing said there";
    case label::Fault::invented:
      return "said, and nothing expected there";
    case label::Fault::wrong_type:
      return "the right words, another type";
    case label::Fault::wrong_ends:
      return "the right type, other words";
    case label::Fault::wrong_both:
      return "overlapping words, another type";
  }
  return "";
}

report::Table faults_table(const TagOutcome& outcome) {
  report::Table table{.title = "By kind of fault",
                      .columns = {{.name = "fault", .kind = Kind::label},
                                  {.name = "", .kind = Kind::label},
                                  {.name = "entities", .format = report::whole()},
                                  {.name = "of all faults", .format = {Notation::fixed, 1, "%"}}}};
  for (const label::Fault fault : kFaults) {
    const auto count = std::ranges::count(outcome.mistakes, fault, &label::Mistake::fault);
    table.rows.push_back(
        {.cells = {std::string(label::fault_name(fault)), fault_meaning(fault), static_cast<double>(count),
                   outcome.mistakes.empty()
                       ? kNone
                       : 100.0 * static_cast<double>(count) / static_cast<double>(outcome.mistakes.size())}});
  }
  return table;
}

report::Table confusions_table(const TagOutcome& outcome) {
  const auto pairs = confusions_of(outcome);
  std::vector<std::pair<std::pair<std::string, std::string>, int64_t>> sorted(pairs.begin(), pairs.end());
  std::ranges::stable_sort(sorted, std::greater<>{}, [](const auto& pair) { return pair.second; });
  report::Table table{.title = "Types taken for one another",
                      .columns = {{.name = "expected", .kind = Kind::label},
                                  {.name = "said", .kind = Kind::label},
                                  {.name = "times", .format = report::whole()}}};
  for (size_t i = 0; i < std::min(sorted.size(), kConfusions); ++i)
    table.rows.push_back(
        {.cells = {sorted[i].first.first, sorted[i].first.second, static_cast<double>(sorted[i].second)}});
  if (sorted.size() > kConfusions)
    table.note = fmt::format("The {} most frequent of {} pairs.", kConfusions, sorted.size());
  return table;
}

// ---- examples

std::string shown_word(const std::string& word) {
  if (word.size() <= kLongestWord) return word;
  size_t end = kLongestWord;
  while (end > 0 && (static_cast<unsigned char>(word[end]) & 0xC0) == 0x80) --end;
  return word.substr(0, end) + "…";
}

// Words [from, to) with the entities in them.
Cell marked_words(const std::vector<std::string>& words, int64_t from, int64_t to,
                  const std::vector<label::Entity>& found, const std::set<label::Entity>& wrong) {
  std::string text = from > 0 ? "… " : "";
  std::vector<size_t> begins, ends;
  for (int64_t i = from; i < to; ++i) {
    if (i > from) text += ' ';
    begins.push_back(text.size());
    text += shown_word(words[static_cast<size_t>(i)]);
    ends.push_back(text.size());
  }
  if (to < std::ssize(words)) text += " …";
  std::vector<report::Stretch> stretches;
  for (const label::Entity& entity : found) {
    const int64_t begin = std::max(entity.begin, from), end = std::min(entity.end, to);
    if (begin >= end) continue;
    stretches.push_back({.begin = begins[static_cast<size_t>(begin - from)],
                         .end = ends[static_cast<size_t>(end - 1 - from)],
                         .name = entity.type,
                         .wrong = wrong.contains(entity)});
  }
  return {std::move(text), std::move(stretches)};
}

std::string mistake_said(const label::Mistake& mistake) {
  const std::string gold = mistake.gold ? mistake.gold->type : "",
                    said = mistake.predicted ? mistake.predicted->type : "";
  switch (mistake.fault) {
    case label::Fault::missed:
      return gold + " missed";
    case label::Fault::invented:
      return said + " invented";
    case label::Fault::wrong_type:
      return gold + " taken for " + said;
    case label::Fault::wrong_ends:
      return gold + " with other ends";
    case label::Fault::wrong_both:
      return gold + " taken for " + said + ", other ends";
  }
  return "";
}

report::TableRow example_row(const TagExample& example) {
  const std::vector<std::string>& words = example.sentence.words;
  const auto read = [&](const label::Tags& tags) {
    return tags.size() == words.size() ? label::entities(tags, label::Scheme::iob2, label::Reading::strict)
                                       : std::vector<label::Entity>{};
  };
  std::set<label::Entity> wrong_gold, wrong_said;
  int64_t first = std::ssize(words), last = 0;
  std::vector<std::string> what;
  for (const label::Mistake& mistake : example.mistakes) {
    what.push_back(mistake_said(mistake));
    for (const auto* entity : {&mistake.gold, &mistake.predicted}) {
      if (!*entity) continue;
      (entity == &mistake.gold ? wrong_gold : wrong_said).insert(**entity);
      first = std::min(first, (*entity)->begin), last = std::max(last, (*entity)->end);
    }
  }
  if (what.empty()) what.emplace_back("all right");
  int64_t from = 0, to = std::ssize(words);
  if (words.size() > kWordsShown) {
    from = std::clamp<int64_t>((last > 0 ? first : 0) - static_cast<int64_t>(kWordsAround), 0, to);
    to = std::clamp<int64_t>(last + static_cast<int64_t>(kWordsAround), from,
                             std::min(to, from + static_cast<int64_t>(kWordsShown)));
    if (last == 0) to = static_cast<int64_t>(kWordsShown);
  }
  std::string said = fmt::format("{}", fmt::join(what, "\n"));
  if (example.sentence.line > 0) said += fmt::format("\nline {}", thousands(example.sentence.line));
  return {.cells = {said, marked_words(words, from, to, read(example.sentence.tags), wrong_gold),
                    marked_words(words, from, to, read(example.said), wrong_said)}};
}

report::Section examples_section(const TagOutcome& outcome, std::optional<HeldOut> set) {
  report::Table table{.title = "Sentences with their entities",
                      .columns = {{.name = "fault", .kind = Kind::prose},
                                  {.name = "expected", .kind = Kind::prose},
                                  {.name = "said", .kind = Kind::prose}}};
  const size_t count = std::min(outcome.examples.size(), kExamples);
  for (size_t i = 0; i < count; ++i) table.rows.push_back(example_row(outcome.examples[i]));
  table.note = fmt::format("{} of the run that was written{}; what is part of a fault has a double line.{}",
                           capital(counted(static_cast<int64_t>(count), "sentence", "sentences")),
                           set ? fmt::format(", from the {}", set_name(*set)) : "",
                           count < outcome.examples.size()
                               ? fmt::format(" {} more are not shown.", outcome.examples.size() - count)
                               : "");
  return {.title = "What to look at yourself", .elements = {std::move(table)}};
}

// ---- where attention looks

std::string blocks_said(const std::vector<int>& blocks) {
  std::string said;
  for (size_t i = 0; i < blocks.size();) {
    size_t j = i;
    while (j + 1 < blocks.size() && blocks[j + 1] == blocks[j] + 1) ++j;
    said += fmt::format("{}{}", said.empty() ? "" : ", ", blocks[i]);
    if (j > i) said += fmt::format(" to {}", blocks[j]);
    i = j + 1;
  }
  return said;
}

std::string mask_test_said(const TagOutcome& outcome) {
  const TagArm* chosen = chosen_of(outcome);
  if (!chosen) return "";
  const unmask::MaskTest& test = outcome.mask_test;
  const std::string means =
      chosen->mask.blocks.empty()
          ? "no block looks right"
          : fmt::format("the mask is gone in {} of {} blocks ({})", chosen->mask.blocks.size(),
                        outcome.blocks, blocks_said(chosen->mask.blocks));
  const std::string saw =
      test.looks_right ? fmt::format("the output in front of it changes in {}, block {} being the first",
                                     counted(test.reacting, "block", "blocks"), test.first_block)
                       : "nothing in front of it changes, in any block";
  const bool agrees = chosen->mask.blocks.empty()
                          ? !test.looks_right
                          : test.looks_right && test.first_block == chosen->mask.blocks.front();
  return fmt::format("Self-test of the mask: by the plan {}. When a token is changed, {}. {}", means, saw,
                     agrees ? "The two agree."
                            : "The two do not agree: what is said here about the plan may be about another.");
}

report::Section attention_section(const TagOutcome& outcome) {
  report::Section section{.title = "Where attention looks", .elements = {}};
  section.elements.push_back(report::Text{.text = mask_test_said(outcome)});
  const TagArm* chosen = chosen_of(outcome);
  const auto series = [&](const char* title, const char* axis, const report::Format& format,
                          const std::function<double(const unmask::Span&)>& value) {
    report::Series made{.title = title,
                        .x = {.name = "block, 0 nearest the input", .format = report::whole()},
                        .y = {.name = axis, .format = format}};
    const auto add = [&](const char* name, report::Curve::Role role, const std::vector<unmask::Span>& spans) {
      std::map<int, double> sorted;
      for (const unmask::Span& span : spans) sorted[span.block] = value(span);
      if (sorted.empty()) return;
      report::Curve curve{.name = name, .role = role};
      for (const auto& [block, number] : sorted)
        curve.x.push_back(block), curve.y.push_back(std::isfinite(number) ? number : kNone);
      made.curves.push_back(std::move(curve));
    };
    add("before training", report::Curve::Role::baseline, outcome.before);
    add("after training", report::Curve::Role::method, outcome.after);
    return made;
  };
  if (!outcome.before.empty() || !outcome.after.empty()) {
    report::Series far = series("How far each block looks", "mean distance",
                                {Notation::significant, 3, "tokens"},
                                [](const unmask::Span& span) { return span.distance; }),
                   right = series("How much of it lies to the right", "share of attention",
                                  {Notation::fixed, 1, "%"},
                                  [](const unmask::Span& span) { return 100 * span.right; });
    far.note = "Mean of |query - key| under the attention of all heads.";
    section.elements.emplace_back(std::move(far));
    if (chosen && !chosen->mask.blocks.empty()) {
      right.note = fmt::format("The mask is gone in blocks {}; elsewhere nothing to the right can be seen.",
                               blocks_said(chosen->mask.blocks));
      section.elements.emplace_back(std::move(right));
    }
  }
  report::HeatMap map{.title = "Share of attention to the right after training, by plan",
                      .column_axis = "block",
                      .row_axis = "plan",
                      .value_name = "share to the right",
                      .format = {Notation::fixed, 1, "%"}};
  for (int block = 0; block < outcome.blocks; ++block) map.columns.push_back(std::to_string(block));
  for (const TagArm& arm : outcome.arms) {
    // With every mask in its place there is nothing to the right.
    if (arm.spans.empty() || arm.mask.blocks.empty() || outcome.blocks <= 0) continue;
    map.rows.push_back(arm.name);
    std::vector<report::HeatCell> row(map.columns.size(), {.value = kNone});
    for (const unmask::Span& span : arm.spans) {
      if (span.block >= 0 && span.block < outcome.blocks)
        row[static_cast<size_t>(span.block)].value = 100 * span.right;
    }
    map.cells.insert(map.cells.end(), row.begin(), row.end());
  }
  if (map.rows.size() > 1) {
    map.note = "Of the first run of each. A block with the mask has 0.";
    section.elements.emplace_back(std::move(map));
  }
  return section;
}

// ---- the curves and every run

std::optional<report::Series> epochs_series(const TagOutcome& outcome) {
  report::Series series{.title = "F1 on the development set by epoch",
                        .x = {.name = "epoch", .format = report::whole()},
                        .y = {.name = "F1", .format = {Notation::fixed, 2, "%"}}};
  bool banded = false;
  const auto add = [&](const TagArm* arm, report::Curve::Role role) {
    if (!arm) return;
    std::map<int64_t, std::vector<double>> epochs;
    for (const unmask::RunResult& run : arm->runs) {
      for (const unmask::EpochScore& epoch : run.epochs) {
        if (std::isfinite(epoch.dev_f1)) epochs[epoch.epoch].push_back(100 * epoch.dev_f1);
      }
    }
    if (epochs.empty()) return;
    report::Curve curve{.name = arm->name, .role = role};
    for (const auto& [epoch, values] : epochs) {
      curve.x.push_back(static_cast<double>(epoch));
      curve.y.push_back(std::accumulate(values.begin(), values.end(), 0.0) /
                        static_cast<double>(values.size()));
      if (arm->runs.size() < 2) continue;
      const auto [low, high] = std::ranges::minmax(values);
      curve.low.push_back(low), curve.high.push_back(high);
    }
    banded = banded || !curve.low.empty();
    series.curves.push_back(std::move(curve));
  };
  const TagArm *chosen = chosen_of(outcome), *causal = causal_of(outcome), *rival = rival_of(outcome);
  add(chosen, report::Curve::Role::method);
  if (causal != chosen) add(causal, report::Curve::Role::baseline);
  if (rival != causal) add(rival, report::Curve::Role::baseline);
  if (series.curves.empty()) return std::nullopt;
  if (banded) series.note = "Means over seeds; the band is the smallest and the largest run.";
  return series;
}

// Loss and F1; the learning rate and the norm of the gradient are for those who ask how it was done.
std::pair<report::Section, std::vector<report::Element>> curves_of(const TagOutcome& outcome) {
  std::vector<Arm> arms;
  const TagArm* chosen = chosen_of(outcome);
  const unmask::RunResult *run = chosen_run_of(outcome), *control = control_run_of(outcome);
  if (run) {
    arms.push_back({chosen->name, run->trained});
    if (control) arms.push_back({causal_of(outcome)->name, control->trained});
  }
  report::Section section = curve_section(arms, "The curves");
  std::optional<report::Series> adaptation;
  if (run) {
    auto* loss = std::get_if<report::Series>(&section.elements.front());
    if (loss) {
      loss->title = fmt::format("Training loss of the run that was written, seed {}", run->seed);
      loss->y.name = "cross-entropy, nats a word";
    }
    if (run->adapted) {
      const std::vector<Arm> adapted{{"adaptation", *run->adapted}};
      adaptation = loss_series(adapted);
      adaptation->title = "Loss of the adaptation before the labels";
    }
  }
  std::vector<report::Element> rest(std::make_move_iterator(section.elements.begin() + 1),
                                    std::make_move_iterator(section.elements.end()));
  section.elements.resize(1);
  if (adaptation) section.elements.emplace_back(std::move(*adaptation));
  if (auto epochs = epochs_series(outcome))
    section.elements.insert(section.elements.begin(), std::move(*epochs));
  return {std::move(section), std::move(rest)};
}

report::Table runs_table(const TagOutcome& outcome) {
  report::Table table{.title = "Every run",
                      .columns = {{.name = "arm", .kind = Kind::label},
                                  {.name = "seed", .format = {Notation::fixed, 0, ""}}}};
  const bool dev = any_score(outcome, HeldOut::development), test = any_score(outcome, HeldOut::test);
  if (test) table.columns.push_back({.name = "test F1", .format = {Notation::fixed, 2, "%"}});
  if (dev) table.columns.push_back({.name = "development F1", .format = {Notation::fixed, 2, "%"}});
  table.columns.insert(table.columns.end(), {{.name = "steps", .format = report::whole()},
                                             {.name = "last loss", .format = {Notation::fixed, 4, ""}},
                                             {.name = "time", .format = {Notation::significant, 3, "s"}},
                                             {.name = "tokens", .format = report::whole()},
                                             {.name = "padding", .format = {Notation::fixed, 1, "%"}}});
  for (size_t i = 0; i < outcome.arms.size(); ++i) {
    const TagArm& arm = outcome.arms[i];
    for (size_t j = 0; j < arm.runs.size(); ++j) {
      const unmask::RunResult& run = arm.runs[j];
      report::TableRow row{.cells = {arm.name, static_cast<double>(run.seed)}};
      if (test) row.cells.emplace_back(run.test ? 100 * run.test->all.f1() : kNone);
      if (dev) row.cells.emplace_back(run.dev ? 100 * run.dev->all.f1() : kNone);
      const bool trained = !run.trained.curve.empty();
      row.cells.insert(row.cells.end(),
                       {Cell(trained ? static_cast<double>(run.trained.curve.back().step) : kNone),
                        Cell(trained ? run.trained.curve.back().loss : kNone), Cell(run.seconds),
                        Cell(static_cast<double>(run.tokens)),
                        Cell(run.padded_tokens > 0 ? 100.0 * (1 - static_cast<double>(run.tokens) /
                                                                      static_cast<double>(run.padded_tokens))
                                                   : kNone)});
      if (broke(run))
        row.mark = fmt::format("broke at step {}", run.trained.broke_at);
      else if (i == outcome.chosen && j == outcome.chosen_run)
        row.mark = "written";
      table.rows.push_back(std::move(row));
    }
  }
  return table;
}

// ---- what does not hold

std::vector<std::string> limits_of(const TagOutcome& outcome) {
  std::vector<std::string> limits;
  const TagArm *chosen = chosen_of(outcome), *causal = causal_of(outcome);
  const auto set = told(outcome);
  if (!chosen) return warnings_of(outcome);
  const SeedMean f1 = set ? f1_of(*chosen, *set) : SeedMean{};
  if (set && f1.count == 1)
    limits.emplace_back(
        "One seed says little: with another one the order of plans that lie near each other may be another.");
  if (set && f1.count > 1)
    limits.push_back(fmt::format(
        "Intervals are over {} seeds, which change the order of the data and the first numbers of what "
        "learns. "
        "How the results would change with other sentences is not in them.{}",
        f1.count,
        f1.count < 5 ? " With fewer than 5 seeds they are wide and rest on the assumption of a normal "
                       "distribution."
                     : ""));
  if (!any_score(outcome, HeldOut::test))
    limits.emplace_back(any_score(outcome, HeldOut::development)
                            ? "There is no test set: what the development set chose, it also measured."
                            : "Nothing was held out, so there is no F1 of any kind.");
  else if (!any_score(outcome, HeldOut::development))
    limits.emplace_back(outcome.searched
                            ? "There is no development set, so no plan was chosen by held-out data."
                            : "There is no development set; the last epoch was taken as it was.");
  if (set && outcome.searched) {
    const HeldOut by = any_score(outcome, HeldOut::development) ? HeldOut::development : *set;
    const auto found = correction_of(outcome, by);
    if (found && std::isfinite(found->expected) && found->best - found->mean <= found->expected)
      limits.push_back(
          fmt::format("The chosen plan lies no further over the mean of {} plans than the best of as "
                      "many equal ones would.",
                      found->plans));
    if (by != *set)
      limits.emplace_back(
          "The development set and the test set are scored with the same runs: a lucky seed "
          "is lucky on both, so part of what choice gives is in the test result as well.");
  }
  if (!causal) limits.emplace_back("The causal mask was not trained beside the plan: a gain cannot be told.");
  if (std::ranges::none_of(outcome.arms, [](const TagArm& arm) { return arm.repeat > 0; }))
    limits.emplace_back(
        "Repetition was not tried: a sentence fed twice or more to the causal model was as good "
        "in published runs (arXiv 2601.17585), at as many times the compute.");
  if (outcome.feeding) {
    const unmask::EncodeOptions& encode = outcome.feeding->encode;
    limits.push_back(fmt::format("A word is tagged by its {} token alone; the others are read but not asked.",
                                 encode.answer == unmask::Answer::first ? "first" : "last"));
    if (outcome.split_sentences > 0)
      limits.push_back(
          fmt::format("{} longer than {} tokens and {} read in pieces that share {}: no word sees "
                      "the whole sentence.",
                      capital(counted(outcome.split_sentences, "sentence is", "sentences are")),
                      encode.length, outcome.split_sentences == 1 ? "was" : "were", encode.overlap));
  } else if (outcome.split_sentences > 0) {
    limits.push_back(
        fmt::format("{} longer than a window and {} read in pieces: no word sees the whole "
                    "sentence.",
                    capital(counted(outcome.split_sentences, "sentence is", "sentences are")),
                    outcome.split_sentences == 1 ? "was" : "were"));
  }
  limits.emplace_back(
      "F1 is strict: an entity with one word too many, or of another type, is as wrong as one "
      "that is missing.");
  if (!chosen->mask.blocks.empty())
    limits.emplace_back(
        "With the mask gone the model cannot write text any more: each token sees those behind "
        "it, and no key or value can be kept from one token to the next.");
  if (outcome.blocks > 0 && chosen && !is_causal(*chosen))
    limits.emplace_back(
        "At 68 million parameters the authors of unmasking found no gain; whether it helps depends "
        "on the task and on what the model learnt before.");
  for (std::string& warning : warnings_of(outcome)) limits.push_back(std::move(warning));
  return limits;
}

Settings settings_rows(const TagOutcome& outcome) {
  Settings rows;
  rows.emplace_back(
      "sentences",
      fmt::format("{} to learn from, {} to choose by, {} to test on", thousands(outcome.train_sentences),
                  thousands(outcome.dev_sentences), thousands(outcome.test_sentences)));
  rows.emplace_back("tags", fmt::format("{}: {}", outcome.labels.size(), fmt::join(outcome.labels, " ")));
  if (const TagArm* chosen = chosen_of(outcome)) {
    std::vector<std::string> seeds;
    for (const unmask::RunResult& run : chosen->runs) seeds.push_back(std::to_string(run.seed));
    rows.emplace_back("seeds", fmt::format("{}", fmt::join(seeds, ", ")));
    rows.emplace_back("blocks without mask",
                      chosen->mask.blocks.empty() ? "none" : blocks_said(chosen->mask.blocks));
  }
  rows.insert(rows.end(), outcome.settings.begin(), outcome.settings.end());
  return rows;
}

}  // namespace

report::Table tag_table(const TagOutcome& outcome) {
  report::Table table{
      .columns = {{.name = "arm", .kind = Kind::label}, {.name = "runs", .kind = Kind::label}}};
  const auto set = told(outcome);
  const TagArm* causal = causal_of(outcome);
  std::vector<HeldOut> sets;
  for (const HeldOut of : {HeldOut::test, HeldOut::development}) {
    if (any_score(outcome, of)) sets.push_back(of);
  }
  for (const HeldOut of : sets)
    table.columns.push_back(
        {.name = of == HeldOut::test ? "test F1 %" : "dev F1 %", .kind = Kind::number, .format = kPercent});
  if (set && causal) table.columns.push_back({.name = "less " + causal->name, .kind = Kind::label});
  table.columns.push_back({.name = "compute", .kind = Kind::number, .format = {Notation::fixed, 1, ""}});
  for (const TagArm& arm : outcome.arms) {
    report::TableRow row{.cells = {arm.name, runs_said(arm)}};
    for (const HeldOut of : sets) row.cells.emplace_back(f1_of(arm, of).mean);
    if (set && causal) {
      const auto gain = difference(&arm, causal, *set);
      row.cells.emplace_back(gain ? signed_interval(*gain) : std::string());
    }
    row.cells.emplace_back(arm.compute);
    if (&arm == chosen_of(outcome)) row.mark = outcome.searched ? "chosen" : "written";
    table.rows.push_back(std::move(row));
  }
  return table;
}

report::Report tag_report(const TagOutcome& outcome) {
  report::Report report{
      .title = outcome.title.empty() ? fmt::format("A tagger from {}", outcome.model) : outcome.title,
      .date = today(),
      .version = std::string(version_of()),
      .command = outcome.command,
      .verdict = verdict_of(outcome),
      .sections = {}};
  const auto set = told(outcome);
  if (set) {
    report::Section plans{.title = outcome.arms.size() > 1 ? "The plans" : "The plan", .elements = {}};
    if (report::DotPlot plot = plans_plot(outcome, *set); plot.rows.size() > 1)
      plans.elements.emplace_back(std::move(plot));
    if (const std::vector<std::string> said = plans_said(outcome, *set); !said.empty())
      plans.elements.emplace_back(
          report::Text{.text = fmt::format("{}", fmt::join(said, "\n\n")), .form = report::Text::Form::list});
    plans.elements.emplace_back(plans_table(outcome, *set));
    if (auto repetition = repetition_series(outcome, *set))
      plans.elements.emplace_back(std::move(*repetition));
    report.sections.push_back(std::move(plans));
  }
  if (set && !outcome.score.types.empty()) {
    report::Section errors{.title = "Where it is right and wrong", .elements = {types_table(outcome, set)}};
    if (!outcome.mistakes.empty()) {
      errors.elements.emplace_back(faults_table(outcome));
      if (report::Table confusions = confusions_table(outcome); !confusions.rows.empty())
        errors.elements.emplace_back(std::move(confusions));
    }
    report.sections.push_back(std::move(errors));
  }
  if (!outcome.examples.empty()) report.sections.push_back(examples_section(outcome, set));
  report::Section how{
      .title = "How it was done", .elements = {settings_table(settings_rows(outcome))}, .folded = true};
  if (chosen_of(outcome)) {
    report.sections.push_back(attention_section(outcome));
    auto [curves, rest] = curves_of(outcome);
    report.sections.push_back(std::move(curves));
    std::ranges::move(rest, std::back_inserter(how.elements));
  }
  if (runs_of(outcome) > 1)
    report.sections.push_back({.title = "Every run", .elements = {runs_table(outcome)}, .folded = true});
  report.sections.push_back(std::move(how));
  report::Section limits{.title = "What does not hold", .elements = {}};
  if (set) {
    if (const std::vector<Claim> claims = claims_of(outcome, *set); !claims.empty())
      limits.elements.emplace_back(claims_table(claims, *set));
  }
  if (const std::vector<std::string> said = limits_of(outcome); !said.empty())
    limits.elements.emplace_back(
        report::Text{.text = fmt::format("{}", fmt::join(said, "\n\n")), .form = report::Text::Form::list});
  report.sections.push_back(std::move(limits));
  return report;
}

}  // namespace lamina::cli
