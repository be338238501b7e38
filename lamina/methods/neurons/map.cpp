#include "lamina/methods/neurons/map.h"

#include <chrono>

#include "lamina/base/error.h"
#include "lamina/base/text.h"

namespace lamina::neurons {

namespace {

using atlas::Head, atlas::Rows;

const std::string& path_of(const Neurons& neurons, NeuronVector vector) {
  switch (vector) {
    case NeuronVector::gate:
      return neurons.gate;
    case NeuronVector::up:
      return neurons.up;
    case NeuronVector::down:
      break;
  }
  return neurons.down;
}

const Neurons& neurons_of(const Blueprint& blueprint, Site site) {
  const Part& part = blueprint.part(site);
  if (!part.neurons || !part.present) fail("{} has no neurons", part.path);
  return *part.neurons;
}

Tensor stored(Source source, const std::string& name) {
  const Stored* tensor = source.checkpoint.find(name);
  if (!tensor) fail("{}: {} is missing", source.checkpoint.path.string(), name);
  return load(*tensor, at::kFloat);
}

Site site_of(const Blueprint& blueprint, int64_t block) {
  for (Site site : blueprint.with_neurons()) {
    if (blueprint.part(site).block == block) return site;
  }
  fail("block {} has no feed-forward", block);
}

NeuronVector vector_of(Rows rows) {
  return rows == Rows::gate ? NeuronVector::gate : rows == Rows::down ? NeuronVector::down : NeuronVector::up;
}

Tensor rms(const Tensor& rows) {
  // A row of zeros stays one.
  return rows.pow(2).mean(1, true, at::kDouble).sqrt().clamp_min(1e-30).to(at::kFloat);
}

// Directions without meaning: uniform on the sphere, with the norms of up rows of every block in turn.
struct RandomDirections {
  Tensor raw, ready;
};
RandomDirections random_directions(Source source, const MapOptions& options) {
  const Tensor noise =
      random_normal({options.random, source.blueprint.width}, static_cast<uint64_t>(options.seed));
  std::vector<Tensor> raw, ready;
  const auto blocks = static_cast<int64_t>(options.blocks.size());
  for (int64_t i = 0, begin = 0; i < blocks; ++i) {
    const int64_t end = options.random * (i + 1) / blocks;
    if (end == begin) continue;
    const Site site = site_of(source.blueprint, options.blocks[static_cast<size_t>(i)]);
    const Tensor norms = neuron_vectors(source, site, NeuronVector::up).norm(2, {1}, true);
    const Tensor picked = at::arange(begin, end) * 7919 % norms.size(0);  // spread over the block
    const Tensor unit = noise.narrow(0, begin, end - begin);
    raw.push_back(unit / unit.norm(2, {1}, true) * norms.index_select(0, picked));
    ready.push_back(normalised(source, site, NeuronVector::up, raw.back(), options.norm));
    begin = end;
  }
  return {at::cat(raw), at::cat(ready)};
}

std::vector<atlas::Angles> angles_of(Source source, Site site) {
  const Neurons& neurons = neurons_of(source.blueprint, site);
  const auto unit = [&](NeuronVector vector) {
    const Tensor rows = neuron_vectors(source, site, vector);
    return rows / rows.norm(2, {1}, true);
  };
  const Tensor up = unit(NeuronVector::up), down = unit(NeuronVector::down);
  const Tensor none = at::full({neurons.count}, NAN, at::kFloat);
  const Tensor gate = neurons.gate.empty() ? Tensor() : unit(NeuronVector::gate);
  const auto cosine = [&](const Tensor& a, const Tensor& b) {
    return (a.defined() && b.defined() ? (a * b).sum(1) : none).to(at::kDouble).contiguous();
  };
  const Tensor gate_up = cosine(gate, up), up_down = cosine(up, down), gate_down = cosine(gate, down);
  std::vector<atlas::Angles> angles;
  for (int64_t n = 0; n < neurons.count; ++n) {
    angles.push_back({gate_up.const_data_ptr<double>()[n], up_down.const_data_ptr<double>()[n],
                      gate_down.const_data_ptr<double>()[n]});
  }
  return angles;
}

}  // namespace

Norm norm_from_name(std::string_view name) {
  if (name == "none") return Norm::none;
  if (name == "rms") return Norm::rms;
  if (name == "final") return Norm::final;
  if (name == "fold") return Norm::fold;
  fail("{} is no way to bring a vector to the head; none, rms, final and fold are", in_quotes(name));
}

Tensor neuron_vectors(Source source, Site site, NeuronVector vector) {
  const std::string& path = path_of(neurons_of(source.blueprint, site), vector);
  if (path.empty()) fail("{} has no gate", source.blueprint.part(site).path);
  const std::string name = path + ".weight";
  const Slot* slot = source.blueprint.slot(name);
  if (!slot || slot->axes.size() != 2) fail("{} is no matrix of this model", name);
  const Tensor weight = stored(source, name);
  return slot->axes.front().name == "residual" ? weight.t().contiguous() : weight;
}

Tensor normalised(Source source, Site site, NeuronVector vector, const Tensor& rows, Norm norm) {
  const Blueprint& blueprint = source.blueprint;
  switch (norm) {
    case Norm::none:
      break;
    case Norm::rms:
      return rows / rms(rows);
    case Norm::final: {
      if (blueprint.final_norm.empty()) break;  // folded into the head, gain and all
      const Tensor gain = stored(source, blueprint.final_norm + ".weight");
      if (!blueprint.centred_norms) return rows / rms(rows) * gain;
      const Tensor centred = rows - rows.mean(1, true);
      return centred / rms(centred) * gain + stored(source, blueprint.final_norm + ".bias");
    }
    case Norm::fold:
      // A norm that was folded away stands in the rows already.
      if (vector == NeuronVector::down || neurons_of(blueprint, site).norm.empty()) break;
      return rows * stored(source, neurons_of(blueprint, site).norm + ".weight");
  }
  return rows;
}

Tensor lens_matrix(Source source, std::string_view lens) {
  if (lens == "unembed") return stored(source, source.blueprint.head);
  if (lens == "embed") return stored(source, source.blueprint.embedding);
  fail("{} is no lens; unembed and embed are", in_quotes(lens));
}

MapResult map(Source source, const Decoder& own, const Decoder* other, atlas::Writer& writer,
              const MapOptions& options, const Watch& watch) {
  const InferenceMode evaluating;
  const auto begun = std::chrono::steady_clock::now();
  const DecodeTime own_before = own.time(), other_before = other ? other->time() : DecodeTime{};
  MapResult result;
  const double per_block = static_cast<double>(
      neurons_of(source.blueprint, site_of(source.blueprint, options.blocks.front())).count);
  const double total = static_cast<double>(options.heads.size()) *
                       (static_cast<double>(options.rows.size() * options.blocks.size()) * per_block +
                        static_cast<double>(options.random));
  double done = 0;
  // `raw` as stored: their norms are the ones in the atlas. `ready`: as the head sees them.
  const auto decode = [&](const Decoder& decoder, atlas::Set set, int block, BestRows& best,
                          const Tensor& raw, const Tensor& ready) {
    std::vector<atlas::Decoded> decoded =
        decoder.decode(ready, block, best,
                       {.top = options.top,
                        .watch = watch,
                        .done = done,
                        .total = total,
                        .detail = fmt::format("block {}, {}", block, atlas::rows_name(set.rows))});
    const Tensor norms = raw.norm(2, {1}, false, at::kDouble);
    for (size_t n = 0; n < decoded.size(); ++n) decoded[n].norm = norms.const_data_ptr<double>()[n];
    writer.add(set, block, decoded, best.top, best.bottom);
    result.vectors += raw.size(0);
  };
  for (Head head : options.heads) {
    const Decoder& decoder = head == Head::own ? own : *other;
    const auto best_of = [&](atlas::Set set) {
      BestRows best(decoder.vocabulary());
      if (auto kept = writer.best(set, false); !kept.empty()) best.top = std::move(kept);
      if (auto kept = writer.best(set, true); !kept.empty()) best.bottom = std::move(kept);
      return best;
    };
    for (Rows rows : options.rows) {
      const atlas::Set set{rows, head};
      BestRows best = best_of(set);
      for (int64_t block : options.blocks) {
        if (!writer.has(set, static_cast<int>(block))) {
          const Site site = site_of(source.blueprint, block);
          const Tensor raw = neuron_vectors(source, site, vector_of(rows));
          decode(decoder, set, static_cast<int>(block), best, raw,
                 normalised(source, site, vector_of(rows), raw, options.norm));
        }
        done += per_block;
      }
    }
    const atlas::Set control{Rows::random, head};
    if (options.random > 0 && !writer.has(control, 0)) {
      BestRows best = best_of(control);
      const RandomDirections random = random_directions(source, options);
      decode(decoder, control, 0, best, random.raw, random.ready);
    }
    done += static_cast<double>(options.random);
  }
  for (int64_t block : options.blocks) {
    watch.report({"angles", done, total, fmt::format("block {}", block)});
    if (watch.stop.stop_requested()) throw Stopped{};
    if (!writer.has_angles(static_cast<int>(block)))
      writer.add_angles(static_cast<int>(block), angles_of(source, site_of(source.blueprint, block)));
  }
  result.time = {own.time().products - own_before.products, own.time().all - own_before.all};
  if (other) {
    result.time.products += other->time().products - other_before.products;
    result.time.all += other->time().all - other_before.all;
  }
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
  return result;
}

}  // namespace lamina::neurons
