#include <algorithm>
#include <array>

#include "fuzz/invariant.h"
#include "lamina/label/conll.h"
#include "lamina/label/score.h"

namespace {

using namespace lamina;
using namespace lamina::label;

constexpr std::array kSchemes = {Scheme::iob1, Scheme::iob2, Scheme::iobes, Scheme::bilou};

void is_a_share(double value) {
  fuzz::must(value >= 0 && value <= 1);
}

void check(const Counts& counts) {
  fuzz::must(counts.correct >= 0 && counts.correct <= counts.gold && counts.correct <= counts.predicted);
  is_a_share(counts.precision());
  is_a_share(counts.recall());
  is_a_share(counts.f1());
}

// Written and read again, a document has the same words and tags. The line in front stands for the text
// before a sentence: a byte order mark is dropped at the front of a file alone.
void round_trip(const Document& document, const ReadOptions& options) {
  std::string text = "\n";
  for (const Sentence& sentence : document.sentences) text += conll_text(sentence, {});
  const Document back = parse_conll(text, "written again", options);
  fuzz::must(back.columns == document.columns && back.sentences.size() == document.sentences.size());
  for (size_t s = 0; s < back.sentences.size(); ++s) {
    fuzz::must(back.sentences[s].words == document.sentences[s].words);
    fuzz::must(back.sentences[s].tags == document.sentences[s].tags);
  }
}

void check_tags(Document document) {
  to_iob2(document, {}, "fuzz");
  std::vector<Tags> all;
  for (const Sentence& sentence : document.sentences) {
    fuzz::must(sentence.tags.size() == sentence.words.size());
    all.push_back(sentence.tags);
    const std::vector<Entity> found = entities(sentence.tags, Scheme::iob2, Reading::lenient);
    // A strict reading takes hyphens off a type's ends.
    if (std::ranges::any_of(found, [](const Entity& entity) {
          return entity.type.starts_with('-') || entity.type.ends_with('-');
        }))
      continue;
    const auto words = static_cast<int64_t>(sentence.words.size());
    for (const Scheme scheme : kSchemes)
      fuzz::must(entities(tags_of(found, words, scheme), scheme, Reading::strict) == found);
  }
  fuzz::must(breaks(all, Scheme::iob2).count == 0);
}

void check_scores(const Scored& scored, Scheme scheme, Reading reading) {
  const Score result = score(scored.gold, scored.predicted, scheme, reading);
  check(result.all);
  Counts sum;
  for (const auto& [type, counts] : result.types) check(counts), sum += counts;
  fuzz::must(sum == result.all && result.words_right <= result.words);
  is_a_share(result.macro_f1());
  to_json(result).dump();
  int64_t missing = 0, extra = 0;
  for (const Mistake& mistake : mistakes(scored.gold, scored.predicted, scheme, reading)) {
    missing += mistake.gold ? 1 : 0;
    extra += mistake.predicted ? 1 : 0;
  }
  fuzz::must(missing == result.all.gold - result.all.correct);
  fuzz::must(extra == result.all.predicted - result.all.correct);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text = fuzz::text_of(data, size);
  for (const ReadOptions& options : {ReadOptions{}, ReadOptions{.tags = false}}) {
    const auto document = fuzz::accepted([&] { return parse_conll(text, "fuzz", options); });
    if (!document) continue;
    round_trip(*document, options);
    if (options.tags) check_tags(*document);
  }
  const auto scored = fuzz::accepted([&] { return parse_scored(text, "fuzz"); });
  if (!scored) return 0;
  check_scores(*scored, Scheme::iob2, Reading::lenient);
  for (const Scheme scheme : kSchemes) {
    fuzz::accepted([&] {
      check_scores(*scored, scheme, Reading::strict);
      return 0;
    });
  }
  return 0;
}
