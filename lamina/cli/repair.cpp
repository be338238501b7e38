// lamina repair CUT WHOLE: the maps behind what was cut, fitted anew by least squares to what the whole
// denoiser does there. No training.
#include "lamina/methods/repair/repair.h"

#include <fmt/format.h>

#include <algorithm>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/cli/card.h"
#include "lamina/cli/cli.h"
#include "lamina/cli/heal_pipeline_asdm.h"
#include "lamina/cli/prune_unet.h"
#include "lamina/cli/session.h"

namespace lamina::cli {

namespace fs = std::filesystem;

namespace {

std::vector<Inputs> inputs_of(const laptop::Calibration& fitted, const laptop::Calibration& deciding) {
  std::vector<Inputs> all;
  for (const auto* calibration : {&fitted, &deciding})
    for (const laptop::CalibrationBatch& batch : calibration->batches) all.push_back(batch.inputs);
  return all;
}

std::string text_of(const repair::Repaired& repaired, const fs::path& target) {
  std::string text = fmt::format("{:<52} {:<36} {:>10} {:>10} {:>10}\n", "map", "made to match behind",
                                 "there", "mended", "answer");
  for (const repair::Row& row : repaired.rows)
    text += fmt::format("{:<52} {:<36} {:>10.3g} {:>10.3g} {:>10.4g}{}\n", row.path,
                        row.target.empty() ? "the end" : row.target, row.local_before, row.local_after,
                        row.joint, row.kept ? "  kept" : "");
  text += fmt::format(
      "\nMean square from the whole model's answers, held out: {:.5g} cut, {:.5g} repaired ({:.1f} %)\n",
      repaired.before, repaired.after, repaired.before > 0 ? 100 * repaired.after / repaired.before : 100.0);
  text += fmt::format("On the samples fitted to: {:.5g}, {:.5g}\nWritten: {}\n", repaired.fitted_before,
                      repaired.fitted_after, shown(target));
  return text;
}

Json json_of(const repair::Repaired& repaired) {
  Json json = {{"before", repaired.before},
               {"after", repaired.after},
               {"fitted_before", repaired.fitted_before},
               {"fitted_after", repaired.fitted_after},
               {"rows", Json::array()}};
  for (const repair::Row& row : repaired.rows)
    json["rows"].push_back({{"map", row.path},
                            {"target", row.target},
                            {"unknowns", row.unknowns},
                            {"ridge", row.ridge},
                            {"local_before", row.local_before},
                            {"local_after", row.local_after},
                            {"joint", row.joint},
                            {"kept", row.kept}});
  return json;
}

report::ModelCard card_of(const repair::Repaired& repaired, const fs::path& cut, const fs::path& whole) {
  using Better = report::Figure::Better;
  const report::Format error{report::Notation::significant, 4, ""};
  const auto kept = std::ranges::count_if(repaired.rows, &repair::Row::kept);
  return {
      .title = fmt::format("{}, repaired", folder_name(cut)),
      .base_model = folder_name(cut),
      .tags = {"pruned"},
      .summary = fmt::format(
          "{} of {} maps behind what was cut were fitted anew by least squares to what {} does there, "
          "without training; that took the mean square from its answers, on samples that were not fitted "
          "to, from {:.4g} to {:.4g}.",
          kept, repaired.rows.size(), folder_name(whole), repaired.before, repaired.after),
      .figures = {{.name = "Distance to the whole model",
                   .before = repaired.before,
                   .after = repaired.after,
                   .format = error,
                   .better = Better::lower,
                   .measured = "mean square of the answers' difference, on samples held out"},
                  {.name = "On the samples fitted to",
                   .before = repaired.fitted_before,
                   .after = repaired.fitted_after,
                   .format = error,
                   .better = Better::lower,
                   .measured = "the same; repair.json has it map by map"}},
      .limits = {"Errors at single times say little of whole pictures: draw some from fixed seeds and look "
                 "at them."}};
}

}  // namespace

int run_repair(int argc, char** argv) {
  CLI::App app(
      "Make good by least squares what a cut took away: the maps behind each gap are fitted anew to the\n"
      "whole denoiser's activations. No training; nothing gets slower.\n\n"
      "Example: lamina repair smaller PIPELINE --captions captions.txt -o repaired\n"
      "A U-Net's own folder will do for both: samples are then normal numbers.",
      "repair");
  fs::path cut_path, whole_path, out, captions_file;
  UnetOptions options;
  options.criterion = "output";
  options.trajectory = 0;
  options.batch = 4;
  repair::RepairOptions fit;
  bool force = false, quiet = false, json = false;
  app.add_option("CUT", cut_path, "pipeline or U-Net that was cut")->required();
  app.add_option("WHOLE", whole_path, "pipeline or U-Net that it was made of")->required();
  app.add_option("-o,--output", out, "folder to write")->required();
  app.add_option("--captions", captions_file, "a caption a line");
  app.add_option("--pictures", options.pictures,
                 "drawn (by the whole pipeline, for the captions), scenes (painted here), or a folder of "
                 "NAME.png and NAME.txt")
      ->capture_default_str();
  app.add_option("--samples", options.samples, "samples that are fitted to")
      ->capture_default_str()
      ->check(CLI::Range(1, 100000));
  app.add_option("--heldout", options.heldout, "samples that decide")
      ->capture_default_str()
      ->check(CLI::Range(1, 100000));
  app.add_option("--batch", options.batch, "samples in a pass")
      ->capture_default_str()
      ->check(CLI::Range(1, 1024));
  app.add_option("--latent", options.latent, "size of the latents, 32x32 (default: the U-Net's own)");
  app.add_option("--draw-steps", options.draw_steps, "steps for each latent that is drawn")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  app.add_option("--rows", fit.positions, "rows of a least-squares problem for each unknown, at most")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  app.add_option("--unknowns", fit.unknowns, "maps with more inputs than this are left as they are")
      ->capture_default_str()
      ->check(CLI::Range(1, 100000));
  app.add_option("--seed", options.seed, "of noise, times and rows")->capture_default_str();
  app.add_option("--threads", options.threads, "0: all cores")
      ->capture_default_str()
      ->check(CLI::Range(0, 1024));
  app.add_flag("--force", force, "replace the output folder");
  app.add_flag("--json", json, "one object on stdout");
  app.add_flag("-q,--quiet", quiet, "no progress");
  parse(app, argc, argv);

  options.threads = thread_count(static_cast<int>(options.threads));
  Terminal terminal({.quiet = quiet || json});
  const Watch watch = terminal.watch();
  StagedFolder folder(
      out, {.replace = force, .inputs = {cut_path, whole_path, captions_file, options.pictures_folder()}});
  const Subject whole = open_subject(whole_path, options);
  const std::vector<std::string> captions =
      captions_file.empty() ? std::vector<std::string>{} : captions_from(captions_file);
  if (whole.painter && captions.empty() && options.pictures == "drawn")
    fail(
        "--captions: a file with a caption a line is needed to draw samples; or --pictures scenes, or a "
        "folder of pictures");
  const bool is_whole = is_pipeline(cut_path);
  const Opened cut = open(is_whole ? cut_path / "unet" : cut_path);
  if (!same_places(cut.blueprint, whole.blueprint()))
    fail(
        "{}: a stock config says this cut, without places for what is gone, and repair goes by the whole "
        "denoiser's places; prune with --layout any, or let this one learn with lamina heal",
        shown(cut_path));
  if (cut.checkpoint.hash(watch) == whole.opened().checkpoint.hash(watch))
    fail("{}: is the whole denoiser, from which nothing was cut; there is nothing to repair",
         shown(cut_path));
  const fs::path drawn = folder.path() / "samples";
  fs::create_directories(drawn);
  const UnetData data = make_data(whole, options, captions, drawn, watch);
  fs::remove_all(drawn);
  const std::vector<Inputs> samples = inputs_of(data.scoring, data.heldout);
  fit.held_out = static_cast<double>(data.heldout.batches.size()) / static_cast<double>(samples.size());
  fit.seed = static_cast<uint64_t>(options.seed);
  const repair::Repaired repaired = repair::repair(cut, whole.model(), samples, fit, watch);
  const WriteOptions write{.dtype = {}, .watch = watch};
  if (is_whole)
    write_pipeline(open_pipeline(cut_path), {{"unet", &repaired.opened.checkpoint}}, folder.path(),
                   {.write = write});
  else
    write_folder(repaired.opened.checkpoint, folder.path(), write);
  write_file(folder.path() / "repair.json", json_of(repaired).dump(2) + "\n");
  report::ModelCard card = card_of(repaired, cut_path, whole_path);
  card.command = command_line(argc, argv, "repair");
  write_file(folder.path() / "README.md", denoiser_card(folder.path(), std::move(card)));
  folder.commit();
  terminal.clear();
  print(json ? json_of(repaired).dump(2) + "\n" : text_of(repaired, folder.target()));
  return Status::ok;
}

}  // namespace lamina::cli
