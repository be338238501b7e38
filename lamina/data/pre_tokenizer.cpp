#include "lamina/data/pre_tokenizer.h"

#include <string>

#include "lamina/data/byte_level.h"
#include "lamina/data/component.h"
#include "lamina/data/unicode.h"

namespace lamina {

namespace {

enum class Behavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };

struct Splitting {
  Behavior behavior = Behavior::isolated;
  bool inverted = false;  // swaps what matches and what does not
};

// Cuts `piece` at the matches that `next(from)` finds (std::optional<Pattern::Match>), in the five ways of
// HF's Split.
template <class Next>
void split_piece(Piece piece, const Next& next, Splitting how, PieceSink sink) {
  const std::string_view text = piece.text;
  const auto hand_on = [&](size_t begin, size_t end) {
    if (begin < end) sink({text.substr(begin, end - begin), piece.at_start && begin == 0});
  };

  // Spans arrive one by one, matches and the gaps between them; `open` is where the piece being built began.
  size_t open = 0;
  bool previous_matched = false;
  bool first = true;
  const auto take = [&](size_t begin, size_t end, bool matched) {
    const bool is_match = matched != how.inverted;
    switch (how.behavior) {
      case Behavior::isolated:
        hand_on(begin, end);
        break;
      case Behavior::removed:
        if (!is_match) hand_on(begin, end);
        break;
      case Behavior::contiguous:
        if (!first && is_match != previous_matched) hand_on(open, begin), open = begin;
        break;
      case Behavior::merged_with_previous:  // a piece ends after a match, and before a match that follows a
                                            // match
        if (is_match) {
          if (!first && previous_matched) hand_on(open, begin), open = begin;
          hand_on(open, end), open = end;
        }
        break;
      case Behavior::merged_with_next:  // a piece begins with a match
        if (is_match) hand_on(open, begin), open = begin;
        break;
    }
    previous_matched = is_match;
    first = false;
  };

  size_t done = 0;
  for (size_t from = 0; from <= text.size();) {
    const std::optional<Pattern::Match> match = next(from);
    if (!match) break;
    if (match->begin == match->end) {
      // An empty match cuts between two code points and takes none.
      if (match->begin > done) take(done, match->begin, false), done = match->begin;
      if (match->begin >= text.size()) break;
      from = match->begin + first_code_point(text.substr(match->begin)).length;
      continue;
    }
    if (match->begin > done) take(done, match->begin, false);
    take(match->begin, match->end, true);
    done = from = match->end;
  }
  if (done < text.size()) take(done, text.size(), false);
  if (how.behavior != Behavior::isolated && how.behavior != Behavior::removed) hand_on(open, text.size());
}

// Cuts at runs (or single ones) of the code points for which `is_member` holds.
template <class IsMember>
auto find_code_points(std::string_view text, const IsMember& is_member) {
  return [text, is_member](size_t from) -> std::optional<Pattern::Match> {
    while (from < text.size()) {
      const CodePoint c = first_code_point(text.substr(from));
      if (is_member(c.value)) return Pattern::Match{from, from + c.length};
      from += c.length;
    }
    return std::nullopt;
  };
}

Behavior behavior_of(const Json& component, std::string_view what) {
  constexpr std::pair<std::string_view, Behavior> names[] = {
      {"Removed", Behavior::removed},
      {"Isolated", Behavior::isolated},
      {"MergedWithPrevious", Behavior::merged_with_previous},
      {"MergedWithNext", Behavior::merged_with_next},
      {"Contiguous", Behavior::contiguous},
  };
  const std::string name = json_string(component, "behavior", what);
  for (const auto& [known, behavior] : names) {
    if (known == name) return behavior;
  }
  fail("{}: the split behavior {} is not supported", what, in_quotes(name));
}

PreTokenizer split(const Json& component, std::string_view what) {
  const Splitting how{behavior_of(component, what), json_bool_or(component, "invert", false, what)};
  return [pattern = make_pattern(component, what), how](Piece piece, PieceSink sink) {
    split_piece(piece, [&](size_t from) { return pattern.find(piece.text, from); }, how, sink);
  };
}

PreTokenizer digits(const Json& component, std::string_view what) {
  const bool individual = json_bool_or(component, "individual_digits", false, what);
  const Splitting how{individual ? Behavior::isolated : Behavior::contiguous, false};
  return [how](Piece piece, PieceSink sink) {
    split_piece(piece, find_code_points(piece.text, is_numeric), how, sink);
  };
}

PreTokenizer punctuation(const Json& component, std::string_view what) {
  const Splitting how{json_has(component, "behavior") ? behavior_of(component, what) : Behavior::isolated,
                      false};
  return [how](Piece piece, PieceSink sink) {
    split_piece(piece, find_code_points(piece.text, is_punctuation), how, sink);
  };
}

PreTokenizer whitespace_split(const Json&, std::string_view) {
  return [](Piece piece, PieceSink sink) {
    split_piece(piece, find_code_points(piece.text, is_whitespace), {Behavior::removed, false}, sink);
  };
}

// HF runs this one with Rust's regex crate, in whose \w are U+200C and U+200D too, the joiners.
PreTokenizer whitespace(const Json&, std::string_view what) {
  return [pattern = Pattern("[\\w\\x{200C}\\x{200D}]+|[^\\w\\s\\x{200C}\\x{200D}]+", what)](Piece piece,
                                                                                            PieceSink sink) {
    split_piece(
        piece, [&](size_t from) { return pattern.find(piece.text, from); }, {Behavior::removed, true}, sink);
  };
}

PreTokenizer byte_level(const Json& component, std::string_view what) {
  const bool add_prefix_space = json_bool_or(component, "add_prefix_space", true, what);
  std::optional<Pattern> words;
  if (json_bool_or(component, "use_regex", true, what)) {
    words.emplace("'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+", what);
  }
  return [add_prefix_space, words](Piece piece, PieceSink sink) {
    std::string prefixed;
    if (add_prefix_space && !piece.text.starts_with(' '))
      piece.text = (prefixed = ' ' + std::string(piece.text));
    const auto spell = [&](Piece word) { sink({bytes_to_letters(word.text), word.at_start}); };
    if (!words) return spell(piece);
    split_piece(piece, [&](size_t from) { return words->find(piece.text, from); }, {}, spell);
  };
}

enum class PrependScheme { always, first, never };

PreTokenizer metaspace(const Json& component, std::string_view what) {
  const std::string mark = json_string_or(component, "replacement", "\xE2\x96\x81", what);
  if (!is_utf8(mark) || count_code_points(mark) != 1) {
    fail("{}: the replacement {} of Metaspace is not one character", what, in_quotes(mark));
  }
  PrependScheme scheme = PrependScheme::always;
  const std::string name = json_string_or(component, "prepend_scheme", "always", what);
  if (name == "first")
    scheme = PrependScheme::first;
  else if (name == "never" || !json_bool_or(component, "add_prefix_space", true, what))
    scheme = PrependScheme::never;
  else if (name != "always")
    fail("{}: the prepend_scheme {} of Metaspace is not supported", what, in_quotes(name));
  const bool cut = json_bool_or(component, "split", true, what);
  const Pattern space = Pattern::literal(" ", what);
  const Pattern marks = Pattern::literal(mark, what);
  return [=](Piece piece, PieceSink sink) {
    std::string text = replace_all(piece.text, space, mark);
    const bool wanted = scheme == PrependScheme::always || (scheme == PrependScheme::first && piece.at_start);
    if (wanted && !text.starts_with(mark)) text = mark + text;
    const Piece marked{text, piece.at_start};
    if (!cut) return sink(marked);
    split_piece(
        marked, [&](size_t from) { return marks.find(text, from); }, {Behavior::merged_with_next, false},
        sink);
  };
}

// Hands the pieces of the first part to the second, and those of the last to `sink`.
void run_parts(std::span<const PreTokenizer> parts, Piece piece, size_t longest, PieceSink sink) {
  check_growth(piece.text.size(), longest);
  if (parts.empty()) return sink(piece);
  parts.front()(piece, [&](Piece next) { run_parts(parts.subspan(1), next, longest, sink); });
}

PreTokenizer sequence(const Json& component, std::string_view what) {
  return [parts = make_components<PreTokenizer>("pretokenizers", component, what, make_pre_tokenizer)](
             Piece piece, PieceSink sink) { run_parts(parts, piece, longest_from(piece.text.size()), sink); };
}

constexpr ComponentType<PreTokenizer> types[] = {
    {"ByteLevel", byte_level},
    {"Split", split},
    {"Digits", digits},
    {"Punctuation", punctuation},
    {"Metaspace", metaspace},
    {"Whitespace", whitespace},
    {"WhitespaceSplit", whitespace_split},
    {"Sequence", sequence},
};

}  // namespace

PreTokenizer make_pre_tokenizer(const Json& component, std::string_view what) {
  return make_component<PreTokenizer>("pre_tokenizer", types, component, what);
}

}  // namespace lamina
