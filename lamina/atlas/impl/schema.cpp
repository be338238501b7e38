#include "lamina/atlas/impl/schema.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <array>
#include <cstdlib>
#include <map>
#include <memory>

#include "lamina/base/error.h"
#include "lamina/base/text.h"

namespace lamina::atlas {

namespace {

constexpr std::array<std::string_view, 7> kTables = {
    "CREATE TABLE header(key TEXT PRIMARY KEY, value) WITHOUT ROWID",
    "CREATE TABLE tokens(id INTEGER PRIMARY KEY, text TEXT NOT NULL, word TEXT NOT NULL, special INTEGER NOT "
    "NULL)",
    "CREATE TABLE sets(id INTEGER PRIMARY KEY, rows TEXT NOT NULL, head TEXT NOT NULL)",
    "CREATE TABLE neurons(id INTEGER PRIMARY KEY, set_id INTEGER NOT NULL, block INTEGER NOT NULL, neuron "
    "INTEGER NOT NULL, norm REAL NOT NULL, mean REAL NOT NULL, deviation REAL NOT NULL, kurtosis REAL, "
    "log_sum "
    "REAL NOT NULL, log_sum_negated REAL NOT NULL)",
    "CREATE TABLE labels(neuron_id INTEGER NOT NULL, pole INTEGER NOT NULL, rank INTEGER NOT NULL, token "
    "INTEGER "
    "NOT NULL, score REAL NOT NULL, p REAL NOT NULL, PRIMARY KEY(neuron_id, pole, rank)) WITHOUT ROWID",
    "CREATE TABLE best(set_id INTEGER NOT NULL, pole INTEGER NOT NULL, token INTEGER NOT NULL, block INTEGER "
    "NOT "
    "NULL, neuron INTEGER NOT NULL, score REAL NOT NULL, log_p REAL NOT NULL, below INTEGER NOT NULL, "
    "PRIMARY "
    "KEY(set_id, pole, token)) WITHOUT ROWID",
    "CREATE TABLE angles(id INTEGER PRIMARY KEY, block INTEGER NOT NULL, neuron INTEGER NOT NULL, gate_up "
    "REAL, "
    "up_down REAL, gate_down REAL)",
};

constexpr std::array<std::string_view, 3> kIndexes = {
    "CREATE INDEX tokens_by_word ON tokens(word)",
    "CREATE INDEX labels_by_token ON labels(token, p DESC)",
    "CREATE INDEX neurons_by_kurtosis ON neurons(set_id, kurtosis DESC)",
};

bool is_space(int32_t c) {
  if ((c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85) return true;
  const auto category = utf8proc_category(c);
  return category == UTF8PROC_CATEGORY_ZS || category == UTF8PROC_CATEGORY_ZL ||
         category == UTF8PROC_CATEGORY_ZP;
}

std::string_view without_space(std::string_view text) {
  const auto* data = reinterpret_cast<const utf8proc_uint8_t*>(text.data());
  size_t first = 0, last = 0;  // behind the last character that is no space
  for (size_t at = 0; at < text.size();) {
    int32_t c = 0;
    const auto length = utf8proc_iterate(data + at, static_cast<utf8proc_ssize_t>(text.size() - at), &c);
    const size_t step = length > 0 ? static_cast<size_t>(length) : 1;
    if (length > 0 && is_space(c)) {
      if (last == 0) first = at + step;
    } else {
      last = at + step;
    }
    at += step;
  }
  return last > first ? text.substr(first, last - first) : std::string_view();
}

}  // namespace

const std::string_view kProgressName = "progress";
const std::string_view kProgressTable =
    "CREATE TABLE progress(set_id INTEGER, block INTEGER, pole INTEGER, changes BLOB)";

std::span<const std::string_view> table_statements() {
  return kTables;
}
std::span<const std::string_view> index_statements() {
  return kIndexes;
}

int64_t neurons_of(const Header& header, Rows rows) {
  return rows == Rows::random ? header.random
                              : static_cast<int64_t>(header.decoded_blocks.size()) * header.neurons;
}

int64_t row_of(const Header& header, int64_t set, int block, int64_t neuron) {
  return set * stride(header) + block * header.neurons + neuron;
}

std::vector<int> blocks_of(const Header& header, Rows rows) {
  if (rows == Rows::random) return {0};
  return {header.decoded_blocks.begin(), header.decoded_blocks.end()};
}

void write_header(Database& database, const StoredHeader& stored) {
  const Header& header = stored.header;
  Statement put(database, "INSERT OR REPLACE INTO header(key, value) VALUES(?, ?)");
  const Json json = to_json(header);
  for (const auto& [key, value] : json.items()) {
    if (value.is_number_integer()) {
      put.run(key, value.get<int64_t>());
    } else {
      const std::string text = value.is_string() ? value.get<std::string>() : value.dump();
      put.run(key, text);
    }
  }
  put.run("tokens_sha256", stored.tokens_sha256);
  put.run("plain_tokens", stored.plain_tokens);
}

StoredHeader read_header(const Database& database) {
  std::map<std::string, std::string> texts;
  std::map<std::string, int64_t> numbers;
  Statement all(database, "SELECT key, value FROM header LIMIT 1000");
  for (all.with(); all.next();) {
    if (all.is_integer(1)) {
      numbers[all.text(0)] = all.integer(1);
    } else {
      texts[all.text(0)] = all.text(1);
    }
  }
  const auto text = [&](const char* key) {
    const auto it = texts.find(key);
    if (it == texts.end()) database.damaged(fmt::format("its header has no text {}", key));
    return it->second;
  };
  const auto number = [&](const char* key) {
    const auto it = numbers.find(key);
    if (it == numbers.end()) database.damaged(fmt::format("its header has no number {}", key));
    return it->second;
  };
  const auto json = [&](const char* key) {
    return parse_json(text(key), fmt::format("{}: {} in the header", database.name(), key));
  };
  StoredHeader stored{.header = {.model = text("model"),
                                 .model_path = text("model_path"),
                                 .model_sha256 = text("model_sha256"),
                                 .head_model = text("head_model"),
                                 .head_sha256 = text("head_sha256"),
                                 .lens = text("lens"),
                                 .norm = text("norm"),
                                 .lamina = text("lamina"),
                                 .width = number("width"),
                                 .neurons = number("neurons"),
                                 .vocabulary = number("vocabulary"),
                                 .blocks = number("blocks"),
                                 .top = number("top"),
                                 .random = number("random"),
                                 .seed = number("seed"),
                                 .decoded_blocks = {},
                                 .more = json("more")},
                      .tokens_sha256 = text("tokens_sha256"),
                      .plain_tokens = number("plain_tokens")};
  const Json blocks = json("decoded_blocks");
  if (!blocks.is_array()) database.damaged("decoded_blocks in its header is no list");
  for (const Json& block : blocks) {
    if (!block.is_number_integer()) database.damaged("decoded_blocks in its header holds no numbers");
    stored.header.decoded_blocks.push_back(block.get<int64_t>());
  }
  check_header(stored.header, [&](std::string_view what) { database.damaged(what); });
  if (stored.plain_tokens < 0 || stored.plain_tokens > stored.header.vocabulary)
    database.damaged("plain_tokens in its header is out of range");
  return stored;
}

std::string word_of(std::string_view text) {
  const std::string_view inner = without_space(text);
  std::string word(inner);
  bool ascii = true;
  for (char& c : word) {
    if (static_cast<unsigned char>(c) >= 0x80) ascii = false;
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  }
  if (ascii) return word;
  utf8proc_uint8_t* folded = nullptr;
  const auto size = utf8proc_map(
      reinterpret_cast<const utf8proc_uint8_t*>(inner.data()), static_cast<utf8proc_ssize_t>(inner.size()),
      &folded, static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_CASEFOLD));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> held(folded, &std::free);
  return size < 0 ? word : std::string(reinterpret_cast<const char*>(folded), static_cast<size_t>(size));
}

}  // namespace lamina::atlas
