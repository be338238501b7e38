#include "lamina/label/conll.h"

#include <algorithm>

#include "lamina/base/error.h"
#include "lamina/base/file.h"
#include "lamina/base/text.h"

namespace lamina::label {

namespace {

constexpr std::string_view byte_order_mark = "\xEF\xBB\xBF", replacement = "\xEF\xBF\xBD";

// Calls use(line, number) for each line, without its end.
template <class Use>
void each_line(std::string_view text, const Use& use) {
  for (int64_t number = 1; !text.empty(); ++number) {
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    while (line.ends_with('\r')) line.remove_suffix(1);
    use(line, number);
  }
}

std::string with_replacements(std::string_view line) {
  std::string out;
  while (!line.empty()) {
    size_t length = 1;
    while (length <= std::min<size_t>(4, line.size()) && !is_utf8(line.substr(0, length))) ++length;
    const bool valid = length <= std::min<size_t>(4, line.size());
    out += valid ? line.substr(0, length) : replacement;
    line.remove_prefix(valid ? length : 1);
  }
  return out;
}

std::vector<std::string> cells_of(std::string_view line, bool tabs) {
  std::vector<std::string> cells = split(line, tabs ? '\t' : ' ');
  if (!tabs) std::erase(cells, "");
  return cells;
}

bool begins_a_text(std::string_view line) {
  return trim(line).starts_with("-DOCSTART-");
}

std::string counted(int64_t count, std::string_view one) {
  return count == 1 ? fmt::format("one {}", one) : fmt::format("{} {}s", thousands(count), one);
}

// One kind of oddity: how often, and where first.
class Oddity {
 public:
  void seen(int64_t line) {
    if (count_++ == 0) first_ = line;
  }
  // `does` and `do_` for one and for several.
  void tell(std::vector<std::string>& notes, std::string_view what, std::string_view thing,
            std::string_view one, std::string_view several) const {
    if (count_ == 0) return;
    notes.push_back(fmt::format(
        "{}: {} {}{}", what, counted(count_, thing), count_ == 1 ? one : several,
        count_ == 1 ? fmt::format(", line {}", first_) : fmt::format(", the first in line {}", first_)));
  }

 private:
  int64_t count_ = 0, first_ = 0;
};

size_t column_index(int column, int64_t columns, std::string_view role, std::string_view what) {
  const int64_t index = column < 0 ? columns + column : column;
  if (index < 0 || index >= columns)
    fail("{}: the column of {} should be {}, and the file has {} (the first is 0, the last -1)", what, role,
         column, counted(columns, "column"));
  return static_cast<size_t>(index);
}

// `role` is empty, "gold " or "predicted ".
std::string tag_of(std::string_view cell, std::string_view role, size_t column, std::string_view what,
                   int64_t line) {
  const std::string_view tag = trim(cell);
  if (tag == "O") return "O";
  if (tag.empty()) fail("{}: line {} has no {}tag in column {}", what, line, role, column + 1);
  const bool prefix = std::string_view("BIESLU").find(tag[0]) != std::string_view::npos;
  if (prefix && tag.find_first_not_of('-', 1) == std::string_view::npos)
    fail("{}: line {}: the {}tag {} has no type; write it as {}-PER", what, line, role, in_quotes(tag),
         tag[0]);
  if (!prefix || tag[1] != '-')
    fail(
        "{}: line {}: {} in column {} is no {}tag; tags are O, or one of B, I, E, S, L, U, a hyphen and a "
        "type, as B-PER{}",
        what, line, in_quotes(tag), column + 1, role,
        role.empty() ? "" : ", and the last two columns hold the gold and the predicted ones");
  return std::string(tag);
}

// Sentences with their rows alone.
Document read_rows(std::string_view text, std::string_view what) {
  if (text.starts_with("\xFF\xFE") || text.starts_with("\xFE\xFF"))
    fail("{}: is UTF-16, and UTF-8 is read; convert it, as with iconv -f UTF-16 -t UTF-8", what);
  if (text.starts_with(byte_order_mark)) text.remove_prefix(byte_order_mark.size());
  int64_t first_tab = 0;
  each_line(text, [&](std::string_view line, int64_t number) {
    const bool has_cells = !trim(line).empty() && !begins_a_text(line);
    if (first_tab == 0 && has_cells && line.find('\t') != std::string_view::npos) first_tab = number;
  });

  Document document;
  Oddity blank, not_utf8;
  int64_t first_line = 0;
  bool open = false;
  each_line(text, [&](std::string_view line, int64_t number) {
    if (trim(line).empty() || begins_a_text(line)) {
      open = false;
      if (!line.empty() && trim(line).empty()) blank.seen(number);
      return;
    }
    std::string repaired;
    if (!is_utf8(line)) {
      not_utf8.seen(number);
      line = repaired = with_replacements(line);
    }
    std::vector<std::string> cells = cells_of(line, first_tab != 0);
    const auto columns = static_cast<int64_t>(cells.size());
    if (first_line == 0) first_line = number, document.columns = columns;
    if (columns != document.columns) {
      const std::string parted = first_tab == 0 ? "runs of spaces part columns"
                                                : fmt::format("tabs part columns, as in line {}", first_tab);
      fail("{}: line {} has {} where line {} has {}; {}", what, number, counted(columns, "column"),
           first_line, document.columns, parted);
    }
    if (!open) document.sentences.push_back({.line = number});
    open = true;
    document.sentences.back().rows.push_back(std::move(cells));
  });
  if (document.sentences.empty()) fail("{}: holds no sentence; one word a line is read, in columns", what);
  blank.tell(document.notes, what, "line", "of white space alone was read as empty",
             "of white space alone were read as empty");
  not_utf8.tell(document.notes, what, "line", "is not UTF-8; its bytes that are not were read as U+FFFD",
                "are not UTF-8; their bytes that are not were read as U+FFFD");
  return document;
}

std::vector<std::string> tags_in(const Sentence& sentence, std::string_view role, size_t column,
                                 std::string_view what) {
  std::vector<std::string> tags;
  tags.reserve(sentence.rows.size());
  for (size_t i = 0; i < sentence.rows.size(); ++i)
    tags.push_back(
        tag_of(sentence.rows[i][column], role, column, what, sentence.line + static_cast<int64_t>(i)));
  return tags;
}

// The scheme that fits best: by the prefixes that are there, else the one that is broken less often.
Scheme likely_scheme(std::span<const std::vector<std::string>> sentences) {
  Scheme best = Scheme::iob2;
  int64_t fewest = -1;
  for (const Scheme scheme : {Scheme::iob2, Scheme::iob1, Scheme::iobes, Scheme::bilou}) {
    const int64_t count = breaks(sentences, scheme).count;
    if (fewest < 0 || count < fewest) best = scheme, fewest = count;
  }
  return best;
}

}  // namespace

Document parse_conll(std::string_view text, std::string_view what, const ReadOptions& options) {
  Document document = read_rows(text, what);
  const size_t word_column = column_index(options.word_column, document.columns, "words", what);
  size_t tag_column = 0;
  if (options.tags) {
    tag_column = column_index(options.tag_column, document.columns, "tags", what);
    if (document.columns == 1)
      fail("{}: has one column, and words and tags are needed: two columns, parted by a tab or by spaces",
           what);
    if (tag_column == word_column)
      fail("{}: words and tags were both asked of column {}; they stand in two columns", what,
           word_column + 1);
  }
  Oddity lost;
  for (Sentence& sentence : document.sentences) {
    sentence.words.reserve(sentence.rows.size());
    int64_t line = sentence.line;
    for (const std::vector<std::string>& row : sentence.rows) {
      const std::string_view word = trim(row[word_column]);
      if (word.empty()) lost.seen(line);
      sentence.words.emplace_back(word.empty() ? replacement : word);
      ++line;
    }
    if (options.tags) sentence.tags = tags_in(sentence, "", tag_column, what);
  }
  lost.tell(document.notes, what, "word", "is empty or white space alone and was read as U+FFFD",
            "are empty or white space alone and were read as U+FFFD");
  return document;
}

Document read_conll(const std::filesystem::path& path, const ReadOptions& options) {
  return parse_conll(read_file(path), path.string(), options);
}

void to_iob2(Document& document, std::optional<Scheme> scheme, std::string_view what) {
  std::vector<std::vector<std::string>> tags;
  for (Sentence& sentence : document.sentences) tags.push_back(std::move(sentence.tags));
  const Scheme from = scheme ? *scheme : likely_scheme(tags);
  if (const Breaks broken = breaks(tags, from); broken.count > 0) {
    const int64_t line = document.sentences[static_cast<size_t>(broken.sentence)].line + broken.word;
    document.notes.push_back(fmt::format("{}: {} {} {} and {} read as conlleval would, {}line {}", what,
                                         counted(broken.count, "tag"), broken.count == 1 ? "breaks" : "break",
                                         scheme_name(from), broken.count == 1 ? "was" : "were",
                                         broken.count == 1 ? "" : "the first in ", line));
  }
  for (size_t s = 0; s < tags.size(); ++s) {
    for (std::string& tag : tags[s]) {
      if (tag[0] == 'L') tag[0] = 'E';
      if (tag[0] == 'U') tag[0] = 'S';
    }
    document.sentences[s].tags = tags_of(entities(tags[s], from, Reading::lenient),
                                         static_cast<int64_t>(tags[s].size()), Scheme::iob2);
  }
}

Scored parse_scored(std::string_view text, std::string_view what) {
  const Document document = read_rows(text, what);
  const auto columns = static_cast<size_t>(document.columns);
  if (columns < 2) fail("{}: has one column, and gold and predicted tags are needed in the last two", what);
  Scored scored;
  scored.notes = document.notes;
  for (const Sentence& sentence : document.sentences) {
    scored.gold.push_back(tags_in(sentence, "gold ", columns - 2, what));
    scored.predicted.push_back(tags_in(sentence, "predicted ", columns - 1, what));
    scored.lines.push_back(sentence.line);
    std::vector<std::string>& words = scored.words.emplace_back();
    if (columns == 2) continue;
    for (const std::vector<std::string>& row : sentence.rows) words.push_back(row[0]);
  }
  return scored;
}

std::string conll_text(const Sentence& sentence, const std::vector<std::string>& column) {
  const size_t size = sentence.rows.empty() ? sentence.words.size() : sentence.rows.size();
  if (!column.empty() && column.size() != size)
    fail("a column of {} cells cannot stand beside a sentence of {} words", column.size(), size);
  if (sentence.rows.empty() && !sentence.tags.empty() && sentence.tags.size() != size)
    fail("a sentence has {} words and {} tags", size, sentence.tags.size());
  std::string out;
  for (size_t i = 0; i < size; ++i) {
    if (!sentence.rows.empty()) {
      out += fmt::format("{}", fmt::join(sentence.rows[i], "\t"));
    } else {
      out += sentence.words[i];
      if (!sentence.tags.empty()) out += "\t" + sentence.tags[i];
    }
    if (!column.empty()) out += "\t" + column[i];
    out += '\n';
  }
  return out + '\n';
}

}  // namespace lamina::label
