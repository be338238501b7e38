#include "lamina/family/unet_names.h"

#include <charconv>

#include "lamina/base/error.h"
#include "lamina/base/text.h"

namespace lamina::unet {

namespace {

constexpr std::pair<std::string_view, std::string_view> kEnds[] = {
    {"conv_in", "input_blocks.0.0"},
    {"time_embedding.linear_1", "time_embed.0"},
    {"time_embedding.linear_2", "time_embed.2"},
    {"add_embedding.linear_1", "label_emb.0.0"},
    {"add_embedding.linear_2", "label_emb.0.2"},
    {"conv_norm_out", "out.0"},
    {"conv_out", "out.2"}};
constexpr std::pair<std::string_view, std::string_view> kInResnet[] = {
    {"norm1", "in_layers.0"},  {"conv1", "in_layers.2"},  {"time_emb_proj", "emb_layers.1"},
    {"norm2", "out_layers.0"}, {"conv2", "out_layers.3"}, {"conv_shortcut", "skip_connection"}};

bool is_under(std::string_view name, std::string_view module) {
  return name.starts_with(module) && (name.size() == module.size() || name[module.size()] == '.');
}

// "3.rest": takes the number and the dot off.
size_t number(std::string_view& text, std::string_view name) {
  size_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc()) fail("{} is no module of a U-Net", in_quotes(name));
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  if (text.starts_with('.')) text.remove_prefix(1);
  return value;
}

std::string in_resnet(std::string_view rest) {
  for (const auto& [ours, theirs] : kInResnet) {
    if (is_under(rest, ours)) return std::string(theirs) + std::string(rest.substr(ours.size()));
  }
  return std::string(rest);
}

std::string joined(std::string front, const std::string& rest) {
  return rest.empty() ? front : front + "." + rest;
}

// Of a layer in a list of blocks: the ResNet is module 0, the transformer 1.
std::string in_block(std::string_view list, int64_t block, std::string_view kind, std::string_view rest) {
  return kind == "resnets" ? joined(fmt::format("{}.{}.0", list, block), in_resnet(rest))
                           : joined(fmt::format("{}.{}.1", list, block), std::string(rest));
}

// What follows a sampler's convolution.
std::string_view after(std::string_view rest, std::string_view sampler, std::string_view name) {
  if (!is_under(rest, sampler)) fail("{} is no module of a U-Net", in_quotes(name));
  return rest.substr(sampler.size());
}

std::string down_name(std::string_view rest, std::string_view name, const Config& c) {
  const size_t stage = number(rest, name);
  if (stage >= c.channels.size()) fail("{} is no module of this U-Net", in_quotes(name));
  int64_t block = 1;
  for (size_t i = 0; i < stage; ++i) block += c.layers[i] + 1;
  const std::string_view kind = rest.substr(0, rest.find('.'));
  if (kind == "downsamplers")
    return fmt::format("input_blocks.{}.0.op{}", block + c.layers[stage],
                       after(rest, "downsamplers.0.conv", name));
  rest.remove_prefix(std::min(rest.size(), kind.size() + 1));
  const size_t layer = number(rest, name);
  return in_block("input_blocks", block + static_cast<int64_t>(layer), kind, rest);
}

std::string up_name(std::string_view rest, std::string_view name, const Config& c) {
  const size_t turned = number(rest, name), stages = c.channels.size();
  if (turned >= stages) fail("{} is no module of this U-Net", in_quotes(name));
  int64_t block = 0;
  for (size_t i = 0; i < turned; ++i) block += c.layers[stages - 1 - i] + 1;
  const std::string_view kind = rest.substr(0, rest.find('.'));
  if (kind == "upsamplers")
    return fmt::format("output_blocks.{}.{}.conv{}", block + c.layers[stages - 1 - turned],
                       c.up_attends[turned] ? 2 : 1, after(rest, "upsamplers.0.conv", name));
  rest.remove_prefix(std::min(rest.size(), kind.size() + 1));
  const size_t layer = number(rest, name);
  return in_block("output_blocks", block + static_cast<int64_t>(layer), kind, rest);
}

std::string mid_name(std::string_view rest, std::string_view name, const Config& c) {
  const std::string_view kind = rest.substr(0, rest.find('.'));
  rest.remove_prefix(std::min(rest.size(), kind.size() + 1));
  const size_t at = number(rest, name);
  if (kind != "resnets") return joined("middle_block.1", std::string(rest));
  const int place = at == 0 ? 0 : c.mid == Mid::attention ? 2 : 1;
  return joined(fmt::format("middle_block.{}", place), in_resnet(rest));
}

}  // namespace

std::string original_name(std::string_view name, const Config& config) {
  for (const auto& [ours, theirs] : kEnds) {
    if (is_under(name, ours)) return std::string(theirs) + std::string(name.substr(ours.size()));
  }
  for (const auto& [front, translate] : {std::pair{std::string_view("down_blocks."), &down_name},
                                         std::pair{std::string_view("up_blocks."), &up_name},
                                         std::pair{std::string_view("mid_block."), &mid_name}}) {
    if (name.starts_with(front)) return translate(name.substr(front.size()), name, config);
  }
  fail("{} is no module of a U-Net", in_quotes(name));
}

}  // namespace lamina::unet
