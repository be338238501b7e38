// Edits as values, a plan as the list of them in the order they were decided, and `apply` as a pure function.
// Cutting removes a part's tensors and declares the absence in the config; silencing keeps every shape and
// zeroes what the part writes with. Both give the function that skipping the part in a pass gives.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "lamina/base/json.h"
#include "lamina/blueprint/blueprint.h"
#include "lamina/checkpoint/checkpoint.h"

namespace lamina {

struct Cut {
  std::string site;             // "model.layers.27.self_attn"
  std::optional<double> score;  // why: the method's score at the step at which it went
};

struct Silence {
  std::string site;
};

using Edit = std::variant<Cut, Silence>;

struct Plan {
  std::vector<Edit> edits;
  Json provenance = Json::object();  // method, options, hashes, version: everything but the edits
};

// {"lamina_plan": 1, "edits": [{"edit": "cut", "site": ..., "score": ...}, ...], ...provenance}
Json to_json(const Plan& plan);
// Throws Error on unknown edits, unknown keys of an edit, or an edit without a site.
Plan plan_from_json(const Json& document, std::string_view what);

// "3,7-9" (whole blocks), "attention:12-15,mlp:20", or both; ranges are inclusive. Throws Error for reversed,
// empty, out-of-range and repeated entries.
Plan plan_from_list(std::string_view list, const Blueprint& blueprint);

// Throws Error when an edit names a site that the model does not have or that is gone, or names one twice.
void check_plan(const Plan& plan, const Blueprint& blueprint);

// The sites that the plan takes out of the function, in its order.
std::vector<Site> removed_sites(const Plan& plan, const Blueprint& blueprint);

Checkpoint apply(const Checkpoint& checkpoint, const Blueprint& blueprint, const Plan& plan);
// The same plan with every cut turned into a silence.
Plan silenced(const Plan& plan);

}  // namespace lamina
