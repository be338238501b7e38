// lamina draw: a picture from a prompt.
#include <fmt/format.h>

#include <cmath>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/cli/cli.h"
#include "lamina/cli/draw_run.h"
#include "lamina/cli/session.h"

namespace lamina::cli {

namespace {

namespace fs = std::filesystem;

void add_flags(CLI::App& app, DrawFlags& flags) {
  app.add_option("PIPELINE", flags.pipeline, "folder with a model_index.json")->required();
  app.add_option("PROMPT", flags.prompt, "what is to be seen");
  app.add_option("-o,--output", flags.out, "PNG file to write")->required();
  app.add_option("--negative", flags.negative, "what guidance goes away from");
  app.add_option("--prompts-file", flags.prompts_file, "a prompt a line, in place of PROMPT");
  app.add_option("--steps", flags.steps, "steps of the solver")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  app.add_option("--cfg", flags.cfg, "guidance; 1: none, and half the work")->capture_default_str();
  app.add_option("--seed", flags.seed, "of the first picture; the next has the next")->capture_default_str();
  app.add_option("--scheduler", flags.scheduler,
                 fmt::format("{} (default: the pipeline's own)", fmt::join(solver_names(), ", ")));
  app.add_option("--eta", flags.eta, "of ddim: 0 draws no noise, 1 as much as ddpm")->capture_default_str();
  app.add_option("--size", flags.size, "WIDTHxHEIGHT in pixels (default: what the U-Net was made for)");
  app.add_option("--init", flags.init, "PNG file to begin from");
  app.add_option("--strength", flags.strength, "share of the way that --init leaves to go")
      ->capture_default_str();
  app.add_option("--count", flags.count, "pictures of each prompt")
      ->capture_default_str()
      ->check(CLI::Range(1, 10000));
  app.add_option("--columns", flags.columns,
                 "of the grid that several pictures become (default: about square)")
      ->check(CLI::Range(1, 10000));
  app.add_flag("--separate", flags.separate, "OUT-001.png, OUT-002.png, ... in place of a grid");
  app.add_option("--batch", flags.batch, "pictures drawn together")
      ->capture_default_str()
      ->check(CLI::Range(1, 256));
  app.add_option("--preview", flags.preview,
                 "every so many steps, OUT.preview.png is what it looks like by now");
  add_faster_flags(app, flags.faster);
  app.add_option("--dtype", flags.dtype, "float32 or float64")->capture_default_str();
  app.add_option("--device", flags.device, "cpu, or cuda where libtorch has it")->capture_default_str();
  app.add_option("--threads", flags.threads,
                 "threads; 0: all cores; with 1 a seed gives the same bytes every time")
      ->capture_default_str()
      ->check(CLI::Range(0, 1024));
  app.add_option("--latents", flags.latents, "noise in place of a seed's")->group("");
  app.add_option("--save-latents", flags.save_latents, "latents in front of the decoder")->group("");
  app.add_flag("--json", flags.json, "one object on stdout: files, seeds, seconds");
  app.add_flag("-q,--quiet", flags.quiet, "no progress line");
}

void check_number(std::string_view name, double value, double least, double most) {
  if (!(value >= least && value <= most))
    fail("--{} {}: a number from {} to {} is expected", name, value, least, most);
}

void check_out(const fs::path& out) {
  if (out.extension() != ".png") fail("-o {}: the name of a picture ends with .png", shown(out));
  const fs::path folder = out.has_parent_path() ? out.parent_path() : fs::path(".");
  if (!fs::is_directory(folder)) fail("-o {}: there is no folder {}", shown(out), shown(folder));
  if (fs::is_directory(out)) fail("-o {}: is a folder", shown(out));
}

void check(const DrawFlags& flags) {
  check_number("cfg", flags.cfg, 0, 1000);
  check_number("eta", flags.eta, 0, 1);
  check(flags.faster);
  check_number("preview", static_cast<double>(flags.preview), 0, 1000);
  if (!(flags.strength > 0 && flags.strength <= 1))
    fail("--strength {}: a number above 0 and up to 1 is expected", flags.strength);
  if (flags.prompt.empty() == flags.prompts_file.empty())
    fail("a prompt is expected behind the pipeline, or --prompts-file, and not both");
  for (const std::string& text : {flags.prompt, flags.negative})
    if (!is_utf8(text)) fail("{}: a prompt is UTF-8, and this is not", in_quotes(text));
  check_out(flags.out);
}

std::vector<std::string> prompts_of(const DrawFlags& flags) {
  if (flags.prompts_file.empty()) return {flags.prompt};
  const std::string text = read_file(flags.prompts_file, size_t{16} << 20);
  if (!is_utf8(text)) fail("{}: is not UTF-8", shown(flags.prompts_file));
  std::vector<std::string> prompts;
  for (const std::string& line : split(text, '\n'))
    if (const std::string_view prompt = trim(line); !prompt.empty()) prompts.emplace_back(prompt);
  if (prompts.empty()) fail("{}: holds no prompt", shown(flags.prompts_file));
  return prompts;
}

// Every prompt with the same seeds, so that a row can be compared with the next.
std::vector<Order> orders_of(const DrawFlags& flags) {
  std::vector<Order> orders;
  for (const std::string& prompt : prompts_of(flags))
    for (int64_t i = 0; i < flags.count; ++i)
      orders.push_back({prompt, flags.seed + static_cast<uint64_t>(i)});
  if (orders.size() > 10'000)
    fail("{} pictures at once are more than 10,000; draw them in several runs", orders.size());
  return orders;
}

int64_t columns_of(const DrawFlags& flags, size_t pictures) {
  if (flags.columns > 0) return flags.columns;
  if (flags.count > 1 && !flags.prompts_file.empty()) return flags.count;  // a prompt a row
  return static_cast<int64_t>(std::ceil(std::sqrt(static_cast<double>(pictures))));
}

fs::path numbered(const fs::path& out, size_t number) {
  fs::path path = out;
  return path.replace_filename(fmt::format("{}-{:03}.png", out.stem().string(), number));
}

// The files written.
std::vector<fs::path> write_all(const DrawFlags& flags, const std::vector<Order>& orders,
                                const Drawn& drawn) {
  if (drawn.pictures.size() == 1 || !flags.separate) {
    const bool one = drawn.pictures.size() == 1;
    write_png(flags.out, one ? drawn.pictures[0] : grid(drawn.pictures, columns_of(flags, orders.size())),
              texts_of(flags, orders, drawn));
    return {flags.out};
  }
  std::vector<fs::path> files;
  for (size_t i = 0; i < orders.size(); ++i) {
    files.push_back(numbered(flags.out, i + 1));
    write_png(files.back(), drawn.pictures[i], texts_of(flags, {orders[i]}, drawn));
  }
  return files;
}

std::string summary(const DrawFlags& flags, const std::vector<fs::path>& files, const Drawn& drawn) {
  std::string text = fmt::format(
      "{}{}: {} x {}, {} calls with {}, seed {}; text {}, U-Net {}, decoder {}\n", shown(files[0]),
      files.size() > 1 ? fmt::format(" and {} more", files.size() - 1) : "", drawn.width, drawn.height,
      drawn.calls, drawn.solver, flags.seed, human_seconds(drawn.text_seconds),
      human_seconds(drawn.denoiser_seconds), human_seconds(drawn.decoder_seconds));
  if (drawn.spent)
    text += fmt::format("{} multiply-adds a picture in place of {}: {:.1f} % saved\n",
                        human_count(drawn.spent->own), human_count(drawn.spent->plain),
                        100 * (1 - drawn.spent->own / drawn.spent->plain));
  return text;
}

Json summary_json(const std::vector<fs::path>& files, const std::vector<Order>& orders, const Drawn& drawn) {
  Json json = {{"files", Json::array()},
               {"seeds", Json::array()},
               {"width", drawn.width},
               {"height", drawn.height},
               {"calls", drawn.calls},
               {"scheduler", drawn.solver},
               {"seconds",
                {{"text", drawn.text_seconds},
                 {"denoiser", drawn.denoiser_seconds},
                 {"decoder", drawn.decoder_seconds}}}};
  for (const fs::path& file : files) json["files"].push_back(shown(file));
  for (const Order& order : orders) json["seeds"].push_back(order.seed);
  if (drawn.spent) json["multiply_adds"] = {{"plain", drawn.spent->plain}, {"own", drawn.spent->own}};
  return json;
}

}  // namespace

int run_draw(int argc, char** argv) {
  CLI::App app(
      "A picture from a prompt, by a pipeline in the diffusers layout.\n\nExample: lamina draw PIPELINE 'a "
      "red ring "
      "above a blue square' -o out.png --steps 25 --cfg 5 --count 4",
      "draw");
  DrawFlags flags;
  add_flags(app, flags);
  parse(app, argc, argv);
  check(flags);
  const std::vector<Order> orders = orders_of(flags);
  use_threads(thread_count(flags.threads));
  Terminal terminal({.quiet = flags.quiet});
  const Drawn drawn = draw(flags, orders, terminal.watch());
  terminal.clear();
  const std::vector<fs::path> files = write_all(flags, orders, drawn);
  print(flags.json ? summary_json(files, orders, drawn).dump(2) + "\n" : summary(flags, files, drawn));
  return Status::ok;
}

}  // namespace lamina::cli
