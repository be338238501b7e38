#include "lamina/eval/analyses.h"

#include <algorithm>
#include <cmath>

#include "lamina/base/error.h"
#include "lamina/base/text.h"

namespace lamina {

using report::Cell;
using report::Column;
using report::Notation;
using report::Table;

namespace {

constexpr double kFarTail = 10;  // times the first arm's largest loss

Samples cut_up(std::string_view text, const Tokenizer& tokenizer, int64_t samples, int64_t length) {
  // Encoding a whole book for a few thousand tokens takes longer than the analyses.
  const auto enough = static_cast<size_t>(samples * length) * 12 + 4096;
  std::vector<int32_t> ids = tokenizer.encode(text.substr(0, enough));
  if (std::ssize(ids) <= samples * length && text.size() > enough) ids = tokenizer.encode(text);
  Samples cut;
  for (int64_t s = 0; s < samples; ++s) {
    const int64_t begin = s * length, end = std::min(begin + length, std::ssize(ids));
    if (end - begin < 2 || (s > 0 && end - begin < length)) break;
    cut.emplace_back(ids.begin() + begin, ids.begin() + end);
  }
  return cut;
}

report::Format percent() {
  return {Notation::significant, 3, "%"};
}
report::Format nats() {
  return {Notation::fixed, 4, "nats"};
}
report::Format small() {
  return {Notation::significant, 3};
}
Column label(std::string name) {
  return {.name = std::move(name), .kind = Column::Kind::label};
}
Column number(std::string name, report::Format format) {
  return {.name = std::move(name), .format = std::move(format)};
}

std::string interval(const Estimate& estimate) {
  if (!std::isfinite(estimate.low) || !std::isfinite(estimate.high)) return "one sample";
  return fmt::format("{:+.4f} to {:+.4f}", estimate.low, estimate.high);
}

// In percent; nothing where nothing was measured.
Cell span(const Estimate& share) {
  if (!std::isfinite(share.value)) return {};
  return fmt::format("{:.3g} to {:.3g}", 100 * share.low, 100 * share.high);
}

// The largest difference between what holding a neuron does and what it does at a frozen scale.
double scale_share(const NeuronEffects& neurons) {
  double most = 0;
  for (const NeuronEffects::Neuron& neuron : neurons.neurons)
    most = std::max(most, std::abs(neuron.total.cross_entropy - neuron.frozen.cross_entropy));
  return most;
}

Table identities(const std::vector<Arm>& arms) {
  Table table{.title = "Identities: zero to rounding where the last norm is frozen or gone",
              .columns = {label("model"), number("DLA against DE, mean over heads", percent()),
                          number("all heads together", percent()), label("95 % interval"),
                          number("neurons, total less frozen scale", {Notation::significant, 3, "nats"})}};
  for (const Arm& arm : arms) {
    const Attribution& a = arm.analyses.attribution;
    table.rows.push_back(
        {.cells = {arm.name, 100 * a.head_mean, 100 * a.global.value, span(a.global),
                   arm.analyses.neurons.neurons.empty() ? Cell() : Cell(scale_share(arm.analyses.neurons))}});
  }
  const Attribution& a = arms.front().analyses.attribution;
  table.note = fmt::format(
      "DLA: direct logit attribution of a head; DE: its direct effect; mean |DLA - DE| / mean |DE| at the "
      "last position of {} samples, {} heads, target {}. They test that scales are frozen and folded, not "
      "that attribution is of use.",
      a.samples, a.heads.size(),
      a.target == AttributionOptions::Target::next ? "the next token" : "the last token read");
  return table;
}

Table findings(const std::vector<Arm>& arms) {
  Table table{.title = "Findings: they depend on data and training",
              .columns = {label("model"), number("cross-entropy", nats()),
                          number("less the first model's", {Notation::fixed, 4, "nats"}),
                          label("95 % interval"), number("entropy", nats()),
                          number("calibration error", {Notation::fixed, 4}), number("accuracy", percent()),
                          number("sinks, queries", percent()), number("sinks, heads", percent())}};
  for (const Arm& arm : arms) {
    const Calibration& c = arm.analyses.calibration;
    const bool first = &arm == &arms.front();
    const Estimate moved = paired_difference(arms.front().analyses.calibration.by_sample, c.by_sample);
    table.rows.push_back(
        {.cells = {arm.name, c.cross_entropy, first ? Cell() : Cell(moved.value),
                   first ? Cell() : Cell(interval(moved)), c.entropy, c.error, 100 * c.accuracy,
                   100 * arm.analyses.sinks.queries.value, 100 * arm.analyses.sinks.heads.value}});
  }
  const Calibration& c = arms.front().analyses.calibration;
  table.note = fmt::format(
      "{} tokens of {} samples, the same for all; intervals are of the paired difference over samples "
      "(Student's t). Calibration error: {} equal bins of the likeliest token's probability. Sinks: share of "
      "queries, that at position 0 included, or of heads, in the mean over queries, that give position 0 "
      "more "
      "than the threshold.",
      thousands(c.tokens), c.by_sample.size(), c.bins.size());
  return table;
}

Table steps(const std::vector<Arm>& arms) {
  Table table{.title = "Step by step",
              .columns = {label("from"), label("to"), number("cross-entropy", nats()), label("95 % interval"),
                          number("entropy", nats()), number("calibration error", {Notation::fixed, 4})}};
  for (size_t i = 1; i < arms.size(); ++i) {
    const Calibration &from = arms[i - 1].analyses.calibration, &to = arms[i].analyses.calibration;
    const Estimate moved = paired_difference(from.by_sample, to.by_sample);
    table.rows.push_back({.cells = {arms[i - 1].name, arms[i].name, moved.value, interval(moved),
                                    to.entropy - from.entropy, to.error - from.error}});
  }
  table.note =
      "In the order original, fine-tuned with its norms, norm-free, the first step is what fine-tuning does, "
      "the second what the removal does.";
  return table;
}

Table tails(const std::vector<Arm>& arms) {
  Table table{.title = "Losses and their tails",
              .columns = {label("text"), label("model"), number("mean", nats()), number("median", nats()),
                          number("99.9th percentile", nats()), number("maximum", nats()),
                          label("worst: sample, position, token")}};
  const auto add = [&](const std::string& text, const Arm& arm, const LossTail& tail) {
    table.rows.push_back(
        {.cells = {text, arm.name, tail.mean, tail.median, tail.permille, tail.most,
                   fmt::format("{}, {}, {}", tail.worst.sample, tail.worst.position, tail.worst.token)}});
  };
  for (const Arm& arm : arms) add("in-domain", arm, arm.analyses.text);
  for (const Arm& arm : arms) {
    if (arm.analyses.strange) add("out of domain", arm, *arm.analyses.strange);
  }
  for (const Arm& arm : arms) {
    if (arm.analyses.unseen) add("with tokens it lacks", arm, *arm.analyses.unseen);
  }
  return table;
}

Table neuron_table(const std::vector<Arm>& arms) {
  Table table{.title = "Neurons of the last feed-forward that move all logits alike, held at their mean",
              .columns = {label("model"), label("neuron"), number("score", small()),
                          number("cross-entropy, total", small()), number("at the frozen scale", small()),
                          number("mean |change|, total", small()), number("at the frozen scale", small()),
                          number("entropy, total", small()), number("at the frozen scale", small())}};
  const auto add = [&](const Arm& arm, const std::string& name, Cell score,
                       const NeuronEffects::Change& total, const NeuronEffects::Change& frozen) {
    table.rows.push_back(
        {.cells = {arm.name, name, std::move(score), total.cross_entropy, frozen.cross_entropy, total.moved,
                   frozen.moved, total.entropy, frozen.entropy}});
  };
  for (const Arm& arm : arms) {
    const NeuronEffects& effects = arm.analyses.neurons;
    for (const NeuronEffects::Neuron& neuron : effects.neurons)
      add(arm, fmt::format("{}", neuron.neuron), neuron.score, neuron.total, neuron.frozen);
    if (effects.neurons.size() > 1)
      add(arm, "all of these", {}, effects.total_together, effects.frozen_together);
  }
  table.note =
      "Changes in nats. Score: |w_out| / Var cos(w_v, w_out), the head read through the last norm's gain.";
  return table;
}

report::Series residual_norms(const std::vector<Arm>& arms) {
  report::Series series{.title = "Norm of the residual before each block",
                        .x = {.name = "block", .format = report::whole()},
                        .y = {.name = "norm", .scale = report::Scale::logarithmic},
                        .note = "Means over samples. The last point is what the head reads, before a norm."};
  for (const Arm& arm : arms) {
    report::Curve first{.name = arm.name + ", position 0", .role = report::Curve::Role::method},
        rest{.name = arm.name + ", elsewhere"};
    int end = 0;
    const auto add = [&](int block, double at_first, double elsewhere) {
      first.x.push_back(block), rest.x.push_back(block);
      first.y.push_back(at_first), rest.y.push_back(elsewhere);
      end = block + 1;
    };
    for (const Sinks::Row& row : arm.analyses.sinks.rows) add(row.block, row.first, row.rest);
    add(end, arm.analyses.sinks.first_at_end, arm.analyses.sinks.rest_at_end);
    series.curves.push_back(std::move(first));
    series.curves.push_back(std::move(rest));
  }
  return series;
}

Table sink_table(const std::vector<Arm>& arms) {
  Table table{.title = "Attention to position 0",
              .columns = {label("model"), number("queries above the threshold", percent()),
                          label("95 % interval"), number("heads above it", percent()), label("95 % interval"),
                          number("norm at the end, position 0 over elsewhere", small())}};
  for (const Arm& arm : arms) {
    const Sinks& s = arm.analyses.sinks;
    table.rows.push_back({.cells = {arm.name, 100 * s.queries.value, span(s.queries), 100 * s.heads.value,
                                    span(s.heads), s.first_at_end / s.rest_at_end}});
  }
  return table;
}

std::vector<report::Element> patching_elements(const std::vector<Arm>& arms) {
  Table table{.title = "Attribution patching against activation patching",
              .columns = {label("model"), number("error, mean over blocks", small()),
                          number("metric, clean", small()), number("metric, corrupted", small()),
                          number("prompts answered", percent())}};
  report::Series series{.title = "Error of attribution patching",
                        .x = {.name = "block", .format = report::whole()},
                        .y = {.name = "sum over positions of |attr - act|"}};
  for (const Arm& arm : arms) {
    const Patching& p = arm.analyses.patching;
    if (p.pairs == 0) continue;
    table.rows.push_back({.cells = {arm.name, p.error, p.clean, p.corrupted,
                                    100.0 * static_cast<double>(p.answered) / static_cast<double>(p.pairs)}});
    report::Curve curve{.name = arm.name};
    for (const Patching::Row& row : p.rows) curve.x.push_back(row.block), curve.y.push_back(row.error);
    series.curves.push_back(std::move(curve));
  }
  if (table.rows.empty()) return {};
  table.note = fmt::format(
      "{} pairs of prompts, \"Then, A and B went to the PLACE. A gave a OBJECT to\", corrupted by the other "
      "giver; the residual before each block at each position. Divided by metric(clean) - "
      "metric(corrupted): where a model does not answer, that is small and the error means little. The paper "
      "found no gain from removing norms.",
      arms.front().analyses.patching.pairs);
  return {std::move(table), std::move(series)};
}

report::Element head_errors(const Arm& arm) {
  report::HeatMap map{.title = arm.name + ": DLA against DE, head by head",
                      .column_axis = "head",
                      .row_axis = "block",
                      .value_name = "mean |DLA - DE| / mean |DE|",
                      .format = percent()};
  int64_t most = 0;
  std::vector<Site> parts;
  for (const Attribution::Head& head : arm.analyses.attribution.heads) {
    most = std::max(most, head.head + 1);
    if (!parts.empty() && parts.back() == head.site) continue;
    parts.push_back(head.site);
    map.rows.push_back(fmt::format("{}", head.block));
  }
  for (int64_t h = 0; h < most; ++h) map.columns.push_back(fmt::format("{}", h));
  map.cells.assign(parts.size() * static_cast<size_t>(most), {.sort = report::HeatCell::Sort::absent});
  for (const Attribution::Head& head : arm.analyses.attribution.heads) {
    if (!std::isfinite(head.error)) continue;
    const auto row = static_cast<size_t>(std::ranges::find(parts, head.site) - parts.begin());
    map.cells[row * static_cast<size_t>(most) + static_cast<size_t>(head.head)] = {.value = 100 * head.error};
  }
  return map;
}

Json json_of(const Estimate& estimate) {
  return {{"value", estimate.value}, {"low", estimate.low}, {"high", estimate.high}};
}
Json json_of(const LossTail& tail) {
  return {{"mean", tail.mean},
          {"median", tail.median},
          {"p99.9", tail.permille},
          {"max", tail.most},
          {"tokens", tail.tokens},
          {"worst",
           {{"sample", tail.worst.sample}, {"position", tail.worst.position}, {"token", tail.worst.token}}}};
}
Json json_of(const NeuronEffects::Change& change) {
  return {{"cross_entropy", change.cross_entropy},
          {"entropy", change.entropy},
          {"mean_absolute_cross_entropy", change.moved}};
}

}  // namespace

AnalysisData analysis_data(std::string_view text, std::string_view strange, const Tokenizer& tokenizer,
                           const Model& model, const AnalysisDataOptions& options) {
  if (options.samples < 1 || options.length < 2)
    fail("{} samples of {} tokens: at least one of two is needed", options.samples, options.length);
  const int64_t length = std::min(options.length, model.blueprint().context),
                vocabulary = model.blueprint().vocabulary;
  AnalysisData data{.text = cut_up(text, tokenizer, options.samples, length)};
  if (data.text.empty()) fail("the text has fewer than two tokens; give a longer one");
  const std::string made = strange.empty() ? strange_text(4 * options.samples * length, options.seed) : "";
  data.strange = cut_up(strange.empty() ? made : strange, tokenizer, options.samples, length);
  if (data.strange.empty()) fail("the out-of-domain text has fewer than two tokens; give a longer one");
  data.unseen = unseen_tokens(data.text, vocabulary,
                              {.count = std::ssize(data.text), .length = length, .seed = options.seed});
  if (options.pairs > 0)
    data.pairs = object_prompts(tokenizer, {.count = options.pairs, .seed = options.seed});
  if (!data.pairs.empty() && std::ssize(data.pairs.front().clean) > model.blueprint().context)
    data.pairs.clear();
  return data;
}

Analyses analyse(const Model& model, const AnalysisData& data, const AnalysisOptions& options, Tap& base,
                 const Watch& watch) {
  const std::vector<TokenScore> scores = token_scores(model, data.text, base, watch);
  Analyses result;
  result.calibration = calibration(scores, options.calibration);
  result.text = loss_tail(scores);
  if (!data.strange.empty()) result.strange = loss_tail(model, data.strange, base, watch);
  if (!data.unseen.empty()) result.unseen = loss_tail(model, data.unseen, base, watch);
  result.attribution = attribution(model, data.text, options.attribution, base, watch);
  result.neurons = neuron_effects(model, data.text, options.neurons, base, watch);
  result.sinks = sinks(model, data.text, options.sinks, base, watch);
  result.patching = patching(model, data.pairs, base, watch);
  return result;
}

Json to_json(const Analyses& analyses) {
  const Calibration& c = analyses.calibration;
  Json bins = Json::array();
  for (const Calibration::Bin& bin : c.bins)
    bins.push_back({{"tokens", bin.tokens}, {"confidence", bin.confidence}, {"accuracy", bin.accuracy}});
  Json json = {{"calibration",
                {{"cross_entropy", c.cross_entropy},
                 {"entropy", c.entropy},
                 {"accuracy", c.accuracy},
                 {"expected_calibration_error", c.error},
                 {"tokens", c.tokens},
                 {"bins", bins},
                 {"cross_entropy_by_sample", c.by_sample}}},
               {"losses", {{"text", json_of(analyses.text)}}}};
  if (analyses.strange) json["losses"]["out_of_domain"] = json_of(*analyses.strange);
  if (analyses.unseen) json["losses"]["unseen_tokens"] = json_of(*analyses.unseen);

  const Attribution& a = analyses.attribution;
  Json heads = Json::array();
  for (const Attribution::Head& head : a.heads)
    heads.push_back({{"part", head.part},
                     {"head", head.head},
                     {"nmae", head.error},
                     {"direct", head.direct},
                     {"attributed", head.attributed}});
  json["attribution"] = {{"target", target_name(a.target)},
                         {"samples", a.samples},
                         {"nmae_head_mean", a.head_mean},
                         {"nmae_global", json_of(a.global)},
                         {"heads", heads}};

  const NeuronEffects& n = analyses.neurons;
  Json neurons = Json::array();
  for (const NeuronEffects::Neuron& neuron : n.neurons)
    neurons.push_back({{"neuron", neuron.neuron},
                       {"norm", neuron.norm},
                       {"logit_variance", neuron.logit_variance},
                       {"score", neuron.score},
                       {"mean", neuron.mean},
                       {"total", json_of(neuron.total)},
                       {"frozen", json_of(neuron.frozen)}});
  json["neurons"] = {
      {"part", n.site.index},
      {"cross_entropy", n.cross_entropy},
      {"entropy", n.entropy},
      {"tokens", n.tokens},
      {"neurons", neurons},
      {"together", {{"total", json_of(n.total_together)}, {"frozen", json_of(n.frozen_together)}}}};

  const Sinks& s = analyses.sinks;
  Json norms = Json::array();
  for (const Sinks::Row& row : s.rows)
    norms.push_back({{"block", row.block}, {"first", row.first}, {"rest", row.rest}});
  json["sinks"] = {{"queries", json_of(s.queries)},
                   {"heads", json_of(s.heads)},
                   {"samples", s.samples},
                   {"norms", norms},
                   {"norms_at_end", {{"first", s.first_at_end}, {"rest", s.rest_at_end}}}};

  const Patching& p = analyses.patching;
  if (p.pairs == 0) return json;
  Json rows = Json::array();
  for (const Patching::Row& row : p.rows)
    rows.push_back({{"block", row.block},
                    {"error", row.error},
                    {"activation", row.activation},
                    {"attribution", row.attribution}});
  json["patching"] = {{"error", p.error}, {"clean", p.clean},       {"corrupted", p.corrupted},
                      {"pairs", p.pairs}, {"answered", p.answered}, {"rows", rows}};
  return json;
}

std::vector<Table> analysis_tables(const std::vector<Arm>& arms) {
  if (arms.empty()) return {};
  return {identities(arms), findings(arms)};
}

std::vector<report::Section> analysis_sections(const std::vector<Arm>& arms) {
  if (arms.empty()) return {};
  std::vector<report::Section> sections;
  sections.push_back({.title = "Identities", .elements = {identities(arms)}});
  report::Section loss{.title = "Loss and calibration", .elements = {findings(arms)}};
  if (arms.size() > 1) loss.elements.emplace_back(steps(arms));
  sections.push_back(std::move(loss));
  report::Section tail{.title = "Tails", .elements = {tails(arms)}};
  std::string warnings;
  for (const std::string& warning : analysis_warnings(arms))
    warnings += (warnings.empty() ? "" : "\n\n") + warning;
  if (!warnings.empty())
    tail.elements.emplace_back(report::Text{.text = warnings, .form = report::Text::Form::list});
  sections.push_back(std::move(tail));
  Table neurons = neuron_table(arms);
  if (!neurons.rows.empty())
    sections.push_back({.title = "Confidence neurons", .elements = {std::move(neurons)}});
  sections.push_back({.title = "Attention sinks", .elements = {sink_table(arms), residual_norms(arms)}});
  if (auto elements = patching_elements(arms); !elements.empty())
    sections.push_back({.title = "Attribution patching", .elements = std::move(elements)});
  report::Section heads{.title = "Heads", .folded = true};
  for (const Arm& arm : arms) {
    if (!arm.analyses.attribution.heads.empty()) heads.elements.push_back(head_errors(arm));
  }
  if (!heads.elements.empty()) sections.push_back(std::move(heads));
  return sections;
}

std::vector<std::string> analysis_warnings(const std::vector<Arm>& arms) {
  std::vector<std::string> warnings;
  if (arms.empty()) return warnings;
  const auto look = [&](std::string_view text, const Arm& arm, const LossTail& tail, const LossTail& first) {
    if (!std::isfinite(tail.most)) {
      warnings.push_back(
          fmt::format("{}: on {} the loss of a token is not finite (sample {}, position {}, "
                      "token {})",
                      arm.name, text, tail.worst.sample, tail.worst.position, tail.worst.token));
    } else if (tail.most > kFarTail * first.most) {
      warnings.push_back(fmt::format(
          "{}: on {} the largest loss is {:.4g} nats, {:.3g} times that of {} (sample {}, position {}, token "
          "{}): tokens that it hardly met break it",
          arm.name, text, tail.most, tail.most / first.most, arms.front().name, tail.worst.sample,
          tail.worst.position, tail.worst.token));
    }
  };
  const Analyses& first = arms.front().analyses;
  for (const Arm& arm : arms) {
    const Analyses& a = arm.analyses;
    look("the text", arm, a.text, first.text);
    if (a.strange && first.strange) look("out-of-domain text", arm, *a.strange, *first.strange);
    if (a.unseen && first.unseen) look("tokens that the text lacks", arm, *a.unseen, *first.unseen);
  }
  return warnings;
}

}  // namespace lamina
