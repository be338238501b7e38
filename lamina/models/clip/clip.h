// CLIP's text encoder (Radford et al., 2021), as Stable Diffusion reads it: ViT-L/14's and OpenCLIP bigG's.
#pragma once

#include <memory>

#include "lamina/model/model.h"

namespace lamina::clip {

// A walk over blocks of attention and mlp, causal. `run` gives the last hidden state behind the last norm,
// [batch, tokens, width].
class TextEncoder : public Model {
 public:
  using Model::Model;
  struct Encoded {
    Tensor last;         // behind the last norm, [batch, tokens, width]
    Tensor penultimate;  // in front of the last block, without the last norm: hidden_states[-2]
    Tensor pooled;  // at the first end-of-text token: of `last`, and through the projection if there is one
  };
  virtual Encoded encode(const Tensor& ids) const = 0;  // ids [batch, tokens] int64
};

std::unique_ptr<TextEncoder> build_text(const Checkpoint& checkpoint, const Blueprint& blueprint,
                                        const Weights& weights);
std::unique_ptr<Model> build(const Checkpoint& checkpoint, const Blueprint& blueprint,
                             const Weights& weights);

}  // namespace lamina::clip
