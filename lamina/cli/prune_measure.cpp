#include <chrono>
#include <cmath>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/cli/card.h"
#include "lamina/cli/chat.h"
#include "lamina/cli/prune_run.h"
#include "lamina/eval/generate.h"

namespace lamina::cli {

namespace {

using Clock = std::chrono::steady_clock;

// Fixed prompts, never chosen for their answers.
const std::vector<std::string> kPrompts = {"What is the capital of France?",
                                           "Explain in two sentences why the sky is blue.",
                                           "Write a short poem about a river.", "What is 7 plus 5?"};

Side measure_side(const PruneRun& run, const PruneOutcome& outcome, const Plan& plan,
                  const std::vector<int32_t>& heldout) {
  const Blueprint& blueprint = run.session.opened.blueprint;
  Skip tap(blueprint, plan);
  const Counted left = counted(blueprint, plan);
  Side side{.parameters = left.parameters, .kv_bytes = left.kv_bytes, .heldout = {}, .answers = {}};
  side.heldout = perplexity(*run.session.model, heldout, outcome.headline, tap, run.watch);
  const Tokenizer& tokenizer = run.session.tokenizer;
  GenerateOptions options{.tokens = 40,
                          .stop = stop_ids(run.session.opened, tokenizer),
                          .on_token = [&](int32_t) { return !run.watch.stop.stop_requested(); }};
  double tokens = 0, seconds = 0;
  for (const std::string& prompt : outcome.prompts) {
    if (run.watch.stop.stop_requested()) throw Stopped{};
    const std::vector<int32_t> ids =
        tokenizer.chat_template() ? chat_prompt(tokenizer, prompt) : tokenizer.encode(prompt);
    const Generated answer = generate(*run.session.model, ids, options, tap);
    side.answers.push_back(tokenizer.decode(answer.ids, {.skip_special = true}));
    tokens += static_cast<double>(std::max<size_t>(answer.ids.size(), 1) - 1);
    seconds += answer.seconds;
  }
  side.tokens_per_second = seconds > 0 ? tokens / seconds : 0;
  return side;
}

// Perplexity after the first k steps, for each k asked.
Curve curve_of(const PruneRun& run, const PruneOutcome& outcome, std::string name,
               const GreedyResult& evidence, const std::vector<int>& budgets,
               const std::vector<int32_t>& heldout) {
  const Blueprint& blueprint = run.session.opened.blueprint;
  Curve curve{.name = std::move(name), .removed = {}, .values = {}};
  for (int budget : budgets) {
    Skip tap(blueprint);
    int parts = 0;
    for (int k = 0; k < budget && k < static_cast<int>(evidence.steps.size()); ++k) {
      for (Site site : evidence.units[static_cast<size_t>(evidence.steps[static_cast<size_t>(k)].unit)].sites)
        tap.add(site), ++parts;
    }
    curve.removed.push_back(parts);
    curve.values.push_back(perplexity(*run.session.model, heldout, outcome.curve, tap, run.watch).value);
  }
  return curve;
}

}  // namespace

double gemm_speed(const Model& model, int64_t tokens) {
  const InferenceMode evaluating;
  const int64_t width = model.blueprint().width, wide = 4 * width;
  const Tensor x = at::ones({tokens, width}, at::TensorOptions(model.dtype())),
               w = at::ones({wide, width}, at::TensorOptions(model.dtype()));
  double best = 0;
  for (int round = 0; round < 5; ++round) {
    const auto started = Clock::now();
    int count = 0;
    double seconds = 0;
    do {
      at::linear(x, w);
      ++count;
      seconds = std::chrono::duration<double>(Clock::now() - started).count();
    } while (seconds < 0.04);
    best = std::max(best, 2.0 * static_cast<double>(tokens * width * wide) * count / seconds);
  }
  return best;
}

PruneOutcome measure(const PruneRun& run) {
  const Blueprint& blueprint = run.session.opened.blueprint;
  const auto threads = static_cast<int>(run.options.threads);
  PruneOutcome outcome{.prompts = kPrompts,
                       .before = {},
                       .after = {},
                       .curves = {},
                       .random = {},
                       .headline = {.length = usual_context(blueprint),
                                    .stride = usual_context(blueprint),
                                    .threads = threads},
                       .curve = {.length = std::min<int64_t>(blueprint.context, 512),
                                 .stride = std::min<int64_t>(blueprint.context, 512),
                                 .max_tokens = 1024,
                                 .threads = threads},
                       .lost = {},
                       .lost_note = {},
                       .seconds = {},
                       .refused = {}};
  outcome.seconds.emplace_back("search", run.evidence.work.seconds);
  const std::vector<int32_t> heldout = run.session.tokenizer.encode(run.heldout.text);
  if (heldout.size() < 2)
    fail("{}: has fewer than two tokens, too few to measure perplexity on", run.heldout.name);
  auto started = Clock::now();
  const auto lap = [&](std::string phase) {
    const auto now = Clock::now();
    outcome.seconds.emplace_back(std::move(phase), std::chrono::duration<double>(now - started).count());
    started = now;
  };
  // One sampled answer and the speed are measured on one core, so that before and after compare.
  outcome.before = measure_side(run, outcome, Plan{}, heldout);
  outcome.after = measure_side(run, outcome, run.plan, heldout);
  lap("before and after");
  // Worth a look where it takes little beside the search.
  const std::vector<Site> gone = removed_sites(run.plan, blueprint);
  const double look = run.gemm_flops > 0 ? neurons::lost_flops(blueprint, gone) / run.gemm_flops : 0;
  if (look <= std::max(60.0, run.evidence.work.seconds / 4)) {
    outcome.lost = neurons::lost({run.session.opened.checkpoint, blueprint}, gone, {.watch = run.watch});
  } else {
    outcome.lost_note = fmt::format(
        "Reading the neurons that went would take about {}. `lamina neurons map MODEL -o ATLAS --blocks ...` "
        "does it.",
        human_seconds(look));
  }
  lap("neurons that went");

  const auto steps = static_cast<int>(run.evidence.steps.size());
  std::vector<int> every, some;
  for (int k = 0; k <= steps; ++k) every.push_back(k);
  const int stride = std::max(1, (steps + 3) / 4);
  for (int k = 0; k < steps; k += stride) some.push_back(k);
  some.push_back(steps);
  if (steps > 12) every = some;
  outcome.curves.push_back(
      curve_of(run, outcome, std::string(run.method.title), run.evidence, every, heldout));
  lap("curve");
  if (run.baselines == "none") return outcome;

  const MethodInput input{*run.session.model, run.session.opened.checkpoint, run.samples};
  const auto parts = static_cast<int64_t>(run.plan.edits.size());
  const auto baseline = [&](std::string_view name, std::string units, int64_t seed) {
    MethodOptions options = run.options;
    const Method& method = method_by_name(name);
    options.method = name;
    options.units = std::move(units);
    options.seed = seed;
    options.freeze = std::nullopt;
    options.search = "cached";
    // The same number of parts goes, whatever the unit.
    const int64_t per_unit = options.units == "block" ? 2 : 1;
    options.remove = std::max<int64_t>(1, parts / per_unit);
    const Proposal proposal = method.propose(input, options, {.watch = run.watch, .done = {}, .on_step = {}});
    std::vector<int> budgets;
    for (int k : some) {
      const int units_now = static_cast<int>(k * options.remove / std::max(1, steps));
      if (budgets.empty() || units_now != budgets.back()) budgets.push_back(units_now);
    }
    return curve_of(run, outcome, std::string(method.title), proposal.evidence, budgets, heldout);
  };
  const auto add = [&](std::string_view name, std::string units) {
    if (name != run.method.name) outcome.curves.push_back(baseline(name, std::move(units), 0));
  };
  if (run.baselines == "all") add("blockpruner", "both");
  add("shortgpt", "block");
  add("last", "block");
  for (int64_t seed = 0; seed < 3; ++seed) {
    if (run.method.name != "random" || run.options.seed != seed)
      outcome.random.push_back(baseline("random", "both", seed));
  }
  lap("baselines");
  return outcome;
}

}  // namespace lamina::cli
