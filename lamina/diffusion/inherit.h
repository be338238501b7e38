// A way down asks one network many times about almost the same map. Here calls of the denoiser take features
// over from an earlier call, hand over to another network, or look at fewer tokens. After "feature
// inheritance" and "multi-U-Net switching" of A-SDM (arXiv 2406.00210, whose formulas could not be read: the
// definitions are ours), DeepCache (arXiv 2312.00858) and token merging (ToMe for SD, arXiv 2303.17604).
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "lamina/diffusion/pipeline.h"
#include "lamina/family/unet.h"

namespace lamina {

// Which calls are made whole, `interval` calls for one of them: evenly, or closer together at the noisy
// begin, or in the middle. The first always is.
enum class WholeCalls { uniform, front, middle };
std::vector<bool> whole_calls(int64_t calls, int64_t interval, WholeCalls mode);

struct Inheritance {
  enum class Kind { none, deep, parts };
  Kind kind = Kind::none;
  int64_t interval = 2;
  WholeCalls mode = WholeCalls::uniform;
  // Of deep: at the calls between, only the outermost `branch` + 1 skips are made anew, and the layers above
  // that read them; what comes up from below is that of the last whole call.
  int64_t branch = 0;
  // Of parts: those that are not run between and add what they added at the last whole call. Short names
  // ("d1.r1"), or fronts of them: a transformer of several blocks ("u1.a0"), a stage ("u1"), "mid".
  std::vector<std::string> parts = {};
  // Share of the tokens that are merged before self-attention at the largest map that has any, 0 to 0.75.
  double merged = 0;
};

// "deep:3", "deep:3:1" (branch 1), "deep:3:1:front", "layer:d1.r1,u2.a0:2", "block:u1:3:middle",
// "unit:u1.a0.b3:2". Throws Error that says what is expected.
Inheritance inheritance_from_text(std::string_view text);

// Of a U-Net. Keeps features between calls: make one for every way down. With interval 1 and nothing merged
// it says what plain(model) says, to the bit. Throws Error when the model has no such parts.
std::unique_ptr<Denoiser> inheriting(const Opened& opened, const Model& model, const Inheritance& options);

// The first for the calls of the first `share` of the way, the second from there on.
std::unique_ptr<Denoiser> switching(std::unique_ptr<Denoiser> first, std::unique_ptr<Denoiser> second,
                                    double share);

// Multiply-adds of a whole way down, one sample: as the plain model needs them, and as they are.
struct Spent {
  double plain = 0, own = 0;
};
Spent multiply_adds(const Opened& opened, const Inheritance& options, int64_t calls,
                    const unet::Shape2d& shape);

}  // namespace lamina
