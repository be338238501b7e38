#include "lamina/methods/neurons/lost.h"

#include <algorithm>
#include <cmath>

namespace lamina::neurons {

namespace {

std::vector<atlas::Label> first(std::vector<atlas::Label> labels, int64_t count) {
  if (std::ssize(labels) > count) labels.resize(static_cast<size_t>(count));
  return labels;
}

// The pole whose first label has the larger probability at its own end.
std::vector<atlas::Label> likelier_pole(const atlas::Decoded& row, int64_t count) {
  const double top = static_cast<double>(row.top.front().score) - row.log_sum;
  const double bottom = -static_cast<double>(row.bottom.front().score) - row.log_sum_negated;
  return first(top >= bottom ? row.top : row.bottom, count);
}

}  // namespace

double lost_flops(const Blueprint& blueprint, const std::vector<Site>& sites) {
  double vectors = 0;
  for (Site site : sites) {
    if (const auto& neurons = blueprint.part(site).neurons) vectors += static_cast<double>(neurons->count);
  }
  return 2.0 * vectors * static_cast<double>(blueprint.width) * static_cast<double>(blueprint.vocabulary);
}

std::vector<LostPart> lost(Source source, const std::vector<Site>& sites, const LostOptions& options) {
  const InferenceMode evaluating;
  std::vector<LostPart> parts;
  std::optional<Decoder> decoder;
  for (Site site : sites) {
    if (!source.blueprint.part(site).neurons) continue;
    if (options.watch.stop.stop_requested()) throw Stopped{};
    options.watch.report({"neurons", static_cast<double>(parts.size()), static_cast<double>(sites.size()),
                          source.blueprint.part(site).label()});
    if (!decoder) decoder.emplace(lens_matrix(source, "unembed"));
    BestRows best(decoder->vocabulary());
    const DecodeOptions decode{.top = options.labels};
    const std::vector<atlas::Decoded> up =
        decoder->decode(neuron_vectors(source, site, NeuronVector::up), 0, best, decode);
    std::vector<int64_t> order;
    std::vector<double> kurtosis;
    for (const atlas::Decoded& row : up) {
      order.push_back(std::ssize(order));
      kurtosis.push_back(std::isnan(row.kurtosis) ? 0 : row.kurtosis);
    }
    std::ranges::stable_sort(order, std::greater{},
                             [&](int64_t n) { return kurtosis[static_cast<size_t>(n)]; });
    LostPart part{.site = site,
                  .neurons = std::ssize(up),
                  .median_kurtosis = kurtosis[static_cast<size_t>(order[order.size() / 2])],
                  .above = static_cast<double>(
                               std::ranges::count_if(kurtosis, [](double k) { return k > kLabelled; })) /
                           static_cast<double>(up.size()),
                  .labelled = {}};
    order.resize(static_cast<size_t>(std::min(options.neurons, std::ssize(up))));
    const Tensor written =
        neuron_vectors(source, site, NeuronVector::down).index_select(0, at::tensor(order, at::kLong));
    const std::vector<atlas::Decoded> down = decoder->decode(written, 1, best, decode);
    for (size_t i = 0; i < order.size(); ++i) {
      const auto n = static_cast<size_t>(order[i]);
      part.labelled.push_back({.index = order[i],
                               .kurtosis = kurtosis[n],
                               .reads = likelier_pole(up[n], options.labels),
                               .writes = likelier_pole(down[i], options.labels)});
    }
    parts.push_back(std::move(part));
  }
  return parts;
}

}  // namespace lamina::neurons
