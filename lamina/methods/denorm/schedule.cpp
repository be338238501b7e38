#include "lamina/methods/denorm/schedule.h"

#include <algorithm>
#include <set>

#include "lamina/base/error.h"
#include "lamina/base/text.h"

namespace lamina::denorm {

namespace {

std::vector<NormPath> paths_of(const Blueprint& blueprint, Reader reader) {
  std::vector<NormPath> paths = blueprint.norm_paths();
  std::erase_if(paths, [reader](const NormPath& path) { return path.reader != reader; });
  return paths;
}

}  // namespace

Removals staged(const Blueprint& blueprint, const StagedOptions& options) {
  Removals removals;
  int64_t step = options.start;
  const auto one_by_one = [&](Reader reader, int64_t gap) {
    for (const NormPath& path : paths_of(blueprint, reader)) {
      removals.push_back({step, path});
      step += gap;
    }
  };
  one_by_one(Reader::mlp, options.gap_mlp);
  if (options.attention == AttentionNorm::by_reader) {
    one_by_one(Reader::qk, options.gap_qk);
    one_by_one(Reader::v, options.gap_v);
  } else {
    for (const NormPath& path : paths_of(blueprint, Reader::qk)) {
      removals.push_back({step, path});
      removals.push_back({step, {path.site, Reader::v}});
      step += options.gap_qk;
    }
  }
  one_by_one(Reader::head, 0);
  return removals;
}

Removals at_once(const Blueprint& blueprint, int64_t step) {
  Removals removals;
  for (const NormPath& path : blueprint.norm_paths()) removals.push_back({step, path});
  return removals;
}

Json to_json(const Removals& removals, const Blueprint& blueprint) {
  Json list = Json::array();
  for (const Removal& removal : removals)
    list.push_back({{"step", removal.step}, {"norm", blueprint.label(removal.path)}});
  return {{"lamina_norm_schedule", 1}, {"removals", std::move(list)}};
}

Removals removals_from_json(const Json& document, const Blueprint& blueprint, std::string_view what) {
  if (!document.is_object() || json_integer_or(document, "lamina_norm_schedule", 0, what) != 1)
    fail("{}: is no schedule for norms; it begins with \"lamina_norm_schedule\": 1", what);
  if (!json_has(document, "removals") || !document.at("removals").is_array())
    fail("{}: a list \"removals\" of steps and norms is expected", what);
  const std::vector<NormPath> paths = blueprint.norm_paths();
  std::vector<std::string> labels;
  for (const NormPath& path : paths) labels.push_back(blueprint.label(path));
  Removals removals;
  std::set<NormPath> going;
  for (const Json& entry : document.at("removals")) {
    if (!entry.is_object())
      fail("{}: an entry of \"removals\" is {{\"step\": 20, \"norm\": \"mlp0\"}}", what);
    const std::string label = json_string(entry, "norm", what);
    const auto found = std::ranges::find(labels, label);
    if (found == labels.end()) {
      const auto meant = nearest(label, labels);
      fail("{}: {} is no norm of this model{}", what, in_quotes(label),
           meant ? fmt::format("; was {} meant?", *meant) : "");
    }
    const NormPath path = paths[static_cast<size_t>(found - labels.begin())];
    if (!going.insert(path).second) fail("{}: {} goes twice", what, label);
    removals.push_back({json_integer(entry, "step", what, {.min = 0, .max = int64_t{1} << 40}), path});
  }
  if (removals.empty()) fail("{}: no norm goes", what);
  for (const NormPath& path : paths) {
    const bool goes = going.contains(path);
    const auto other = std::ranges::find_if(paths, [&](const NormPath& p) {
      return p.site == path.site && p.reader != Reader::head && path.reader != Reader::head &&
             going.contains(p) != goes;
    });
    if (!goes && other != paths.end())
      fail("{}: {} goes but {} stays, and they read one norm: only a whole norm can be folded away", what,
           blueprint.label(*other), blueprint.label(path));
  }
  std::ranges::stable_sort(removals, {}, &Removal::step);
  return removals;
}

void check_fits(const Removals& removals, const Blueprint& blueprint, int64_t steps) {
  if (removals.empty()) fail("there is no norm to remove: they are all gone");
  const Removal& last = removals.back();
  if (last.step >= steps)
    fail(
        "the last norm ({}) would go after step {}, but the run has {}; take more steps (--steps), or an "
        "earlier start and smaller gaps",
        blueprint.label(last.path), last.step, steps);
}

}  // namespace lamina::denorm
