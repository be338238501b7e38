#include "lamina/methods/asdm/semantic.h"

#include "lamina/base/error.h"
#include "lamina/tensor/autograd.h"

namespace lamina::asdm {

namespace {

// [batch, features]: what the network makes of clean samples.
Tensor meaning(const SemanticOptions& options, const Tensor& clean) {
  const Tensor pixels = options.autoencoder ? options.autoencoder->decode(clean) : clean;
  const Model& model = *options.features;
  Tap none;
  Stream stream = model.begin({.sample = pixels});
  for (int i = 0; i < static_cast<int>(model.blueprint().parts.size()); ++i) model.step(stream, {i}, none);
  return model.read_out(stream, none).flatten(1);
}

}  // namespace

std::function<Tensor(const Tensor&, const Tensor&, const Tensor&)> semantic_loss(SemanticOptions options) {
  if (!options.features) fail("semantic supervision takes a network that says what pictures mean");
  return [options = std::move(options)](const Tensor& student, const Tensor& teacher,
                                        const Tensor& alpha_bar) {
    Tensor wanted;
    {
      const c10::NoGradGuard frozen;
      wanted = meaning(options, teacher);
    }
    const Tensor apart = 1 - at::cosine_similarity(meaning(options, student), wanted, 1);
    return (options.weight == TimeWeight::alpha_bar ? alpha_bar.flatten().to(apart) * apart : apart).mean();
  };
}

}  // namespace lamina::asdm
