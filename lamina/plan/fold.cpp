#include "lamina/plan/fold.h"

#include <algorithm>
#include <map>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/blueprint/absence.h"
#include "lamina/checkpoint/numbers.h"

namespace lamina {

namespace {

struct Affine {
  std::string path;
  std::vector<double> gain, bias;  // of the norm; no bias: empty
  bool centred = false;
};

// Outputs [first, first + count) of a map, whose reader divides by `scale`.
struct Slice {
  int64_t first = 0, count = 0;
  double scale = 1;
};

Stored* find(Checkpoint& checkpoint, std::string_view name) {
  const auto it = std::ranges::find(checkpoint.tensors, name, &Stored::name);
  return it == checkpoint.tensors.end() ? nullptr : &*it;
}

Affine norm_at(Checkpoint& checkpoint, const std::string& path, const Blueprint& blueprint) {
  const auto all = [&](const std::string& name) {
    const Stored* stored = find(checkpoint, name);
    return stored ? Numbers(*stored, computed_dtype(stored->dtype)).run(0, blueprint.width)
                  : std::vector<double>();
  };
  Affine norm{.path = path,
              .gain = all(path + ".weight"),
              .bias = all(path + ".bias"),
              .centred = blueprint.centred_norms};
  if (norm.gain.empty()) fail("{}.weight is missing, so that the norm cannot be folded away", path);
  return norm;
}

// W' = C diag(gain) W / scale with C = I - 11^T / width for centred norms, I for others. Gives what the
// slices' outputs add to the bias: bias W.
std::vector<double> fold_rows(Numbers& weight, const Affine& norm, const Slice& slice) {
  const auto width = static_cast<int64_t>(norm.gain.size());
  std::vector<double> shift(static_cast<size_t>(slice.count));
  for (int64_t out = 0; out < slice.count; ++out) {
    std::vector<double> row = weight.run((slice.first + out) * width, width);
    double mean = 0, sum = 0;
    for (size_t i = 0; i < row.size(); ++i) {
      if (!norm.bias.empty()) sum += norm.bias[i] * row[i];
      row[i] *= norm.gain[i] / slice.scale;
      mean += row[i] / static_cast<double>(width);
    }
    if (norm.centred) {
      for (double& value : row) value -= mean;
    }
    weight.set_run((slice.first + out) * width, row);
    shift[static_cast<size_t>(out)] = sum;
  }
  return shift;
}

// The same for a weight that stands [in, out]; `outputs`: of the whole map.
std::vector<double> fold_columns(Numbers& weight, const Affine& norm, const Slice& slice, int64_t outputs) {
  const size_t width = norm.gain.size();
  const auto row_at = [&](size_t i) { return static_cast<int64_t>(i) * outputs + slice.first; };
  std::vector<double> shift(static_cast<size_t>(slice.count)), mean(shift.size());
  for (size_t i = 0; i < width; ++i) {
    const std::vector<double> row = weight.run(row_at(i), slice.count);
    for (size_t out = 0; out < row.size(); ++out) {
      if (!norm.bias.empty()) shift[out] += norm.bias[i] * row[out];
      if (norm.centred) mean[out] += row[out] * norm.gain[i] / slice.scale / static_cast<double>(width);
    }
  }
  for (size_t i = 0; i < width; ++i) {
    std::vector<double> row = weight.run(row_at(i), slice.count);
    for (size_t out = 0; out < row.size(); ++out)
      row[out] = row[out] * norm.gain[i] / slice.scale - mean[out];
    weight.set_run(row_at(i), row);
  }
  return shift;
}

// `weight`, which is the map's, folded slice by slice.
std::vector<std::vector<double>> fold_slices(Stored& stored, const Slot& slot, const Affine& norm,
                                             const std::vector<Slice>& slices) {
  Numbers weight(stored, computed_dtype(stored.dtype));
  std::vector<std::vector<double>> shifts;
  for (const Slice& slice : slices) {
    shifts.push_back(slot.axes[0].name == "residual" ? fold_columns(weight, norm, slice, slot.axes[1].size())
                                                     : fold_rows(weight, norm, slice));
  }
  std::move(weight).put(stored);
  return shifts;
}

void add_to_bias(Checkpoint& checkpoint, const std::string& map, const Affine& norm, int64_t first,
                 const std::vector<double>& shift) {
  if (std::ranges::all_of(shift, [](double value) { return value == 0; })) return;
  Stored* bias = find(checkpoint, map + ".bias");
  if (!bias)
    fail("{} has no bias that could take up that of {}, so that the norm cannot be folded away", map,
         norm.path);
  Numbers numbers(*bias, computed_dtype(bias->dtype));
  std::vector<double> values = numbers.run(first, static_cast<int64_t>(shift.size()));
  for (size_t i = 0; i < values.size(); ++i) values[i] += shift[i];
  numbers.set_run(first, values);
  std::move(numbers).put(*bias);
}

void fold_map(Checkpoint& checkpoint, const Blueprint& blueprint, const std::string& map, const Affine& norm,
              const std::vector<Slice>& slices) {
  const std::string name = map + ".weight";
  const auto shifts = fold_slices(*find(checkpoint, name), *blueprint.slot(name), norm, slices);
  for (size_t i = 0; i < slices.size(); ++i) add_to_bias(checkpoint, map, norm, slices[i].first, shifts[i]);
}

// A tied head gets numbers of its own, since the embedding must stay what it is.
void fold_head(Checkpoint& checkpoint, const Blueprint& blueprint, const Affine& norm, double scale) {
  Stored head = *find(checkpoint, blueprint.head);
  head.name = blueprint.tied() ? blueprint.own_head : blueprint.head;
  Numbers weight(head, computed_dtype(head.dtype));
  const std::vector<double> shift =
      fold_rows(weight, norm, {.first = 0, .count = blueprint.vocabulary, .scale = scale});
  std::move(weight).put(head);
  std::vector<Stored> made;
  if (!norm.bias.empty()) {
    made.push_back({.name = head.name.substr(0, head.name.rfind('.')) + ".bias",
                    .dtype = head.dtype,
                    .shape = {blueprint.vocabulary},
                    .zero = true,
                    .shard = head.shard});
    Numbers bias(made.back(), head.dtype);
    bias.set_run(0, shift);
    std::move(bias).put(made.back());
  }
  if (Stored* there = find(checkpoint, head.name))  // its own, or a copy of the embedding
    *there = std::move(head);
  else
    made.insert(made.begin(), std::move(head));
  std::ranges::move(made, std::back_inserter(checkpoint.tensors));
  checkpoint.config["tie_word_embeddings"] = false;
}

void drop_norm(Checkpoint& checkpoint, const std::string& path) {
  std::erase_if(checkpoint.tensors, [&](const Stored& tensor) {
    return tensor.name == path + ".weight" || tensor.name == path + ".bias";
  });
}

// The slices of one norm's readers by map, and the label of one that is frozen and one that is not.
struct Readings {
  std::map<std::string, std::vector<Slice>> maps;
  std::string frozen, live;
  double scale = 0;  // of the first reader
};

std::optional<double> scale_of(const NormPath& path, const Blueprint& blueprint,
                               const std::vector<FreezeNorm>& frozen) {
  const auto it = std::ranges::find_if(frozen, [&](const FreezeNorm& edit) {
    return edit.reader == path.reader && edit.site == blueprint.norm_site(path);
  });
  return it == frozen.end() ? std::nullopt : std::optional(it->scale);
}

Readings readings_of(Site site, const Blueprint& blueprint, const std::vector<FreezeNorm>& frozen) {
  Readings all;
  for (const FrontNorm::Reading& reading : blueprint.part(site).norm->readings) {
    const NormPath path{site, reading.reader};
    const auto scale = scale_of(path, blueprint, frozen);
    (scale ? all.frozen : all.live) = blueprint.label(path);
    if (!scale) continue;
    all.maps[reading.map].push_back({reading.first, reading.count, *scale});
    if (all.scale == 0) all.scale = *scale;
  }
  return all;
}

}  // namespace

std::vector<FreezeNorm> frozen_by(const Plan& plan) {
  std::vector<FreezeNorm> frozen;
  for (const Edit& edit : plan.edits) {
    if (const auto* freeze = std::get_if<FreezeNorm>(&edit)) frozen.push_back(*freeze);
  }
  return frozen;
}

Checkpoint folded(Checkpoint checkpoint, const Blueprint& blueprint, const std::vector<FreezeNorm>& frozen) {
  if (frozen.empty()) return checkpoint;
  NormsRemoved removed = read_norms_removed(checkpoint.config, blueprint.blocks, checkpoint.what());
  for (Site site : blueprint.present()) {
    const Part& part = blueprint.part(site);
    if (!part.norm) continue;
    const Readings readings = readings_of(site, blueprint, frozen);
    if (readings.frozen.empty()) continue;
    if (!readings.live.empty())
      fail(
          "the norm of {} is frozen for {} and live for {}, and only a norm that is frozen for all its "
          "readers can be folded away; freeze {} as well",
          part.path, readings.frozen, readings.live, readings.live);
    const Affine norm = norm_at(checkpoint, part.norm->path, blueprint);
    for (const auto& [map, slices] : readings.maps) fold_map(checkpoint, blueprint, map, norm, slices);
    drop_norm(checkpoint, part.norm->path);
    removed.parts.emplace(part.block, part.kind);
  }
  if (const auto scale = blueprint.final_norm.empty() ? std::nullopt : scale_of({}, blueprint, frozen)) {
    fold_head(checkpoint, blueprint, norm_at(checkpoint, blueprint.final_norm, blueprint), *scale);
    drop_norm(checkpoint, blueprint.final_norm);
    removed.last = true;
  }
  write_norms_removed(checkpoint.config, removed);
  return checkpoint;
}

Checkpoint with_huge_epsilon(Checkpoint checkpoint, const Blueprint& blueprint,
                             const std::vector<FreezeNorm>& frozen) {
  constexpr double kEpsilon = 1e12, kRoot = 1e6;
  const auto hold = [&](const std::string& path, double scale) {
    Stored* gain = find(checkpoint, path + ".weight");
    if (!gain) return;  // its part was cut
    Numbers numbers(*gain, computed_dtype(gain->dtype));
    std::vector<double> values = numbers.run(0, blueprint.width);
    for (double& value : values) value *= kRoot / scale;
    numbers.set_run(0, values);
    std::move(numbers).put(*gain);
  };
  for (Site site : blueprint.present()) {
    const Part& part = blueprint.part(site);
    if (!part.norm) continue;
    const Readings readings = readings_of(site, blueprint, frozen);
    if (readings.frozen.empty()) continue;
    // The gain divides by the first reader's scale; what it gives the others, they take times the ratio.
    Affine ratio{.path = part.norm->path,
                 .gain = std::vector<double>(static_cast<size_t>(blueprint.width), readings.scale),
                 .bias = norm_at(checkpoint, part.norm->path, blueprint).bias};
    for (const auto& [map, all] : readings.maps) {
      std::vector<Slice> slices = all;
      std::erase_if(slices, [&](const Slice& slice) { return slice.scale == readings.scale; });
      if (slices.empty()) continue;
      const std::string name = map + ".weight";
      const auto shifts = fold_slices(*find(checkpoint, name), *blueprint.slot(name), ratio, slices);
      for (size_t i = 0; i < slices.size(); ++i) {
        std::vector<double> shift = shifts[i];
        for (double& value : shift) value *= 1 - readings.scale / slices[i].scale;
        add_to_bias(checkpoint, map, ratio, slices[i].first, shift);
      }
    }
    hold(part.norm->path, readings.scale);
  }
  if (const auto scale = blueprint.final_norm.empty() ? std::nullopt : scale_of({}, blueprint, frozen))
    hold(blueprint.final_norm, *scale);
  checkpoint.config[blueprint.epsilon_key] = kEpsilon;
  return checkpoint;
}

}  // namespace lamina
