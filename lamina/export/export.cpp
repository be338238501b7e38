#include "lamina/export/export.h"

#include <algorithm>
#include <map>
#include <set>

#include "lamina/base/error.h"
#include "lamina/base/staging.h"
#include "lamina/base/text.h"
#include "lamina/blueprint/absence.h"
#include "lamina/export/impl/allowed.h"
#include "lamina/export/impl/gguf_export.h"
#include "lamina/export/impl/renumber.h"
#include "lamina/export/impl/sidecars.h"
#include "lamina/export/impl/transformer_lens.h"
#include "lamina/plan/fold.h"

namespace lamina {

namespace fs = std::filesystem;

namespace {

constexpr Form kForms[] = {Form::hf_compact, Form::hf_zeroed, Form::hf_perlayer,
                           Form::gguf,       Form::hf_compat, Form::transformer_lens};
constexpr std::pair<std::string_view, Form> kOtherNames[] = {{"folded", Form::hf_perlayer},
                                                             {"gpt2-compat", Form::hf_compat},
                                                             {"compact", Form::hf_compact},
                                                             {"proof", Form::hf_zeroed},
                                                             {"extended", Form::hf_perlayer}};

// Where a form goes when several are written.
fs::path place(const FormRequest& request, size_t folders) {
  if (request.form == Form::gguf)
    return fmt::format("model{}{}.gguf", request.dtype ? "-" : "",
                       request.dtype ? dtype_name(*request.dtype) : "");
  return folders == 1 ? fs::path(".") : fs::path(form_name(request.form));
}

}  // namespace

std::string_view form_name(Form form) {
  switch (form) {
    case Form::hf_compact:
      return "hf-compact";
    case Form::hf_zeroed:
      return "hf-zeroed";
    case Form::hf_perlayer:
      return "hf-perlayer";
    case Form::gguf:
      return "gguf";
    case Form::hf_compat:
      return "hf-compat";
    case Form::transformer_lens:
      return "transformer-lens";
  }
  return "";
}

std::span<const Form> all_forms() {
  return kForms;
}

std::string FormRequest::text() const {
  return dtype ? fmt::format("{}:{}", form_name(form), dtype_name(*dtype)) : std::string(form_name(form));
}

namespace {

std::optional<Form> form_from_name(std::string_view name) {
  for (const auto& [other, form] : kOtherNames) {
    if (name == other) return form;
  }
  const auto form = std::ranges::find(kForms, name, form_name);
  return form == std::end(kForms) ? std::nullopt : std::optional(*form);
}

}  // namespace

std::vector<FormRequest> parse_forms(std::string_view list) {
  std::vector<FormRequest> requests;
  std::set<std::string> seen;
  for (const std::string& entry : split(list, ',')) {
    const std::string_view text = trim(entry);
    const size_t colon = text.find(':');
    const std::string_view name = text.substr(0, colon);
    const auto form = form_from_name(name);
    if (!form)
      fail(
          "{} is no form of export; hf-compact, hf-zeroed, hf-perlayer, hf-compat, transformer-lens, gguf, "
          "gguf:f16, gguf:f32 and gguf:q8_0 are",
          in_quotes(text));
    FormRequest request{*form, std::nullopt};
    if (colon != std::string_view::npos) {
      request.dtype = dtype_from_name(text.substr(colon + 1));
      const bool known =
          request.dtype == DType::f32 || request.dtype == DType::f16 || request.dtype == DType::q8_0;
      if (*form != Form::gguf || !known)
        fail("{} is no form of export; a type may follow gguf only, and f32, f16 and q8_0 are there",
             in_quotes(text));
    }
    if (!seen.insert(request.text()).second) fail("{} stands twice in the list of exports", in_quotes(text));
    requests.push_back(request);
  }
  return requests;
}

Checkpoint shaped(Form form, const Opened& model, const Plan& plan) {
  switch (form) {
    case Form::hf_zeroed:
      return filled(apply(model.checkpoint, model.blueprint, silenced(plan)), *model.architecture,
                    model.blueprint);
    case Form::hf_perlayer:
      return apply(model.checkpoint, model.blueprint, plan);
    case Form::hf_compact:
      if (lists_parts(model)) {
        const Compact compact = compact_of(model, plan);
        if (!compact.checkpoint) fail("{} is not possible: {}", form_name(form), compact.note);
        return *compact.checkpoint;
      }
      [[fallthrough]];
    case Form::gguf:
      return renumbered(apply(model.checkpoint, model.blueprint, plan), model.blueprint);
    case Form::hf_compat: {
      Plan rest = plan;
      std::erase_if(rest.edits, [](const Edit& e) { return std::holds_alternative<FreezeNorm>(e); });
      return renumbered(
          with_huge_epsilon(apply(model.checkpoint, model.blueprint, rest), model.blueprint, frozen_by(plan)),
          model.blueprint);
    }
    case Form::transformer_lens:
      return for_transformer_lens(
          renumbered(apply(model.checkpoint, model.blueprint, plan), model.blueprint));
  }
  return {};
}

namespace {

// Names in the index what the component is now.
std::map<std::string, std::string> index_for(const Checkpoint& checkpoint, const Pipeline& pipeline,
                                             const std::string& component) {
  const std::string name = json_string(checkpoint.config, "_class_name", checkpoint.what());
  if (pipeline.index.at(component).at(1) == name) return {};
  Json index = pipeline.index;
  index[component][1] = name;
  return {{"model_index.json", index.dump(2) + "\n"}};
}

// Writes the folder of a form and gives back what stands there.
Checkpoint written_folder(const Checkpoint& checkpoint, Form form, const fs::path& into,
                          const ExportOptions& options) {
  const WriteOptions write{.dtype = options.dtype, .watch = options.watch};
  fs::create_directories(into);
  if (!options.pipeline) {
    write_folder(checkpoint, into, write);
    return form == Form::transformer_lens ? open_folder(into) : open(into).checkpoint;
  }
  write_pipeline(
      *options.pipeline, {{options.component, &checkpoint}}, into,
      {.write = write, .extra_files = index_for(checkpoint, *options.pipeline, options.component)});
  return open(into / options.component).checkpoint;
}

// Of a pipeline, all but the component that is written anew.
uint64_t bytes_beside(const ExportOptions& options) {
  uint64_t bytes = 0;
  if (!options.pipeline) return bytes;
  for (const std::string& file : options.pipeline->files) {
    if (!file.starts_with(options.component + "/")) bytes += fs::file_size(options.pipeline->path / file);
  }
  return bytes;
}

}  // namespace

uint64_t bytes_needed(const Opened& model, const Plan& plan, const std::vector<FormRequest>& requests,
                      const ExportOptions& options) {
  uint64_t bytes = 0;
  for (const FormRequest& request : requests) {
    if (request.form != Form::gguf) bytes += bytes_beside(options);
    for (const Stored& tensor : shaped(request.form, model, plan).tensors) {
      if (request.form == Form::gguf) {
        bytes += byte_count(gguf_dtype(tensor, request.dtype), tensor.shape, tensor.name);
      } else {
        bytes += byte_count(written_dtype(tensor, options.dtype), tensor.shape, tensor.name);
      }
    }
  }
  return bytes;
}

std::vector<Written> write_forms(const Opened& model, const Plan& plan,
                                 const std::vector<FormRequest>& requests, const fs::path& folder,
                                 const ExportOptions& options) {
  for (const FormRequest& request : requests) {
    const Answer answer = can_write(request.form, model, plan);
    if (!answer.possible) fail("{} is not possible: {}", request.text(), answer.note);
    if (request.form == Form::hf_compat && options.dtype && is_narrow(*options.dtype))
      fail(
          "{} is not possible in {}: what an epsilon of 1e12 leaves of a number is below what 16 bits can "
          "hold; leave the type out, or write hf-perlayer",
          request.text(), dtype_name(*options.dtype));
  }
  if (const uint64_t needed = bytes_needed(model, plan, requests, options), there = free_bytes(folder);
      needed > there) {
    fail("{}: {} are needed and {} are free; free some room or ask for fewer forms", folder.string(),
         human_bytes(needed), human_bytes(there));
  }
  const auto folders = static_cast<size_t>(
      std::ranges::count_if(requests, [](const FormRequest& r) { return r.form != Form::gguf; }));
  std::vector<Written> written;
  for (const FormRequest& request : requests) {
    Written entry{.request = request,
                  .path = place(request, folders),
                  .weight_bytes = 0,
                  .opens_in = can_write(request.form, model, plan).note,
                  .component = options.pipeline ? options.component : ""};
    Checkpoint checkpoint = shaped(request.form, model, plan);
    if (request.form == Form::gguf) {
      write_gguf(model, checkpoint, request.dtype, folder / entry.path, options.watch);
      entry.weight_bytes = fs::file_size(folder / entry.path);
    } else {
      add_sidecars(checkpoint);
      const bool says_type = request.form != Form::transformer_lens && !lists_parts(model);
      if (options.dtype && says_type) {
        // transformers writes `dtype` since its fifth version and reads it first.
        if (json_has(checkpoint.config, "dtype")) checkpoint.config["dtype"] = dtype_name(*options.dtype);
        checkpoint.config["torch_dtype"] = dtype_name(*options.dtype);
      }
      const Checkpoint again = written_folder(checkpoint, request.form, folder / entry.path, options);
      check_equal(checkpoint, again, {.dtype = options.dtype, .watch = options.watch});
      entry.weight_bytes = again.file_bytes();
    }
    written.push_back(std::move(entry));
  }
  return written;
}

}  // namespace lamina
