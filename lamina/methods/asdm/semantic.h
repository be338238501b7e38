// Semantic supervision, A-SDM-style (arXiv 2312.15516 names it; the definition is ours): the clean pictures
// that follow from what student and teacher say are to mean the same to a frozen network,
//   L = E w(t) (1 - cos(phi(D(x0_S)), phi(D(x0_T)))),     w(t) = abar_t
// phi: its features; D: a decoder, where the denoiser works on latents. The weight keeps the noisiest times,
// where x0 is a guess, from ruling. What was trained against one phi is to be judged by another.
#pragma once

#include <functional>
#include <memory>

#include "lamina/model/model.h"
#include "lamina/models/vae/vae.h"

namespace lamina::asdm {

enum class TimeWeight { alpha_bar, one };

struct SemanticOptions {
  std::shared_ptr<const Model> features;                          // `read_out` on pictures, and its walk
  std::shared_ptr<const vae::Autoencoder> autoencoder = nullptr;  // null: what is denoised are the pictures
  TimeWeight weight = TimeWeight::alpha_bar;
};

// Of the student's clean samples, the teacher's, and alpha_bar [batch]: the loss, a mean over samples. Its
// gradient goes to the student's alone. As TeachingOptions::semantic_loss wants it.
std::function<Tensor(const Tensor& student, const Tensor& teacher, const Tensor& alpha_bar)> semantic_loss(
    SemanticOptions options);

}  // namespace lamina::asdm
