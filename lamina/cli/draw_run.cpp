#include "lamina/cli/draw_run.h"

#include <charconv>
#include <chrono>
#include <cmath>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/cli/cli.h"
#include "lamina/cli/training.h"
#include "lamina/tensor/tensor_file.h"

namespace lamina::cli {

namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

class Stopwatch {
 public:
  explicit Stopwatch(double& seconds) : seconds_(seconds) {}
  ~Stopwatch() { seconds_ += std::chrono::duration<double>(Clock::now() - begun_).count(); }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

 private:
  double& seconds_;
  Clock::time_point begun_ = Clock::now();
};

struct Size {
  int64_t width = 0, height = 0;
};

int64_t nearest_multiple(int64_t size, int64_t factor) {
  return std::max(factor, (size + factor / 2) / factor * factor);
}

Size size_in(const std::string& text) {
  Size size;
  const char *end = text.data() + text.size(), *at = text.data();
  const auto number = [&](int64_t& value) {
    const auto [next, error] = std::from_chars(at, end, value);
    at = next;
    return error == std::errc() && value > 0 && value <= 1 << 16;
  };
  const bool fine = number(size.width) && at != end && (*at == 'x' || *at == 'X') &&
                    (++at, number(size.height)) && at == end;
  if (!fine) fail("--size {}: WIDTHxHEIGHT is expected, 512x512 for one", in_quotes(text));
  return size;
}

// In pixels. The picture to begin from says it where the flag does not, else the U-Net's config.
Size size_of(const DrawFlags& flags, const Painter& painter, const std::optional<Picture>& init) {
  const int64_t factor = painter.autoencoder().factor();
  if (flags.size.empty() && init)
    return {nearest_multiple(init->width, factor), nearest_multiple(init->height, factor)};
  if (flags.size.empty()) {
    const Checkpoint& unet = painter.denoiser_opened().checkpoint;
    const int64_t latent =
        json_integer_or(unet.config, "sample_size", 0, unet.what(), {.min = 0, .max = 1 << 13});
    if (latent == 0)
      fail("{}: does not say for which size it was made; say --size WIDTHxHEIGHT", unet.what());
    return {latent * factor, latent * factor};
  }
  const Size size = size_in(flags.size);
  if (size.width % factor != 0 || size.height % factor != 0)
    fail("--size {}: width and height are multiples of {} with this pipeline; {}x{} is the nearest",
         flags.size, factor, nearest_multiple(size.width, factor), nearest_multiple(size.height, factor));
  return size;
}

Tensor noise_from(const fs::path& path, int64_t count, at::IntArrayRef sizes) {
  const TensorFile file(path);
  const Tensor noise = load(file.stored("latents"), at::kDouble);
  std::vector<int64_t> wanted = {count};
  wanted.insert(wanted.end(), sizes.begin(), sizes.end());
  if (noise.sizes() != at::IntArrayRef(wanted))
    fail("{}: latents are {}, but [{}] are drawn", path.string(),
         fmt::format("[{}]", fmt::join(noise.sizes(), ", ")), fmt::join(wanted, ", "));
  return noise;
}

struct Batch {
  std::vector<std::string> prompts;
  Tensor noise;
  uint64_t seed = 0;
};

// Orders of neighbouring seeds, at most --batch of them, go together.
std::vector<Batch> batches_of(const DrawFlags& flags, const std::vector<Order>& orders,
                              at::IntArrayRef sizes) {
  const auto count = static_cast<int64_t>(orders.size());
  const Tensor given = flags.latents.empty() ? Tensor() : noise_from(flags.latents, count, sizes);
  std::vector<Batch> batches;
  for (int64_t i = 0; i < count; ++i) {
    const Order& order = orders[static_cast<size_t>(i)];
    const Tensor noise = given.defined() ? given.slice(0, i, i + 1) : starting_noise(1, sizes, order.seed);
    Batch* last = batches.empty() ? nullptr : &batches.back();
    const auto size = last ? static_cast<int64_t>(last->prompts.size()) : 0;
    if (!last || size == flags.batch || order.seed != last->seed + static_cast<uint64_t>(size)) {
      batches.push_back({.prompts = {}, .noise = {}, .seed = order.seed});
      last = &batches.back();
    }
    last->prompts.push_back(order.prompt);
    last->noise = last->noise.defined() ? at::cat({last->noise, noise}) : noise;
  }
  return batches;
}

fs::path preview_path(const DrawFlags& flags) {
  fs::path path = flags.out;
  return path.replace_extension(".preview.png");
}

// Counts the calls of all batches as one work.
Watch part_of(const Watch& watch, size_t batch, size_t batches) {
  return {.tick =
              [&watch, batch, batches](Tick tick) {
                tick.done += static_cast<double>(batch) * tick.total;
                tick.total *= static_cast<double>(batches);
                if (batches > 1) tick.detail = fmt::format("picture {} of {}", batch + 1, batches);
                watch.report(std::move(tick));
              },
          .stop = watch.stop};
}

class Job {
 public:
  Job(const DrawFlags& flags, const std::vector<Order>& orders, const Watch& watch)
      : flags_(flags),
        orders_(orders),
        watch_(watch),
        options_{.dtype = arithmetic_of(flags.dtype), .device = device_of(flags.device)},
        faster_(flags.faster, options_),
        painter_(open_pipeline(flags.pipeline), options_) {
    if (!flags.init.empty()) init_ = flat(read_png(flags.init).picture);
    size_ = size_of(flags, painter_, init_);
    config_ = painter_.scheduler_config();
    if (flags.eta > 0) config_["eta"] = flags.eta;
  }

  Drawn run() {
    drawn_.width = size_.width, drawn_.height = size_.height;
    drawn_.solver = solver_name();
    const int64_t factor = painter_.autoencoder().factor();
    const std::vector<int64_t> sizes = {painter_.autoencoder().channels(), size_.height / factor,
                                        size_.width / factor};
    const std::vector<Batch> batches = batches_of(flags_, orders_, sizes);
    std::vector<Tensor> latents;
    for (size_t i = 0; i < batches.size(); ++i) {
      latents.push_back(latents_of(batches[i], part_of(watch_, i, batches.size())));
      const Stopwatch time(drawn_.decoder_seconds);
      for (Picture& picture : pictures_of(painter_.decode(latents.back())))
        drawn_.pictures.push_back(std::move(picture));
    }
    if (!flags_.save_latents.empty()) {
      AtomicFile file(flags_.save_latents);
      save_tensors(file, {{"latents", at::cat(latents).to(at::kCPU)}});
    }
    std::error_code ignored;
    if (flags_.preview > 0) fs::remove(preview_path(flags_), ignored);
    price();
    return std::move(drawn_);
  }

 private:
  std::string solver_name() const {
    if (!flags_.scheduler.empty()) return flags_.scheduler;
    return solver_of(config_);
  }

  Conditions negative(int64_t count) const {
    if (flags_.negative.empty()) return painter_.unconditional(count, size_.height, size_.width);
    return painter_.conditions(std::vector<std::string>(static_cast<size_t>(count), flags_.negative),
                               size_.height, size_.width);
  }

  SampleOptions sample_options(const Batch& batch, const Watch& watch) {
    SampleOptions options{.steps = flags_.steps,
                          .guidance = flags_.cfg,
                          .solver = flags_.scheduler,
                          .noise = batch.noise.to(options_.device, options_.dtype),
                          .strength = flags_.strength,
                          .seed = batch.seed,
                          .watch = watch};
    if (init_) {
      const InferenceMode guard;
      const Tensor pixels = pixels_of(resized(*init_, size_.width, size_.height));
      const Tensor start = painter_.autoencoder().encode(pixels.to(options_.device, options_.dtype));
      options.start = start.repeat({batch.noise.size(0), 1, 1, 1});
    }
    if (flags_.preview > 0) {
      options.preview = [this](int64_t call, int64_t, const Tensor& clean) {
        if ((call + 1) % flags_.preview != 0) return;
        const std::vector<Picture> now = pictures_of(painter_.decode(clean));
        write_png(preview_path(flags_), grid(now, static_cast<int64_t>(std::ceil(std::sqrt(now.size())))));
      };
    }
    return options;
  }

  Tensor latents_of(const Batch& batch, const Watch& watch) {
    Conditions conditional, unconditional;
    {
      const Stopwatch time(drawn_.text_seconds);
      conditional = painter_.conditions(batch.prompts, size_.height, size_.width);
      if (flags_.cfg > 1) unconditional = negative(batch.noise.size(0));
    }
    const SampleOptions options = sample_options(batch, watch);
    const std::unique_ptr<Denoiser> denoiser = faster_.denoiser(painter_);
    Counting counting(*denoiser, drawn_.calls);
    const Stopwatch time(drawn_.denoiser_seconds);
    return sample(counting, config_, conditional, unconditional, options);
  }

  // Notes of how many calls a way down is.
  class Counting : public Denoiser {
   public:
    Counting(Denoiser& denoiser, int64_t& calls) : denoiser_(denoiser), calls_(calls) {}
    Tensor operator()(const Inputs& inputs, int64_t call, int64_t calls) override {
      calls_ = calls;
      return denoiser_(inputs, call, calls);
    }

   private:
    Denoiser& denoiser_;
    int64_t& calls_;
  };

  void price() {
    const int64_t factor = painter_.autoencoder().factor();
    drawn_.spent = faster_.spent(
        painter_, drawn_.calls, {.height = size_.height / factor, .width = size_.width / factor}, flags_.cfg);
  }

  const DrawFlags& flags_;
  const std::vector<Order>& orders_;
  const Watch& watch_;
  Painter::Options options_;
  FasterCalls faster_;
  Painter painter_;
  std::optional<Picture> init_;
  Size size_;
  Json config_;
  Drawn drawn_;
};

}  // namespace

Drawn draw(const DrawFlags& flags, const std::vector<Order>& orders, const Watch& watch) {
  return Job(flags, orders, watch).run();
}

}  // namespace lamina::cli
