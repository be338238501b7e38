// The forms an edited model can be written in, which of them a plan allows and why not, and the writing
// itself.
//   hf-compact   whole blocks gone and renumbered; stock loaders open it                     (standard)
//   hf-zeroed    all shapes kept, what a cut part writes with zeroed; stock loaders give our numbers, without
//                the speed                                                                   (silenced)
//   hf-perlayer  half blocks gone, norms folded away, declared in config.json; our runtime runs it, and of
//                half blocks LLM-Drop's classes                                              (extended)
//   gguf         llama.cpp: plain when whole blocks go, architecture `deci` for half blocks
//   hf-compat    frozen norms in the stock architecture, by an epsilon of 1e12; float32 alone  (standard)
//   transformer-lens  a model without norms under TransformerLens' names and shapes
// Of a network on pictures the first three: `compact` where stock configs can say what is left, `proof`, and
// `extended`, which lamina alone opens; other names of the same forms.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "lamina/checkpoint/pipeline.h"
#include "lamina/family/family.h"
#include "lamina/plan/plan.h"

namespace lamina {

enum class Form { hf_compact, hf_zeroed, hf_perlayer, gguf, hf_compat, transformer_lens };

// "hf-compact", "gguf", "gguf:q8_0": a form and, for gguf, the type of its matrices (none: as stored in a
// GGUF, else f16).
struct FormRequest {
  Form form = Form::hf_compact;
  std::optional<DType> dtype;
  std::string text() const;
};
// "folded" is another name of hf-perlayer, "gpt2-compat" of hf-compat. Throws Error that lists the forms.
std::vector<FormRequest> parse_forms(std::string_view list);
std::string_view form_name(Form form);
std::span<const Form> all_forms();

struct Answer {
  bool possible = false;
  std::string note;  // possible: what it opens in. Not: why, and which forms would do.
};
Answer can_write(Form form, const Opened& model, const Plan& plan);

// The forms that are written when none is asked for: what opens in stock tools and is smaller if that can be.
std::vector<FormRequest> default_forms(const Opened& model, const Plan& plan);

// The checkpoint that the form holds.
Checkpoint shaped(Form form, const Opened& model, const Plan& plan);

struct Written {
  FormRequest request;
  std::filesystem::path path;  // relative to the output folder: "." or "hf-zeroed" or "model-q8_0.gguf"
  uint64_t weight_bytes = 0;
  std::string opens_in;        // for the report
  std::string component = {};  // of a pipeline
};

struct ExportOptions {
  std::optional<DType> dtype = {};  // floating tensors of the folders; see WriteOptions
  Watch watch = {};
  // The pipeline that the model is a component of: each folder is then a pipeline, all else in it as it was.
  const Pipeline* pipeline = nullptr;
  std::string component = {};  // "unet"
};
// Python lines that load a folder written for TransformerLens, run inside it.
std::string_view transformer_lens_lines();

// Writes every form into `folder` (a single folder form goes to the top, several into folders of their own),
// reopens each, and compares it with what was meant, to the bit. Throws Error before writing anything when a
// form is not possible.
std::vector<Written> write_forms(const Opened& model, const Plan& plan,
                                 const std::vector<FormRequest>& requests,
                                 const std::filesystem::path& folder, const ExportOptions& options);

// Bytes that the forms will need on disk.
uint64_t bytes_needed(const Opened& model, const Plan& plan, const std::vector<FormRequest>& requests,
                      const ExportOptions& options);

}  // namespace lamina
