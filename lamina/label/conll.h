// Files of one word a line in columns, an empty line between sentences: CoNLL. Columns are separated by one
// tab where the file has a tab, else by runs of spaces. Lines may end in CRLF; a line of white space alone is
// an empty one; "-DOCSTART-" lines are kept apart from sentences and dropped; no limit to a line's length.
// Bytes that are not UTF-8 become U+FFFD, one each; a byte order mark in front is dropped. Lines that begin
// with "#" are words like others.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lamina/label/scheme.h"

namespace lamina::label {

struct Sentence {
  std::vector<std::string> words = {};
  std::vector<std::string> tags = {};               // empty where no tags were asked for
  std::vector<std::vector<std::string>> rows = {};  // all columns, as they stood
  int64_t line = 0;                                 // of its first word, from 1; the others follow at once
};

struct Document {
  std::vector<Sentence> sentences = {};
  int64_t columns = 0;
  std::vector<std::string> notes =
      {};  // "FILE: what was odd, how it was read, and the first line"; one a kind
};

// Columns count from 0, or from the end: -1 is the last.
struct ReadOptions {
  int word_column = 0;
  int tag_column = -1;
  bool tags = true;  // false: words alone are needed, and one column is enough
};
// Throws Error with `what` and the line number for a line with more or fewer columns than the first, and a
// tag that is neither "O" nor PREFIX-TYPE with a known prefix (B, I, E, S, L, U) and a type; and for a file
// without one sentence. Spaces around a word, between tabs, are dropped from `words`. A word that is empty or
// white space alone is read as U+FFFD, with a note: corpora of tweets have some, where characters were lost.
Document parse_conll(std::string_view text, std::string_view what, const ReadOptions& options = {});
Document read_conll(const std::filesystem::path& path, const ReadOptions& options = {});

// The tags of `document` in IOB2, whatever they were in: `scheme` empty finds it out. Tags that break the
// scheme are read leniently (L as E, U as S), with a note that says how many and where the first stands.
// Sentences without a tag stay so. `what` names the file in the note; `rows` are left as they are.
void to_iob2(Document& document, std::optional<Scheme> scheme, std::string_view what);

// Gold and predicted tags from the last two columns of a file, as conlleval reads them; words from the first,
// where there are three. Same errors.
struct Scored {
  std::vector<std::vector<std::string>> gold = {}, predicted = {};
  std::vector<std::vector<std::string>> words = {};  // empty sentences where the file has two columns
  std::vector<int64_t> lines = {};                   // of each sentence's first word
  std::vector<std::string> notes = {};
};
Scored parse_scored(std::string_view text, std::string_view what);

// A sentence's rows with one more column, lines ended by "\n", an empty line behind it. Without rows, words
// and tags; an empty `column` adds nothing. Separator: tab. Throws Error where lengths differ.
std::string conll_text(const Sentence& sentence, const std::vector<std::string>& column);

}  // namespace lamina::label
