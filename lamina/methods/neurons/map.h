// The map: every neuron of a model decoded into an atlas, block by block, resumable (Davies 2025, arXiv
// 2501.02688).
#pragma once

#include <string>
#include <vector>

#include "lamina/atlas/atlas.h"
#include "lamina/blueprint/blueprint.h"
#include "lamina/checkpoint/checkpoint.h"
#include "lamina/methods/neurons/decode.h"
#include "lamina/plan/plan.h"

namespace lamina::neurons {

// How a vector w is brought to the head. The paper does not say; `none` is read as it stands.
//   none: w.  rms: w / rms(w).  final: the last norm as the formula has it, gain * w / rms(w) (LayerNorm:
//   mean taken off and bias added; no epsilon).  fold: the gain of the norm in front of the feed-forward
//   times w, for the rows that read (gate, up), since that is what they read with. A norm that was folded
//   away is part of the weights already: `final` and `fold` are then `none`.
enum class Norm { none, rms, final, fold };
Norm norm_from_name(std::string_view name);

// A model's weights with their meaning.
struct Source {
  const Checkpoint& checkpoint;
  const Blueprint& blueprint;
};

// One vector of every neuron of a part, as stored, float32 [neurons, width]. Throws Error when it has none.
Tensor neuron_vectors(Source source, Site site, NeuronVector vector);
Tensor normalised(Source source, Site site, NeuronVector vector, const Tensor& rows, Norm norm);

// The matrix that scores are taken with, float32 [vocabulary, width]: lens "unembed" (the LM head) or
// "embed".
Tensor lens_matrix(Source source, std::string_view lens);

struct MapOptions {
  std::vector<atlas::Rows> rows = {atlas::Rows::up};
  std::vector<atlas::Head> heads = {atlas::Head::own};
  Norm norm = Norm::none;
  int64_t top = 8;
  int64_t random = 0;  // directions in the control, with the norms of up rows
  int64_t seed = 0;
  std::vector<int64_t> blocks;  // those to decode
};

struct MapResult {
  int64_t vectors = 0;  // decoded in this run
  DecodeTime time;      // of decoding
  double seconds = 0;   // of all, with reading and writing
};

// Decodes what `writer` does not hold yet. `other`: the head of another model, for `Head::other`. Does not
// finish the writer.
MapResult map(Source source, const Decoder& own, const Decoder* other, atlas::Writer& writer,
              const MapOptions& options, const Watch& watch);

}  // namespace lamina::neurons
