// What a denoiser loses when one part goes: E |eps({r}) - eps_0|^2 and its relatives, of every candidate in
// one walk (after LAPTOP-Diff, arXiv 2404.11098). Before each candidate the Stream of the whole model is
// kept, and the candidate starts from there, so that a pass runs what stands behind it and no more; down
// stages bring their skips with them in the Stream. Candidates whose remaining walk is the same are carried
// along as rows of one batch. With `rows` 1 every number equals that of a full pass with the part skipped,
// bit for bit; with more, up to rounding.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "lamina/base/json.h"
#include "lamina/base/progress.h"
#include "lamina/methods/laptop/calibration.h"
#include "lamina/model/model.h"

namespace lamina::laptop {

// Of one batch of samples. Lists by candidate, inside by sample.
struct BatchScores {
  using PerSample = std::vector<std::vector<double>>;
  std::vector<double> times = {};  // of each sample
  PerSample output = {};           // mean over the elements of (eps({r}) - eps_0)^2
  PerSample task = {};             // what the error against the target grows by; empty without targets
  PerSample guided = {};           // as `output`, of what guidance makes of both answers; empty without
  PerSample influence = {};        // 1 - cos(x before the part, behind it)
  // Candidates x candidates, mean over samples and elements of d_i d_j, d = eps({r}) - eps_0.
  std::vector<double> products = {};
};
Json to_json(const BatchScores& scores);
// Throws Error when it does not hold numbers of so many candidates.
BatchScores batch_scores_from_json(const Json& json, size_t candidates, std::string_view what);

struct ScoreOptions {
  int64_t rows = 8;       // of the batch that candidates are carried in, at most; 0: a full pass each
  double guidance = 7.5;  // where the calibration has unguided inputs
};

// The parts that are there, or those of them at `sites`.
std::vector<Site> candidates_of(const Blueprint& blueprint);

BatchScores score(const Model& model, std::span<const Site> candidates, const CalibrationBatch& batch,
                  const ScoreOptions& options, const Watch& watch = {});

// Of all batches together.
struct Scores {
  std::vector<Site> candidates = {};
  BatchScores all = {};

  size_t samples() const { return all.times.size(); }
};
Scores gathered(std::vector<Site> candidates, std::span<const BatchScores> batches);

struct Mean {
  double value = 0;
  double error = 0;  // standard error; not a number for one sample
};
Mean mean(std::span<const double> values);

// Means over the samples, one a candidate.
std::vector<Mean> means(const BatchScores::PerSample& values);
// By `count` equal bands of time, the least noise first: [band][candidate]; not a number where no sample is.
std::vector<std::vector<double>> by_band(const Scores& scores, const BatchScores::PerSample& values,
                                         int count, int64_t steps);
// Spearman's rank correlation; of ties the mean rank. Not a number for fewer than two.
double rank_correlation(std::span<const double> a, std::span<const double> b);
// Of the means over the even and over the odd samples: how far the ranks are settled.
double split_half(const BatchScores::PerSample& values);

// |sum of d_r|^2 of the candidates removed, by what each did alone (the linear-superposition model).
double superposed(const Scores& scores, std::span<const int> removed);

// What a pass with sites skipped differs by from one without: mean over elements, one a sample. Holds the
// answers of the whole model.
class JointLoss {
 public:
  // Over the first `samples` of the calibration (0: all), rounded up to whole batches.
  JointLoss(const Model& model, const Calibration& calibration, int64_t samples = 0);
  std::vector<double> of(std::span<const Site> removed) const;
  double mean_of(std::span<const Site> removed) const;
  // Of another model in its place: a cut that is another function than skipping.
  std::vector<double> of(const Model& other) const;
  int64_t samples() const;

 private:
  std::vector<double> of(const Model& model, Tap& tap) const;

  const Model& model_;
  const Calibration& calibration_;
  std::vector<Tensor> answers_;
};

// Milliseconds that a pass over `inputs` is shorter by when the part goes (lamina/eval/step_times.h; samplers
// and stacks between parts, which stay, are not in it; no less than 0), and those of the whole pass.
struct Times {
  std::vector<double> saved = {};  // by candidate
  double whole = 0;
};
Times measured_times(const Model& model, std::span<const Site> candidates, const Inputs& inputs, int repeats,
                     const Watch& watch = {});

}  // namespace lamina::laptop
