// From samples to a cut: scores, criteria, covers, solvers, and the true losses of the best plans.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <ctime>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/cli/prune_unet.h"
#include "lamina/models/registry.h"

namespace lamina::cli {

namespace {

using Clock = std::chrono::steady_clock;
using laptop::Choice;
using laptop::Cover;
using laptop::Criterion;

constexpr int64_t kRandomPlans = 16;

// "50%": at most that share is kept; so much has to go.
int64_t least_of(const std::string& text, std::string_view flag, int64_t whole) {
  if (text.empty()) return 0;
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (end == text.c_str() || std::string_view(end) != "%" || !(value > 0) || value > 100)
    fail("--{} {}: a share that is kept at most is expected, such as 50%", flag, in_quotes(text));
  return whole - static_cast<int64_t>(std::floor(static_cast<double>(whole) * value / 100));
}

class Search {
 public:
  Search(const Subject& subject, const UnetData& data, const UnetOptions& options, UnetJournal& journal,
         const Watch& watch)
      : subject_(subject), data_(data), options_(options), journal_(journal), watch_(watch) {
    found_.criterion = laptop::criterion_from_name(options.criterion);
    found_.candidates = laptop::candidates_of(subject.blueprint());
  }

  UnetFound run() {
    score();
    measure_times();
    lap("milliseconds of the parts");
    make_prices();
    found_.values = values_by(found_.criterion);
    lap("criterion");
    const std::optional<unet::LayoutOptions> layout = layout_from_name(options_.layout);
    const Cover cover = cover_for(options_.layout, found_.values);
    choose(cover);
    lap("plans");
    compare(cover);
    lap("plans beside it");
    frontiers(layout.has_value());
    lap("frontiers");
    trajectories();
    lap("trajectories");
    study();
    subsets();
    lap("study of the sum");
    return std::move(found_);
  }

 private:
  void lap(std::string phase) {
    const auto now = Clock::now();
    found_.seconds.emplace_back(std::move(phase), std::chrono::duration<double>(now - started_).count());
    started_ = now;
  }

  // ---- scores

  void score() {
    const auto batches = data_.scoring.batches.size();
    std::vector<laptop::BatchScores> scores;
    const std::string what = "the journal";
    double seconds = 0, processor_seconds = 0;
    for (size_t b = 0; b < batches; ++b) {
      const std::string key = fmt::format("scores {}", b);
      if (const Json* done = journal_.find(key)) {
        scores.push_back(laptop::batch_scores_from_json(done->at("scores"), found_.candidates.size(), what));
        seconds += done->at("seconds").get<double>();
        processor_seconds += done->at("processor").get<double>();
        continue;
      }
      if (watch_.stop.stop_requested()) throw Stopped{};
      Watch inside = watch_;
      inside.tick = [&](const Tick& tick) {
        watch_.report({.phase = "scores",
                       .done = static_cast<double>(b) + tick.done / tick.total,
                       .total = static_cast<double>(batches),
                       .detail = tick.detail});
      };
      const auto from = Clock::now();
      const std::clock_t processor = std::clock();
      scores.push_back(laptop::score(subject_.model(), found_.candidates, data_.scoring.batches[b],
                                     {.rows = options_.rows}, inside));
      const double spent = std::chrono::duration<double>(Clock::now() - from).count();
      const double worked = static_cast<double>(std::clock() - processor) / CLOCKS_PER_SEC;
      seconds += spent;
      processor_seconds += worked;
      journal_.add(key,
                   {{"scores", laptop::to_json(scores.back())}, {"seconds", spent}, {"processor", worked}});
    }
    found_.scores = laptop::gathered(found_.candidates, scores);
    found_.seconds.emplace_back("scores", seconds);  // of runs that were resumed too
    found_.seconds.emplace_back("scores, of the processor", processor_seconds);
    started_ = Clock::now();
  }

  void measure_times() {
    const Inputs& inputs = data_.scoring.batches[0].inputs;
    if (const Json* done = journal_.find("times")) {
      found_.times = {.saved = done->at("saved").get<std::vector<double>>(),
                      .whole = done->at("whole").get<double>()};
    } else {
      found_.times = laptop::measured_times(subject_.model(), found_.candidates, inputs,
                                            static_cast<int>(options_.repeats), watch_);
      journal_.add("times", {{"saved", found_.times.saved}, {"whole", found_.times.whole}});
    }
    // Blocks of one transformer do the same work: what differs is the clock.
    for (const Wrapper& wrapper : subject_.blueprint().wrappers) {
      std::vector<size_t> inside;
      double sum = 0;
      for (size_t i = 0; i < found_.candidates.size(); ++i) {
        if (std::ranges::find(wrapper.parts, found_.candidates[i].index) == wrapper.parts.end()) continue;
        inside.push_back(i);
        sum += found_.times.saved[i];
      }
      for (size_t i : inside) found_.times.saved[i] = sum / static_cast<double>(inside.size());
    }
  }

  // ---- what goes with parts

  void make_prices() {
    const Blueprint& blueprint = subject_.blueprint();
    const unet::Shape2d shape{.height = subject_.height,
                              .width = subject_.width,
                              .text_tokens = data_.scoring.batches[0].inputs.text.size(1)};
    const double whole_macs = unet::macs(subject_.config, blueprint, shape).total();
    std::map<int, double> milliseconds;
    for (size_t i = 0; i < found_.candidates.size(); ++i)
      milliseconds[found_.candidates[i].index] = found_.times.saved[i];
    const auto saved = [&config = subject_.config, &blueprint, shape, whole_macs,
                        milliseconds](std::span<const Site> sites) {
      Blueprint without = blueprint;
      double ms = 0;
      for (Site site : sites) {
        without.parts[static_cast<size_t>(site.index)].present = false;
        if (const auto it = milliseconds.find(site.index); it != milliseconds.end()) ms += it->second;
      }
      return std::vector<int64_t>{
          unet::parameters_saved(blueprint, {sites.begin(), sites.end()}),
          static_cast<int64_t>(whole_macs - unet::macs(config, without, shape).total() + 0.5),
          static_cast<int64_t>(ms * 1e6)};
    };
    found_.prices = {.axes = {"params", "macs", "ms"},
                     .whole = {blueprint.parameters(), static_cast<int64_t>(whole_macs + 0.5),
                               static_cast<int64_t>(found_.times.whole * 1e6)},
                     .saved = saved};
    const std::vector<int64_t>& whole = found_.prices.whole;
    found_.least = {least_of(options_.params, "params", whole[0]), least_of(options_.macs, "macs", whole[1]),
                    least_of(options_.ms, "ms", whole[2])};
  }

  std::vector<double> values_by(Criterion criterion) {
    if (laptop::reads_scores(criterion))
      return laptop::values_of(found_.scores, criterion, data_.scoring.steps);
    if (criterion == Criterion::random)
      return laptop::drawn(found_.candidates.size(), static_cast<uint64_t>(options_.seed));
    if (criterion == Criterion::magnitude)
      return laptop::magnitudes(subject_.opened().checkpoint, subject_.blueprint(), found_.candidates);
    if (const Json* done = journal_.find("taylor")) return done->get<std::vector<double>>();
    std::vector<double> values = laptop::taylor(subject_.opened(), found_.candidates, data_.scoring, watch_);
    journal_.add("taylor", values);
    return values;
  }

  Cover cover_for(const std::string& layout, const std::vector<double>& values) const {
    const std::vector<laptop::Bundle> bundles =
        layout_from_name(layout) ? layout_bundles(subject_, layout, found_.candidates, values, found_.prices)
                                 : laptop::free_bundles(subject_.blueprint(), found_.candidates, values);
    return laptop::cover_of(bundles, found_.candidates, values, found_.prices, found_.least);
  }

  // ---- true losses

  struct Loss {
    double value = 0, error = 0;
  };

  std::string_view wiring(const std::string& layout) const { return layout == "any" ? "any" : "stock"; }

  // What a stock config makes of what is left, where that is another function than skipping the parts.
  std::unique_ptr<Model> wired_anew(const std::vector<int>& removed, const std::string& layout) const {
    const auto options = layout_from_name(layout);
    if (!options) return nullptr;
    const Opened& opened = subject_.opened();
    const unet::Expressed expressed = unet::express(opened.checkpoint.config, opened.blueprint,
                                                    laptop::sites_of(found_.candidates, removed), *options);
    if (!expressed.possible || expressed.exact) return nullptr;
    return build_model(declare(unet::compacted(opened.checkpoint, expressed)));
  }

  // Of a plan as it would be written: skipping its parts, or what a stock config makes of it.
  Loss true_loss(const std::vector<int>& removed, const std::string& layout, bool heldout) {
    const std::string key = fmt::format("joint {} {} {}", heldout ? "heldout" : "scored", wiring(layout),
                                        fmt::join(removed, ","));
    if (const Json* done = journal_.find(key))
      return {done->at(0).get<double>(), done->at(1).is_null() ? NAN : done->at(1).get<double>()};
    if (watch_.stop.stop_requested()) throw Stopped{};
    std::optional<laptop::JointLoss>& joint = heldout ? heldout_ : scored_;
    if (!joint) {
      joint.emplace(subject_.model(), heldout ? data_.heldout : data_.scoring,
                    heldout ? 0 : options_.rerank_samples);
    }
    const std::unique_ptr<Model> other = wired_anew(removed, layout);
    const std::vector<double> losses =
        other ? joint->of(*other) : joint->of(laptop::sites_of(found_.candidates, removed));
    const laptop::Mean mean = laptop::mean(losses);
    ++found_.true_losses;
    journal_.add(key, Json::array({mean.value, mean.error}));
    return {mean.value, mean.error};
  }

  void tick(std::string phase, int64_t done, int64_t total, double best) const {
    watch_.report({.phase = std::move(phase),
                   .done = static_cast<double>(done),
                   .total = static_cast<double>(total),
                   .detail = std::isfinite(best) ? fmt::format("best {:.4g}", best) : ""});
  }

  // ---- plans

  std::string impossible(const Cover& cover) const {
    std::string limits;
    for (size_t a = 0; a < found_.least.size(); ++a) {
      if (found_.least[a] <= 0) continue;
      int64_t most = 0;
      for (const laptop::Group& group : cover.groups)
        most += std::ranges::max(group, {}, [a](const laptop::Option& o) { return o.saved[a]; }).saved[a];
      limits +=
          fmt::format("{}{:.1f} % of the {}", limits.empty() ? "" : ", ",
                      100 * (1 - static_cast<double>(most) / static_cast<double>(found_.prices.whole[a])),
                      found_.prices.axes[a]);
    }
    return limits;
  }

  Choice solved(const Cover& cover) {
    std::optional<Choice> choice;
    if (options_.solver == "dynamic") {
      const auto axis = static_cast<size_t>(
          std::ranges::find_if(found_.least, [](int64_t least) { return least > 0; }) - found_.least.begin());
      choice = laptop::Frontier(cover, {.axis = axis}).at(found_.least[axis]);
    } else if (options_.solver == "greedy-loss" || options_.solver == "greedy-ratio") {
      choice = laptop::greedy(cover,
                              options_.solver == "greedy-loss" ? laptop::Order::loss : laptop::Order::ratio);
    } else {
      const laptop::Exact exact = laptop::exact(cover, {});
      found_.proven = exact.proven;
      if (!exact.best.empty()) choice = exact.best[0];
    }
    if (!choice) fail("the budgets cannot be held; what stays when all goes that can: {}", impossible(cover));
    return *choice;
  }

  // Of a plan in a layout, or of one whose parts are skipped.
  PlanRow row(std::string name, std::vector<int> removed, const std::string& layout) const {
    const std::vector<Site> sites = laptop::sites_of(found_.candidates, removed);
    PlanRow row{.name = std::move(name), .removed = std::move(removed), .saved = found_.prices.saved(sites)};
    row.layout = layout;
    row.sum = 0;
    for (int i : row.removed) row.sum += found_.values[static_cast<size_t>(i)];
    row.superposed = laptop::superposed(found_.scores, row.removed);
    const Json& config = subject_.opened().checkpoint.config;
    const auto options = layout_from_name(layout);
    unet::Expressed expressed =
        unet::express(config, subject_.blueprint(), sites, options.value_or(unet::LayoutOptions{}));
    if (options && expressed.possible)
      row.saved[0] = subject_.blueprint().parameters() - expressed.parameters;
    if (!expressed.possible) {
      expressed = unet::express(config, subject_.blueprint(), sites, {.wiring = unet::Wiring::stock});
    }
    row.expressible = expressed.possible;
    row.said = !expressed.possible ? expressed.why : expressed.exact ? "as it computes" : "wired anew";
    return row;
  }

  // The best plans of the sum, ranked by their true loss, and the neighbours of the first of them.
  void choose(const Cover& cover) {
    if (options_.method == "bk-sdm") {
      std::vector<int> removed;
      for (Site site : laptop::handcrafted(subject_.blueprint(), options_.cut))
        removed.push_back(
            static_cast<int>(std::ranges::find(found_.candidates, site) - found_.candidates.begin()));
      found_.chosen = row(options_.cut, removed, options_.layout);
    } else if (options_.method == "asdm") {
      choose_by_compute();
      return;
    } else if (options_.method == "random") {
      const std::optional<Choice> choice = laptop::random_choice(cover, static_cast<uint64_t>(options_.seed));
      if (!choice)
        fail("the budgets cannot be held; what stays when all goes that can: {}", impossible(cover));
      found_.chosen = row("random", laptop::removed(cover, *choice), options_.layout);
    } else {
      Choice best = solved(cover);
      found_.others.push_back(
          row(options_.solver + ", by the sum", laptop::removed(cover, best), options_.layout));
      if (options_.rerank > 0) best = ranked_again(cover, best);
      found_.chosen = row("chosen", laptop::removed(cover, best), options_.layout);
    }
    const Loss loss = true_loss(found_.chosen.removed, options_.layout, true);
    found_.chosen.joint = loss.value, found_.chosen.error = loss.error;
  }

  // A-SDM-style: the plan has edits beside its cuts, and is measured as it will be written.
  void choose_by_compute() {
    const Plan plan = asdm_plan(subject_, data_, options_, found_, watch_);
    std::vector<int> removed;
    for (const Edit& edit : plan.edits) {
      const auto* cut = std::get_if<Cut>(&edit);
      if (!cut) {
        found_.beside.push_back(edit);
        continue;
      }
      const Site site = subject_.blueprint().site(cut->site);
      removed.push_back(
          static_cast<int>(std::ranges::find(found_.candidates, site) - found_.candidates.begin()));
    }
    std::ranges::sort(removed);
    found_.chosen = row("chosen", removed, "any");
    const Opened& opened = subject_.opened();
    const Opened edited = declare(apply(opened.checkpoint, opened.blueprint, plan));
    const unet::Shape2d shape{.height = subject_.height,
                              .width = subject_.width,
                              .text_tokens = data_.scoring.batches[0].inputs.text.size(1)};
    // Windows save multiply-adds, and inherited kernels are parameters again.
    found_.chosen.saved[0] = found_.prices.whole[0] - edited.blueprint.parameters();
    found_.chosen.saved[1] =
        found_.prices.whole[1] -
        static_cast<int64_t>(unet::macs(subject_.config, edited.blueprint, shape).total() + 0.5);
    if (!heldout_) heldout_.emplace(subject_.model(), data_.heldout, 0);
    const laptop::Mean mean = laptop::mean(heldout_->of(*build_model(edited)));
    found_.chosen.joint = mean.value, found_.chosen.error = mean.error;
  }

  Choice ranked_again(const Cover& cover, const Choice& start) {
    const laptop::Exact near = laptop::exact(cover, {.best = options_.rerank, .nodes = 4'000'000});
    Choice best = start;
    double least = true_loss(laptop::removed(cover, best), options_.layout, false).value;
    int64_t done = 0;
    for (const Choice& choice : near.best) {
      const double loss = true_loss(laptop::removed(cover, choice), options_.layout, false).value;
      if (loss < least) least = loss, best = choice;
      tick("rank again", ++done, static_cast<int64_t>(near.best.size()), least);
    }
    if (options_.refine <= 0) return best;
    done = 0;
    const auto truth = [&](const Choice& choice) {
      const double loss = true_loss(laptop::removed(cover, choice), options_.layout, false).value;
      least = std::min(least, loss);
      tick("neighbours", ++done, options_.refine, least);
      return loss;
    };
    return laptop::refine(cover, best, truth, {.evaluations = options_.refine}).choice;
  }

  void add(PlanRow plan, const std::string& layout) {
    const Loss loss = true_loss(plan.removed, layout, true);
    plan.joint = loss.value, plan.error = loss.error;
    found_.others.push_back(std::move(plan));
  }

  void compare(const Cover& cover) {
    for (PlanRow& plan : found_.others) {
      const Loss loss = true_loss(plan.removed, options_.layout, true);
      plan.joint = loss.value, plan.error = loss.error;
    }
    if (options_.compare == "none" || options_.method == "bk-sdm") return;
    for (laptop::Order order : {laptop::Order::loss, laptop::Order::ratio}) {
      const std::optional<Choice> choice = laptop::greedy(cover, order);
      if (choice)
        add(row(order == laptop::Order::loss ? "greedy, least loss first"
                                             : "greedy, least loss a saving first",
                laptop::removed(cover, *choice), options_.layout),
            options_.layout);
    }
    if (options_.layout != "any") compare_with_any();
    compare_random();
    compare_handcrafted();
  }

  // The price of the layout.
  void compare_with_any() {
    const Cover free = cover_for("any", found_.values);
    const laptop::Exact exact = laptop::exact(free);
    if (!exact.best.empty())
      add(row("exact, any layout", laptop::removed(free, exact.best[0]), "any"), "any");
  }

  void compare_random() {
    const int64_t count = options_.compare == "all" ? kRandomPlans : kRandomPlans / 4;
    std::vector<PlanRow> plans;
    for (int64_t k = 0; k < count; ++k) {
      const auto seed = static_cast<uint64_t>(options_.seed + 100 + k);
      const Cover cover = cover_for("any", laptop::drawn(found_.candidates.size(), seed));
      const std::optional<Choice> choice = laptop::random_choice(cover, seed);
      if (!choice) continue;
      plans.push_back(row("", laptop::removed(cover, *choice), "any"));
      const Loss loss = true_loss(plans.back().removed, "any", true);
      plans.back().joint = loss.value, plans.back().error = loss.error;
      tick("random plans", k + 1, count, plans.back().joint);
    }
    if (plans.empty()) return;
    std::ranges::sort(plans, {}, &PlanRow::joint);
    plans[plans.size() / 2].name = fmt::format("random, median of {}", plans.size());
    PlanRow best = plans.front();
    best.name = fmt::format("random, best of {}", plans.size());
    found_.others.push_back(best);
    found_.others.push_back(plans[plans.size() / 2]);
  }

  // BK-SDM's cut, and ours at each of its budgets.
  void compare_handcrafted() {
    std::vector<int> removed;
    try {
      for (Site site : laptop::handcrafted(subject_.blueprint(), options_.cut))
        removed.push_back(
            static_cast<int>(std::ranges::find(found_.candidates, site) - found_.candidates.begin()));
    } catch (const Error&) {
      return;  // stages of other sizes: there is no such cut
    }
    const PlanRow cut = row(options_.cut + ", its config", removed, "stock");
    add(row(options_.cut + ", parts skipped", removed, "any"), "any");
    if (cut.expressible) add(cut, "stock");
    for (size_t a = 0; a < found_.prices.axes.size(); ++a) {
      Cover cover = cover_for("any", found_.values);
      std::ranges::fill(cover.least, 0);
      cover.least[a] = cut.saved[a];
      const laptop::Exact exact = laptop::exact(cover);
      if (!exact.best.empty())
        add(row(fmt::format("exact, at its {}", found_.prices.axes[a]), laptop::removed(cover, exact.best[0]),
                "any"),
            "any");
    }
  }

  void frontiers(bool with_layout) {
    constexpr int64_t kPoints = 48;
    for (size_t a = 0; a < found_.prices.axes.size(); ++a) {
      for (const std::string& layout :
           with_layout ? std::vector<std::string>{"any", options_.layout} : std::vector<std::string>{"any"}) {
        const Cover cover = cover_for(layout, found_.values);
        const laptop::Frontier frontier(cover, {.axis = a});
        found_.frontiers.push_back({.name = layout == "any" ? "any plan" : layout,
                                    .axis = a,
                                    .exact = frontier.exact(),
                                    .points = frontier.sampled(kPoints)});
      }
    }
  }

  // ---- the last latents at equal seeds

  class Skipping : public Denoiser {
   public:
    Skipping(const Model& model, std::span<const Site> removed) : model_(model), skip_(model.blueprint()) {
      for (Site site : removed) skip_.add(site);
    }
    Tensor operator()(const Inputs& inputs, int64_t, int64_t) override { return model_.run(inputs, skip_); }

   private:
    const Model& model_;
    Skip skip_;
  };

  Tensor last_latents(const std::vector<int>& removed, const std::string& layout) {
    const InferenceMode evaluating;
    const std::vector<Site> sites = laptop::sites_of(found_.candidates, removed);
    const std::unique_ptr<Model> other = wired_anew(removed, layout);
    const std::unique_ptr<Denoiser> wired = other ? plain(*other) : nullptr;
    Skipping skipping(subject_.model(), sites);
    Denoiser& denoiser = wired ? *wired : skipping;
    Watch quiet = watch_;
    quiet.tick = {};
    const auto seed = static_cast<uint64_t>(options_.seed) + 5000;
    const int64_t count = data_.told.text.size(0);
    return sample(
        denoiser, subject_.scheduler, data_.told, data_.untold,
        {.steps = options_.trajectory_steps,
         .noise = starting_noise(count, {subject_.config.in_channels, subject_.height, subject_.width}, seed),
         .seed = seed,
         .watch = quiet});
  }

  void trajectories() {
    if (options_.trajectory <= 0) return;
    std::vector<PlanRow*> rows;
    if (found_.beside.empty()) rows.push_back(&found_.chosen);  // else skipping its parts is not what it does
    for (PlanRow& other : found_.others)
      if (!other.name.starts_with("random") && !other.name.starts_with("greedy")) rows.push_back(&other);
    std::optional<Tensor> whole;
    int64_t done = 0;
    for (PlanRow* plan : rows) {
      const std::string key =
          fmt::format("trajectory {} {}", wiring(plan->layout), fmt::join(plan->removed, ","));
      if (const Json* known = journal_.find(key)) {
        plan->trajectory = known->get<double>();
        continue;
      }
      if (watch_.stop.stop_requested()) throw Stopped{};
      if (!whole) whole = last_latents({}, "any");
      plan->trajectory = (last_latents(plan->removed, plan->layout) - *whole).square().mean().item<double>();
      journal_.add(key, plan->trajectory);
      tick("trajectories", ++done, static_cast<int64_t>(rows.size()), NAN);
    }
  }

  // ---- how far the sum of single losses can be trusted

  laptop::Truth measured() {
    return [this](std::span<const int> removed) {
      return true_loss({removed.begin(), removed.end()}, "any", true).value;
    };
  }

  void study() {
    if (options_.study <= 0) return;
    std::vector<laptop::Predictor> predictors;
    for (const std::string& name : laptop::criterion_names()) {
      const Criterion criterion = laptop::criterion_from_name(name);
      const auto& all = found_.scores.all;
      if ((criterion == Criterion::task || criterion == Criterion::taylor) && all.task.empty()) continue;
      if (criterion == Criterion::guided && all.guided.empty()) continue;
      predictors.push_back(laptop::sum_of(name, values_by(criterion)));
    }
    predictors.push_back(laptop::squared_norms("(sum of norms)^2", values_by(Criterion::output)));
    predictors.push_back(laptop::superposition(found_.scores));
    const auto parts = static_cast<int>(found_.candidates.size());
    found_.study = laptop::study(parts, predictors, measured(),
                                 {.plans = options_.study,
                                  .least = std::min(2, parts),
                                  .most = std::min(14, parts),
                                  .seed = static_cast<uint64_t>(options_.seed)},
                                 watch_);
  }

  // Parts spread over the ranks of what they are worth, so that cheap and dear ones are among them.
  void subsets() {
    if (options_.subsets <= 0) return;
    std::vector<int> ranked(found_.candidates.size()), few;
    for (size_t i = 0; i < ranked.size(); ++i) ranked[i] = static_cast<int>(i);
    std::ranges::sort(ranked, {}, [&](int i) { return found_.values[static_cast<size_t>(i)]; });
    const auto count = std::min<size_t>(ranked.size(), static_cast<size_t>(options_.subsets));
    for (size_t k = 0; k < count; ++k) few.push_back(ranked[k * ranked.size() / count]);
    std::vector<int64_t> weights;
    for (Site site : found_.candidates) weights.push_back(found_.prices.saved(std::span(&site, 1))[0]);
    const std::vector<double> budgets = {0.25, 0.5, 0.75};
    found_.subsets = laptop::brute_force(few, found_.values, weights, budgets, measured(), watch_);
  }

  const Subject& subject_;
  const UnetData& data_;
  const UnetOptions& options_;
  UnetJournal& journal_;
  const Watch& watch_;
  UnetFound found_;
  std::optional<laptop::JointLoss> scored_, heldout_;
  Clock::time_point started_ = Clock::now();
};

}  // namespace

void check_asked(const Subject& subject, const UnetOptions& options) {
  const Blueprint& blueprint = subject.blueprint();
  const std::vector<Site> all = blueprint.present();
  if (all.empty()) fail("{}: has no part that could go", subject.name());
  if (options.method == "bk-sdm") laptop::handcrafted(blueprint, options.cut);
  if (const auto layout = layout_from_name(options.layout))
    unet::choices(subject.opened().checkpoint.config, blueprint, *layout);
  const int64_t whole = blueprint.parameters(), most = unet::parameters_saved(blueprint, all),
                least = least_of(options.params, "params", whole);
  least_of(options.macs, "macs", whole);
  least_of(options.ms, "ms", whole);
  if (least > most)
    fail("--params {}: when all goes that can, {:.1f} % of the parameters stay", options.params,
         100 * (1 - static_cast<double>(most) / static_cast<double>(whole)));
  const int budgets = !options.params.empty() + !options.macs.empty() + !options.ms.empty();
  if (options.solver == "dynamic" && budgets > 1)
    fail("--solver dynamic: is for one budget; exact solves several at once");
}

UnetFound find_cut(const Subject& subject, const UnetData& data, const UnetOptions& options,
                   UnetJournal& journal, const Watch& watch) {
  return Search(subject, data, options, journal, watch).run();
}

}  // namespace lamina::cli
