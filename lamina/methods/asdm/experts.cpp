#include "lamina/methods/asdm/experts.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>

#include "lamina/base/error.h"
#include "lamina/models/registry.h"
#include "lamina/nn/mixed_conv.h"

namespace lamina::asdm {

namespace {

struct Shape {
  int64_t out = 0, stream = 0, skip = 0;  // channels written, read, and read from skips
};

Shape shape_of(const Blueprint& blueprint, const Part& part, const char* conv) {
  const Slot* slot = blueprint.slot(part.path + conv + ".weight");
  if (!slot) return {};
  const int64_t in = slot->axes[1].size(), skip = std::string_view(conv) == ".conv1" ? part.skip : 0;
  return {.out = slot->axes[0].size(), .stream = in - skip, .skip = skip};
}

// How a map of gates stands in a tap: by the path of the convolution.
class Gates : public Tap {
 public:
  explicit Gates(const Blueprint& blueprint) {
    for (const Part& part : blueprint.parts) {
      for (const Experts& experts : part.experts) all_[experts.conv] = {.experts = experts};
    }
  }
  bool reads_maps(Site) const override { return true; }
  void saw_map(Site, std::string_view path, const Tensor&, const Tensor& out) override {
    constexpr std::string_view kRouter = ".router";
    if (!path.ends_with(kRouter)) return;
    auto& [experts, sum, rows] = all_.at(std::string(path.substr(0, path.size() - kRouter.size())));
    const Tensor gates = MixedConv{.gate = static_cast<MixedConv::Gate>(experts.gate)}.gates(out);
    const Tensor added = gates.to(at::kDouble).sum(0).cpu();
    sum = sum.defined() ? sum + added : added;
    rows += gates.size(0);
  }

  struct Seen {
    Experts experts;
    Tensor sum = {};
    int64_t rows = 0;
  };
  const std::map<std::string, Seen>& all() const { return all_; }

 private:
  std::map<std::string, Seen> all_;
};

}  // namespace

std::vector<Inherit> heirs(const Blueprint& blueprint, const Plan& cuts, const InheritOptions& options) {
  std::vector<bool> gone(blueprint.parts.size());
  for (Site site : removed_sites(cuts, blueprint)) gone[static_cast<size_t>(site.index)] = true;
  std::map<std::pair<size_t, std::string>, Inherit> given;
  const int parts = static_cast<int>(blueprint.parts.size());
  for (int i = 0; i < parts; ++i) {
    const Part& donor = blueprint.parts[static_cast<size_t>(i)];
    if (!gone[static_cast<size_t>(i)] || donor.kind != Kind::resnet || !donor.present) continue;
    for (const char* conv : {".conv1", ".conv2"}) {
      const Shape from = shape_of(blueprint, donor, conv);
      int nearest = -1;
      for (int k = 0; k < parts; ++k) {
        const Part& kept = blueprint.parts[static_cast<size_t>(k)];
        if (gone[static_cast<size_t>(k)] || !kept.present || kept.kind != Kind::resnet ||
            kept.block != donor.block || !kept.experts.empty())
          continue;
        const Shape to = shape_of(blueprint, kept, conv);
        if (to.out != from.out || to.stream != from.stream || to.out > options.channels) continue;
        if (nearest < 0 || std::abs(k - i) < std::abs(nearest - i)) nearest = k;
      }
      if (nearest < 0) continue;
      Inherit& inherit = given[{static_cast<size_t>(nearest), conv}];
      if (static_cast<int64_t>(inherit.donors.size()) >= options.most) continue;
      inherit.site = blueprint.parts[static_cast<size_t>(nearest)].path;
      inherit.conv = conv + 1;
      inherit.gate = options.gate;
      inherit.reads = options.reads;
      inherit.donors.push_back(donor.path + conv);
    }
  }
  std::vector<Inherit> edits;
  for (auto& [key, inherit] : given) edits.push_back(std::move(inherit));
  return edits;
}

std::vector<Blend> blends(const Model& model, std::span<const Inputs> samples, const Watch& watch) {
  if (samples.empty()) fail("gates are measured on samples, and there is none");
  Gates gates(model.blueprint());
  const InferenceMode evaluating;
  double done = 0;
  for (const Inputs& inputs : samples) {
    if (watch.stop.stop_requested()) throw Stopped{};
    model.run(inputs, gates);
    watch.report(
        {.phase = "gates", .done = ++done, .total = static_cast<double>(samples.size()), .detail = ""});
  }
  std::vector<Blend> edits;
  for (const auto& [conv, seen] : gates.all()) {
    const size_t dot = conv.rfind('.');
    Blend blend{.site = conv.substr(0, dot), .conv = conv.substr(dot + 1)};
    const Tensor means = (seen.sum / static_cast<double>(seen.rows)).contiguous();
    blend.gates.assign(means.const_data_ptr<double>(), means.const_data_ptr<double>() + means.numel());
    edits.push_back(std::move(blend));
  }
  return edits;
}

namespace {

void check_folds(const Opened& opened) {
  size_t mixed = 0;
  for (const Part& part : opened.blueprint.parts) {
    for (const Experts& experts : part.experts) {
      ++mixed;
      if (experts.reads != Experts::Reads::time)
        fail(
            "{}: the gates of {} read the picture too, so their mean over times alone would say nothing of "
            "it; "
            "only kernels that are mixed by the time fold",
            opened.checkpoint.path.string(), experts.conv);
    }
  }
  if (mixed == 0) fail("{}: mixes no kernels, so there is nothing to fold", opened.checkpoint.path.string());
}

std::vector<Tensor> answers(const Model& model, const FoldOptions& options, std::string_view phase) {
  std::vector<Tensor> made;
  for (const Inputs& inputs : options.judged) {
    if (options.watch.stop.stop_requested()) throw Stopped{};
    made.push_back(model.run(inputs).to(at::kDouble));
    options.watch.report({.phase = std::string(phase),
                          .done = static_cast<double>(made.size()),
                          .total = static_cast<double>(options.judged.size()),
                          .detail = ""});
  }
  return made;
}

}  // namespace

Folding fold_gates(const Opened& opened, const FoldOptions& options) {
  check_folds(opened);
  const InferenceMode evaluating;
  Folding folding;
  std::vector<Tensor> before;
  {
    const auto mixed = build_model(opened, {.dtype = options.dtype});
    folding.edits = blends(*mixed, options.measured, options.watch);
    before = answers(*mixed, options, "mixed");
  }
  Plan plan;
  for (const Blend& edit : folding.edits) plan.edits.emplace_back(edit);
  const Opened plain = declare(apply(opened.checkpoint, opened.blueprint, plan));
  const std::vector<Tensor> after = answers(*build_model(plain, {.dtype = options.dtype}), options, "plain");
  double change = 0, all = 0, largest_change = 0, largest = 0;
  for (size_t i = 0; i < before.size(); ++i) {
    const Tensor difference = after[i] - before[i];
    change += difference.square().sum().item<double>();
    all += before[i].square().sum().item<double>();
    largest_change = std::max(largest_change, difference.abs().max().item<double>());
    largest = std::max(largest, before[i].abs().max().item<double>());
  }
  folding.moved = all > 0 ? std::sqrt(change / all) : 0;
  folding.moved_most = largest > 0 ? largest_change / largest : 0;
  return folding;
}

}  // namespace lamina::asdm
