#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "lamina/diffusion/pipeline.h"
#include "tests/help.h"

namespace lamina {
namespace {

using ::testing::HasSubstr;
using tests::refusal;

const Json kScheduler = {{"_class_name", "EulerDiscreteScheduler"}, {"beta_schedule", "scaled_linear"}};

// Says half of what it reads, and the mean of the text for each row: what guidance multiplies.
class Line : public Denoiser {
 public:
  Tensor operator()(const Inputs& inputs, int64_t call, int64_t calls) override {
    EXPECT_EQ(inputs.sample.size(0), inputs.text.size(0));
    EXPECT_EQ(inputs.time.size(0), inputs.text.size(0));
    EXPECT_EQ(call, seen++);
    last = calls;
    return inputs.sample * 0.5 + inputs.text.mean({1, 2}).reshape({-1, 1, 1, 1});
  }
  int64_t seen = 0, last = 0;
};

Conditions text(int64_t batch, double value) {
  return {.text = at::full({batch, 3, 4}, value, at::TensorOptions(at::kFloat))};
}

Tensor run(const SampleOptions& options, double unconditional = 0) {
  Line line;
  const int64_t batch = options.noise.size(0);
  return sample(line, kScheduler, text(batch, 0.1), text(batch, unconditional), options);
}

TEST(Sampling, GuidanceGoesAwayFromTheEmptyPrompt) {
  const Tensor noise = starting_noise(2, {4, 3, 5}, 7);
  const Tensor twice = run({.steps = 5, .guidance = 2, .noise = noise});
  EXPECT_TRUE(at::allclose(twice, run({.steps = 5, .guidance = 4, .noise = noise}, 0.2 / 3)));
  EXPECT_TRUE(at::allclose(run({.steps = 5, .guidance = 3, .noise = noise}, 0.1),
                           run({.steps = 5, .guidance = 1, .noise = noise})));
}

TEST(Sampling, RowsAreThoseOfTheirOwnSeeds) {
  const Tensor three = starting_noise(3, {4, 2, 2}, 10);
  EXPECT_TRUE(at::equal(three.slice(0, 2, 3), starting_noise(1, {4, 2, 2}, 12)));
  for (const char* solver : {"ddpm", "dpm++"}) {
    const Tensor all = run({.steps = 4, .solver = solver, .noise = three, .seed = 10});
    const Tensor last = run({.steps = 4, .solver = solver, .noise = three.slice(0, 2, 3), .seed = 12});
    EXPECT_TRUE(at::allclose(all.slice(0, 2, 3), last)) << solver;
  }
}

TEST(Sampling, APictureIsBegunFromHalfWay) {
  Line line;
  const Tensor noise = starting_noise(1, {4, 2, 2}, 1), start = at::full_like(noise, 0.3);
  SampleOptions options{.steps = 10, .noise = noise, .start = start, .strength = 0.4};
  sample(line, kScheduler, text(1, 0), text(1, 0), options);
  EXPECT_EQ(line.last, 4);
  Line again;
  options.solver = "pndm";
  Json config = kScheduler;
  config["skip_prk_steps"] = true;
  sample(again, config, text(1, 0), text(1, 0), options);
  EXPECT_EQ(again.last, 4);
  options.solver = "";
  options.strength = 0.01;
  EXPECT_THAT(refusal([&] { run(options); }), HasSubstr("leaves none of 10 steps"));
  options.strength = 1.5;
  EXPECT_THAT(refusal([&] { run(options); }), HasSubstr("up to 1"));
}

TEST(Sampling, PreviewsAreOfCleanLatents) {
  std::vector<int64_t> calls;
  run({.steps = 3,
       .noise = starting_noise(1, {4, 2, 2}, 1),
       .preview = [&](int64_t call, int64_t of, const Tensor& x) {
         EXPECT_EQ(of, 3);
         EXPECT_EQ(x.dim(), 4);
         calls.push_back(call);
       }});
  EXPECT_THAT(calls, ::testing::ElementsAre(0, 1, 2));
}

TEST(Sampling, NumbersThatAreNoneAreSaid) {
  class Broken : public Denoiser {
   public:
    Tensor operator()(const Inputs& inputs, int64_t, int64_t) override { return inputs.sample * NAN; }
  } broken;
  const Tensor noise = starting_noise(1, {4, 2, 2}, 1);
  EXPECT_THAT(
      refusal([&] { sample(broken, kScheduler, text(1, 0), text(1, 0), {.steps = 2, .noise = noise}); }),
      HasSubstr("no longer numbers"));
}

TEST(Pixels, GoToPicturesAndBack) {
  Picture picture = blank(3, 2);
  for (size_t i = 0; i < picture.pixels.size(); ++i) picture.pixels[i] = static_cast<uint8_t>(i * 14);
  const Tensor pixels = pixels_of(picture);
  EXPECT_EQ(pixels.sizes(), (at::IntArrayRef{1, 3, 2, 3}));
  EXPECT_EQ(pictures_of(pixels).at(0).pixels, picture.pixels);
  EXPECT_EQ(pictures_of(at::full({1, 3, 1, 1}, 7.0)).at(0).pixels[0], 255);
  EXPECT_EQ(pixels_of(blank(4, 4, 1, 255)).min().item<float>(), 1);
}

}  // namespace
}  // namespace lamina
