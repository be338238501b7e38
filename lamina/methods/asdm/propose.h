// The compute-first cut of A-SDM (arXiv 2312.15516; 2406.00210: layers go "mainly in the shallow part"): what
// costs most for what it matters goes first, outer stages before inner ones, until the budget holds. A
// self-attention over a large map may go or see windows instead; kernels of ResNets that go are inherited.
// The order and the prices are ours: neither paper's text was to be had.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lamina/methods/asdm/experts.h"
#include "lamina/methods/asdm/regional.h"
#include "lamina/model/model.h"

namespace lamina::asdm {

// One thing that could be done to a part, and what it does to the answer: E |eps' - eps|^2.
struct Choice {
  Site site;
  std::optional<Windows> windows = {};  // nothing: the part goes
  double loss = 0;
};

// What windows at each place do to the answers, a mean over the samples and their numbers.
std::vector<Choice> priced(const Model& model, std::span<const Regional> edits,
                           std::span<const Inputs> samples, const Watch& watch = {});

struct ProposeOptions {
  double keep = 0.78;  // share of the cost that may stay
  int outer = 2;       // so many stages from each end first, then one more and so on
  bool cut = true, regional = true, inherit = true;
  InheritOptions inheritance = {};
};

struct Proposal {
  Plan plan;  // Cut (with its loss as score), Regional and Inherit edits
  double cost = 0, whole = 0;
  double loss = 0;       // sum of the losses of what is done
  bool reached = false;  // the budget; else this is as far as it goes
};

// `cost` of a model as the blueprint has it: present parts and windows decide (multiply-adds, milliseconds).
Proposal propose(const Blueprint& blueprint, std::span<const Choice> choices,
                 const std::function<double(const Blueprint&)>& cost, const ProposeOptions& options);

}  // namespace lamina::asdm
