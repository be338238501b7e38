#include <fmt/format.h>

#include "lamina/base/file.h"
#include "lamina/base/hash.h"
#include "lamina/cli/cli.h"
#include "lamina/cli/draw_run.h"

namespace lamina::cli {

namespace {

namespace fs = std::filesystem;

// As web interfaces call them.
std::string sampler_name(const std::string& solver) {
  if (solver == "dpm++") return "DPM++ 2M";
  if (solver == "pndm") return "PLMS";
  if (solver == "euler") return "Euler";
  if (solver == "ddim") return "DDIM";
  return "DDPM";
}

std::string parameters(const DrawFlags& flags, const Order& first, const Drawn& drawn) {
  std::string text = first.prompt + "\n";
  if (!flags.negative.empty()) text += fmt::format("Negative prompt: {}\n", flags.negative);
  text += fmt::format("Steps: {}, Sampler: {}, CFG scale: {}, Seed: {}, Size: {}x{}, Model: {}", flags.steps,
                      sampler_name(drawn.solver), flags.cfg, first.seed, drawn.width, drawn.height,
                      name_of_folder(flags.pipeline));
  if (!flags.init.empty()) text += fmt::format(", Denoising strength: {}", flags.strength);
  return text + fmt::format(", Version: {}", version_text());
}

Json record(const DrawFlags& flags, const std::vector<Order>& orders, const Drawn& drawn) {
  Json json = {{"version", version_of()},   {"pipeline", name_of_folder(flags.pipeline)},
               {"pictures", Json::array()}, {"negative", flags.negative},
               {"steps", flags.steps},      {"cfg", flags.cfg},
               {"scheduler", drawn.solver}, {"width", drawn.width},
               {"height", drawn.height},    {"dtype", flags.dtype}};
  for (const Order& order : orders)
    json["pictures"].push_back({{"prompt", order.prompt}, {"seed", order.seed}});
  if (flags.eta > 0) json["eta"] = flags.eta;
  if (!flags.init.empty())
    json["init"] = {{"sha256", sha256_hex(read_file(flags.init))}, {"strength", flags.strength}};
  json.update(to_json(flags.faster));
  return json;
}

}  // namespace

ImageTexts texts_of(const DrawFlags& flags, const std::vector<Order>& orders, const Drawn& drawn) {
  return {{"parameters", parameters(flags, orders.front(), drawn)},
          {"lamina", record(flags, orders, drawn).dump()}};
}

}  // namespace lamina::cli
