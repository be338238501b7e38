// lamina draw: what is asked for, what was drawn, and how a picture says where it comes from.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "lamina/cli/draw_faster.h"
#include "lamina/diffusion/pipeline.h"

namespace lamina::cli {

struct DrawFlags {
  std::filesystem::path pipeline, out, init, prompts_file;
  std::filesystem::path latents, save_latents;  // safetensors with "latents": for comparisons
  std::string prompt, negative, scheduler, size, dtype = "float32", device = "cpu";
  int64_t steps = 25, count = 1, columns = 0, preview = 0, batch = 1;
  double cfg = 7.5, strength = 0.8, eta = 0;
  FasterFlags faster = {};
  uint64_t seed = 1;
  int threads = 1;
  bool separate = false, json = false, quiet = false;
};

// One picture to draw: prompt and seed.
struct Order {
  std::string prompt;
  uint64_t seed = 0;
};

struct Drawn {
  std::vector<Picture> pictures;  // in the order of the orders
  int64_t width = 0, height = 0, calls = 0;
  std::string solver;  // by the name that --scheduler has
  double text_seconds = 0, denoiser_seconds = 0, decoder_seconds = 0;
  std::optional<Spent> spent = {};  // of one picture, where features are inherited
};

Drawn draw(const DrawFlags& flags, const std::vector<Order>& orders, const Watch& watch);

// What goes into the PNG: "parameters" as web interfaces write and read them, "lamina" as JSON. Paths of
// this machine stay out of it.
ImageTexts texts_of(const DrawFlags& flags, const std::vector<Order>& orders, const Drawn& drawn);

}  // namespace lamina::cli
