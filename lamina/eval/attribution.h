// Direct logit attribution against direct effect, head by head, at the last position (Schaeffer et al., 2025,
// arXiv 2507.02559). r: the last residual, c: what one head wrote there, without the bias that heads share,
// w: the head's row for the target.
//   direct effect  DE(c)  = [LN(r) - LN(r - c)] . w             c truly taken away, the scale made again
//   attribution    DLA(c) = [(c - mean c) / scale(r) gain] . w  the scale of the whole r kept
// With a last norm that is frozen or gone the two are one number: an identity, and so a test of freezing and
// folding.
#pragma once

#include <string>
#include <vector>

#include "lamina/base/progress.h"
#include "lamina/eval/bootstrap.h"
#include "lamina/eval/pass.h"

namespace lamina {

struct AttributionOptions {
  enum class Target {
    next,       // the token that comes next: the last of a sample is not read but predicted
    last_input  // the last token read, as the paper's code takes it
  };
  Target target = Target::next;
  BootstrapOptions bootstrap = {};
};
std::string_view target_name(AttributionOptions::Target target);  // "next", "last-input"

struct Attribution {
  struct Head {
    Site site = {};
    std::string part = {};  // its path
    int block = 0;
    int64_t head = 0;
    std::vector<double> direct = {}, attributed = {};  // a sample each
    double error = 0;  // mean |DLA - DE| / mean |DE| over samples; not a number where the head has no effect
  };
  AttributionOptions::Target target = AttributionOptions::Target::next;
  std::vector<Head> heads = {};
  double head_mean = 0;  // of the heads' errors: as the paper describes it
  Estimate global = {};  // mean |DLA - DE| / mean |DE| over heads and samples: as its code prints it
  int64_t samples = 0;
};

Attribution attribution(const Model& model, const Samples& samples, const AttributionOptions& options,
                        Tap& base, const Watch& watch = {});

}  // namespace lamina
