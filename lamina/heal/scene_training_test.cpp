// Data and objectives of networks on generated scenes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lamina/base/error.h"
#include "lamina/heal/from_config.h"
#include "lamina/heal/scene_batches.h"
#include "lamina/heal/scene_objectives.h"
#include "lamina/heal/scene_tokens.h"
#include "lamina/models/registry.h"

namespace lamina {
namespace {

Json small_autoencoder() {
  return {{"_class_name", "AutoencoderTiny"},
          {"encoder_block_out_channels", {4, 4}},
          {"decoder_block_out_channels", {4, 4}},
          {"num_encoder_blocks", {0, 1}},
          {"num_decoder_blocks", {1, 1}},
          {"latent_channels", 4},
          {"scaling_factor", 2.0}};
}

std::unique_ptr<vae::Autoencoder> autoencoder() {
  const Opened opened = from_config(small_autoencoder(), "vae", {.seed = 1});
  return vae::build_autoencoder(opened.checkpoint, opened.blueprint, Weights(opened.checkpoint, {}));
}

NoiseSchedule schedule() {
  return noise_schedule({{"beta_schedule", "scaled_linear"},
                         {"beta_start", 0.00085},
                         {"beta_end", 0.012},
                         {"num_train_timesteps", 1000}},
                        "schedule");
}

void expect_same_whatever_the_batch(const Batches& batches) {
  const Batch whole = batches.at(5, 4);
  for (int64_t i = 0; i < 4; ++i) {
    const Batch one = batches.at(5 + i, 1);
    EXPECT_TRUE(at::allclose(one.inputs.sample[0], whole.inputs.sample[i], 1e-5, 1e-5));
    EXPECT_TRUE(at::allclose(one.targets[0], whole.targets[i], 1e-5, 1e-5));
    if (whole.inputs.ids.defined()) {
      EXPECT_TRUE(at::equal(one.inputs.ids[0], whole.inputs.ids[i]));
    }
    if (whole.inputs.time.defined()) {
      EXPECT_TRUE(at::equal(one.inputs.time[0], whole.inputs.time[i]));
    }
  }
}

TEST(SceneTokens, AWordIsAToken) {
  const Tokenizer tokenizer = scene_tokenizer();
  const auto tokens = scene_tokens();
  const Tensor rows = (*tokens)({"a small red ring on sand", ""});
  EXPECT_EQ(rows.sizes(), (at::IntArrayRef{2, kSceneTokens}));
  EXPECT_EQ(rows[0][0].item<int64_t>(), *tokenizer.bos());
  EXPECT_EQ(rows[0][7].item<int64_t>(), *tokenizer.eos());
  EXPECT_EQ(rows[1][1].item<int64_t>(), *tokenizer.eos());
  EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{static_cast<int32_t>(rows[0][3].item<int64_t>())}), "red");
  EXPECT_EQ(tokenizer.size(), static_cast<int32_t>(scene::vocabulary().size()) + 3);
  for (uint64_t index = 0; index < 500; ++index)
    EXPECT_NO_THROW((*tokens)({scene::caption(scene::scene_at(index, {}))}));
}

TEST(SceneBatches, AreFunctionsOfThePosition) {
  const auto coder = autoencoder();
  const auto tokens = scene_tokens();
  expect_same_whatever_the_batch(*picture_batches({.side = 16}));
  expect_same_whatever_the_batch(*scorer_batches({.side = 16}, 3));
  expect_same_whatever_the_batch(
      *denoiser_batches({.scenes = {.side = 16}, .seed = 2}, *coder, *tokens, schedule()));
}

TEST(SceneBatches, ADenoiserReadsWhatTheScheduleMakes) {
  const auto coder = autoencoder();
  const auto tokens = scene_tokens();
  const auto batches =
      denoiser_batches({.scenes = {.side = 16}, .seed = 2, .dropped = 0.5}, *coder, *tokens, schedule());
  const Batch batch = batches->at(0, 200);
  const Tensor clean = coder->encode(scene_pixels({.side = 16}, 0, 200));
  EXPECT_TRUE(at::allclose(schedule().noised(clean, batch.targets, batch.inputs.time), batch.inputs.sample,
                           1e-4, 1e-5));
  // Times are spread evenly: every tenth of the schedule has its tenth of them.
  for (int64_t tenth = 0; tenth < 10; ++tenth) {
    const Tensor in = batch.inputs.time.ge(100.0 * tenth) & batch.inputs.time.lt(100.0 * (tenth + 1));
    EXPECT_NEAR(in.sum().item<double>(), 20, 2);
  }
  const double dropped = batch.inputs.ids.select(1, 1).eq(*scene_tokenizer().eos()).sum().item<double>();
  EXPECT_NEAR(dropped, 100, 30);
}

TEST(SceneBatches, DigestsTellDataApart) {
  const auto coder = autoencoder();
  const auto tokens = scene_tokens();
  const auto digest = [&](DenoiserData data) {
    return denoiser_batches(data, *coder, *tokens, schedule())->digest();
  };
  EXPECT_EQ(digest({.seed = 1}), digest({.seed = 1}));
  EXPECT_NE(digest({.seed = 1}), digest({.seed = 2}));
  EXPECT_NE(digest({.dropped = 0.2}), digest({.dropped = 0.1}));
  EXPECT_NE(picture_batches({.seed = 1})->digest(), picture_batches({.seed = 2})->digest());
  EXPECT_THROW(digest({.dropped = 1}), Error);
}

TEST(WeightedDenoising, RefusesWhatCannotBeMeant) {
  EXPECT_THROW(weighted_denoising(nullptr, schedule(), {.floor = 6, .cap = 5}), Error);
  EXPECT_THROW(weighted_denoising(nullptr, schedule(), {.floor = -1, .cap = 5}), Error);
  NoiseSchedule velocity = schedule();
  velocity.prediction = Prediction::v;
  EXPECT_THROW(weighted_denoising(nullptr, velocity, {}), Error);
}

TEST(NoisyReconstruction, WithoutNoiseIsTheSquaredError) {
  const auto coder = autoencoder();
  const auto batches = picture_batches({.side = 16});
  const Batch batch = batches->at(0, 3);
  Tap none;
  const auto loss =
      (*noisy_reconstruction({.noise = 0, .square = 0}))({.model = *coder, .batch = batch, .tap = none});
  const double expected =
      (coder->decode(coder->encode(batch.targets)) - batch.targets).square().sum().item<double>();
  EXPECT_NEAR(loss.measure, expected, 1e-4 * expected);
  EXPECT_NEAR(loss.sum.item<double>(), expected, 1e-4 * expected);
  const auto noisy = (*noisy_reconstruction({}))({.model = *coder, .batch = batch, .tap = none});
  EXPECT_NE(noisy.measure, loss.measure);
}

}  // namespace
}  // namespace lamina
