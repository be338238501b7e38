// diffusers' AutoencoderKL and AutoencoderTiny as data: what a config says, and the steps in which a picture
// becomes latents and latents a picture. They have no parts: nothing of them is cut.
//
// The attention in the middle of an AutoencoderKL is spelled "to_q" or, in old files, "query"; its maps are
// matrices or convolutions of 1x1, as the file has them.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "lamina/family/family.h"

namespace lamina::vae {

struct KlConfig {
  int64_t in_channels = 3, out_channels = 3, latent_channels = 4;
  std::vector<int64_t> channels;  // of each stage, pixels first
  int64_t layers = 1;             // ResNets of a stage of the encoder; the decoder's have one more
  int64_t groups = 32;
  double scaling_factor = 0.18215, shift_factor = 0;
  std::vector<double> mean = {}, deviation = {};  // of each latent channel; empty: scaled alone
  bool quant_conv = true, post_quant_conv = true;
  bool attends = true;  // the middle has an attention
};
inline constexpr double kNormEpsilon = 1e-6;  // of all norms, whatever the config says

struct TinyConfig {
  int64_t in_channels = 3, out_channels = 3, latent_channels = 4;
  int64_t encoder_width = 64, decoder_width = 64;  // of every stage
  std::vector<int64_t> encoder_blocks, decoder_blocks;
  int64_t upscale = 2;  // pixels each step up makes of one
  double scaling_factor = 1, shift_factor = 0;
};

// Both throw Error that names the key, also for a value that would change results and is not known here.
KlConfig read_kl_config(const Json& config, std::string_view what);
TinyConfig read_tiny_config(const Json& config, std::string_view what);

// A stage of an AutoencoderKL: ResNets, the first of which changes the width, and a sampler but for the last.
struct Stage {
  std::string path;  // "encoder.down_blocks.1"
  int64_t in = 0, out = 0, resnets = 0;
  bool samples = false;
};
std::vector<Stage> encoder_stages(const KlConfig& config);
std::vector<Stage> decoder_stages(const KlConfig& config);

// How a file spells the attention's maps: query, key, value and output.
using Spelling = std::array<std::string_view, 4>;
inline constexpr Spelling kSpelling = {"to_q", "to_k", "to_v", "to_out.0"};
inline constexpr Spelling kOldSpelling = {"query", "key", "value", "proj_attn"};
// `side`: "encoder" or "decoder".
const Spelling& spelling_of(const Checkpoint& checkpoint, std::string_view side);

// A step of an AutoencoderTiny.
struct Layer {
  enum class Kind { conv, relu, block, up } kind = Kind::conv;
  std::string path = {};    // "encoder.layers.3"
  int64_t in = 0, out = 0;  // channels
  int64_t stride = 1;
  bool bias = true;
};
std::vector<Layer> encoder_layers(const TinyConfig& config);
std::vector<Layer> decoder_layers(const TinyConfig& config);

Architecture kl_declaration();
Architecture tiny_declaration();

}  // namespace lamina::vae
