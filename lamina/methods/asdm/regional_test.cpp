#include "lamina/methods/asdm/regional.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>

#include "lamina/methods/asdm/asdm_test.h"
#include "lamina/nn/attention.h"

namespace lamina::asdm {
namespace {

using testing::HasSubstr;

struct Map {
  int64_t height = 8, width = 12, heads = 2, d = 4, batch = 2;
  Tensor random(uint64_t seed) const {
    return random_normal({batch, height * width, heads * d}, seed).to(at::kDouble);
  }
  // The same number over every cell of `side` tokens a side.
  Tensor constant(int64_t side, uint64_t seed) const {
    const int64_t down = (height + side - 1) / side, across = (width + side - 1) / side;
    return random_normal({batch, down, across, heads * d}, seed)
        .to(at::kDouble)
        .repeat_interleave(side, 1)
        .repeat_interleave(side, 2)
        .narrow(1, 0, height)
        .narrow(2, 0, width)
        .reshape({batch, height * width, heads * d});
  }
  Tensor full(const Tensor& q, const Tensor& k, const Tensor& v) const {
    return from_heads(attend(to_heads(q, d), to_heads(k, d), to_heads(v, d), {.causal = false}));
  }
  Tensor regional(const Tensor& q, const Tensor& k, const Tensor& v, const RegionalOptions& options) const {
    return attend_regional(q, k, v, heads, height, width, options);
  }
};

// Key by key, as the header says it.
Tensor by_hand(const Map& map, const Tensor& q, const Tensor& k, const Tensor& v,
               const RegionalOptions& options) {
  Tensor y = at::zeros_like(q);
  const int64_t w = options.window, g = options.pool;
  for (int64_t b = 0; b < map.batch; ++b) {
    for (int64_t h = 0; h < map.heads; ++h) {
      const auto row = [&](const Tensor& x, int64_t i) { return x[b][i].narrow(0, h * map.d, map.d); };
      for (int64_t i = 0; i < map.height * map.width; ++i) {
        const int64_t window_y = i / map.width / w, window_x = i % map.width / w;
        std::vector<Tensor> keys, values;
        std::vector<double> bias;
        for (int64_t j = 0; j < map.height * map.width; ++j) {
          if (j / map.width / w != window_y || j % map.width / w != window_x) continue;
          keys.push_back(row(k, j)), values.push_back(row(v, j)), bias.push_back(0);
        }
        for (int64_t cy = 0; g > 0 && cy * g < map.height; ++cy) {
          for (int64_t cx = 0; cx * g < map.width; ++cx) {
            if (options.mask_own && cy * g / w == window_y && cx * g / w == window_x) continue;
            Tensor key = at::zeros({map.d}, q.options()), value = key.clone();
            int64_t count = 0;
            for (int64_t y0 = cy * g; y0 < std::min(cy * g + g, map.height); ++y0) {
              for (int64_t x0 = cx * g; x0 < std::min(cx * g + g, map.width); ++x0) {
                key += row(k, y0 * map.width + x0), value += row(v, y0 * map.width + x0), ++count;
              }
            }
            keys.push_back(key / count), values.push_back(value / count);
            bias.push_back(options.log_count ? std::log(static_cast<double>(count)) : 0);
          }
        }
        const Tensor scores = at::stack(keys).matmul(row(q, i)) / std::sqrt(static_cast<double>(map.d)) +
                              at::tensor(bias, at::kDouble);
        y[b][i].narrow(0, h * map.d, map.d).copy_(scores.softmax(0).matmul(at::stack(values)));
      }
    }
  }
  return y;
}

TEST(Regional, OneWindowOverTheWholeMapIsFullAttentionToTheBit) {
  const Map map;
  const Tensor q = map.random(1), k = map.random(2), v = map.random(3);
  const Tensor gate = random_normal({2}, 4).to(at::kDouble);
  for (const RegionalOptions& options :
       {RegionalOptions{.window = 12, .pool = 0}, RegionalOptions{.window = 16, .pool = 4},
        RegionalOptions{.window = 12, .pool = 4, .gate = gate}})
    EXPECT_TRUE(at::equal(map.regional(q, k, v, options), map.full(q, k, v)));
}

// By windows, without the short way: what is cut, padded, masked and joined comes to the same.
TEST(Regional, TheWayOfWindowsComesToFullAttentionWhereThereIsOneWindow) {
  for (const Map& map : {Map{.height = 8, .width = 8, .batch = 1}, Map{.height = 11, .width = 5}}) {
    const Tensor q = map.random(1), k = map.random(2), v = map.random(3), full = map.full(q, k, v);
    const Tensor gate = random_normal({2}, 4).to(at::kDouble);
    for (const int64_t window : {8, 12}) {
      if (window < map.height || window < map.width) continue;
      const auto apart = [&](RegionalOptions options) {
        options.window = window;
        options.short_way = false;
        const Tensor y = map.regional(q, k, v, options);
        EXPECT_LT(tiny::greatest_difference(y, by_hand(map, q, k, v, options)), 1e-12);
        return tiny::greatest_difference(y, full);
      };
      EXPECT_LT(apart({.pool = 0}), 1e-12) << map.height << " x " << map.width << ", " << window;
      // All cells are of the own window: masked they are not seen, and else all tokens are seen twice.
      EXPECT_LT(apart({.pool = 4}), 1e-12) << map.height << " x " << map.width << ", " << window;
      EXPECT_LT(apart({.pool = 4, .log_count = false}), 1e-12);
      EXPECT_LT(apart({.pool = 4, .gate = gate}), 1e-12);
      EXPECT_GT(apart({.pool = 4, .mask_own = false}), 1e-3);
      EXPECT_GT(apart({.pool = 2, .mask_own = false}), 1e-3);
    }
  }
  const Map square{.height = 8, .width = 8};
  const Tensor q = square.random(4), k = square.random(5), v = square.random(6);
  const Tensor gate = at::full({2}, -1000.0, at::kDouble);  // cells have no share
  EXPECT_LT(tiny::greatest_difference(
                square.regional(q, k, v, {.window = 8, .pool = 4, .mask_own = false, .gate = gate}),
                square.full(q, k, v)),
            1e-12);
}

TEST(Regional, WhereCellsAreConstantItIsFullAttention) {
  for (const Map& map : {Map{}, Map{.height = 16, .width = 16}, Map{.height = 10, .width = 15},
                         Map{.height = 5, .width = 31}}) {
    for (const auto& [window, pool] : {std::pair{4, 2}, {8, 4}, {4, 4}, {6, 3}}) {
      const Tensor q = map.random(1), k = map.constant(pool, 2), v = map.constant(pool, 3);
      const Tensor full = map.full(q, k, v);
      EXPECT_LT(tiny::greatest_difference(map.regional(q, k, v, {.window = window, .pool = pool}), full),
                1e-12)
          << map.height << " x " << map.width << ", " << window << " " << pool;
      // Both are needed for it.
      EXPECT_GT(tiny::greatest_difference(
                    map.regional(q, k, v, {.window = window, .pool = pool, .log_count = false}), full),
                1e-3);
      EXPECT_GT(tiny::greatest_difference(
                    map.regional(q, k, v, {.window = window, .pool = pool, .mask_own = false}), full),
                1e-3);
    }
  }
}

TEST(Regional, ItIsWhatTheHeaderSays) {
  for (const Map& map : {Map{.height = 8, .width = 12, .batch = 1}, Map{.height = 7, .width = 10}}) {
    const Tensor q = map.random(1), k = map.random(2), v = map.random(3);
    for (const RegionalOptions& options :
         {RegionalOptions{.window = 4, .pool = 0}, RegionalOptions{.window = 4, .pool = 2},
          RegionalOptions{.window = 4, .pool = 2, .log_count = false},
          RegionalOptions{.window = 4, .pool = 2, .mask_own = false},
          RegionalOptions{.window = 6, .pool = 3}})
      EXPECT_LT(tiny::greatest_difference(map.regional(q, k, v, options), by_hand(map, q, k, v, options)),
                1e-12);
  }
}

TEST(Regional, CellsLookAtEachOther) {
  const Map map;
  const Tensor q = map.random(1), k = map.random(2), v = map.random(3);
  const RegionalOptions plain{.window = 4, .pool = 2};
  RegionalOptions mixed = plain;
  mixed.cells_look = true;
  EXPECT_GT(tiny::greatest_difference(map.regional(q, k, v, mixed), map.regional(q, k, v, plain)), 1e-3);
  // Where all values are one, whoever looks sees that one.
  const Tensor ones = at::ones_like(v);
  EXPECT_LT(tiny::greatest_difference(map.regional(q, k, ones, mixed), ones), 1e-12);
}

TEST(Regional, GatesSayWhichSoftmaxIsTaken) {
  const Map map;
  const Tensor q = map.random(1), k = map.random(2), v = map.random(3);
  const auto with = [&](double gate) {
    return map.regional(q, k, v, {.window = 4, .pool = 2, .gate = at::full({2}, gate, at::kDouble)});
  };
  EXPECT_LT(tiny::greatest_difference(with(-1000), map.regional(q, k, v, {.window = 4, .pool = 0})), 1e-12);
  EXPECT_LT(tiny::greatest_difference(with(0), (with(-1000) + with(1000)) / 2), 1e-12);
}

// Median of the milliseconds of `repeats` calls.
template <class Work>
double milliseconds(int repeats, const Work& work) {
  work();
  std::vector<double> times;
  for (int i = 0; i < repeats; ++i) {
    const auto start = std::chrono::steady_clock::now();
    work();
    times.push_back(
        std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
  }
  std::ranges::sort(times);
  return times[times.size() / 2];
}

// The largest maps of Stable Diffusion 1: 64 x 64 tokens of 320 channels, 8 heads, one thread. A measurement,
// run by name: --gtest_also_run_disabled_tests --gtest_filter='*AThird*'.
TEST(Regional, DISABLED_ItTakesAThirdOfTheTimeOfFullAttention) {
  const InferenceMode evaluating;
  const auto numbers = [](at::IntArrayRef sizes, uint64_t seed) { return random_normal(sizes, seed) * 0.05; };
  const Tensor x = numbers({1, 4096, 320}, 1);
  const Linear q{.weight = numbers({320, 320}, 2)}, k{.weight = numbers({320, 320}, 3)},
      v{.weight = numbers({320, 320}, 4)};
  const auto heads = [](const Tensor& y) { return to_heads(y, 40); };
  const auto full = [&] {
    return from_heads(attend(heads(q(x)), heads(k(x)), heads(v(x)), {.causal = false}));
  };
  const double projections = milliseconds(7, [&] { return q(x) + k(x) + v(x); });
  const double whole = milliseconds(7, full);
  std::printf("full: %.1f ms, of which %.1f to make queries, keys and values\n", whole, projections);
  for (const auto& [window, pool] : {std::pair{16, 4}, {8, 4}, {8, 8}, {16, 0}}) {
    const RegionalAttention regional({.window = window, .pool = pool});
    const double time = milliseconds(
        7, [&] { return regional({.x = x, .q = q, .k = k, .v = v, .heads = 8, .height = 64, .width = 64}); });
    std::printf("window %d, cells of %d: %.1f ms, %.3f of full attention\n", window, pool, time,
                time / whole);
    EXPECT_LT(time, 0.35 * whole);
  }
}

// In the U-Net: an edit, its preview, its config.
class RegionalUnet : public testing::Test {
 protected:
  tiny::Tiny whole_{unet_architecture(), {.config = four_stages()}};
  const Opened& opened() const { return whole_.opened; }
  Inputs inputs() const { return tiny::unet_inputs(opened().checkpoint.config, 3, {.width = 12}); }
  static Plan plan(Windows::Mix mix = Windows::Mix::none) {
    return {
        .edits = {
            Regional{.site = "down_blocks.0.attentions.0", .windows = {.window = 4, .pool = 2, .mix = mix}},
            Regional{.site = "up_blocks.3.attentions.1", .windows = {.window = 2, .pool = 1, .mix = mix}}}};
  }
};

TEST_F(RegionalUnet, ThePreviewIsWhatTheEditGives) {
  const InferenceMode evaluating;
  for (Windows::Mix mix : {Windows::Mix::none, Windows::Mix::pooled, Windows::Mix::gate}) {
    Plan both = plan(mix);
    both.edits.emplace_back(Cut{"down_blocks.1.attentions.0", std::nullopt});
    Preview preview(opened().blueprint, both);
    const Tensor previewed = whole_.model->run(inputs(), preview);
    const Opened made = edited(opened(), both);
    EXPECT_TRUE(at::equal(answer(made, inputs()), previewed));
    EXPECT_GT(tiny::greatest_difference(previewed, whole_.model->run(inputs())), 1e-6);
    EXPECT_EQ(made.checkpoint.config.at("_class_name"), "LaminaUNet2DConditionModel");
    EXPECT_EQ(to_json(plan_from_json(to_json(both), "plan")), to_json(both));
    // Written, read and taken back.
    tests::Folder folder;
    write_folder(made.checkpoint, folder.path(), {});
    EXPECT_TRUE(at::equal(answer(open(folder.path()), inputs()), previewed));
    const Opened gone = edited(made, tiny::cuts({"down_blocks.0.attentions.0", "up_blocks.3.attentions.1"}));
    EXPECT_FALSE(gone.checkpoint.config.contains("lamina_regional"));
  }
}

TEST_F(RegionalUnet, WindowsOverTheWholeMapChangeNothing) {
  Plan plan;
  for (const Part& part : opened().blueprint.parts) {
    if (part.map_heads > 0)
      plan.edits.emplace_back(Regional{.site = part.path, .windows = {.window = 12, .pool = 4}});
  }
  EXPECT_TRUE(at::equal(answer(edited(opened(), plan), inputs()), whole_.model->run(inputs())));
}

TEST_F(RegionalUnet, ItCostsWhatWindowsCost) {
  const Opened made = edited(
      opened(),
      {.edits = {Regional{.site = "down_blocks.0.attentions.0", .windows = {.window = 16, .pool = 4}}}});
  const unet::Config config = unet::read_config(opened().checkpoint.config, "test");
  const double before = unet::macs(config, opened().blueprint, {}).attention,
               after = unet::macs(config, made.blueprint, {}).attention;
  EXPECT_EQ(before - after, 2.0 * 4096 * (4096 - 512) * 8);
}

TEST_F(RegionalUnet, LargeMapsAreFound) {
  std::vector<std::string> sites;
  for (const Regional& edit : regional_at(*whole_.model, inputs(), {.window = 4, .pool = 2}, 8))
    sites.push_back(edit.site);
  EXPECT_THAT(sites, testing::ElementsAre("down_blocks.0.attentions.0", "down_blocks.0.attentions.1",
                                          "up_blocks.3.attentions.0", "up_blocks.3.attentions.1",
                                          "up_blocks.3.attentions.2"));
}

TEST_F(RegionalUnet, WhatCannotBeIsRefused) {
  const auto refused = [&](const Regional& edit) {
    return tests::refusal([&] { check_plan({.edits = {edit}}, opened().blueprint); });
  };
  EXPECT_THAT(refused({.site = "down_blocks.0.resnets.0"}), HasSubstr("no self-attention over a map"));
  EXPECT_THAT(refused({.site = "down_blocks.0.attentions.0", .windows = {.window = 6, .pool = 4}}),
              HasSubstr("not whole cells of 4"));
  Json config = opened().checkpoint.config;
  const auto read = [&](Json list) {
    config["lamina_regional"] = std::move(list);
    return tests::refusal([&] { unet::blueprint(config, "config.json"); });
  };
  EXPECT_THAT(read("all"), HasSubstr("where a list was expected"));
  EXPECT_THAT(read({{{"site", "down_blocks.3.attentions.0"}}}), HasSubstr("no part of this model"));
  EXPECT_THAT(read({{{"site", "down_blocks.0.attentions.0"}, {"size", 8}}}), HasSubstr("size"));
  EXPECT_THAT(read({{{"site", "down_blocks.0.attentions.0"}, {"mix", "half"}}}), HasSubstr("\"half\""));
}

}  // namespace
}  // namespace lamina::asdm
