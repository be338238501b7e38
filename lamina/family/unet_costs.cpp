// What a U-Net's parts weigh and cost, and the published configs.
#include <algorithm>
#include <cmath>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/family/unet.h"

namespace lamina::unet {

namespace {

struct Grid {  // a map at the level of the step
  double height = 0, width = 0;
  double positions = 0;
};

// The size of a map after it was halved `level` times by convolutions of stride 2.
Grid grid_at(const Shape2d& shape, int level) {
  int64_t height = shape.height, width = shape.width;
  for (int i = 0; i < level; ++i) height = (height + 1) / 2, width = (width + 1) / 2;
  const auto tall = static_cast<double>(height), wide = static_cast<double>(width);
  return {tall, wide, tall * wide};
}

double real(int64_t n) {
  return static_cast<double>(n);
}

// Products of queries with keys and of weights with values where a map is seen through windows and cells.
double windowed(const Windows& windows, const Grid& map, double channels) {
  const double side = real(windows.window), pool = real(windows.pool);
  const double cells = pool == 0 ? 0 : std::ceil(map.height / pool) * std::ceil(map.width / pool);
  const double keys = std::min(side, map.height) * std::min(side, map.width) + cells;
  const double among = windows.mix == Windows::Mix::pooled ? 2 * cells * cells * channels : 0;
  return 2 * map.positions * keys * channels + among;
}

Macs block_macs(const Op& op, const Grid& map, double text, const Part* part) {
  const double tokens = map.positions;
  const double c = real(op.in), keys = op.only_cross ? text : tokens,
               keys_width = op.only_cross ? real(op.context) : c;
  Macs macs;
  macs.weights = 2 * tokens * c * c + 2 * keys * keys_width * c;         // attn1: q, out; k, v
  macs.weights += 2 * tokens * c * c + 2 * text * real(op.context) * c;  // attn2
  macs.weights += 12 * tokens * c * c;                                   // 8 c^2 in, 4 c^2 out
  macs.attention = part && part->windows ? windowed(*part->windows, map, c) : 2 * tokens * keys * c;
  macs.attention += 2 * tokens * text * c;
  return macs;
}

// One step, its part being present or not.
Macs op_macs(const Op& op, const Config& config, const Blueprint& blueprint, const Shape2d& shape,
             bool present) {
  const Part* part = op.part < 0 ? nullptr : &blueprint.parts[static_cast<size_t>(op.part)];
  const Grid map = grid_at(shape, op.level);
  const double here = map.positions, in = real(op.in), out = real(op.out), text = real(shape.text_tokens);
  Macs macs;
  switch (op.kind) {
    case Op::Kind::resnet:
      if (present) macs.weights += 9 * here * (in * out + out * out) + real(config.time_width) * out;
      if (op.in != op.out) macs.weights += here * in * out;
      if (!present) break;
      for (const Experts& experts : part->experts)  // kernels are mixed once for every sample
        macs.weights += 9 * out * real(experts.gates()) * (experts.conv.ends_with(".conv1") ? in : out);
      break;
    case Op::Kind::transformer:
      if (!present) break;
      if (op.depth == 1) macs = block_macs(op, map, text, part);
      macs.weights += 2 * here * in * in;
      break;
    case Op::Kind::block:
      if (present) macs = block_macs(op, map, text, part);
      break;
    case Op::Kind::enter:
    case Op::Kind::leave:
      if (present) macs.weights += here * in * in;
      break;
    case Op::Kind::down:
      macs.weights += 9 * grid_at(shape, op.level + 1).positions * in * out;
      break;
    case Op::Kind::up:
      macs.weights += 9 * grid_at(shape, op.level - 1).positions * in * out;
      break;
    case Op::Kind::keep:
    case Op::Kind::take:
    case Op::Kind::stage_end:
      break;
  }
  return macs;
}

Macs operator+(const Macs& a, const Macs& b) {
  return {a.weights + b.weights, a.attention + b.attention};
}

int64_t elements(const Slot& slot) {
  int64_t count = 1;
  for (const Axis& axis : slot.axes) count *= axis.size();
  return count;
}

}  // namespace

std::vector<Macs> macs_by_part(const Config& config, const Blueprint& blueprint, const Shape2d& shape) {
  std::vector<Macs> macs(blueprint.parts.size());
  for (const Op& op : program(config)) {
    if (op.part >= 0) {
      const Macs gone = op_macs(op, config, blueprint, shape, false),
                 there = op_macs(op, config, blueprint, shape, true);
      macs[static_cast<size_t>(op.part)] =
          macs[static_cast<size_t>(op.part)] +
          Macs{there.weights - gone.weights, there.attention - gone.attention};
    } else if (op.wrapper >= 0) {
      const std::vector<int>& inside = blueprint.wrappers[static_cast<size_t>(op.wrapper)].parts;
      const auto first = std::ranges::find_if(
          inside, [&](int part) { return blueprint.parts[static_cast<size_t>(part)].present; });
      if (first == inside.end()) continue;
      Macs& own = macs[static_cast<size_t>(*first)];
      own = own + op_macs(op, config, blueprint, shape, true);
    }
  }
  return macs;
}

Macs macs(const Config& config, const Blueprint& blueprint, const Shape2d& shape) {
  const double all = real(shape.height) * real(shape.width), time = real(config.time_width);
  const double ends = real(config.conv_in_kernel * config.conv_in_kernel * config.in_channels) +
                      real(config.conv_out_kernel * config.conv_out_kernel * config.out_channels);
  Macs sum{.weights = all * real(config.channels[0]) * ends + time * (real(config.channels[0]) + time)};
  if (config.added_time_width > 0) sum.weights += time * (real(config.added_width) + time);
  for (const Op& op : program(config))
    sum = sum + op_macs(op, config, blueprint, shape, present(op, blueprint));
  return sum;
}

int64_t parameters_saved(const Blueprint& blueprint, const std::vector<Site>& removed) {
  std::vector<bool> left(blueprint.parts.size());
  for (size_t i = 0; i < left.size(); ++i) left[i] = blueprint.parts[i].present;
  for (Site site : removed) left[static_cast<size_t>(site.index)] = false;
  std::vector<bool> kept_wrapper;
  for (const Wrapper& wrapper : blueprint.wrappers)
    kept_wrapper.push_back(
        std::ranges::any_of(wrapper.parts, [&](int part) { return left[static_cast<size_t>(part)]; }));
  int64_t saved = 0;
  for (const Slot& slot : blueprint.slots) {
    const bool stays = slot.part >= 0      ? left[static_cast<size_t>(slot.part)]
                       : slot.wrapper >= 0 ? kept_wrapper[static_cast<size_t>(slot.wrapper)]
                                           : true;
    if (!stays) saved += elements(slot);
  }
  return saved;
}

namespace {

Json sd15() {
  return {
      {"_class_name", "UNet2DConditionModel"},
      {"act_fn", "silu"},
      {"attention_head_dim", 8},
      {"block_out_channels", {320, 640, 1280, 1280}},
      {"center_input_sample", false},
      {"cross_attention_dim", 768},
      {"down_block_types",
       {"CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"}},
      {"downsample_padding", 1},
      {"flip_sin_to_cos", true},
      {"freq_shift", 0},
      {"in_channels", 4},
      {"layers_per_block", 2},
      {"mid_block_scale_factor", 1},
      {"norm_eps", 1e-5},
      {"norm_num_groups", 32},
      {"out_channels", 4},
      {"sample_size", 64},
      {"up_block_types", {"UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"}}};
}

Json sdxl() {
  Json config = sd15();
  config["addition_embed_type"] = "text_time";
  config["addition_time_embed_dim"] = 256;
  config["attention_head_dim"] = {5, 10, 20};
  config["block_out_channels"] = {320, 640, 1280};
  config["cross_attention_dim"] = 2048;
  config["down_block_types"] = {"DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"};
  config["mid_block_type"] = "UNetMidBlock2DCrossAttn";
  config["projection_class_embeddings_input_dim"] = 2816;
  config["sample_size"] = 128;
  config["transformer_layers_per_block"] = {1, 2, 10};
  config["up_block_types"] = {"CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"};
  config["use_linear_projection"] = true;
  return config;
}

struct Published {
  std::string_view name;
  Json (*config)();
};

constexpr Published kPublished[] = {
    {"sd1.5", sd15},
    {"sd2.1",
     [] {
       Json c = sd15();
       c["attention_head_dim"] = {5, 10, 20, 20};
       c["cross_attention_dim"] = 1024;
       c["use_linear_projection"] = true;
       return c;
     }},
    {"sdxl", sdxl},
    {"bk-base",
     [] {
       Json c = sd15();
       c["layers_per_block"] = 1;
       return c;
     }},
    {"bk-small",
     [] {
       Json c = sd15();
       c["layers_per_block"] = 1;
       c["mid_block_type"] = nullptr;
       return c;
     }},
    {"bk-tiny",
     [] {
       Json c = sd15();
       c["block_out_channels"] = {320, 640, 1280};
       c["down_block_types"] = {"CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"};
       c["layers_per_block"] = 1;
       c["mid_block_type"] = nullptr;
       c["up_block_types"] = {"CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"};
       return c;
     }},
    {"ssd-1b",
     [] {
       Json c = sdxl();
       c["mid_block_type"] = "UNetMidBlock2D";
       c["transformer_layers_per_block"] = {1, 2, 4};
       c["reverse_transformer_layers_per_block"] = {Json{4, 4, 10}, Json{2, 1, 1}, 1};
       return c;
     }},
    {"vega",
     [] {
       Json c = sdxl();
       c["mid_block_type"] = "UNetMidBlock2D";
       c["transformer_layers_per_block"] = {1, 1, 2};
       return c;
     }},
    {"koala-1b",
     [] {
       Json c = sdxl();
       c["layers_per_block"] = 1;
       c["transformer_layers_per_block"] = {1, 2, 6};
       return c;
     }},
    {"koala-700m",
     [] {
       Json c = sdxl();
       c["layers_per_block"] = 1;
       c["mid_block_type"] = nullptr;
       c["transformer_layers_per_block"] = {1, 2, 5};
       return c;
     }},
};

}  // namespace

std::vector<std::string> published_names() {
  std::vector<std::string> names;
  for (const Published& entry : kPublished) names.emplace_back(entry.name);
  return names;
}

Json published_config(std::string_view name) {
  for (const Published& entry : kPublished) {
    if (entry.name == name) return entry.config();
  }
  fail("{} is no layout known here; {} are", in_quotes(name), fmt::join(published_names(), ", "));
}

}  // namespace lamina::unet
