// Whether pictures show what their captions say, as a scorer sees it (a network of the family "scorer" with
// the questions of scene::heads()). A scorer errs itself: print its rates on real pictures beside, as the
// ceiling.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lamina/model/model.h"
#include "lamina/scene/scene.h"

namespace lamina {

struct Rate {
  int64_t right = 0, asked = 0;
  double share() const { return asked > 0 ? static_cast<double>(right) / static_cast<double>(asked) : 0; }
  // Of 95 % (Wilson, 1927).
  std::pair<double, double> interval() const;
};

struct SceneScore {
  // Shape, colour and size of a thing count once for each of up to two things that the caption names; where
  // the picture shows them the other way round they are compared so, and it is the relation that is wrong.
  Rate shape, colour, size;
  Rate relation;  // of captions with two things: they stand side by side, or not, and in that order
  Rate count;     // of all things
  Rate ground;    // the top and the bottom
  Rate all;       // every answer is right
};
// By name, in the order above: "shape", ..., "all".
std::vector<std::pair<std::string, Rate>> named_rates(const SceneScore& score);

struct ScorerPass {
  std::vector<std::vector<int64_t>> answers;  // of each picture, head after head
  Tensor features;                            // [pictures, width], float64: what the heads read
};
// pixels [pictures, 3, side, side] in [-1, 1]. Throws Error when the scorer has not the questions of scenes.
ScorerPass scorer_pass(const Model& scorer, const Tensor& pixels, int64_t batch = 64);

// How sure the scorer is of what the captions say: the mean over pictures of the sum over questions of the
// log probability of the right answer, in nats. pixels as above; throws Error as it does.
double scene_likelihood(const Model& scorer, const Tensor& pixels, const std::vector<scene::Said>& said);

SceneScore scene_score(const std::vector<std::vector<int64_t>>& answers,
                       const std::vector<scene::Said>& said);

// Picture by picture, to compare two ways to draw them: of each property, in the order of named_rates, a
// character a picture: '1' where all that is asked of it is right, '0' where not, '-' where nothing is asked.
using Marks = std::vector<std::pair<std::string, std::string>>;
Marks scene_marks(const std::vector<std::vector<int64_t>>& answers, const std::vector<scene::Said>& said);

// How much more often the first of two is right of the same captions.
struct PairedShares {
  int64_t asked = 0, first_alone = 0, second_alone = 0;  // alone: it is right and the other is not
  double difference() const;
  // Of 95 %, after Bonett and Price (2012): Wald's with one more picture for either that is right alone, so
  // that it has a width where both are right of the same captions. 398 of these: +-0.69 points.
  std::pair<double, double> interval() const;
};
// Of marks of one property. Throws Error where they are of other captions.
PairedShares paired_shares(std::string_view first, std::string_view second);

// The share of pictures of which two scorers say the same.
Rate agreement(const std::vector<std::vector<int64_t>>& a, const std::vector<std::vector<int64_t>>& b);

}  // namespace lamina
