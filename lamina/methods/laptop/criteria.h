// By what a part is judged, one number each, higher: keep. From scores that were made (output loss and its
// relatives), from the weights alone (magnitude), from gradients (Taylor), from what a caller measures (a
// scorer of pictures), or by lot.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lamina/diffusion/schedule.h"
#include "lamina/family/family.h"
#include "lamina/methods/laptop/score.h"

namespace lamina::laptop {

enum class Criterion {
  output,         // E |eps({r}) - eps_0|^2, LAPTOP-Diff's
  task,           // E |eps({r}) - target|^2 - E |eps_0 - target|^2, no less than 0
  guided,         // the output loss of what guidance makes of both answers
  time_weighted,  // the output loss, samples weighted by (t + 1) / steps: high noise counts more
  clean,       // the output loss as an error of the clean picture that follows (x0): high noise rules, where
               // it is settled what stands where
  influence,   // 1 - cos(x in, x out), block influence
  magnitude,   // mean w^2
  taylor,      // |sum g w|, g the gradient of the task loss over all of the calibration
  trajectory,  // what the last latents of drawn pictures change by, at equal seeds: errors of all steps, as
               // they add up
  score,       // by how much a scorer of pictures is less sure: delta CLIP score in SnapFusion (2306.00980)
  random,
};
std::string_view criterion_name(Criterion criterion);  // "output", "time-weighted"
Criterion criterion_from_name(std::string_view name);  // throws Error that lists them
std::vector<std::string> criterion_names();
// Whether it reads `Scores`; else it needs the weights, gradients, pictures or the seed.
bool reads_scores(Criterion criterion);

// Of criteria that read scores. Throws Error where the calibration did not have what it takes (targets,
// unguided inputs).
std::vector<double> values_of(const Scores& scores, Criterion criterion, const NoiseSchedule& schedule);
// Output losses of samples at `times`, weighed so that their mean is the loss that the criterion says:
// output, time_weighted or clean.
std::vector<double> weighed(Criterion criterion, std::span<const double> losses,
                            std::span<const double> times, const NoiseSchedule& schedule);
// By what plans are ranked again: the criterion itself where it is one of those, or trajectory; nothing where
// it is to see something else (score); else output.
std::optional<Criterion> loss_of_plans(Criterion criterion);

std::vector<double> magnitudes(const Checkpoint& checkpoint, const Blueprint& blueprint,
                               std::span<const Site> candidates);
// Builds a model of its own over leaves that want gradients: as much memory again as the parts' weights.
std::vector<double> taylor(const Opened& opened, std::span<const Site> candidates,
                           const Calibration& calibration, const Watch& watch = {});
std::vector<double> drawn(size_t candidates, uint64_t seed);

// What drawing without each part changes: `changed` of the sites removed, one call a candidate.
std::vector<double> changes_without(std::span<const Site> candidates,
                                    const std::function<double(std::span<const Site>)>& changed,
                                    const Watch& watch = {});
// By how much a score falls when a part goes, no less than 0: `score` of the sites removed, higher is better.
// One call a candidate and one for the whole model.
std::vector<double> score_drops(std::span<const Site> candidates,
                                const std::function<double(std::span<const Site>)>& score,
                                const Watch& watch = {});

}  // namespace lamina::laptop
