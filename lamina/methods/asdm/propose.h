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
  double milliseconds = 0;  // that a pass is shorter by, where it was measured; below zero: longer
};

// What windows at each place do to the answers: (eps' - eps)^2, a mean over the elements; [edit][sample].
// Throws Error where there is no sample.
std::vector<std::vector<double>> changes_by(const Model& model, std::span<const Regional> edits,
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

// A proposal and what came of it.
struct Round {
  double keep = 1;  // what was asked for
  Proposal proposal;
  double share = 1;  // of the whole, as `measured` found it
};
// For a cost that is a sum of measurements, which the whole plan need not keep to: proposes, measures, and
// where that is more than `options.keep`, or less by a twentieth of the whole, proposes again with a budget
// for the sum that is stricter or looser accordingly, at most `rounds` times in all. What is out of reach
// by the sum is measured as well: it may not be.
std::vector<Round> propose_measured(const Blueprint& blueprint, std::span<const Choice> choices,
                                    const std::function<double(const Blueprint&)>& cost,
                                    const std::function<double(const Plan&)>& measured,
                                    const ProposeOptions& options, int rounds = 3);
// Of those that keep to the budget the one that loses least; where none does, the one that takes least.
const Round& best_of(std::span<const Round> rounds, double keep);

}  // namespace lamina::asdm
