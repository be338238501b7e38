#include "lamina/heal/batches.h"

#include <optional>

#include "lamina/base/error.h"
#include "lamina/base/hash.h"
#include "lamina/heal/impl/epoch_order.h"

namespace lamina {

int64_t Batch::learnt() const {
  if (targets.is_floating_point()) return targets.numel();
  return targets.ne(kNotLearnt).sum().item<int64_t>();
}

namespace {

class Pieces : public Batches {
 public:
  enum class Order { shuffled, of_the_text };
  struct Options {
    int64_t length;
    uint64_t seed;
    Order order;
  };
  Pieces(std::vector<int32_t> ids, Options options) : ids_(std::move(ids)), options_(options) {
    if (options.length < 2)
      fail("a sample of {} tokens teaches nothing; it takes two or more", options.length);
    pieces_ = static_cast<int64_t>(ids_.size()) / options.length;
    if (pieces_ < 1)
      fail("the text has {} tokens, and one sample takes {}; give more text or shorter samples", ids_.size(),
           options.length);
    order_.emplace(pieces_, options.seed);
  }

  Batch at(int64_t first, int64_t count) const override {
    const int64_t length = options_.length;
    const Tensor ids = at::empty({count, length}, at::kLong),
                 targets = at::full({count, length}, kNotLearnt, at::kLong);
    auto* to = ids.data_ptr<int64_t>();
    auto* want = targets.data_ptr<int64_t>();
    for (int64_t i = 0; i < count; ++i) {
      const int64_t begin = piece(first + i) * length;
      for (int64_t t = 0; t < length; ++t) {
        to[i * length + t] = ids_[static_cast<size_t>(begin + t)];
        if (t > 0) want[i * length + t - 1] = to[i * length + t];
      }
    }
    return {.inputs = {.ids = ids}, .targets = targets, .first = first};
  }
  int64_t samples_per_epoch() const override { return pieces_; }
  std::string digest() const override {
    Sha256 hash;
    hash.add(std::as_bytes(std::span(ids_)));
    hash.add(options_.order == Order::shuffled
                 ? fmt::format("pieces of {}, seed {}", options_.length, options_.seed)
                 : fmt::format("pieces of {}, in order", options_.length));
    return hash.hex();
  }

 private:
  int64_t piece(int64_t sample) const {
    if (options_.order == Order::of_the_text) {
      if (sample >= pieces_) fail("sample {} was asked for, and the text has {}", sample, pieces_);
      return sample;
    }
    return (*order_)(sample);
  }

  std::vector<int32_t> ids_;
  Options options_;
  int64_t pieces_ = 0;
  std::optional<EpochOrder> order_;
};

}  // namespace

std::unique_ptr<Batches> text_batches(std::vector<int32_t> ids, int64_t length, uint64_t seed) {
  return std::make_unique<Pieces>(
      std::move(ids), Pieces::Options{.length = length, .seed = seed, .order = Pieces::Order::shuffled});
}

std::unique_ptr<Batches> text_in_order(std::vector<int32_t> ids, int64_t length) {
  return std::make_unique<Pieces>(
      std::move(ids), Pieces::Options{.length = length, .seed = 0, .order = Pieces::Order::of_the_text});
}

}  // namespace lamina
