// What makes the calls of a denoiser cheaper: features inherited from earlier calls, tokens merged, another
// network for the first calls. Shared by the verbs that draw.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "lamina/cli/cli.h"
#include "lamina/diffusion/inherit.h"
#include "lamina/diffusion/pipeline.h"

namespace lamina::cli {

struct FasterFlags {
  std::string inherit;
  double merge = 0, switch_at = 0.4;
  std::filesystem::path other_unet;
};
// --inherit, --merge, --switch, --switch-at, in the group "Faster".
void add_faster_flags(CLI::App& app, FasterFlags& flags);
// Throws Error for numbers that cannot be.
void check(const FasterFlags& flags);
// "inherit", "merge", "switch": those that are on, for records of a run.
Json to_json(const FasterFlags& flags);
// How a folder is called in such records: paths of this machine stay out of them.
std::string name_of_folder(const std::filesystem::path& folder);

// The networks that the calls go to.
class FasterCalls {
 public:
  FasterCalls(const FasterFlags& flags, const Painter::Options& options);

  // For one way down. The painter outlives it.
  std::unique_ptr<Denoiser> denoiser(const Painter& painter) const;
  // Multiply-adds of a picture, where features are inherited, tokens merged or networks switched: of `calls`
  // calls at latents of `shape`, twice as many under guidance; of both networks together, beside the
  // pipeline's own for all of them. Nothing where all calls are plain.
  std::optional<Spent> spent(const Painter& painter, int64_t calls, const unet::Shape2d& shape,
                             double guidance) const;

 private:
  std::unique_ptr<Opened> other_opened_ = {};
  std::unique_ptr<Model> other_ = {};
  Inheritance inheritance_ = {};
  // Parts are named after the pipeline's own network, which the other may not have: it is plain then.
  bool other_inherits() const { return inherits_ && inheritance_.kind != Inheritance::Kind::parts; }

  bool inherits_ = false;
  double switch_at_ = 0;
};

}  // namespace lamina::cli
