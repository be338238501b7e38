#include "lamina/heal/scene_batches.h"

#include <cmath>
#include <limits>

#include "lamina/base/error.h"
#include "lamina/base/hash.h"
#include "lamina/base/random.h"
#include "lamina/tensor/autograd.h"

namespace lamina {

namespace {

// Enough that no run meets its end.
constexpr int64_t kEndless = int64_t{1} << 40;
constexpr int64_t kNovelEvery = 5;  // samples of a scorer

uint64_t mixed(uint64_t seed, uint64_t position) {
  SplitMix of_seed(seed), of_both(of_seed.next() ^ position);
  return of_both.next();
}

std::string described(const scene::Options& options) {
  return fmt::format("scenes {} {} {}", options.seed, scene::split_name(options.split), options.side);
}

// Each pixel the mean of it and its neighbours, the edge repeated.
Tensor blurred(const Tensor& pixels) {
  return at::avg_pool2d(at::replication_pad2d(pixels, {1, 1, 1, 1}), {3, 3}, {1, 1});
}

class SceneBatches : public Batches {
 public:
  explicit SceneBatches(const scene::Options& options) : options_(options) {}
  int64_t samples_per_epoch() const override { return kEndless; }

 protected:
  scene::Scene scene(int64_t index) const { return scene::scene_at(static_cast<uint64_t>(index), options_); }
  const scene::Options& options() const { return options_; }

 private:
  scene::Options options_;
};

class ScorerBatches : public SceneBatches {
 public:
  ScorerBatches(const scene::Options& options, uint64_t seed) : SceneBatches(options), seed_(seed) {}

  Batch at(int64_t first, int64_t count) const override {
    std::vector<Tensor> pictures, labels;
    for (int64_t i = first; i < first + count; ++i) {
      // A scorer is to know every pair, also those that the networks it scores have never seen.
      scene::Options options = this->options();
      if (options.split == scene::Split::train && i % kNovelEvery == 0) options.split = scene::Split::novel;
      const auto index = static_cast<uint64_t>(options.split == scene::Split::novel ? i / kNovelEvery : i);
      labels.push_back(at::tensor(scene::labels(scene::scene_at(index, options).said), at::kLong));
      pictures.push_back(worn(scene_pixels(options, static_cast<int64_t>(index), 1),
                              mixed(seed_, static_cast<uint64_t>(i))));
    }
    return {.inputs = {.sample = at::cat(pictures)}, .targets = at::stack(labels), .first = first};
  }
  std::string digest() const override {
    return sha256_hex(fmt::format("scorer {} {}", described(options()), seed_)).substr(0, 16);
  }

 private:
  // A third of the pictures stays as it is; the others are what painters with faults might make of them.
  static Tensor worn(const Tensor& picture, uint64_t seed) {
    SplitMix random(seed);
    if (random.below(3) == 0) return picture;
    Tensor x = picture;
    const double blur = std::max(0.0, 1.6 * random.uniform() - 0.6);
    if (blur > 0) x = (1 - blur) * x + blur * blurred(x);
    const double contrast = 0.85 + 0.3 * random.uniform(), light = 0.2 * random.uniform() - 0.1;
    x = contrast * x + light;
    const double noise = 0.25 * random.uniform() * random.uniform();
    return (x + noise * random_normal(x.sizes(), random.next())).clamp(-1, 1);
  }

  uint64_t seed_;
};

class PictureBatches : public SceneBatches {
 public:
  using SceneBatches::SceneBatches;
  Batch at(int64_t first, int64_t count) const override {
    const Tensor pixels = scene_pixels(options(), first, count);
    return {.inputs = {.sample = pixels}, .targets = pixels, .first = first};
  }
  std::string digest() const override { return sha256_hex("pictures " + described(options())).substr(0, 16); }
};

class DenoiserBatches : public SceneBatches {
 public:
  DenoiserBatches(const DenoiserData& data, const vae::Autoencoder& autoencoder, const CaptionTokens& tokens,
                  NoiseSchedule schedule)
      : SceneBatches(data.scenes),
        data_(data),
        autoencoder_(autoencoder),
        tokens_(tokens),
        schedule_(std::move(schedule)) {
    if (!(data.dropped >= 0 && data.dropped < 1))
      fail("a share of {} of the captions is to be dropped; it lies from 0 up to but not 1", data.dropped);
  }

  Batch at(int64_t first, int64_t count) const override {
    const c10::NoGradGuard reading;
    const Tensor clean = autoencoder_.encode(scene_pixels(options(), first, count));
    std::vector<std::string> captions;
    std::vector<Tensor> noises;
    std::vector<double> times;
    for (int64_t i = 0; i < count; ++i) {
      const auto position = static_cast<uint64_t>(first + i);
      SplitMix random(mixed(data_.seed, position));
      captions.push_back(random.uniform() < data_.dropped ? "" : scene::caption(scene(first + i)));
      noises.push_back(random_normal(clean[i].sizes(), random.next()).to(clean.scalar_type()));
      times.push_back(static_cast<double>(time_of(position)));
    }
    const Tensor noise = at::stack(noises), time = at::tensor(times, clean.options());
    return {
        .inputs = {.ids = tokens_(captions), .sample = schedule_.noised(clean, noise, time), .time = time},
        .targets = schedule_.target(clean, noise, time),
        .first = first};
  }
  std::string digest() const override {
    const Tensor probe = autoencoder_.encode(scene_pixels(options(), 0, 1)).to(at::kFloat).contiguous();
    Sha256 hash;
    hash.add(fmt::format("denoiser {} {} {} {} {}", described(options()), data_.seed, data_.dropped,
                         tokens_.digest(), schedule_.alpha_bar));
    hash.add(std::as_bytes(std::span(probe.const_data_ptr<float>(), static_cast<size_t>(probe.numel()))));
    return hash.hex().substr(0, 16);
  }

 private:
  // Multiples of the golden section: any run of neighbours covers all times evenly.
  int64_t time_of(uint64_t position) const {
    const uint64_t turn = mixed(data_.seed, ~uint64_t{0}) + position * 0x9e3779b97f4a7c15;
    const double share = static_cast<double>(turn >> 11) * 0x1p-53;
    return std::min(static_cast<int64_t>(share * static_cast<double>(schedule_.steps())),
                    schedule_.steps() - 1);
  }

  DenoiserData data_;
  const vae::Autoencoder& autoencoder_;
  const CaptionTokens& tokens_;
  NoiseSchedule schedule_;
};

}  // namespace

Tensor scene_pixels(const scene::Options& options, int64_t first, int64_t count) {
  Tensor pixels = at::empty({count, 3, options.side, options.side}, at::kFloat);
  auto* out = pixels.data_ptr<float>();
  for (int64_t i = 0; i < count; ++i) {
    const Picture picture = scene::painted(scene::scene_at(static_cast<uint64_t>(first + i), options));
    for (int c = 0; c < 3; ++c) {
      for (size_t p = static_cast<size_t>(c); p < picture.pixels.size(); p += 3)
        *out++ = static_cast<float>(picture.pixels[p]) / 127.5F - 1;
    }
  }
  return pixels;
}

std::unique_ptr<Batches> scorer_batches(const scene::Options& options, uint64_t seed) {
  return std::make_unique<ScorerBatches>(options, seed);
}

std::unique_ptr<Batches> picture_batches(const scene::Options& options) {
  return std::make_unique<PictureBatches>(options);
}

std::unique_ptr<Batches> denoiser_batches(const DenoiserData& data, const vae::Autoencoder& autoencoder,
                                          const CaptionTokens& tokens, NoiseSchedule schedule) {
  return std::make_unique<DenoiserBatches>(data, autoencoder, tokens, std::move(schedule));
}

}  // namespace lamina
