// lamina prune of a denoiser: a diffusers pipeline, or a U-Net's folder alone. What is opened, what it is
// judged on, what is found, and where the results go.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lamina/base/staging.h"
#include "lamina/checkpoint/pipeline.h"
#include "lamina/diffusion/pipeline.h"
#include "lamina/family/unet.h"
#include "lamina/family/unet_layout.h"
#include "lamina/methods/asdm/propose.h"
#include "lamina/methods/laptop/laptop.h"
#include "lamina/methods/laptop/study.h"
#include "lamina/report/report.h"

namespace CLI {
class App;
}

namespace lamina::cli {

// Whether one of the arguments (but for what is written) is a pipeline or a U-Net.
bool names_denoiser(int argc, char** argv);
int run_prune_unet(int argc, char** argv);

struct UnetOptions {
  std::string method = "laptop", criterion = {}, solver = "exact", layout = "any", cut = "bk-base";
  std::string params = {}, macs = {}, ms = {};
  std::string pictures = "drawn", latent = {}, compare = "all", scorer = {};
  int64_t samples = 64, heldout = 16, batch = 1, draw_steps = 10, rows = 8, threads = 1, repeats = 5,
          seed = 0;
  int64_t rerank = 50, rerank_samples = 8, refine = 50, trajectory = 1, trajectory_steps = 10;
  int64_t study = 0, subsets = 0, scored_pictures = 16, random_plans = 4;
  double cfg = 7.5;
  bool cuts = true, regional = true, experts = true;  // of asdm
  int64_t outer = 2, window = 16, cell = 4, regional_side = 64;
  std::string mix = "none", gate = "tanh-residual", router = "t";
  bool log_count = true, mask_own = true;
  int64_t donors = 2, widest = 640;

  bool of_scenes() const { return pictures == "scenes" || pictures == "scene"; }
  // Nothing where they are drawn or painted.
  std::string pictures_folder() const { return of_scenes() || pictures == "drawn" ? "" : pictures; }

  // In the order of the help. The flag of a bool is --no-NAME, and the text says what that does.
  template <class V>
  void fields(V& visit) {
    visit(method, "method", "laptop, asdm, bk-sdm, magnitude, taylor, block-influence, random");
    visit(params, "params", "share of the parameters that stays at most, 50%");
    visit(macs, "macs", "share of the multiply-adds, attention products counted");
    visit(ms, "ms",
          "share of the time of a pass, by what each part takes here; of asdm, as the whole plan takes it");
    visit(layout, "layout",
          "any; exact (a stock config computes it); stock (wired anew); bk-base, bk-small, bk-tiny, ssd-1b, "
          "vega, koala-1b, koala-700m");
    visit(criterion, "criterion",
          "output, task, guided, time-weighted, clean (of the picture that follows), influence, magnitude, "
          "taylor, trajectory (what pictures drawn without the part change by), score (what a scorer says of "
          "them), random (default: the method's)");
    visit(scorer, "scorer",
          "folder of the scene scorer that --criterion score asks; the study takes it in too");
    visit(scored_pictures, "scored-pictures",
          "pictures drawn without each part by --criterion score and trajectory, of --trajectory-steps each");
    visit(solver, "solver", "exact (any budgets at once), dynamic, greedy-loss, greedy-ratio");
    visit(cut, "cut", "of bk-sdm, and of what ours is compared with: bk-base, bk-small, bk-tiny");
    visit(
        rerank, "rerank",
        "best plans of the sum, ranked again by their measured loss (of the output; of time-weighted, clean "
        "and trajectory their own; of score none); 0: none");
    visit(rerank_samples, "rerank-samples", "on so many samples");
    visit(refine, "refine", "plans next to the best, measured; 0: none");
    visit(seed, "seed", "of noise, times and random plans");
    visit(cuts, "cuts", "no part goes");
    visit(regional, "regional", "no windows for attention over large maps");
    visit(experts, "experts", "no kernels inherited from ResNets that go");
    visit(outer, "outer",
          "so many stages from each end go first, as A-SDM has it; as many as there are: no stage before "
          "another");
    visit(window, "window", "side of a window, in tokens");
    visit(cell, "cell", "side of the cells that stand for the rest of the map; 0: none");
    visit(regional_side, "regional-side", "maps of so many tokens a side or more get windows");
    visit(
        mix, "mix",
        "what cells do beside being seen: none, pooled (they see each other first), gate (a softmax apart)");
    visit(log_count, "log-count", "a cell counts as one token, not as the tokens that it stands for");
    visit(mask_own, "mask-own", "cells of the own window are seen beside its tokens");
    visit(donors, "donors", "kernels that a convolution inherits at most");
    visit(widest, "widest", "only where it writes so many channels or fewer");
    visit(gate, "gate", "of inherited kernels: tanh-residual (begins as the plain cut), sigmoid, softmax");
    visit(router, "router", "what the gate reads: t, x, x+t");
    visit(pictures, "pictures",
          "drawn (by the pipeline, for the captions), scenes (painted here), or a folder of NAME.png and "
          "NAME.txt");
    visit(samples, "samples", "samples that parts are scored on");
    visit(heldout, "heldout", "samples that plans are measured on");
    visit(batch, "batch", "samples in a pass");
    visit(latent, "latent", "size of the latents, 32x32 (default: the U-Net's own)");
    visit(draw_steps, "draw-steps", "steps for each latent that is drawn");
    visit(rows, "rows", "candidates in one batch; 1: bit for bit as full passes; 0: full passes");
    visit(threads, "threads", "0: all cores");
    visit(repeats, "repeats", "measurements of each part's time; of asdm, of the finished plan's as well");
    visit(cfg, "cfg", "guidance of what is drawn, and of --criterion guided");
    visit(compare, "compare", "plans beside ours: none, all");
    visit(random_plans, "random-plans",
          "random plans among them, of which the best and the median are shown");
    visit(trajectory, "trajectory", "pictures whose last latents are compared; 0: none");
    visit(trajectory_steps, "trajectory-steps", "steps of each");
    visit(study, "study",
          "random plans of 2 to 14 parts, measured: how far each criterion can be trusted; 0: none");
    visit(subsets, "subsets",
          "of so many parts every subset is measured, and the best plan held against ours; 0: none");
  }
};
// Flags of `app`, in the groups of its help.
void add_flags(CLI::App& app, UnetOptions& options);

// What they say of asdm's edits. Throw Error for names that are not known.
Windows windows_of(const UnetOptions& options);
asdm::InheritOptions inheritance_of(const UnetOptions& options);

// What is cut: the denoiser of a pipeline, or one that stands alone.
struct Subject {
  std::filesystem::path path;
  std::optional<Pipeline> pipeline = {};
  std::unique_ptr<Painter> painter = {};  // of the pipeline
  std::optional<Opened> alone = {};       // without one
  std::unique_ptr<Model> alone_model = {};
  NoiseSchedule schedule = {};
  Json scheduler = Json::object();  // its config
  unet::Config config = {};
  int64_t height = 0, width = 0;  // of the latents it is judged at

  const Opened& opened() const { return painter ? painter->denoiser_opened() : *alone; }
  const Model& model() const { return painter ? painter->denoiser() : *alone_model; }
  const Blueprint& blueprint() const { return opened().blueprint; }
  std::string name() const;
};
Subject open_subject(const std::filesystem::path& path, const UnetOptions& options);

// Captions, a line each, and what the denoiser is judged on.
struct UnetData {
  std::vector<std::string> captions = {};
  laptop::Calibration scoring = {}, heldout = {};
  struct Prompts {
    Conditions told = {}, untold = {};
  };
  Prompts shown = {};  // of the pictures that plans are compared by at the end; of samples held out
  Prompts tried = {};  // of those that --criterion trajectory judges by; of samples that are scored on
};
std::vector<std::string> captions_from(const std::filesystem::path& file);
// `kept`: a folder where what was drawn stays for a run that resumes.
UnetData make_data(const Subject& subject, const UnetOptions& options,
                   const std::vector<std::string>& captions, const std::filesystem::path& kept,
                   const Watch& watch);

// The journal of a run: its identity in the first line, then a piece of work a line. A line without its end
// is one that a dying run was writing.
class UnetJournal {
 public:
  struct Options {
    bool resume = false;
  };
  // Throws Error with the difference when a run that is resumed finds another run there.
  UnetJournal(std::filesystem::path path, const Json& identity, Options options);
  const Json* find(const std::string& key) const;  // null: not done yet
  void add(const std::string& key, const Json& value);
  size_t pieces() const { return done_.size(); }

 private:
  std::filesystem::path path_;
  std::map<std::string, Json> done_;
};

// One plan and what is known of it.
struct PlanRow {
  std::string name;
  std::vector<int> removed;  // indices of candidates
  std::vector<int64_t> saved = {};
  double sum = report::not_measured;         // of single values
  double superposed = report::not_measured;  // by what each did alone
  double joint = report::not_measured;       // on samples that were not scored on
  double error = report::not_measured;       // its standard error
  double clean = report::not_measured;       // weighed as an error of the clean picture that follows
  double trajectory = report::not_measured;  // of the last latents, a share of their variance
  bool expressible = false;
  std::string said = {};       // the config's wiring, or why there is none
  std::string layout = "any";  // "any": its parts are skipped; else as a stock config wires what is left
};

// Names of plans beside the chosen one: within its budgets, judged by what it was not judged by.
inline constexpr const char* kByClean = "exact, by the clean picture";
inline constexpr const char* kByOutput = "exact, by the output";

// A pass of the finished plan of --method asdm beside one of the whole model, by turns.
struct UnetPass {
  double whole = 0, written = 0;        // milliseconds
  double share = 1;                     // that `written` is of `whole`
  double heirs = report::not_measured;  // milliseconds of `written` that inherited kernels take
  struct Round {
    double keep = 1, predicted = 1, share = 1;  // asked for, by the sum of the parts, as measured
  };
  std::vector<Round> rounds = {};
  double missed = 0;  // share of the whole by which --ms is missed; 0: it holds
};

struct UnetFound {
  laptop::Criterion criterion = laptop::Criterion::output;
  std::vector<Site> candidates = {};
  laptop::Scores scores = {};
  std::vector<double> values = {};  // by the criterion
  laptop::Times times = {};
  laptop::Prices prices = {};
  std::vector<int64_t> least = {};
  PlanRow chosen = {};
  std::vector<Edit> beside = {};           // of the chosen plan, what is not a cut
  std::vector<asdm::Choice> windows = {};  // at every place that could have them
  std::optional<UnetPass> pass = {};       // where it was measured
  std::vector<PlanRow> others = {};
  struct Frontier {
    std::string name;
    size_t axis = 0;
    bool exact = true;
    std::vector<laptop::Choice> points = {};
  };
  std::vector<Frontier> frontiers = {};
  std::optional<laptop::Study> study = {};
  std::optional<laptop::BruteForce> subsets = {};
  double full_pass = 0;                                      // seconds
  bool proven = true;                                        // of the exact search
  int64_t true_losses = 0;                                   // plans whose loss was measured
  std::vector<std::pair<std::string, double>> seconds = {};  // by phase
};
// Throws Error for what cannot be, before anything is measured: budgets that are malformed or ask for more
// than all that can go, a layout that this U-Net does not lead to, a solver of one budget with several.
void check_asked(const Subject& subject, const UnetOptions& options);
UnetFound find_cut(const Subject& subject, const UnetData& data, const UnetOptions& options,
                   UnetJournal& journal, const Watch& watch);

// Of a layout, the states that it offers for each group of stages.
std::vector<laptop::Bundle> layout_bundles(const Subject& subject, const std::string& layout,
                                           std::span<const Site> candidates, std::span<const double> values,
                                           const laptop::Prices& prices);
// "any": every plan. "exact": those that a stock config computes as the cut does. "stock", "ssd-1b", ...: as
// unet_layout.h says.
std::optional<unet::LayoutOptions> layout_from_name(const std::string& name);

struct UnetRun {
  const Subject& subject;
  const UnetData& data;
  const UnetOptions& options;
  const UnetFound& found;
  Plan plan;
  std::string command;
  uint64_t weight_bytes = 0;  // of the file that was written; 0: none was
};
report::Report report_of(const UnetRun& run);
// A part a line: what it weighs and what it is worth by each criterion that was measured. Of one seed always
// the same, so that no clock is in it.
std::string scores_csv(const UnetRun& run);

}  // namespace lamina::cli
