#include "lamina/heal/noised.h"

#include <mutex>
#include <optional>
#include <unordered_map>

#include "lamina/base/error.h"
#include "lamina/base/hash.h"
#include "lamina/base/random.h"
#include "lamina/heal/impl/epoch_order.h"
#include "lamina/tensor/autograd.h"

namespace lamina {

namespace {

// A stream of its own for each position.
uint64_t mixed(uint64_t seed, uint64_t position) {
  return SplitMix(SplitMix(seed).next() ^ position).next();
}

class Noised : public Batches {
 public:
  Noised(const CaptionedPictures& pictures, const Painter& painter, const NoisedOptions& options)
      : pictures_(pictures), painter_(painter), options_(options), order_(pictures.size(), options.seed) {
    if (!(options.dropped >= 0) || !(options.dropped < 1))
      fail("a share of {} of the captions is to be dropped; it lies from 0 up to but not 1", options.dropped);
  }

  Batch at(int64_t first, int64_t count) const override {
    const InferenceMode off(false);
    const c10::NoGradGuard reading;
    const NoiseSchedule& schedule = painter_.schedule();
    std::vector<Tensor> latents, noises;
    std::vector<std::string> captions;
    std::vector<double> times;
    Size size;
    for (int64_t i = 0; i < count; ++i) {
      const auto position = static_cast<uint64_t>(first + i);
      const Kept kept = latents_of(index_of(first + i));
      SplitMix random(mixed(options_.seed, position));
      captions.push_back(random.uniform() < options_.dropped ? "" : kept.caption);
      noises.push_back(random_normal(kept.latents.sizes(), random.next()).to(kept.latents.scalar_type()));
      latents.push_back(kept.latents);
      times.push_back(static_cast<double>(time_of(position)));
      size = kept.size;
    }
    const Tensor clean = at::stack(latents), noise = at::stack(noises);
    const Tensor time = at::tensor(times, clean.options());
    // Copies: what is made in inference mode can be part of no graph.
    Conditions said = painter_.conditions(captions, size.height, size.width);
    said.text = said.text.clone();
    for (auto& [name, tensor] : said.added) tensor = tensor.clone();
    return {.inputs = {.sample = schedule.noised(clean, noise, time),
                       .time = time,
                       .text = said.text,
                       .added = said.added},
            .targets = schedule.target(clean, noise, time),
            .first = first};
  }
  int64_t samples_per_epoch() const override { return pictures_.size(); }
  std::string digest() const override {
    Sha256 hash;
    hash.add(fmt::format("{} {} {} {} {}", pictures_.digest(), options_.seed, options_.dropped,
                         options_.order == NoisedOptions::Order::shuffled,
                         painter_.scheduler_config().dump()));
    return hash.hex();
  }

 private:
  struct Size {
    int64_t height = 0, width = 0;
  };
  struct Kept {
    Tensor latents;  // [channels, height, width]
    std::string caption;
    Size size;  // of the picture
  };

  int64_t index_of(int64_t position) const {
    return options_.order == NoisedOptions::Order::shuffled ? order_(position) : position % pictures_.size();
  }

  Kept latents_of(int64_t index) const {
    {
      const std::lock_guard lock(mutex_);
      if (const auto it = kept_.find(index); it != kept_.end()) return it->second;
    }
    const Captioned captioned = pictures_.at(index);
    const Picture& picture = captioned.picture;
    Kept made{.latents = painter_.autoencoder().encode(pixels_of(picture)).squeeze(0).clone(),
              .caption = captioned.caption,
              .size = {.height = picture.height, .width = picture.width}};
    const std::lock_guard lock(mutex_);
    const auto bytes = static_cast<int64_t>(made.latents.nbytes());
    if (bytes_ + bytes <= options_.kept_bytes && kept_.emplace(index, made).second) bytes_ += bytes;
    return made;
  }

  // Multiples of the golden section: any run of neighbours covers all times evenly.
  int64_t time_of(uint64_t position) const {
    const int64_t steps = painter_.schedule().steps();
    const uint64_t turn = mixed(options_.seed, ~uint64_t{0}) + position * 0x9e3779b97f4a7c15;
    const double share = static_cast<double>(turn >> 11) * 0x1p-53;
    return std::min(static_cast<int64_t>(share * static_cast<double>(steps)), steps - 1);
  }

  const CaptionedPictures& pictures_;
  const Painter& painter_;
  NoisedOptions options_;
  EpochOrder order_;
  mutable std::mutex mutex_;
  mutable std::unordered_map<int64_t, Kept> kept_;
  mutable int64_t bytes_ = 0;
};

}  // namespace

std::unique_ptr<Batches> noised_pictures(const CaptionedPictures& pictures, const Painter& painter,
                                         const NoisedOptions& options) {
  return std::make_unique<Noised>(pictures, painter, options);
}

}  // namespace lamina
