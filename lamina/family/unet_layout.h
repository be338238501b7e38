// How a cut U-Net looks to stock loaders: the config and the tensor names under which diffusers'
// UNet2DConditionModel holds what is left, where there are any.
//
// Two wirings. `exact` computes what skipping the parts computes: transformers that are gone (a side of a
// stage without attention, shorter depths, depth 0 with its last projection zeroed), and a middle block that
// is null or one ResNet. `stock` lets whole layers go besides, as BK-SDM did: what is left of a stage moves
// together, a layer on the way up takes the skip of its new place, and no shortcut stays. That is another
// function than the cut's, with a loss of its own: measure it on `compacted`, not by skipping.
// Invariant: the shapes of what `express` calls possible are those that its config asks for.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "lamina/family/unet.h"

namespace lamina::unet {

enum class Wiring { exact, stock };

struct LayoutOptions {
  Wiring wiring = Wiring::exact;
  // "ssd-1b", "vega", "bk-base", "bk-small", "bk-tiny", "koala-1b", "koala-700m": of `choices`, only those
  // that end in this layout. Empty: any that stock configs can say.
  std::string layout = {};
};

struct Expressed {
  bool possible = false;
  bool exact = false;    // computes what skipping the parts computes
  std::string why = {};  // not possible: the first part that no stock config can say, and why
  Json config = Json::object();
  std::vector<std::pair<std::string, std::string>> renamed = {};  // every tensor that is kept: old, new
  std::vector<std::string> zeroed = {};  // new names: what a transformer of depth 0 writes with, or all of it
  int64_t parameters = 0;                // of the file, zeroes included
};
// `removed` besides the parts that the blueprint says are gone. Of a plan that both wirings can say, the
// exact one.
Expressed express(const Json& config, const Blueprint& blueprint, const std::vector<Site>& removed,
                  const LayoutOptions& options);
// The checkpoint under that config; the tensors are views of the given one's.
Checkpoint compacted(const Checkpoint& checkpoint, const Expressed& expressed);

// What stock loaders open of a U-Net after a plan. A plan that says "wiring": "stock" beside its edits was
// made and measured for that wiring; another is written only where the function stays what skipping gives.
Compact compact(const Checkpoint& checkpoint, const Blueprint& blueprint, const Plan& plan);
// Throws Error when the plan says another wiring than "exact" and "stock".
Wiring wiring_of(const Plan& plan);

// What a solver may choose from. One choice of every group, and of each of its picks at least `least` and at
// most `most` units: the union of their sites is expressible, whatever is chosen in other groups. Choices do
// not list every expressible plan: a layer goes with its transformer, and stages of more than three layers
// keep them all.
struct Unit {
  std::vector<Site> sites;  // that go together
  int64_t parameters = 0;   // that leave the file with them, at least
};
struct Pick {
  std::vector<Unit> units;
  int64_t least = 0, most = 0;
};
struct Choice {
  std::vector<Site> removed = {};
  int64_t parameters = 0;  // that leave the file
  bool exact = true;
  std::vector<Pick> picks = {};
};
struct Group {
  std::string name;  // "down_blocks.1 up_blocks.2"; the innermost one holds the middle block too
  std::vector<Choice> choices = {};  // without a layout the first removes nothing
};
// Throws Error when the layout cannot be reached from this U-Net, and lists the layouts when it is not known.
std::vector<Group> choices(const Json& config, const Blueprint& blueprint, const LayoutOptions& options);

// The expressible plan that differs from `removed` in the fewest parts.
struct Near {
  std::vector<Site> removed;
  std::vector<Site> added, returned;  // against what was asked for
  Expressed expressed;
};
Near nearest(const Json& config, const Blueprint& blueprint, const std::vector<Site>& removed,
             const LayoutOptions& options);

// The layouts that `choices` knows by name.
std::vector<std::string> layout_names();

}  // namespace lamina::unet
