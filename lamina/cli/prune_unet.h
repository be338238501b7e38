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
#include "lamina/methods/laptop/laptop.h"
#include "lamina/methods/laptop/study.h"
#include "lamina/report/report.h"

namespace lamina::cli {

// Whether one of the arguments (but for what is written) is a pipeline or a U-Net.
bool names_denoiser(int argc, char** argv);
int run_prune_unet(int argc, char** argv);

struct UnetOptions {
  std::string method = "laptop", criterion = {}, solver = "exact", layout = "any", cut = "bk-base";
  std::string params = {}, macs = {}, ms = {};
  std::string pictures = "drawn", latent = {}, compare = "quick";
  int64_t samples = 64, heldout = 16, batch = 1, draw_steps = 10, rows = 8, threads = 1, repeats = 5,
          seed = 0;
  int64_t rerank = 50, rerank_samples = 8, refine = 50, trajectory = 1, trajectory_steps = 10;
  int64_t study = 0, subsets = 0;
  bool cuts = true, regional = true, experts = true;  // of asdm
  int64_t window = 16, cell = 4, regional_side = 64;

  template <class V>
  void fields(V& visit) {
    visit(method, "method", "");
    visit(criterion, "criterion", "");
    visit(solver, "solver", "");
    visit(layout, "layout", "");
    visit(cut, "cut", "");
    visit(params, "params", "");
    visit(macs, "macs", "");
    visit(ms, "ms", "");
    visit(pictures, "pictures", "");
    visit(latent, "latent", "");
    visit(compare, "compare", "");
    visit(samples, "samples", "");
    visit(heldout, "heldout", "");
    visit(batch, "batch", "");
    visit(draw_steps, "draw-steps", "");
    visit(rows, "rows", "");
    visit(threads, "threads", "");
    visit(repeats, "repeats", "");
    visit(seed, "seed", "");
    visit(rerank, "rerank", "");
    visit(rerank_samples, "rerank-samples", "");
    visit(refine, "refine", "");
    visit(trajectory, "trajectory", "");
    visit(trajectory_steps, "trajectory-steps", "");
    visit(study, "study", "");
    visit(subsets, "subsets", "");
    visit(cuts, "cuts", "");
    visit(regional, "regional", "");
    visit(experts, "experts", "");
    visit(window, "window", "");
    visit(cell, "cell", "");
    visit(regional_side, "regional-side", "");
  }
};

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
  Conditions told = {}, untold = {};  // of the pictures whose trajectories are compared
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
  double trajectory = report::not_measured;  // of the last latents, at equal seeds
  bool expressible = false;
  std::string said = {};       // the config's wiring, or why there is none
  std::string layout = "any";  // "any": its parts are skipped; else as a stock config wires what is left
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
  std::vector<Edit> beside = {};  // of the chosen plan, what is not a cut
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

// A-SDM-style. Throws Error where the budget is not one of multiply-adds, or cannot be held.
Plan asdm_plan(const Subject& subject, const UnetData& data, const UnetOptions& options,
               const UnetFound& found, const Watch& watch);

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

}  // namespace lamina::cli
