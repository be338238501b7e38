// diffusers' UNet2DConditionModel as data: what a config says, the order in which a pass runs, what each step
// of it is made of and costs. Stable Diffusion 1, 2, XL, BK-SDM, SSD-1B, Vega and KOALA are configs of it.
//
// Parts that can go: every ResNet; every transformer of one block, as a whole; of transformers of several
// blocks every block, and the norm and projections around them go with the last one (Blueprint::wrappers). A
// ResNet that changes the number of channels leaves its 1x1 shortcut. Parts that are gone are listed under
// "lamina_removed".
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "lamina/family/family.h"

namespace lamina::unet {

inline constexpr std::string_view kRemoved = "lamina_removed";

enum class Mid { none, resnet, attention };

struct Config {
  int64_t in_channels = 4, out_channels = 4;
  int64_t sample_size = 0;         // latents of the size it was made for; 0: the config does not say
  std::vector<int64_t> channels;   // of each down stage, outermost first
  std::vector<bool> down_attends;  // CrossAttnDownBlock2D; else DownBlock2D
  std::vector<bool> up_attends;    // innermost first
  std::vector<int64_t> layers;     // of each down stage; an up stage has one more
  std::vector<std::vector<int64_t>> down_depths;  // blocks of each transformer of a down stage
  std::vector<std::vector<int64_t>> up_depths;    // of an up stage, innermost first
  std::vector<int64_t> heads;                     // of each down stage
  std::vector<int64_t> context;                   // width of the text that each down stage reads
  std::vector<bool> only_cross;                   // self-attention of the stage reads the text instead
  Mid mid = Mid::attention;
  int64_t mid_depth = 1;
  bool linear_projection = false;  // proj_in and proj_out are matrices; else convolutions of 1x1
  int64_t groups = 32;
  double norm_epsilon = 1e-5;
  int64_t time_width = 0;      // of the time embedding
  bool cosine_first = true;    // flip_sin_to_cos
  double frequency_shift = 0;  // freq_shift
  int64_t downsample_padding = 1;
  int64_t conv_in_kernel = 3, conv_out_kernel = 3;
  bool centre_input = false;     // center_input_sample
  int64_t added_time_width = 0;  // addition_time_embed_dim of "text_time"; 0: no such embedding
  int64_t added_width = 0;       // projection_class_embeddings_input_dim
  int64_t stages() const { return static_cast<int64_t>(channels.size()); }
};
// Throws Error that names the key for what is malformed, impossible or not known here.
Config read_config(const Json& config, std::string_view what);

// One step of a pass.
struct Op {
  enum class Kind {
    keep,         // x is put on the stack
    take,         // x becomes [x ; top of the stack] along the channels
    resnet,       // a part
    transformer,  // a part: norm, projections and at most one block
    enter,        // norm and projection into a transformer of several blocks; x is kept on the stack
    block,        // a part
    leave,        // projection back, onto what `enter` kept
    down,         // convolution of stride 2
    up,           // nearest neighbour to the size of the stack's top, convolution
    stage_end,
  };
  Kind kind;
  std::string path = {};    // of its tensors; of stage_end the stage
  int part = -1;            // index into Blueprint::parts
  int wrapper = -1;         // of enter, block, leave: into Blueprint::wrappers
  int stage = 0;            // index into Blueprint::stages
  int level = 0;            // how often the sample was halved when the step begins
  int64_t in = 0, out = 0;  // channels
  int64_t skip = 0;         // of `in`, those that `take` brought
  int64_t heads = 0, context = 0;
  int64_t depth = 0;  // blocks, of a transformer
  bool only_cross = false;
};
// conv_in and the time embedding come before, conv_norm_out and conv_out behind.
std::vector<Op> program(const Config& config);
// Whether a step has anything to do: its part is there, or one of its wrapper's; steps between parts always.
bool present(const Op& op, const Blueprint& blueprint);

Blueprint blueprint(const Json& config, std::string_view what);
Architecture declaration();

// Latents and text that a pass is priced for, one sample.
struct Shape2d {
  int64_t height = 64, width = 64, text_tokens = 77;
};
// Multiply-adds of one pass. Published figures (thop's) leave `attention` out, the products of queries with
// keys and of weights with values.
struct Macs {
  double weights = 0;
  double attention = 0;
  double total() const { return weights + attention; }
};
// Of each part, present or not; a wrapper's own count with its first part that is present.
std::vector<Macs> macs_by_part(const Config& config, const Blueprint& blueprint, const Shape2d& shape);
// Of the parts present, shortcuts of those that are gone, and all between them.
Macs macs(const Config& config, const Blueprint& blueprint, const Shape2d& shape);
// Parameters that leave with these parts: their own, and wrappers of which nothing is left.
int64_t parameters_saved(const Blueprint& blueprint, const std::vector<Site>& removed);

// Configs of the published layouts, as their config.json says: "sd1.5", "sd2.1", "sdxl", "bk-base",
// "bk-small", "bk-tiny", "ssd-1b", "vega", "koala-1b", "koala-700m". Throws Error that lists them.
Json published_config(std::string_view name);
std::vector<std::string> published_names();

}  // namespace lamina::unet
