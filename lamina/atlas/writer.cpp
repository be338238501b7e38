#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <set>
#include <utility>

#include "lamina/atlas/atlas.h"
#include "lamina/atlas/impl/database.h"
#include "lamina/atlas/impl/schema.h"
#include "lamina/base/error.h"
#include "lamina/base/hash.h"

namespace lamina::atlas {

namespace fs = std::filesystem;

namespace {

// A token's new best, as `progress` keeps it.
struct Change {
  int32_t token = 0, block = 0, neuron = 0;
  float score = 0;
  double log_p = 0;
};
static_assert(sizeof(Change) == 24);

bool same(const Best& a, const Best& b) {
  return a.block == b.block && a.neuron == b.neuron && a.score == b.score && a.log_p == b.log_p;
}

fs::path with_ending(fs::path path, const char* ending) {
  path += ending;
  return path;
}

// A link means the file that it leads to.
fs::path file_meant(const fs::path& path) {
  std::error_code error;
  if (path.empty() || !path.has_filename()) fail("{}: name a file for the atlas", path.string());
  const fs::file_status status = fs::status(path, error);
  if (fs::is_directory(status)) fail("{}: is a folder; name a file for the atlas", path.string());
  if (fs::exists(status) && !fs::is_regular_file(status))
    fail("{}: is a pipe or a device; name a file for the atlas", path.string());
  if (!fs::is_symlink(fs::symlink_status(path, error))) return path;
  fs::path there = fs::canonical(path, error);
  if (error)
    fail("{}: is a link that leads nowhere ({}); remove it or name another file", path.string(),
         error.message());
  return there;
}

// An empty file is nobody's loss.
bool is_atlas(const fs::path& path) {
  std::array<unsigned char, 72> head{};
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) return false;
  const ssize_t got = ::pread(file, head.data(), head.size(), 0);
  ::close(file);
  if (got == 0) return true;
  int64_t id = 0;
  for (size_t i = 68; i < head.size(); ++i) id = id << 8 | head[i];
  return got == std::ssize(head) && std::memcmp(head.data(), "SQLite format 3", 16) == 0 &&
         id == kApplicationId;
}

bool same_file(int descriptor, const fs::path& path) {
  struct stat held{}, named{};
  return fstat(descriptor, &held) == 0 && stat(path.c_str(), &named) == 0 && held.st_dev == named.st_dev &&
         held.st_ino == named.st_ino;
}

// Many rows a statement: half the time that one at a time takes.
class LabelWriter {
 public:
  struct Row {
    int64_t neuron = 0;
    int pole = 0, rank = 0;
    int32_t token = 0;
    double score = 0, p = 0;
  };

  explicit LabelWriter(const Database& database)
      : one_(database, statement(1)), many_(database, statement(kMany)) {}

  void add(const Row& row) {
    rows_.push_back(row);
    if (rows_.size() < kMany) return;
    many_.with();
    for (size_t i = 0; i < kMany; ++i) bind(many_, i, rows_[i]);
    many_.next();
    rows_.clear();
  }
  void flush() {
    for (const Row& row : rows_) {
      one_.with();
      bind(one_, 0, row);
      one_.next();
    }
    rows_.clear();
  }

 private:
  static constexpr size_t kMany = 64;
  static std::string statement(size_t rows) {
    std::string text = "INSERT INTO labels VALUES";
    for (size_t i = 0; i < rows; ++i) text += i == 0 ? "(?,?,?,?,?,?)" : ",(?,?,?,?,?,?)";
    return text;
  }
  static void bind(Statement& to, size_t index, const Row& row) {
    to.bind_from(static_cast<int>(6 * index), row.neuron, row.pole, row.rank, row.token, row.score, row.p);
  }

  Statement one_, many_;
  std::vector<Row> rows_;
};

std::string sha256_of(std::span<const Token> tokens) {
  Sha256 hash;
  std::string text;
  for (const Token& token : tokens) {
    text.assign(token.special ? "s" : "t").append(token.text).push_back('\0');
    hash.add(text);
  }
  return hash.hex();
}

}  // namespace

struct Writer::State {
  fs::path path, partial;
  Options options;
  Header header;
  std::string tokens_sha256;
  std::vector<bool> plain;  // [vocabulary]
  int lock = -1;
  std::optional<Database> database;
  std::vector<Set> sets;                               // by id
  std::set<std::pair<Set, int>> done;                  // blocks
  std::vector<std::array<std::vector<Best>, 2>> best;  // by set and pole; [vocabulary]
  bool indexed = false;                                // killed just before the renaming: all is there

  ~State() {
    database.reset();  // before the lock goes
    if (lock >= 0) ::close(lock);
  }

  void check_target() const {
    if (!fs::exists(path)) return;
    if (!is_atlas(path)) fail("{}: exists and is no atlas; name another file", path.string());
    if (!options.replace)
      fail("{}: exists already; name another file, or add --force to replace it", path.string());
  }
  void take_lock();
  void begin(std::span<const Token> tokens);
  bool resume();  // false: it holds nothing yet
  size_t id_of(Set set) const;
  size_t add_set(Set set);
  void check(Set set, int block, const Decoded& neuron, size_t index) const;
  void write_best();
};

// The run that holds the lock renames the file when it is done: then there is a new one to take.
void Writer::State::take_lock() {
  for (;;) {
    lock = ::open(partial.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0644);
    if (lock < 0) fail("{}: cannot be written: {}", partial.string(), std::strerror(errno));
    if (::flock(lock, LOCK_EX | LOCK_NB) != 0) {
      const int reason = errno;
      ::close(std::exchange(lock, -1));
      if (reason == EWOULDBLOCK)
        fail("{}: another run is writing it; wait for it or name another file", path.string());
      fail("{}: cannot be locked: {}", partial.string(), std::strerror(reason));
    }
    if (same_file(lock, partial)) return;
    ::close(std::exchange(lock, -1));
  }
}

void Writer::State::begin(std::span<const Token> tokens) {
  std::error_code error;
  for (const char* ending : {"-journal", "-wal", "-shm"}) fs::remove(with_ending(partial, ending), error);
  if (::ftruncate(lock, 0) != 0) fail("{}: cannot be written: {}", partial.string(), std::strerror(errno));
  database.emplace(Database::open_to_write(partial));
  database->run("PRAGMA page_size = 8192; PRAGMA synchronous = OFF; PRAGMA cache_size = -65536");
  Transaction transaction(*database);
  database->run(
      fmt::format("PRAGMA application_id = {}; PRAGMA user_version = {}", kApplicationId, kVersion));
  for (std::string_view statement : table_statements()) database->run(std::string(statement));
  database->run(std::string(kProgressTable));
  write_header(*database, {header, tokens_sha256, std::ranges::count(plain, true)});
  Statement put(*database, "INSERT INTO tokens(id, text, word, special) VALUES(?, ?, ?, ?)");
  int64_t id = 0;
  for (const Token& token : tokens) {
    const std::string word = word_of(token.text);
    put.run(id++, token.text, word, token.special ? 1 : 0);
  }
  transaction.commit();
}

bool Writer::State::resume() {
  database.emplace(Database::open_to_write(partial));
  // A journal that a killed run left is played back by the first reading statement.
  database->run("PRAGMA synchronous = OFF; PRAGMA cache_size = -65536");
  const auto value_of = [&](const char* sql) {
    Statement statement(*database, sql);
    return statement.with().next() ? statement.integer(0) : 0;
  };
  if (value_of("PRAGMA page_count") == 0) return false;  // killed in its very first transaction
  if (value_of("PRAGMA application_id") != kApplicationId || value_of("PRAGMA user_version") != kVersion)
    fail("{}: was made by another version of lamina; start again without --resume", partial.string());
  {
    Statement check(*database, "PRAGMA quick_check(1)");
    if (!check.with().next() || check.text(0) != "ok")
      fail("{}: is damaged; start again without --resume", partial.string());
  }
  const StoredHeader stored = read_header(*database);
  if (fingerprint(stored.header) != fingerprint(header) || stored.tokens_sha256 != tokens_sha256) {
    const Json theirs = to_json(stored.header), ours = to_json(header);
    std::string differ;
    for (const auto& [key, value] : ours.items()) {
      const bool matters = key != "model" && key != "model_path" && key != "head_model" && key != "more";
      if (matters && theirs[key] != value) differ += (differ.empty() ? "" : ", ") + key;
    }
    fail("{}: was made with other options ({}); give the same ones, or start again without --resume",
         partial.string(), differ.empty() ? "tokens" : differ);
  }
  Statement all(*database, "SELECT id, rows, head FROM sets ORDER BY id");
  for (all.with(); all.next();) {
    std::optional<Set> found;
    for (Rows rows : {Rows::up, Rows::gate, Rows::down, Rows::random}) {
      for (Head head : {Head::own, Head::other}) {
        if (all.text(1) == rows_name(rows) && all.text(2) == head_name(head)) found = Set{rows, head};
      }
    }
    if (!found || all.integer(0) != static_cast<int64_t>(sets.size())) database->damaged("a set is unknown");
    sets.push_back(*found);
  }
  best.resize(sets.size());
  Statement has(*database, "SELECT 1 FROM neurons WHERE id = ?");
  for (size_t id = 0; id < sets.size(); ++id) {
    for (int block : blocks_of(header, sets[id].rows)) {
      if (has.with(row_of(header, static_cast<int64_t>(id), block, 0)).next()) done.emplace(sets[id], block);
    }
  }
  if (!Statement(*database, "SELECT 1 FROM sqlite_schema WHERE name = ?").with(kProgressName).next()) {
    indexed = true;
    Statement all_best(*database, "SELECT set_id, pole, token, block, neuron, score, log_p FROM best");
    for (all_best.with(); all_best.next();) {
      const int64_t id = all_best.integer(0, {0, static_cast<int64_t>(sets.size()) - 1});
      auto& state = best[static_cast<size_t>(id)][static_cast<size_t>(all_best.integer(1, {kTop, kBottom}))];
      state.resize(static_cast<size_t>(header.vocabulary));
      state[static_cast<size_t>(all_best.integer(2, {0, header.vocabulary - 1}))] = {
          static_cast<int>(all_best.integer(3)), static_cast<int>(all_best.integer(4)),
          static_cast<float>(all_best.number(5)), all_best.number(6)};
    }
    return true;
  }
  Statement changes(*database, "SELECT set_id, pole, changes FROM progress ORDER BY rowid");
  for (changes.with(); changes.next();) {
    const int64_t id = changes.integer(0, {0, static_cast<int64_t>(sets.size()) - 1});
    auto& state = best[static_cast<size_t>(id)][static_cast<size_t>(changes.integer(1, {kTop, kBottom}))];
    state.resize(static_cast<size_t>(header.vocabulary));
    const std::string_view bytes = changes.bytes(2);
    if (bytes.size() % sizeof(Change) != 0) database->damaged("the record of the best neurons is cut short");
    for (size_t at = 0; at < bytes.size(); at += sizeof(Change)) {
      Change change;
      std::memcpy(&change, bytes.data() + at, sizeof(Change));
      if (change.token < 0 || change.token >= header.vocabulary) database->damaged("a token is out of range");
      state[static_cast<size_t>(change.token)] = {change.block, change.neuron, change.score, change.log_p};
    }
  }
  return true;
}

size_t Writer::State::id_of(Set set) const {
  return static_cast<size_t>(std::ranges::find(sets, set) - sets.begin());
}

size_t Writer::State::add_set(Set set) {
  const size_t id = id_of(set);
  if (id == sets.size()) {
    const std::string rows(rows_name(set.rows)), head(head_name(set.head));
    Statement(*database, "INSERT INTO sets(id, rows, head) VALUES(?, ?, ?)").run(id, rows, head);
  }
  return id;
}

void Writer::State::check(Set set, int block, const Decoded& neuron, size_t index) const {
  bool sound = std::isfinite(neuron.norm) && std::isfinite(neuron.mean) && std::isfinite(neuron.deviation) &&
               std::isfinite(neuron.log_sum) && std::isfinite(neuron.log_sum_negated) &&
               !std::isinf(neuron.kurtosis);
  for (const auto* labels : {&neuron.top, &neuron.bottom}) {
    for (const Label& label : *labels) sound &= std::isfinite(label.score);
  }
  if (!sound)
    fail(
        "the scores of neuron {}.{} ({}) are not finite: the model's weights or its head hold NaN or "
        "infinity",
        block, index, rows_name(set.rows));
}

Writer::Writer(fs::path path, const Header& header, std::span<const Token> tokens, Options options)
    : state_(std::make_unique<State>()) {
  State& state = *state_;
  state.path = file_meant(path);
  state.partial = with_ending(state.path, ".partial");
  state.options = options;
  state.header = header;
  check_header(header, [&](std::string_view what) { fail("{}: cannot be made: {}", path.string(), what); });
  if (static_cast<int64_t>(tokens.size()) != header.vocabulary)
    fail("{}: cannot be made: the head has {} rows and the tokenizer {} tokens", path.string(),
         header.vocabulary, tokens.size());
  for (const Token& token : tokens) state.plain.push_back(!token.special);
  state.tokens_sha256 = sha256_of(tokens);
  state.check_target();
  state.take_lock();
  struct stat info{};
  const bool is_new = fstat(state.lock, &info) == 0 && info.st_size == 0;
  bool goes_on = options.resume && !(is_new && !fs::exists(with_ending(state.partial, "-journal")));
  try {
    state.check_target();  // once more: the run that held the lock may have made it
    if (goes_on) goes_on = state.resume();
    if (!goes_on) {
      state.database.reset();
      state.begin(tokens);
    }
  } catch (...) {
    state.database.reset();
    if (is_new && !goes_on) {
      std::error_code error;
      fs::remove(state.partial, error);
      fs::remove(with_ending(state.partial, "-journal"), error);
    }
    throw;
  }
}

Writer::~Writer() = default;

bool Writer::has(Set set, int block) const {
  return state_->done.contains({set, block});
}

bool Writer::has_angles(int block) const {
  return Statement(*state_->database, "SELECT 1 FROM angles WHERE id = ?")
      .with(row_of(state_->header, 0, block, 0))
      .next();
}

std::vector<Best> Writer::best(Set set, bool bottom) const {
  const size_t id = state_->id_of(set);
  return id < state_->best.size() ? state_->best[id][bottom ? kBottom : kTop] : std::vector<Best>();
}

void Writer::add(Set set, int block, std::span<const Decoded> neurons, std::span<const Best> best_top,
                 std::span<const Best> best_bottom) {
  State& state = *state_;
  const Header& header = state.header;
  const auto count = static_cast<size_t>(set.rows == Rows::random ? header.random : header.neurons);
  const auto vocabulary = static_cast<size_t>(header.vocabulary);
  const std::vector<int> blocks = blocks_of(header, set.rows);
  if (std::ranges::find(blocks, block) == blocks.end())
    fail("{}: block {} is not among those that the atlas's header names", state.path.string(), block);
  if (neurons.size() != count || best_top.size() != vocabulary || best_bottom.size() != vocabulary)
    fail("{}: block {} has {} neurons and {} best where {} and {} were expected", state.path.string(), block,
         neurons.size(), best_top.size(), count, vocabulary);
  if (has(set, block))
    fail("{}: block {} ({}) is there already", state.path.string(), block, rows_name(set.rows));

  Transaction transaction(*state.database);
  const size_t id = state.add_set(set);
  Statement put_neuron(*state.database, "INSERT INTO neurons VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
  LabelWriter put_labels(*state.database);
  int64_t row = row_of(header, static_cast<int64_t>(id), block, 0);
  for (size_t i = 0; i < neurons.size(); ++i, ++row) {
    const Decoded& neuron = neurons[i];
    state.check(set, block, neuron, i);
    put_neuron.run(row, id, block, i, neuron.norm, neuron.mean, neuron.deviation, neuron.kurtosis,
                   neuron.log_sum, neuron.log_sum_negated);
    for (int pole : {kTop, kBottom}) {
      int rank = 0;
      for (const Label& label : pole == kTop ? neuron.top : neuron.bottom) {
        const double score = label.score;
        const double log_p = pole == kTop ? score - neuron.log_sum : -score - neuron.log_sum_negated;
        put_labels.add({row, pole, ++rank, label.token, score, std::exp(log_p)});
      }
    }
  }
  put_labels.flush();
  // Only what changed: after a few blocks that is little.
  std::array<std::vector<Best>, 2> none;
  const auto& before = id < state.best.size() ? state.best[id] : none;
  Statement put_changes(*state.database, "INSERT INTO progress VALUES(?, ?, ?, ?)");
  for (int pole : {kTop, kBottom}) {
    const std::span<const Best> now = pole == kTop ? best_top : best_bottom;
    const std::vector<Best>& then = before[static_cast<size_t>(pole)];
    std::vector<Change> changes;
    for (size_t token = 0; token < now.size(); ++token) {
      const Best& it = now[token];
      if (then.empty() ? it.block < 0 : same(it, then[token])) continue;
      changes.push_back({static_cast<int32_t>(token), it.block, it.neuron, it.score, it.log_p});
    }
    put_changes.run(id, block, pole, Bytes(std::as_bytes(std::span(changes))));
  }
  transaction.commit();
  if (id == state.sets.size()) {
    state.sets.push_back(set);
    state.best.emplace_back();
  }
  state.best[id][kTop].assign(best_top.begin(), best_top.end());
  state.best[id][kBottom].assign(best_bottom.begin(), best_bottom.end());
  state.done.emplace(set, block);
}

void Writer::add_angles(int block, std::span<const Angles> neurons) {
  State& state = *state_;
  if (static_cast<int64_t>(neurons.size()) != state.header.neurons)
    fail("{}: block {} has {} angles where {} were expected", state.path.string(), block, neurons.size(),
         state.header.neurons);
  Transaction transaction(*state.database);
  Statement put(*state.database, "INSERT OR REPLACE INTO angles VALUES(?, ?, ?, ?, ?, ?)");
  int64_t row = row_of(state.header, 0, block, 0);
  for (size_t i = 0; i < neurons.size(); ++i)
    put.run(row++, block, i, neurons[i].gate_up, neurons[i].up_down, neurons[i].gate_down);
  transaction.commit();
}

// In the order of its key; with each, how many other tokens have a best neuron that is less sure.
void Writer::State::write_best() {
  Statement put(*database, "INSERT INTO best VALUES(?, ?, ?, ?, ?, ?, ?, ?)");
  for (size_t id = 0; id < sets.size(); ++id) {
    for (int pole : {kTop, kBottom}) {
      const std::vector<Best>& tokens = best[id][static_cast<size_t>(pole)];
      std::vector<double> sorted;
      for (size_t token = 0; token < tokens.size(); ++token) {
        if (plain[token] && tokens[token].block >= 0) sorted.push_back(tokens[token].log_p);
      }
      std::ranges::sort(sorted);
      for (size_t token = 0; token < tokens.size(); ++token) {
        const Best& it = tokens[token];
        if (it.block < 0) continue;
        const auto below = std::ranges::lower_bound(sorted, it.log_p) - sorted.begin();
        put.run(id, pole, token, it.block, it.neuron, static_cast<double>(it.score), it.log_p, below);
      }
    }
  }
}

void Writer::finish(const Json& more) {
  State& state = *state_;
  if (state.sets.empty()) fail("{}: nothing was mapped", state.path.string());
  for (const Set& set : state.sets) {
    for (int block : blocks_of(state.header, set.rows)) {
      if (!has(set, block))
        fail("{}: {} lacks block {}; map it with --resume and the same --rows", state.path.string(),
             rows_name(set.rows), block);
    }
  }
  state.check_target();
  state.header.more = more;
  {
    Transaction transaction(*state.database);
    if (!state.indexed) {
      state.write_best();
      state.database->run(fmt::format("DROP TABLE {}", kProgressName));  // the indexes take its pages
      for (std::string_view statement : index_statements()) state.database->run(std::string(statement));
    }
    write_header(*state.database, {state.header, state.tokens_sha256, std::ranges::count(state.plain, true)});
    transaction.commit();
  }
  {
    Statement check(*state.database, "PRAGMA quick_check(1)");
    if (!check.with().next() || check.text(0) != "ok")
      fail("{}: is damaged; is the disk sound? Map the model again", state.partial.string());
  }
  state.database->close();
  state.database.reset();
  const auto give_up = [&](const char* reason) {
    fail("{}: could not be completed: {}; the work is in {}", state.path.string(), reason,
         state.partial.string());
  };
  if (::fsync(state.lock) != 0) give_up(std::strerror(errno));
  if (state.options.replace) {
    if (::rename(state.partial.c_str(), state.path.c_str()) != 0) give_up(std::strerror(errno));
    // A journal of the atlas that was there would be played back into this one.
    std::error_code error;
    for (const char* ending : {"-journal", "-wal", "-shm"})
      fs::remove(with_ending(state.path, ending), error);
  } else if (::renameat2(AT_FDCWD, state.partial.c_str(), AT_FDCWD, state.path.c_str(), RENAME_NOREPLACE) !=
             0) {
    if (errno == EEXIST) give_up("another program has made it meanwhile");
    if (errno != EINVAL ||
        ::rename(state.partial.c_str(), state.path.c_str()) != 0)  // not every file system can
      give_up(std::strerror(errno));
  }
  sync_folder(state.path.has_parent_path() ? state.path.parent_path() : fs::path("."));
}

}  // namespace lamina::atlas
