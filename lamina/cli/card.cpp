#include "lamina/cli/card.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <ctime>
#include <fstream>
#include <set>

#include "lamina/base/text.h"
#include "lamina/checkpoint/pipeline.h"
#include "lamina/cli/cli.h"
#include "lamina/cli/unet_view.h"
#include "lamina/plan/fold.h"

namespace lamina::cli {

using report::Notation;
namespace fs = std::filesystem;

int64_t usual_context(const Blueprint& blueprint) {
  return std::min<int64_t>(blueprint.context, 1024);
}

namespace {

// Paths of the norms that the plan freezes.
std::set<std::string> folded_norms(const Plan& plan, const Blueprint& blueprint) {
  std::set<std::string> norms;
  for (const FreezeNorm& edit : frozen_by(plan)) {
    norms.insert(edit.reader == Reader::head ? blueprint.final_norm
                                             : blueprint.part(blueprint.site(edit.site)).norm->path);
  }
  return norms;
}

// "model.layers.7.mlp (F7)", "model.layers.7.self_attn (qk7)", "model.norm (final)".
std::string named(const Edit& edit, const Blueprint& blueprint) {
  return std::visit(
      [&](const auto& e) {
        std::string label, rest;
        if constexpr (requires { e.reader; }) {
          label = blueprint.label({e.reader == Reader::head ? Site{} : blueprint.site(e.site), e.reader});
          rest = fmt::format(", divided by {:.6g}", e.scale);
        } else {
          label = blueprint.part(blueprint.site(e.site)).label();
        }
        if constexpr (requires { e.score; }) {
          if (e.score) rest = fmt::format(", score {:.4g}", *e.score);
        } else if constexpr (requires { e.windows; }) {
          rest = fmt::format(", windows of {0} x {0} tokens", e.windows.window);
        } else if constexpr (requires { e.donors; }) {
          rest = fmt::format(", {} inherits {}", e.conv, fmt::join(e.donors, " and "));
        } else if constexpr (requires { e.gates; }) {
          rest = fmt::format(", {} mixed once", e.conv);
        }
        return fmt::format("{} ({}){}", e.site, label, rest);
      },
      edit);
}

}  // namespace

Counted counted(const Blueprint& blueprint, const Plan& plan) {
  const int64_t context = usual_context(blueprint);
  Counted left{.parameters = blueprint.parameters(),
               .flops = blueprint.flops_per_token(context),
               .kv_bytes = 2 * blueprint.kv_values_per_token()};
  for (Site site : removed_sites(plan, blueprint)) {
    left.parameters -= blueprint.parameters(site);
    left.flops -= blueprint.flops_per_token(site, context);
    left.kv_bytes -= 2 * blueprint.part(site).kv_values;
  }
  const auto size = [&](const std::string& name) {
    const Slot* slot = blueprint.slot(name);
    return slot ? slot->axes[0].size() : 0;
  };
  for (const std::string& norm : folded_norms(plan, blueprint)) {
    const int64_t bias = size(norm + ".bias");
    left.parameters -= size(norm + ".weight") + bias;
    if (norm != blueprint.final_norm) continue;
    if (blueprint.tied()) left.parameters += blueprint.vocabulary * blueprint.width;
    if (bias > 0) left.parameters += blueprint.vocabulary;
  }
  return left;
}

std::vector<report::Figure> counted_figures(const Opened& opened, const Plan& plan, const Written* written) {
  Plan said = plan;
  if (written && written->request.form == Form::hf_compat)  // whose norms stay
    std::erase_if(said.edits, [](const Edit& edit) { return std::holds_alternative<FreezeNorm>(edit); });
  const Counted before = counted(opened.blueprint, {}), after = counted(opened.blueprint, said);
  constexpr auto kLower = report::Figure::Better::lower;
  std::vector<report::Figure> figures;
  figures.push_back({.name = "Parameters",
                     .before = static_cast<double>(before.parameters),
                     .after = static_cast<double>(after.parameters),
                     .format = {Notation::scaled, 4},
                     .better = kLower,
                     .measured = "counted from the declared shapes; a tied head counts once"});
  if (written) {
    figures.push_back({.name = "Weight file",
                       .before = static_cast<double>(opened.checkpoint.file_bytes()),
                       .after = static_cast<double>(written->weight_bytes),
                       .format = {Notation::scaled, 3, "B"},
                       .better = kLower,
                       .measured = fmt::format("the file that came in, and {}", written->request.text())});
  }
  figures.push_back({.name = "FLOPs a token",
                     .before = before.flops,
                     .after = after.flops,
                     .format = {Notation::scaled, 3},
                     .better = kLower,
                     .measured = fmt::format("at {} tokens of context", usual_context(opened.blueprint))});
  figures.push_back({.name = "KV cache a token",
                     .before = static_cast<double>(before.kv_bytes),
                     .after = static_cast<double>(after.kv_bytes),
                     .format = {Notation::scaled, 3, "B"},
                     .better = kLower,
                     .measured = "keys and values as float16"});
  return figures;
}

std::string folder_name(const fs::path& path) {
  const fs::path normal = path.lexically_normal();
  return shown(normal.has_filename() ? normal.filename() : normal.parent_path().filename());
}

std::string model_name(const Opened& opened) {
  return opened.checkpoint.gguf ? shown(opened.checkpoint.path.lexically_normal().stem())
                                : folder_name(opened.checkpoint.path);
}

namespace {

// How often the plan does what `E` is.
template <class... E>
size_t edits_of(const Plan& plan) {
  return static_cast<size_t>(std::ranges::count_if(
      plan.edits, [](const Edit& edit) { return (std::holds_alternative<E>(edit) || ...); }));
}

// "1 neuron clamped", "2 neurons clamped".
std::string counted_words(size_t count, std::string_view thing, std::string_view rest) {
  return fmt::format("{} {}{} {}", count, thing, count == 1 ? "" : "s", rest);
}

}  // namespace

std::string done_by(const Plan& plan, size_t parts) {
  std::set<std::string> frozen;  // one norm may have two readers
  for (const Edit& edit : plan.edits) {
    if (const auto* freeze = std::get_if<FreezeNorm>(&edit)) frozen.insert(freeze->site);
  }
  std::string text;
  const auto add = [&](const std::string& what) { text += (text.empty() ? "" : ", ") + what; };
  const auto say = [&](size_t count, std::string_view thing, std::string_view rest) {
    if (count > 0) add(counted_words(count, thing, rest));
  };
  const size_t gone = edits_of<Cut, Silence>(plan);
  if (gone > 0 || plan.edits.empty())
    add(parts > 0 ? fmt::format("{} of {} parts cut", gone, parts) : fmt::format("{} sub-layers cut", gone));
  const size_t windowed = edits_of<Regional>(plan), heirs = edits_of<Inherit>(plan),
               replaced = edits_of<Replace>(plan);
  say(windowed, "attention", windowed == 1 ? "sees windows" : "see windows");
  say(heirs, "convolution", heirs == 1 ? "inherits kernels" : "inherit kernels");
  say(edits_of<Blend>(plan), "mixed convolution", "made plain");
  say(edits_of<Unmask>(plan), "attention", "unmasked");
  say(edits_of<Clamp>(plan), "neuron", "clamped");
  if (replaced > 0) add(fmt::format("{} row{} of neurons replaced", replaced, replaced == 1 ? "" : "s"));
  say(frozen.size(), "norm", "frozen");
  return text;
}

report::ModelCard card_of(const Opened& opened, const Plan& plan, const Written& written,
                          std::string command) {
  report::ModelCard card{.title = fmt::format("{}, {}", model_name(opened), done_by(plan)),
                         .base_model = model_name(opened)};
  if (opened.checkpoint.gguf) card.license = opened.checkpoint.gguf->string_or("general.license", "");
  if (plan.edits.empty() || !removed_sites(plan, opened.blueprint).empty()) card.tags = {"pruned"};
  card.figures =
      is_unet(opened) ? unet_figures(opened, plan, written) : counted_figures(opened, plan, &written);
  if (is_unet(opened)) {
    card.library = written.opens_in.starts_with("lamina alone") ? "" : "diffusers";
    card.pipeline = "text-to-image";
    card.openings = unet_openings(written);
  } else if (written.opens_in.starts_with("lamina alone")) {
    card.library.clear();
  } else if (written.request.form == Form::transformer_lens) {
    card.library = "transformer_lens";
    card.openings.push_back({.tool = "TransformerLens",
                             .checked = "",
                             .code = std::string(transformer_lens_lines()),
                             .language = "python"});
  } else if (written.request.form != Form::hf_perlayer) {
    card.openings.push_back(
        {.tool = "transformers",
         .checked = "",
         .code =
             "from transformers import AutoModelForCausalLM, AutoTokenizer\nmodel = "
             "AutoModelForCausalLM.from_pretrained(\".\")\ntokenizer = AutoTokenizer.from_pretrained(\".\")",
         .language = "python"});
  }
  if (written.request.form != Form::transformer_lens && !is_unet(opened))
    card.openings.push_back({.tool = "lamina",
                             .checked = "reopened and compared bit for bit with what was meant",
                             .code = "lamina generate . -p 'Hello'",
                             .language = "sh"});
  card.plan = plan_lines(plan, opened.blueprint);
  card.command = std::move(command);
  card.version = std::string(version_of());
  card.date = today();
  return card;
}

std::vector<std::string> plan_lines(const Plan& plan, const Blueprint& blueprint) {
  std::vector<std::string> lines;
  for (const Edit& edit : plan.edits) lines.push_back(named(edit, blueprint));
  return lines;
}

namespace {

// A class as Python can import it; a name that is none never gets into lines that people run.
std::string importable(const std::string& name, std::string otherwise) {
  const bool word = std::ranges::all_of(
      name, [](char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; });
  return word && !name.empty() && !std::isdigit(static_cast<unsigned char>(name[0])) ? name
                                                                                     : std::move(otherwise);
}

std::string loading(const std::string& name, std::string_view variable, std::string_view where) {
  return fmt::format("from diffusers import {0}\n{1} = {0}.from_pretrained({2})\n", name, variable, where);
}

// Lines for diffusers; empty where a stock loader would not make what the file holds.
std::string diffusers_lines(const fs::path& folder, const Opened& denoiser) {
  const std::string own = json_string_or(denoiser.checkpoint.config, "_class_name", "", "config.json");
  if (stock_name(own) != own) return {};
  const std::string unet = importable(own, "UNet2DConditionModel");
  if (!is_pipeline(folder)) return loading(unet, "unet", R"(".")");
  const std::string whole =
      importable(json_string_or(open_pipeline(folder).index, "_class_name", "", "model_index.json"),
                 "DiffusionPipeline");
  return loading(whole, "pipeline", R"(".")") + "\n# the denoiser alone\n" +
         loading(unet, "unet", R"(".", subfolder="unet")");
}

}  // namespace

std::string denoiser_card(const fs::path& folder, report::ModelCard said) {
  const bool whole = is_pipeline(folder);
  const Opened denoiser = open(whole ? folder / "unet" : folder);
  const std::string lines = diffusers_lines(folder, denoiser);
  said.pipeline = "text-to-image";
  said.library = lines.empty() ? "" : "diffusers";
  if (!lines.empty())
    said.openings.push_back({.tool = "diffusers", .checked = "", .code = lines, .language = "python"});
  said.openings.push_back(
      {.tool = "lamina",
       .checked = "the denoiser was reopened, and has the tensors that its config declares",
       .code = whole ? "lamina draw . \"a small red ring\" -o picture.png" : "lamina inspect .",
       .language = "sh"});
  if (lines.empty())
    said.limits.insert(
        said.limits.begin(),
        "diffusers does not open the denoiser: its config says what is gone or looks otherwise, which stock "
        "classes do not read, and its class name keeps them from making another function of the file.");
  said.version = std::string(version_of());
  said.date = today();
  return report::to_markdown(said);
}

report::Section open_section(const std::vector<Written>& written, std::string otherwise) {
  using Kind = report::Column::Kind;
  report::Table table{
      .title = "Files written",
      .columns = {{.name = "form", .kind = Kind::label},
                  {.name = "where", .kind = Kind::code},
                  {.name = "weights", .kind = Kind::number, .format = {Notation::scaled, 3, "B"}},
                  {.name = "opens in", .kind = Kind::prose}}};
  for (const Written& entry : written)
    table.rows.push_back({.cells = {entry.request.text(), entry.path.string(),
                                    static_cast<double>(entry.weight_bytes), entry.opens_in}});
  table.note =
      "Each was reopened and compared with what was meant, bit for bit, before the run said that it was "
      "done.";
  report::Section section{.title = "Open it elsewhere", .elements = {}};
  if (written.empty()) {
    section.elements.push_back(report::Text{.text = std::move(otherwise)});
  } else {
    section.elements.push_back(table);
    std::string code;
    for (const Written& entry : written) {
      if (entry.request.form == Form::transformer_lens) continue;  // its README.md has the lines
      if (entry.request.form == Form::gguf)
        code += fmt::format("llama-cli -m {} -p 'Hello'\n", entry.path.string());
      else if (entry.request.form != Form::hf_perlayer && !entry.opens_in.starts_with("lamina alone"))
        code += fmt::format(
            "python3 -c \"from transformers import pipeline; print(pipeline('text-generation', "
            "'{}')('Hello'))\"\n",
            entry.path.string());
      code += fmt::format("lamina generate {} -p 'Hello'\n", entry.path.string());
    }
    section.elements.push_back(report::Text{.text = code, .form = report::Text::Form::code});
  }
  return section;
}

std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("model name"))
      return std::string(trim(std::string_view(line).substr(line.find(':') + 1)));
  }
  return "unknown processor";
}

std::string today() {
  return fmt::format("{:%Y-%m-%d}", fmt::gmtime(std::time(nullptr)));
}

}  // namespace lamina::cli
