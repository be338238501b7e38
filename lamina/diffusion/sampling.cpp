// From noise to latents, and between pictures and pixels.
#include <algorithm>
#include <cmath>

#include "lamina/base/error.h"
#include "lamina/base/random.h"
#include "lamina/base/text.h"
#include "lamina/diffusion/pipeline.h"

namespace lamina {

namespace {

class Plain : public Denoiser {
 public:
  explicit Plain(const Model& model) : model_(model) {}
  Tensor operator()(const Inputs& inputs, int64_t, int64_t) override { return model_.run(inputs); }

 private:
  const Model& model_;
};

// What the solver draws at a call: of each row its own, whatever the batch.
Tensor fresh_noise(const Tensor& like, uint64_t seed, size_t call) {
  std::vector<Tensor> rows;
  for (int64_t row = 0; row < like.size(0); ++row) {
    SplitMix mixed(seed + static_cast<uint64_t>(row));
    rows.push_back(random_normal(like.sizes().slice(1), mixed.next() + call));
  }
  return at::stack(rows).to(like.options());
}

// Where a picture's latents come in: after the first steps, which are left away.
size_t first_call(const Solver& solver, const SampleOptions& options) {
  if (!options.start.defined()) return 0;
  if (!(options.strength > 0 && options.strength <= 1))
    fail("strength {}: a number above 0 and up to 1 is expected", options.strength);
  const auto left =
      std::min(static_cast<int64_t>(static_cast<double>(options.steps) * options.strength), options.steps);
  if (left < 1)
    fail("a strength of {} leaves none of {} steps to go; raise one of them", options.strength,
         options.steps);
  const int64_t skipped = options.steps - left;
  const auto more = static_cast<int64_t>(solver.times().size()) - options.steps;
  return static_cast<size_t>(skipped == 0 ? 0 : skipped + more);
}

void check(const Conditions& conditional, const Conditions& unconditional, const SampleOptions& options) {
  if (!options.noise.defined() || options.noise.dim() != 4)
    fail("sampling begins from noise [batch, channels, height, width]");
  const int64_t batch = options.noise.size(0);
  if (!conditional.text.defined() || conditional.text.size(0) != batch)
    fail("the noise is a batch of {}, but the conditions are not", batch);
  if (options.guidance > 1 && (!unconditional.text.defined() || unconditional.text.size(0) != batch))
    fail("the noise is a batch of {}, but what guidance goes away from is not", batch);
  if (options.start.defined() && options.start.sizes() != options.noise.sizes())
    fail("the latents to begin from are of another shape than the noise");
}

// One answer of the network at x, with guidance (Ho and Salimans, 2022).
struct Asked {
  Denoiser& denoiser;
  const Conditions& conditions;  // [unconditional ; conditional] under guidance
  double guidance;

  Tensor operator()(const Tensor& x, double time, int64_t call, int64_t calls) const {
    const bool guided = guidance > 1;
    const Tensor sample = guided ? at::cat({x, x}) : x;
    const Tensor at_time = at::full({sample.size(0)}, time, x.options());
    const Inputs inputs{
        .sample = sample, .time = at_time, .text = conditions.text, .added = conditions.added};
    const Tensor said = denoiser(inputs, call, calls).to(x.scalar_type());
    if (!guided) return said;
    const std::vector<Tensor> halves = said.chunk(2);
    return halves[0] + guidance * (halves[1] - halves[0]);
  }
};

}  // namespace

std::unique_ptr<Denoiser> plain(const Model& model) {
  return std::make_unique<Plain>(model);
}

Conditions stacked(const std::vector<Conditions>& conditions) {
  if (conditions.empty()) fail("there are no conditions to put together");
  std::vector<Tensor> texts;
  for (const Conditions& one : conditions) texts.push_back(one.text);
  Conditions all{.text = at::cat(texts)};
  for (const auto& [name, first] : conditions.front().added) {
    std::vector<Tensor> parts;
    for (const Conditions& one : conditions) parts.push_back(one.added.at(name));
    all.added[name] = at::cat(parts);
  }
  return all;
}

Tensor sample(Denoiser& denoiser, const Json& scheduler_config, const Conditions& conditional,
              const Conditions& unconditional, const SampleOptions& options) {
  const InferenceMode guard;
  check(conditional, unconditional, options);
  const std::string what = "scheduler_config.json";
  const auto way = solver(scheduler_config, options.solver, options.steps, what);
  const NoiseSchedule schedule = noise_schedule(scheduler_config, what);
  const size_t begin = first_call(*way, options), end = way->times().size();
  const auto calls = static_cast<int64_t>(end - begin);
  const Conditions both = options.guidance > 1 ? stacked({unconditional, conditional}) : conditional;
  const Asked asked{denoiser, both, options.guidance};
  Tensor x = options.start.defined() ? way->noised(options.start, options.noise, begin)
                                     : options.noise * way->first_scale();
  for (size_t i = begin; i < end; ++i) {
    if (options.watch.stop.stop_requested()) throw Stopped{};
    const auto call = static_cast<int64_t>(i - begin);
    options.watch.report({"draw", static_cast<double>(call), static_cast<double>(calls), ""});
    const Tensor read = way->input(x, i), said = asked(read, way->times()[i], call, calls);
    if (options.preview) {
      const Tensor time =
          at::full({x.size(0)}, std::nearbyint(way->times()[i]), at::TensorOptions(at::kDouble));
      options.preview(call, calls, schedule.clean(read, said, time));
    }
    x = way->step(x, said, i, way->draws() ? fresh_noise(x, options.seed, i) : Tensor());
  }
  options.watch.report({"draw", static_cast<double>(calls), static_cast<double>(calls), ""});
  if (!at::isfinite(x).all().item<bool>())
    fail("the latents are no longer numbers after {} calls; take float32, more steps, or another solver",
         calls);
  return x;
}

Tensor starting_noise(int64_t count, at::IntArrayRef sizes, uint64_t seed) {
  std::vector<Tensor> rows;
  for (int64_t row = 0; row < count; ++row)
    rows.push_back(random_normal(sizes, seed + static_cast<uint64_t>(row)));
  if (rows.empty()) fail("noise is made for at least one picture");
  return at::stack(rows);
}

Tensor pixels_of(const Picture& picture) {
  const Picture opaque = flat(picture);
  const Tensor bytes =
      at::from_blob(const_cast<uint8_t*>(opaque.pixels.data()),  // read alone
                    {opaque.height, opaque.width, opaque.channels}, at::TensorOptions(at::kByte));
  const Tensor values = bytes.to(at::kFloat).permute({2, 0, 1}).unsqueeze(0) / 127.5 - 1;
  return opaque.channels == 1 ? values.repeat({1, 3, 1, 1}) : values.contiguous();
}

std::vector<Picture> pictures_of(const Tensor& pixels) {
  if (pixels.dim() != 4 || pixels.size(1) != 3) fail("pictures are made of pixels [batch, 3, height, width]");
  // As diffusers rounds: from [-1, 1] to [0, 1] first, then to the nearest, halves to the even number.
  const Tensor shares = (pixels.to(at::kCPU).to(at::kFloat) * 0.5 + 0.5).clamp(0, 1);
  const Tensor bytes = (shares * 255).round().to(at::kByte).permute({0, 2, 3, 1}).contiguous();
  std::vector<Picture> pictures;
  for (int64_t i = 0; i < bytes.size(0); ++i) {
    Picture picture = blank(bytes.size(2), bytes.size(1));
    const Tensor one = bytes[i];
    std::copy_n(one.const_data_ptr<uint8_t>(), one.numel(), picture.pixels.data());
    pictures.push_back(std::move(picture));
  }
  return pictures;
}

}  // namespace lamina
