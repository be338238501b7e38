// Which forms a plan allows, and why not.
#include <algorithm>

#include "lamina/base/error.h"
#include "lamina/blueprint/absence.h"
#include "lamina/export/export.h"
#include "lamina/export/impl/allowed.h"
#include "lamina/export/impl/sidecars.h"
#include "lamina/export/impl/transformer_lens.h"
#include "lamina/plan/fold.h"

namespace lamina {

namespace {

// Blocks that have lost one half but not the other, after the plan.
std::vector<std::string> half_blocks(const Blueprint& blueprint, const Plan& plan) {
  std::vector<bool> alive;
  for (const Part& part : blueprint.parts) alive.push_back(part.present);
  for (Site site : removed_sites(plan, blueprint)) alive[static_cast<size_t>(site.index)] = false;
  std::vector<int> halves(static_cast<size_t>(blueprint.blocks));
  for (size_t i = 0; i < alive.size(); ++i)
    halves[static_cast<size_t>(blueprint.parts[i].block)] += alive[i] ? 1 : 0;
  std::vector<std::string> labels;
  for (size_t i = 0; i < alive.size(); ++i) {
    if (!alive[i] && halves[static_cast<size_t>(blueprint.parts[i].block)] > 0)
      labels.push_back(blueprint.parts[i].label());
  }
  return labels;
}

bool has_silence(const Plan& plan) {
  return std::ranges::any_of(plan.edits,
                             [](const Edit& edit) { return std::holds_alternative<Silence>(edit); });
}

bool keeps_attention(const Blueprint& blueprint, const Plan& plan) {
  const std::vector<Site> gone = removed_sites(plan, blueprint);
  return std::ranges::any_of(blueprint.present(), [&](Site site) {
    return blueprint.part(site).kind == Kind::attention && std::ranges::find(gone, site) == gone.end();
  });
}

// Whether what is written carries clamps in its config: the plan's, or those that came in with a part that
// stays.
bool carries_clamps(const Opened& model, const Plan& plan) {
  const std::vector<Clamp> held =
      clamps_of(model.checkpoint.config, model.blueprint, model.checkpoint.what());
  const std::vector<Site> gone = removed_sites(plan, model.blueprint);
  return !beyond_weights(plan, model.blueprint, held).empty() ||
         std::ranges::any_of(held, [&](const Clamp& clamp) {
           return std::ranges::find(gone, model.blueprint.site(clamp.site)) == gone.end();
         });
}

// Readers of norms that the plan leaves: the model's own, but for parts that go and those that are frozen.
std::vector<NormPath> live_norms(const Opened& model, const Plan& plan) {
  const std::vector<Site> gone = removed_sites(plan, model.blueprint);
  const std::vector<FreezeNorm> frozen = frozen_by(plan);
  std::vector<NormPath> live;
  for (const NormPath& path : model.blueprint.norm_paths()) {
    const bool held = std::ranges::any_of(frozen, [&](const FreezeNorm& edit) {
      return edit.reader == path.reader && edit.site == model.blueprint.norm_site(path);
    });
    if (!held && std::ranges::find(gone, path.site) == gone.end()) live.push_back(path);
  }
  return live;
}

// Norms that are gone from the model that came in, in front of parts that stay.
bool lacks_norms(const Opened& model, const Plan& plan) {
  NormsRemoved removed =
      read_norms_removed(model.checkpoint.config, model.blueprint.blocks, model.checkpoint.what());
  for (Site site : removed_sites(plan, model.blueprint))
    removed.parts.erase({model.blueprint.part(site).block, model.blueprint.part(site).kind});
  return removed != NormsRemoved{};
}

// Blocks that look right in what is written: the model's own and the plan's, but for those that go.
bool looks_right(const Opened& model, const Plan& plan) {
  const std::vector<Site> gone = removed_sites(plan, model.blueprint);
  const bool planned =
      std::ranges::any_of(plan.edits, [](const Edit& edit) { return std::holds_alternative<Unmask>(edit); });
  return planned || std::ranges::any_of(model.blueprint.present(), [&](Site site) {
           return !model.blueprint.part(site).causal && std::ranges::find(gone, site) == gone.end();
         });
}

Answer can_keep_stock_norms(const Opened& model, const Plan& plan) {
  const auto live = live_norms(model, plan);
  if (!live.empty()) {
    return {false,
            fmt::format("the norm that {} reads is live, and the stock architecture has one epsilon for "
                        "all norms: a plan that freezes every norm can be written so",
                        model.blueprint.label(live.front()))};
  }
  const auto narrow = std::ranges::find_if(model.checkpoint.tensors,
                                           [](const Stored& tensor) { return is_narrow(tensor.dtype); });
  if (narrow != model.checkpoint.tensors.end()) {
    return {false, fmt::format("{} is {}, and what an epsilon of 1e12 leaves of a number is below what 16 "
                               "bits can hold; a float32 model can be written so, and hf-perlayer would do",
                               narrow->name, dtype_name(narrow->dtype))};
  }
  return {true,
          "transformers and what else opens the original, in float32 alone; its norms still run, and divide "
          "by what is the same for every token"};
}

Answer can_write_weights(Form form, const Opened& model, const Plan& plan) {
  const std::vector<std::string> halves = half_blocks(model.blueprint, plan);
  switch (form) {
    case Form::hf_compat:
    case Form::transformer_lens:
      if (!halves.empty())
        return {false, fmt::format("{} leave{} half a block; hf-perlayer would do", fmt::join(halves, " "),
                                   halves.size() == 1 ? "s" : "")};
      if (form == Form::hf_compat) return can_keep_stock_norms(model, plan);
      if (const auto why = no_transformer_lens(model)) return {false, *why};
      if (const auto live = live_norms(model, plan); !live.empty())
        return {false, fmt::format("the norm that {} reads is live; a model without norms can be written so",
                                   model.blueprint.label(live.front()))};
      return {true, "TransformerLens 2 and 3, by the lines in README.md"};
    case Form::hf_compact:
      if (has_silence(plan))
        return {false, "the plan silences parts, which keeps their blocks; hf-zeroed would do"};
      if (!halves.empty()) {
        return {false, fmt::format("{} leave{} half a block, which no stock loader can express; hf-zeroed, "
                                   "hf-perlayer and gguf would do, "
                                   "or cut whole blocks (--units block)",
                                   fmt::join(halves, " "), halves.size() == 1 ? "s" : "")};
      }
      return {true, "transformers, vLLM, llama.cpp's converter: anything that opens the original"};
    case Form::hf_zeroed:
      if (!read_absences(model.checkpoint.config, model.blueprint.blocks, model.checkpoint.what()).empty()) {
        return {false,
                "the model that came in has parts missing already, which zeroes cannot stand in for; "
                "hf-perlayer and gguf would do"};
      }
      return {true, "anything that opens the original; same size and speed as before"};
    case Form::hf_perlayer:
      if (model.blueprint.family != "llama") return {true, "lamina; no stock loader reads what is gone"};
      return {true,
              "lamina, and LLM-Drop's classes; transformers records the skips but still builds every part"};
    case Form::gguf:
      if (model.architecture->dialects.empty()) {
        return {false, fmt::format("no GGUF spelling of {} is known here; hf-compact or hf-perlayer would do",
                                   model.architecture->name)};
      }
      if (const auto why = no_gguf_tokenizer(model.checkpoint))
        return {false,
                *why + "; hf-zeroed or hf-perlayer would do, and llama.cpp's own script for whole folders"};
      if (!keeps_attention(model.blueprint, plan))
        return {false, "no attention is left, which no GGUF can say; hf-zeroed or hf-perlayer would do"};
      return {true, halves.empty() ? "llama.cpp and what is built on it" : "llama.cpp (architecture deci)"};
  }
  return {};
}

bool is_ours(const Checkpoint& checkpoint) {
  const std::string name = json_string_or(checkpoint.config, "_class_name", "", checkpoint.what());
  return stock_name(name) != name;
}

Answer can_write_listed(Form form, const Opened& model, const Plan& plan) {
  constexpr std::string_view kAlone =
      "lamina alone: the names in config.json keep stock loaders from opening it";
  const bool stock_alone = form != Form::hf_compact && form != Form::hf_zeroed && form != Form::hf_perlayer;
  if (stock_alone)
    return {false, fmt::format("{} is a form of language models; compact, proof and extended would do",
                               form_name(form))};
  if (form == Form::hf_compact && has_silence(plan))
    return {false, "the plan silences parts, which keeps their shapes; proof would do"};
  const Compact compact = compact_of(model, plan);
  if (form == Form::hf_compact)
    return {compact.checkpoint.has_value(),
            compact.checkpoint ? compact.note : compact.note + "; proof and extended would do"};
  if (compact.rewired) return {false, "the plan wires what is left anew, which compact alone can say"};
  if (form == Form::hf_perlayer || is_ours(shaped(form, model, plan)))
    return {true, removed_sites(plan, model.blueprint).empty() && !is_ours(model.checkpoint)
                      ? "anything that opens the original"
                      : std::string(kAlone)};
  return {true, "anything that opens the original; same size and speed as before"};
}

}  // namespace

Answer can_write(Form form, const Opened& model, const Plan& plan) {
  if (lists_parts(model)) return can_write_listed(form, model, plan);
  const bool folds = !frozen_by(plan).empty(), lacks = lacks_norms(model, plan);
  if (form == Form::hf_compact || form == Form::hf_zeroed || form == Form::gguf) {
    if (folds)
      return {false,
              fmt::format("the plan freezes norms, and {} norms that do not divide; hf-perlayer would "
                          "do{}",
                          form == Form::gguf ? "no GGUF has" : "the stock architecture has no",
                          live_norms(model, plan).empty() && !lacks ? ", and hf-compat in float32" : "")};
    if (lacks && form == Form::gguf)
      return {false, "the model has norms folded away, which no GGUF can say; hf-perlayer would do"};
  }
  if (form == Form::hf_compat && lacks)
    return {false,
            "the model has norms folded away already, which the stock architecture cannot say; hf-perlayer "
            "would do"};
  const bool stock_alone = form == Form::gguf || form == Form::hf_compat || form == Form::transformer_lens;
  if (model.blueprint.labels > 0 && stock_alone)
    return {false, fmt::format("the model is a token classifier, which {} does not know; hf-compact would do",
                               form_name(form))};
  const bool unmasked = looks_right(model, plan);
  if (unmasked && stock_alone)
    return {false, fmt::format("blocks of the model look right, which {} cannot say; hf-compact would do",
                               form_name(form))};
  Answer answer = can_write_weights(form, model, plan);
  if (!answer.possible) return answer;
  if (unmasked)
    return {true,
            "lamina alone: blocks look right, which no stock loader knows, and the names in config.json keep "
            "them from opening it"};
  if (carries_clamps(model, plan)) {
    if (stock_alone)
      return {false,
              fmt::format("{} can say the clamps that stand in the config beside the weights; {}hf-perlayer "
                          "would do",
                          form == Form::gguf        ? "no GGUF"
                          : form == Form::hf_compat ? "no stock architecture"
                                                    : "nothing in TransformerLens' weights",
                          form == Form::gguf ? "hf-compact and " : "")};
    return {true,
            "lamina alone: the config carries clamps that no stock loader knows, and its names keep "
            "them from opening it"};
  }
  if ((folds || lacks) && form != Form::hf_compat && form != Form::transformer_lens)
    return {true,
            "lamina alone: norms are folded into the weights, which no stock loader knows, and the names in "
            "config.json keep them from opening it"};
  return answer;
}

std::vector<FormRequest> default_forms(const Opened& model, const Plan& plan) {
  if (can_write(Form::hf_compact, model, plan).possible) return {{Form::hf_compact, {}}};
  std::vector<FormRequest> forms;
  if (lists_parts(model)) return {{Form::hf_zeroed, {}}, {Form::hf_perlayer, {}}};
  for (Form form : {Form::hf_zeroed, Form::gguf}) {  // which a model without norms gains nothing by
    if (!lacks_norms(model, plan) && can_write(form, model, plan).possible) forms.push_back({form, {}});
  }
  if (forms.empty()) forms.push_back({Form::hf_perlayer, {}});
  return forms;
}

}  // namespace lamina
