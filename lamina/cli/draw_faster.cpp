#include "lamina/cli/draw_faster.h"

#include <cmath>

#include "lamina/base/error.h"
#include "lamina/models/registry.h"

namespace lamina::cli {

namespace fs = std::filesystem;

void add_faster_flags(CLI::App& app, FasterFlags& flags) {
  app.add_option("--inherit", flags.inherit,
                 "features taken over from an earlier call: deep:INTERVAL[:BRANCH][:MODE], "
                 "layer:PARTS:INTERVAL[:MODE]; MODE is uniform, front or middle")
      ->group("Faster");
  app.add_option("--merge", flags.merge,
                 "percent of the tokens merged before self-attention at the largest map")
      ->capture_default_str()
      ->group("Faster");
  app.add_option("--switch", flags.other_unet, "folder of another U-Net, which makes the first calls")
      ->group("Faster");
  app.add_option("--switch-at", flags.switch_at, "share of the calls after which the pipeline's own goes on")
      ->capture_default_str()
      ->group("Faster");
}

void check(const FasterFlags& flags) {
  const auto within = [](const char* name, double value, double most) {
    if (!(value >= 0 && value <= most)) fail("--{} {}: a number from 0 to {} is expected", name, value, most);
  };
  within("merge", flags.merge, 75);
  within("switch-at", flags.switch_at, 1);
}

Json to_json(const FasterFlags& flags) {
  Json json = Json::object();
  if (!flags.inherit.empty()) json["inherit"] = flags.inherit;
  if (flags.merge > 0) json["merge"] = flags.merge;
  if (!flags.other_unet.empty())
    json["switch"] = {{"unet", name_of_folder(flags.other_unet)}, {"at", flags.switch_at}};
  return json;
}

std::string name_of_folder(const fs::path& folder) {
  const fs::path path = folder.has_filename() ? folder : folder.parent_path();
  const fs::path name = path.filename();
  return shown(name == "." || name == ".." ? fs::canonical(path).filename() : name);
}

FasterCalls::FasterCalls(const FasterFlags& flags, const Painter::Options& options)
    : inherits_(!flags.inherit.empty() || flags.merge > 0), switch_at_(flags.switch_at) {
  if (!flags.inherit.empty()) inheritance_ = inheritance_from_text(flags.inherit);
  inheritance_.merged = flags.merge / 100;
  if (flags.other_unet.empty()) return;
  if (!options.device.is_cpu()) fail("--switch is for the cpu");
  const fs::path folder = is_pipeline(flags.other_unet) ? flags.other_unet / "unet" : flags.other_unet;
  other_opened_ = std::make_unique<Opened>(open(folder));
  other_ = build_model(*other_opened_, {.dtype = options.dtype});
}

std::unique_ptr<Denoiser> FasterCalls::denoiser(const Painter& painter) const {
  std::unique_ptr<Denoiser> own =
      inherits_ ? inheriting(painter.denoiser_opened(), painter.denoiser(), inheritance_)
                : plain(painter.denoiser());
  if (!other_) return own;
  return switching(other_inherits() ? inheriting(*other_opened_, *other_, inheritance_) : plain(*other_),
                   std::move(own), switch_at_);
}

std::optional<Spent> FasterCalls::spent(const Painter& painter, int64_t calls, const unet::Shape2d& shape,
                                        double guidance) const {
  if (!inherits_ && !other_) return std::nullopt;
  const auto of_own = [&](int64_t some) {
    return multiply_adds(painter.denoiser_opened(), inheritance_, some, shape);
  };
  const double rows = guidance > 1 ? 2 : 1;
  Spent spent = of_own(calls);
  if (other_) {
    // The split of `switching`, where each network counts its own calls.
    const auto front = static_cast<int64_t>(std::llround(switch_at_ * static_cast<double>(calls)));
    const Inheritance theirs = other_inherits() ? inheritance_ : Inheritance{};
    spent.own = multiply_adds(*other_opened_, theirs, front, shape).own + of_own(calls - front).own;
  }
  return Spent{.plain = spent.plain * rows, .own = spent.own * rows};
}

}  // namespace lamina::cli
