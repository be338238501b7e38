// How far a changed model's next-token distributions are from the dense model's, token by token, fused with
// the LM head: one tile of logits at a time is made, read and forgotten, and nothing of size tokens x
// vocabulary need be kept.
//
// With P the dense and Q the changed distribution of a token, u = (ln q - ln p) / 2 and s = sqrt(p q), every
// term of the sums below is non-negative on its own, so that a partial sum is a lower bound and small
// divergences lose no digits:
//   jsd      KL(P||M)/2 + KL(Q||M)/2, M = (P+Q)/2     = sum s (u sinh u - cosh u ln cosh u)      <= ln 2
//   ag       sum m ln(m / sqrt(p q))                  = sum s cosh u ln cosh u
//            what the public FinerCut code computes under the name js_divergence (there divided by the
//            vocabulary too)
//   kl       KL(P||Q)                                 = sum s (2 sinh u - 2 u exp(-u))
//   norm     Frobenius norm of the logits' difference over a sample
//   angular  angle between the logit vectors, cosine clamped to [0, 1], in radians
//   ppl      exp of a sample's mean next-token negative log-likelihood, with no reference to P
#pragma once

#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "lamina/nn/linear.h"
#include "lamina/tensor/tensor.h"

namespace lamina {

enum class Metric { jsd, ag, kl, ppl, norm, angular };
std::string_view metric_name(Metric metric);
// Throws Error that lists the metrics.
Metric metric_from_name(std::string_view name);

// Scores samples against the dense model's answers. A score is the sum of `term`s over the samples, each
// non-negative: per-token metrics are means over all tokens, norm and ppl means over samples.
class Divergence {
 public:
  struct Options {
    Metric metric = Metric::jsd;
    // Dense logits are kept when they fit here, else made again for every tile (which doubles the work of the
    // head).
    uint64_t reference_bytes = uint64_t{1} << 30;
    // Vocabularies below have no bound: there the head is no more work than what goes before it.
    int64_t bound_from = 4096;
  };
  // `hidden`: what the head reads, [tokens, width] a sample. `ids`: the tokens themselves, for ppl.
  Divergence(const Linear& head, std::vector<Tensor> hidden, std::vector<std::vector<int32_t>> ids,
             Options options);

  size_t samples() const { return ids_.size(); }
  Metric metric() const { return options_.metric; }
  // The dense model's own score: 0 but for ppl.
  double dense() const;

  struct Term {
    double value = 0;
    bool complete = true;  // false: the sum passed `limit` and `value` is a lower bound
    int64_t tokens = 0;    // tokens that went through the head
  };
  // Thread-safe. `hidden` is [tokens, width].
  Term term(size_t sample, const Tensor& hidden, double limit) const;

  // A lower bound on a term for a fraction of the head's work, from the logits of a shortlist of the
  // vocabulary: what is likely in the dense model and in the one that gave `near`. jsd, ag, kl: everything
  // else counts as one token, since no divergence of this kind grows when outcomes are merged (data
  // processing inequality); what share the shortlist has in the changed distribution is not known, so the
  // bound is the least over every share. ppl: a token's loss is at least what it is when nothing but the
  // shortlist can come.
  class Bound {
   public:
    // Thread-safe.
    double operator()(size_t sample, const Tensor& hidden) const;
    int64_t words() const { return words_; }

   private:
    friend class Divergence;
    const Divergence* divergence_ = nullptr;
    int64_t words_ = 0;
    struct Sample {
      Tensor head, head_bias;        // [words, width], [words]
      Tensor dense;                  // logits, [tokens, words]
      std::vector<double> rest;      // a token: the dense probability of all else
      std::vector<int64_t> targets;  // ppl: where each token's next one stands on the list
    };
    std::vector<Sample> samples_;
  };
  // Nothing where the metric has no such bound (norm, angular) or the vocabulary is too small to gain by
  // it. `near`: a sample each.
  std::optional<Bound> bound(const std::vector<Tensor>& near) const;

 private:
  Tensor reference_logits(size_t sample, int64_t first, int64_t count) const;
  int64_t shortlist_size() const;  // 0: no bound

  Options options_;
  Tensor head_;  // [vocabulary, width], in the type of the arithmetic
  Tensor head_bias_;
  std::vector<Tensor> hidden_;                   // dense, a sample each
  std::vector<Tensor> logits_;                   // dense, when they fit
  std::vector<Tensor> likely_;                   // dense, probability of each token summed over a sample
  std::vector<std::vector<double>> normalizer_;  // log-sum-exp of the dense logits, a token each
  std::vector<std::vector<int32_t>> ids_;
  double scale_ = 1;  // 1 / (all tokens) or 1 / samples
};

}  // namespace lamina
