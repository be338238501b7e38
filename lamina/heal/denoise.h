// Objectives of networks on pictures. Targets are floating and of the shape of what the network gives (of
// scorers: answers), every number of them counts, and the loss per number is what the curve shows.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "lamina/heal/objective.h"

namespace lamina {

// What the network gives, by the walk that `pass` asks for.
Tensor given(const Pass& pass);
// The same for other inputs.
Tensor given(const Pass& pass, const Inputs& inputs);

// What makes a batch's text while the denoiser learns: with a graph, so that it learns too.
class Conditioner {
 public:
  virtual ~Conditioner() = default;
  // [batch, tokens, width] of Inputs::ids.
  virtual Tensor text(const Inputs& inputs) const = 0;
  virtual std::vector<Parameter> parameters() const = 0;
  virtual std::string digest() const = 0;
};
// A text encoder whose every weight learns. Its parameters are called "text_encoder." and their own name.
std::unique_ptr<Conditioner> learning(std::shared_ptr<Student> text_encoder);

// The squared error of what a denoiser says; noise or velocity, as the batch has it (Ho et al., 2020;
// Salimans and Ho, 2022). Without a conditioner batches bring their text.
std::unique_ptr<Objective> denoising(std::shared_ptr<const Conditioner> conditioner = nullptr);

struct ReconstructionOptions {
  double square = 1;    // weight of the squared error
  double absolute = 0;  // of the absolute one
  double edges =
      0;  // of the squared error of the differences between neighbours, in both directions together
};
// Of autoencoders: what is given, against the targets. The curve shows the squared error alone.
std::unique_ptr<Objective> reconstruction(const ReconstructionOptions& options = {});

// Of networks that answer several questions at once: logits [batch, sum of classes], question after question.
// Targets are [batch, questions] int64, kNotLearnt where a question is not asked. Cross-entropy, a question.
std::unique_ptr<Objective> classification(std::vector<int64_t> classes);

}  // namespace lamina
