#include "lamina/cli/neurons_shared.h"

#include <fmt/format.h>

#include "lamina/base/error.h"
#include "lamina/base/staging.h"
#include "lamina/base/text.h"
#include "lamina/cli/card.h"
#include "lamina/cli/cli.h"
#include "lamina/cli/text_of.h"
#include "lamina/data/unicode.h"
#include "lamina/plan/undo.h"

namespace lamina::cli {

namespace fs = std::filesystem;

std::vector<atlas::Token> token_texts(const Checkpoint& checkpoint, int64_t vocabulary) {
  const bool readable = checkpoint.gguf || fs::exists(checkpoint.path / "tokenizer.json") ||
                        fs::exists(checkpoint.path / "vocab.json");
  std::vector<atlas::Token> tokens;
  if (!readable) {
    for (int64_t id = 0; id < vocabulary; ++id) tokens.push_back({fmt::format("#{}", id), false});
    return tokens;
  }
  const Tokenizer tokenizer = tokenizer_of(checkpoint);
  for (int64_t i = 0; i < vocabulary; ++i) {
    const auto id = static_cast<int32_t>(i);
    const bool named = id < tokenizer.size() && tokenizer.token(id).has_value();
    const std::string text = named ? repair_utf8(tokenizer.decode(std::span(&id, 1))) : "";
    tokens.push_back({text, !named || tokenizer.is_special(id)});
  }
  return tokens;
}

std::vector<int32_t> spellings(const Tokenizer& tokenizer, const std::string& concept_text) {
  const std::string word = atlas::word_of(concept_text);
  std::vector<int32_t> ids;
  for (int32_t id = 0; id < tokenizer.size() && !word.empty(); ++id) {
    if (tokenizer.token(id) && !tokenizer.is_special(id) &&
        atlas::word_of(repair_utf8(tokenizer.decode(std::span(&id, 1)))) == word)
      ids.push_back(id);
  }
  if (ids.empty())
    fail("no single token spells {}; try a shorter or more common word", in_quotes(concept_text));
  return ids;
}

Written write_edited(const Opened& opened, const Plan& plan, const EditedFolder& options,
                     const Watch& watch) {
  const Form form = can_write(Form::hf_compact, opened, plan).possible ? Form::hf_compact : Form::hf_perlayer;
  StagedFolder folder(options.out, {.replace = options.replace, .inputs = {opened.checkpoint.path}});
  const auto written =
      write_forms(opened, plan, {{form, std::nullopt}}, folder.path(), {.dtype = {}, .watch = watch});
  write_undo(opened.checkpoint, shaped(form, opened, plan), folder.path(), watch);
  write_file(folder.path() / "plan.json", to_json(plan).dump(2) + "\n");
  report::ModelCard card = card_of(opened, plan, written.front(), options.command);
  card.summary = options.summary;
  write_file(folder.path() / "README.md", report::to_markdown(card));
  folder.commit();
  return written.front();
}

}  // namespace lamina::cli
