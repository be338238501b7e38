// lamina denorm: fine-tune a model until it needs no norms, fold them away, and show what that cost.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <set>

#include "lamina/base/error.h"
#include "lamina/base/fields.h"
#include "lamina/base/text.h"
#include "lamina/cli/cli.h"
#include "lamina/cli/denorm_run.h"
#include "lamina/model/frozen_norms.h"

namespace lamina::cli {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kArms[] = {"vanilla", "staged", "one-shot", "taper"};  // in the order of the runs

struct DenormFlags {
  std::string mode = "staged", arms, exports = "folded", weights = "float32";
  bool control = false, one_shot = false, taper = false, no_back_off = false, no_analyses = false,
       no_speed = false, whole_attention = false;
  fs::path removals;
  denorm::StagedOptions staged = {};
  int64_t taper_from = -1, taper_to = -1;
  double momentum = 0.9, lambda = 0.1, back_off_above = 0.1;
  int64_t scale_samples = 16;
};

std::vector<std::string> arms_of(const DenormFlags& flags) {
  std::set<std::string> asked = {flags.mode};
  if (flags.control) asked.insert("vanilla");
  if (flags.one_shot) asked.insert("one-shot");
  if (flags.taper) asked.insert("taper");
  if (!flags.arms.empty()) {
    for (const std::string& name : split(flags.arms, ',')) {
      if (name != "base" && std::ranges::find(kArms, name) == std::end(kArms))
        fail("--arms {}: base, {} are possible", in_quotes(name), fmt::join(kArms, ", "));
      asked.insert(name);
    }
  }
  std::vector<std::string> arms;
  for (std::string_view name : kArms) {
    if (asked.contains(std::string(name))) arms.emplace_back(name);
  }
  return arms;
}

std::string title_of_arm(std::string_view name) {
  if (name == "vanilla") return "fine-tuned with its norms";
  if (name == "staged") return "norms removed one by one";
  if (name == "one-shot") return "norms removed all at once";
  return "norms tapered away";
}

int64_t end_of_text(const Opened& opened) {
  const Json& config = opened.checkpoint.config;
  if (!json_has(config, "eos_token_id")) return -1;
  const Json& end = config.at("eos_token_id");
  if (end.is_array()) return end.empty() ? -1 : end[0].get<int64_t>();
  return end.is_number_integer() ? end.get<int64_t>() : -1;
}

denorm::Options hook_options(const std::string& arm, const DenormFlags& flags, const Blueprint& blueprint,
                             const TrainOptions& training, int64_t end, std::vector<double> scales) {
  denorm::Options options{.steps = training.steps,
                          .momentum = flags.momentum,
                          .lambda = flags.lambda,
                          .end_of_text = end,
                          .back_off = {.on = !flags.no_back_off, .above = flags.back_off_above},
                          .scales = std::move(scales)};
  if (arm == "taper") {
    const int64_t from = flags.taper_from >= 0 ? flags.taper_from : flags.staged.start;
    const int64_t to = flags.taper_to >= 0 ? flags.taper_to : std::max(from + 1, training.steps / 2);
    if (from < 1 || to <= from)
      fail("--taper-from {} and --taper-to {}: the gate falls from a step after the first to a later one",
           from, to);
    options.taper = denorm::Taper{from, to};
  } else if (arm == "one-shot") {
    options.removals = denorm::at_once(blueprint, flags.staged.start);
  } else if (!flags.removals.empty()) {
    const std::string what = flags.removals.string();
    options.removals =
        denorm::removals_from_json(parse_json(read_file(flags.removals), what), blueprint, what);
  } else {
    options.removals = denorm::staged(blueprint, flags.staged);
  }
  return options;
}

Plan plan_of(const std::vector<Edit>& edits) {
  return {.edits = edits};
}

Tensor first_tokens(const Batches& data, int64_t count) {
  return data.at(0, std::min(count, data.samples_per_epoch())).inputs.ids;
}

// With constants as they may come out.
void check_forms(const std::vector<FormRequest>& forms, const std::optional<DType>& dtype, const Opened& base,
                 const denorm::Options& options) {
  Plan plan;
  const denorm::Removals all = denorm::at_once(base.blueprint, 0);
  for (const denorm::Removal& removal : options.taper ? all : options.removals)
    plan.edits.push_back(FreezeNorm{base.blueprint.norm_site(removal.path), removal.path.reader, 1});
  for (const FormRequest& form : forms) {
    const Answer answer = can_write(form.form, base, plan);
    if (!answer.possible) fail("--export {}: is not possible: {}", form.text(), answer.note);
    if (form.form == Form::hf_compat && dtype && dtype != DType::f32 && dtype != DType::f64)
      fail(
          "--export {}: is not possible as {}: what an epsilon of 1e12 leaves of a number is below what 16 "
          "bits can hold; leave --weights out",
          form.text(), dtype_name(*dtype));
  }
}

// The folded folder against the frozen norms.
DenormProof prove(const Opened& healed, const Opened& healed64, const Plan& plan, const fs::path& folder,
                  const Batches& data) {
  const InferenceMode evaluating;
  const Tensor ids = first_tokens(data, 4);
  DenormProof proof{.tokens = ids.numel()};
  const auto frozen = [&](const Opened& model, at::ScalarType dtype) {
    FrozenNorms tap(model.blueprint, plan);
    return build_model(model, {.dtype = dtype})->run({.ids = ids}, tap);
  };
  const auto folded = [&](const Opened& model, at::ScalarType dtype) {
    return build_model(model, {.dtype = dtype})->run({.ids = ids});
  };
  const auto apart = [](const Tensor& a, const Tensor& b) { return (a - b).abs().max().item<double>(); };
  const Opened written = open(folder);
  for (const NormPath& path : written.blueprint.norm_paths())
    proof.norms_left.push_back(written.blueprint.label(path));
  proof.float32 = apart(frozen(healed, at::kFloat), folded(written, at::kFloat));
  const Tensor exact = frozen(healed64, at::kDouble);
  proof.largest_logit = exact.abs().max().item<double>();
  const Opened folded64 = declare(apply(healed64.checkpoint, healed64.blueprint, plan));
  proof.float64 = apart(exact, folded(folded64, at::kDouble));
  return proof;
}

// Both models in turn, so that a busy machine slows both.
Speed race(std::string what, int64_t tokens, const std::function<void()>& before,
           const std::function<void()>& after) {
  using Clock = std::chrono::steady_clock;
  const auto seconds = [](const std::function<void()>& work) {
    const auto start = Clock::now();
    work();
    return std::chrono::duration<double>(Clock::now() - start).count();
  };
  before();
  const double once = seconds(after);
  const int rounds = std::clamp(static_cast<int>(4 / std::max(once, 1e-6)), 5, 40);
  std::vector<double> slow, fast, ratios;
  for (int i = 0; i < rounds; ++i) {
    slow.push_back(seconds(before));
    fast.push_back(seconds(after));
    ratios.push_back(std::log(slow.back() / fast.back()));
  }
  const auto middle = [](std::vector<double> times) {
    std::ranges::nth_element(times, times.begin() + std::ssize(times) / 2);
    return times[times.size() / 2];
  };
  return {std::move(what), static_cast<double>(tokens) / middle(slow),
          static_cast<double>(tokens) / middle(fast), mean_of_runs(ratios)};
}

std::vector<Speed> speeds_of(const Model& normed, const Model& folded, const Batches& data) {
  const InferenceMode evaluating;
  const Tensor row = first_tokens(data, 1);
  const int64_t prompt = std::max<int64_t>(1, std::min<int64_t>(row.size(1) / 2, 32)),
                decoded = std::max<int64_t>(1, std::min<int64_t>(row.size(1) - prompt, 32));
  const auto decode = [&](const Model& model) {
    Tap none;
    Inputs inputs{.ids = row.narrow(1, 0, prompt), .cache = Cache{}};
    for (int64_t i = 0; i < decoded; ++i) {
      Stream stream = model.begin(inputs);
      for (Site site : model.blueprint().present()) model.step(stream, site, none);
      model.finish(stream, none);
      inputs = {.ids = row.narrow(1, prompt + i, 1), .cache = stream.cache};
    }
  };
  const Tensor many = row.narrow(1, 0, std::min<int64_t>(row.size(1), 64)).repeat({32, 1});
  const auto pass = [&](const Model& model) { model.run({.ids = many}); };
  return {race(
              fmt::format("decoding with a cache, batch 1, {} tokens after {}", decoded, prompt), decoded,
              [&] { decode(normed); }, [&] { decode(folded); }),
          race(
              fmt::format("one pass, batch 32 of {} tokens", many.size(1)), many.numel(),
              [&] { pass(normed); }, [&] { pass(folded); })};
}

AnalysisData data_to_analyse(const TextData& data, const Tokenizer& tokenizer, const Model& model) {
  const int64_t length = std::min<int64_t>(data.length, 256), samples = 8;
  const size_t tokens =
      std::min(data.validation_ids.size(), static_cast<size_t>((samples + 2) * (length + 1)));
  return analysis_data(tokenizer.decode(std::span(data.validation_ids).first(tokens)), "", tokenizer, model,
                       {.samples = samples, .length = length});
}

}  // namespace

const DenormArm* DenormOutcome::find(std::string_view name) const {
  const auto at = std::ranges::find(arms, name, &DenormArm::name);
  return at == arms.end() ? nullptr : &*at;
}

int run_denorm(int argc, char** argv) {
  CLI::App app(
      "Remove every LayerNorm or RMSNorm: fine-tune while one norm after another gets a constant in place of "
      "its\ndivision, then fold what is left into the weights, so that no norm is left to compute.\n\n"
      "Example: lamina denorm MODEL --data book.txt -o normless --control\n"
      "         lamina denorm MODEL --data book.txt -o normless --arms base,vanilla,staged,one-shot,taper\n"
      "Ctrl-C stops after the present step; the same command with --resume goes on.",
      "denorm");
  fs::path model, out;
  DenormFlags flags;
  DataFlags data_flags;
  TrainingFlags training_flags;
  training_flags.options = {.steps = 300,
                            .batch = 8,
                            .learning_rate = 6e-4,
                            .minimum_rate = 3e-4,
                            .warmup = 25,
                            .evaluate_every = 50};
  app.add_option("MODEL", model, "folder or GGUF file")->required();
  app.add_option("-o,--output", out, "folder to write")->required();
  const char* how = "How norms go";
  app.add_option("--mode", flags.mode,
                 "staged: one after another. one-shot: all at --start. taper: all at once, by a gate that "
                 "falls from 1 to 0")
      ->capture_default_str()
      ->check(CLI::IsMember({"staged", "one-shot", "taper"}))
      ->group(how);
  const auto step_flag = [&](const char* name, int64_t& value, const char* help) {
    app.add_option(name, value, help)->capture_default_str()->check(CLI::Range(0, 1 << 30))->group(how);
  };
  step_flag("--start", flags.staged.start, "steps before the first norm goes");
  step_flag("--gap-mlp", flags.staged.gap_mlp, "steps between two feed-forwards' norms");
  step_flag("--gap-qk", flags.staged.gap_qk, "steps between two norms of queries and keys");
  step_flag("--gap-v", flags.staged.gap_v, "steps between two norms of values");
  app.add_flag("--whole-attention", flags.whole_attention,
               "queries, keys and values of a block lose their norm together")
      ->group(how);
  app.add_option("--removals", flags.removals, "JSON file that says which norm goes after which step")
      ->check(CLI::ExistingFile)
      ->group(how);
  app.add_option("--taper-from", flags.taper_from, "steps before the gate falls (default: --start)")
      ->group(how);
  app.add_option("--taper-to", flags.taper_to, "step at which it is 0 (default: half the run)")->group(how);
  app.add_option("--momentum", flags.momentum, "of the running means of scales, a step")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 0.9999))
      ->group(how);
  app.add_option("--lambda", flags.lambda,
                 "weight of the loss that evens out the last residual's scale; 0: none")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1e6))
      ->group(how);
  app.add_flag("--no-backoff", flags.no_back_off, "norms go on time even when the loss jumped")->group(how);
  app.add_option("--backoff-above", flags.back_off_above,
                 "nats that the mean of 20 steps may lie over that before the last removal")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1e6))
      ->group(how);
  const char* beside = "What is compared";
  app.add_flag("--control", flags.control, "train the model with its norms too: same data, steps and order")
      ->group(beside);
  app.add_flag("--one-shot", flags.one_shot, "and with all norms removed at once")->group(beside);
  app.add_flag("--taper", flags.taper, "and with tapered norms")->group(beside);
  app.add_option("--arms", flags.arms, "all in one: base, vanilla, staged, one-shot, taper; comma-separated")
      ->group(beside);
  app.add_flag("--no-analyses", flags.no_analyses, "losses alone: no attribution, sinks, calibration, tails")
      ->group(beside);
  app.add_flag("--no-speed", flags.no_speed, "do not time the folded model")->group(beside);
  app.add_option("--export", flags.exports, "folded, gpt2-compat, transformer-lens; comma-separated")
      ->capture_default_str()
      ->group("What is written");
  app.add_option("--weights", flags.weights, "type of the weights written: float32, float16, bfloat16")
      ->capture_default_str()
      ->group("What is written");
  add_data_flags(app, data_flags);
  add_training_flags(app, training_flags);
  parse(app, argc, argv);
  if (flags.whole_attention) flags.staged.attention = denorm::AttentionNorm::whole;
  if (!flags.removals.empty() && flags.mode != "staged")
    fail("--removals goes with --mode staged: {} has no list of steps", flags.mode);
  ExportOptions export_options{.dtype = written_type(flags.weights), .watch = {}};
  const std::vector<FormRequest> forms = parse_forms(flags.exports);
  const TrainOptions training = options_of(training_flags);
  const std::vector<std::string> arm_names = arms_of(flags);

  keep_memory_between_steps();
  return together(group_options(training_flags), [&](Group& group) -> int {
    const bool first = group.rank() == 0;
    Terminal terminal({.quiet = training_flags.quiet || training_flags.json || !first});
    const Watch watch = terminal.watch();
    export_options.watch = watch;
    use_threads(thread_count(training_flags.threads));
    const std::string command = command_line(argc, argv, "denorm");
    TrainingFolder folder(out,
                          {.resume = training_flags.resume,
                           .replace = training_flags.force,
                           .inputs = inputs_of(data_flags, {model, flags.removals}),
                           .command = command},
                          group);
    const Opened base = open(model);
    check_speaks(base.blueprint, shown(model));
    const Tokenizer tokenizer = tokenizer_of(base.checkpoint);
    const TextData data = text_data(data_flags, tokenizer, base.blueprint, training.seed, watch);
    if (!data.validation)
      fail("there is no validation text, and losses are to be compared on one; name it with --validation");
    if (base.blueprint.norm_paths().empty()) fail("{}: has no norm left to remove", model.string());
    check(estimate({.blueprint = base.blueprint,
                    .options = training,
                    .length = data.length,
                    .bytes_a_number = training_flags.dtype == "float64" ? 8 : 4,
                    .written = static_cast<uint64_t>(base.blueprint.parameters()) * 4 * forms.size(),
                    .arms = static_cast<int>(arm_names.size())},
                   out),
          out);
    const at::ScalarType dtype = arithmetic_of(training_flags.dtype);
    const at::Device device = device_of(training_flags.device, group);
    const int64_t eos = end_of_text(base);
    for (const std::string& arm : arm_names) {  // before hours are spent
      if (arm == "vanilla") continue;
      const denorm::Options options = hook_options(arm, flags, base.blueprint, training, eos, {});
      if (!options.taper) denorm::check_fits(options.removals, base.blueprint, training.steps);
      if (arm == flags.mode) check_forms(forms, export_options.dtype, base, options);
    }

    DenormRun run{.base = base,
                  .tokenizer = tokenizer,
                  .mode = flags.mode,
                  .training = training,
                  .options = Json::object(),
                  .data = data,
                  .validation_samples = data_flags.validation_samples,
                  .command = command,
                  .model_sha256 = base.checkpoint.hash(watch),
                  .analysed = !flags.no_analyses,
                  .watch = watch};
    DenormOutcome outcome{.parameters_before = base.blueprint.parameters()};
    const std::unique_ptr<Model> base_model = build_model(base, {.dtype = dtype});
    const int64_t batch = std::min<int64_t>(training.batch, 8);
    std::vector<double> scales = denorm::measure_scales(
        *base_model, *data.train, std::min<int64_t>(flags.scale_samples, data.train->samples_per_epoch()),
        batch);
    Tensor same = at::tensor(scales, at::kDouble);  // machines may round differently
    group.broadcast(same, 0);
    std::copy_n(same.const_data_ptr<double>(), scales.size(), scales.begin());
    AnalysisData to_analyse;
    const auto look = [&](DenormArm& arm, const Model& model_of_arm, Tap& tap) {
      if (!first) return;
      arm.losses =
          denorm::sample_losses(model_of_arm, *data.validation, run.validation_samples, batch, tap, watch);
      if (!run.analysed) return;
      if (to_analyse.text.empty()) to_analyse = data_to_analyse(data, tokenizer, model_of_arm);
      arm.analyses = analyse(model_of_arm, to_analyse, {}, tap, watch);
    };
    {
      Tap none;
      look(outcome.arms.emplace_back(DenormArm{.name = "base", .title = "as it came"}), *base_model, none);
      DenormArm& arm = outcome.arms.emplace_back(DenormArm{
          .name = "frozen", .title = "all norms frozen at once, not fine-tuned", .norm_free = true});
      arm.edits = denorm::frozen_at(base.blueprint, scales).edits;
      FrozenNorms frozen(base.blueprint, plan_of(arm.edits));
      look(arm, *base_model, frozen);
    }

    std::optional<Opened> healed, healed64;
    for (const std::string& name : arm_names) {
      DenormArm& arm = outcome.arms.emplace_back(
          DenormArm{.name = name, .title = title_of_arm(name), .norm_free = name != "vanilla"});
      Student student(base, {.dtype = dtype, .seed = training.seed, .device = device});
      Hook plain;
      std::optional<denorm::Denorm> removing;
      if (arm.norm_free)
        removing.emplace(student, hook_options(name, flags, base.blueprint, training, eos, scales));
      Follow follow(terminal, training, {.name = name, .log = folder.log(name), .quiet = !first});
      arm.trained = train(student, *cross_entropy(), data.parts(data_flags.validation_samples),
                          folder.with_state(training, name), removing ? *removing : plain, group,
                          follow.watch(), follow.on_step());
      follow.finish(*arm.trained);
      if (arm.trained->broke_at > 0 && name == flags.mode) {
        const std::string said = scale_loss_said(*arm.trained);
        fail("{}: {} was no number any more at step {}; a smaller --lr or larger gaps may help{}", name,
             arm.trained->broke_on, arm.trained->broke_at, said.empty() ? "" : "; " + said);
      }
      if (removing) {
        arm.gone = removing->gone();
        arm.waits = removing->waits();
        arm.history = removing->history();
        arm.drifts = removing->drifts();
        if (arm.trained->broke_at > 0 && !removing->finished()) continue;
        removing->settle();
        arm.edits = removing->edits();
      }
      if (!first) continue;
      const Opened now = student.now(dtype_of(dtype));
      const Plan plan = plan_of(arm.edits);
      const Opened folded = arm.norm_free ? declare(apply(now.checkpoint, now.blueprint, plan)) : now;
      Tap none;
      look(arm, *build_model(folded, {.dtype = dtype}), none);
      if (name == flags.mode) {
        healed = student.now(DType::f32);
        healed64 = student.now(DType::f64);
      }
    }

    if (first) {
      run.plan = plan_of(outcome.find(flags.mode)->edits);
      run.plan.provenance = {{"lamina", version_text()},
                             {"method",
                              {{"method", "denorm"},
                               {"mode", flags.mode},
                               {"start", flags.staged.start},
                               {"gap_mlp", flags.staged.gap_mlp},
                               {"gap_qk", flags.staged.gap_qk},
                               {"gap_v", flags.staged.gap_v},
                               {"momentum", flags.momentum},
                               {"lambda", flags.lambda},
                               {"back_off", !flags.no_back_off}}},
                             {"training", options_to_json(training)},
                             {"data", data.provenance},
                             {"model", {{"name", shown(model.filename())}, {"sha256", run.model_sha256}}}};
      const std::vector<Written> written =
          write_forms(*healed, run.plan, forms, folder.path(), export_options);
      const auto folded_at = std::ranges::find_if(
          written, [](const Written& entry) { return entry.request.form == Form::hf_perlayer; });
      outcome.parameters_after = outcome.parameters_before;
      if (folded_at != written.end()) {
        const fs::path path = folder.path() / folded_at->path;
        outcome.proof = prove(*healed, *healed64, run.plan, path, *data.validation);
        const Opened reopened = open(path);
        outcome.parameters_after = reopened.blueprint.parameters();
        const auto folded = build_model(reopened, {.dtype = dtype});
        if (!flags.no_speed)
          outcome.speeds = speeds_of(*build_model(*healed, {.dtype = dtype}), *folded, *data.validation);
        outcome.prompts = prompts_for(tokenizer);
        outcome.before = answers_of(*base_model, base, tokenizer, watch);
        outcome.after = answers_of(*folded, reopened, tokenizer, watch);
      }
      write_denorm_results(run, outcome, written, *healed, folder.path());
      folder.commit();
      terminal.clear();
      print(training_flags.json ? denorm_json(run, outcome, written, folder.target()).dump(2) + "\n"
                                : denorm_summary(run, outcome, written, folder.target()));
    }
    return Status::ok;
  });
}

}  // namespace lamina::cli
