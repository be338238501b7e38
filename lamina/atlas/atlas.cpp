#include "lamina/atlas/atlas.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <utility>

#include "lamina/atlas/impl/atlas_state.h"
#include "lamina/base/error.h"
#include "lamina/base/text.h"

namespace lamina::atlas {

namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

// Nothing but the tables and indexes of schema.md, to the letter: no view, trigger or foreign index is ever
// met.
void check_schema(const Database& database) {
  std::set<std::string, std::less<>> missing;
  for (std::string_view statement : table_statements()) missing.emplace(statement);
  for (std::string_view statement : index_statements()) missing.emplace(statement);
  Statement all(database, "SELECT sql FROM sqlite_schema LIMIT 100");
  for (all.with(); all.next();) {
    const std::string sql = all.text(0);
    if (sql == kProgressTable)
      fail("{}: is not finished; go on with lamina neurons map --resume", database.name());
    if (missing.erase(sql) == 0) database.damaged("it holds a table that is not an atlas's");
  }
  if (!missing.empty()) database.damaged("a table is missing");
}

int64_t pragma(const Database& database, const char* name) {
  Statement statement(database, fmt::format("PRAGMA {}", name));
  return statement.with().next() ? statement.integer(0) : 0;
}

void check_is_atlas(const Database& database) {
  if (pragma(database, "application_id") != kApplicationId)
    fail("{}: is no atlas; lamina neurons map makes one", database.name());
  if (const int64_t version = pragma(database, "user_version"); version != kVersion)
    fail("{}: is an atlas of version {}, and this lamina reads version {}; map the model again",
         database.name(), version, kVersion);
  // SQLite reads zeros where the last page is cut.
  if (static_cast<uint64_t>(pragma(database, "page_count")) *
          static_cast<uint64_t>(pragma(database, "page_size")) !=
      database.bytes())
    database.damaged("it is cut short, or longer than it was");
  check_schema(database);
}

Best best_of(const Atlas::State& state, const Statement& row, int first) {
  const Header& header = state.stored.header;
  return {.block = static_cast<int>(row.integer(first, {0, header.blocks - 1})),
          .neuron = static_cast<int>(row.integer(first + 1, {0, stride(header) - 1})),
          .score = static_cast<float>(row.number(first + 2)),
          .log_p = row.number(first + 3)};
}

// For a page's search box and for the message when a concept is no single token.
std::string starts_of(const Atlas& atlas, std::string_view concept_text) {
  std::string start = word_of(concept_text);
  while (!start.empty()) {
    std::string names;
    for (int32_t token : atlas.tokens_like(start, 8))
      names += (names.empty() ? "" : ", ") + in_quotes(atlas.token_text(token), 40);
    if (!names.empty()) return names;
    do {
      start.pop_back();
    } while (!start.empty() && !is_utf8(start));
  }
  return {};
}

}  // namespace

Atlas::State::State(Database opened)
    : database(std::move(opened)), stored([this] {
        check_is_atlas(database);
        return read_header(database);
      }()) {
  Statement all(database, "SELECT id, rows, head FROM sets ORDER BY id LIMIT 100");
  for (all.with(); all.next();) {
    std::optional<Set> found;
    for (Rows rows : {Rows::up, Rows::gate, Rows::down, Rows::random}) {
      for (Head head : {Head::own, Head::other}) {
        if (all.text(1) == rows_name(rows) && all.text(2) == head_name(head)) found = Set{rows, head};
      }
    }
    if (!found || all.integer(0) != static_cast<int64_t>(sets.size()) || id_of(*found))
      database.damaged("its sets are not those of an atlas");
    sets.push_back(*found);
  }
  if (sets.empty()) database.damaged("it holds no neurons");
  Statement tokens(database, "SELECT min(id), max(id) FROM tokens");
  const int64_t last = stored.header.vocabulary - 1;
  if (!tokens.with().next() || tokens.integer(0) != 0 || tokens.integer(1) != last)
    database.damaged("its tokens are not as many as its header says");
}

std::optional<int64_t> Atlas::State::id_of(Set set) const {
  const auto it = std::ranges::find(sets, set);
  if (it == sets.end()) return std::nullopt;
  return it - sets.begin();
}

IntegerRange Atlas::State::rows_of(int64_t set) const {
  return {set * stride(stored.header), (set + 1) * stride(stored.header) - 1};
}

IntegerRange Atlas::State::rows_of(int64_t set, int block) const {
  if (sets[static_cast<size_t>(set)].rows == Rows::random) return rows_of(set);
  const int64_t first = row_of(stored.header, set, block, 0);
  return {first, first + stored.header.neurons - 1};
}

NeuronId Atlas::State::neuron_of(int64_t row) const {
  const int64_t within = row % stride(stored.header), neurons = stored.header.neurons;
  if (sets[static_cast<size_t>(row / stride(stored.header))].rows == Rows::random)
    return {0, static_cast<int>(within)};
  return {static_cast<int>(within / neurons), static_cast<int>(within % neurons)};
}

bool Atlas::State::holds(Set set, NeuronId id) const {
  const Header& header = stored.header;
  const std::vector<int> blocks = blocks_of(header, set.rows);
  return id.neuron >= 0 && id.neuron < (set.rows == Rows::random ? header.random : header.neurons) &&
         std::ranges::find(blocks, id.block) != blocks.end();
}

NeuronReader::NeuronReader(const Atlas::State& state)
    : state_(&state),
      statement_(state.database,
                 "SELECT norm, mean, deviation, kurtosis, log_sum, log_sum_negated, set_id, block, neuron "
                 "FROM neurons WHERE id = ?") {}

std::optional<Decoded> NeuronReader::read(int64_t row) {
  if (!statement_.with(row).next()) return std::nullopt;
  const Statement& s = statement_;
  const int64_t set = row / stride(state_->stored.header);
  const NeuronId id = state_->neuron_of(row);
  if (s.integer(6) != set || s.integer(7) != id.block || s.integer(8) != id.neuron)
    state_->database.damaged("a neuron does not stand where its number says");
  return Decoded{.norm = s.number(0),
                 .mean = s.number(1),
                 .deviation = s.number(2),
                 .kurtosis = s.number_or_null(3).value_or(kNone),
                 .log_sum = s.number(4),
                 .log_sum_negated = s.number(5),
                 .top = {},
                 .bottom = {}};
}

TokenReader::TokenReader(const Atlas::State& state)
    : state_(&state), statement_(state.database, "SELECT text FROM tokens WHERE id = ?") {}

std::string TokenReader::text(int64_t token) {
  if (!statement_.with(token).next()) state_->database.damaged(fmt::format("token {} is missing", token));
  return statement_.text(0);
}

LabelReader::LabelReader(const Atlas::State& state)
    : state_(&state),
      statement_(state.database,
                 "SELECT pole, rank, token, score, p FROM labels WHERE neuron_id = ? ORDER BY pole, rank"),
      tokens_(state) {}

void LabelReader::read(int64_t row, Shown& shown) {
  const Header& header = state_->stored.header;
  Statement& s = statement_;
  for (s.with(row); s.next();) {
    const bool bottom = s.integer(0, {kTop, kBottom}) == kBottom;
    auto& labels = bottom ? shown.decoded.bottom : shown.decoded.top;
    auto& readings = bottom ? shown.bottom : shown.top;
    s.integer(1, {static_cast<int64_t>(labels.size()) + 1, static_cast<int64_t>(labels.size()) + 1});
    if (static_cast<int64_t>(labels.size()) >= header.top)
      state_->database.damaged("a neuron has more labels than its header says");
    Reading reading;
    reading.token = static_cast<int32_t>(s.integer(2, {0, header.vocabulary - 1}));
    reading.score = s.number(3);
    reading.p = std::exp(reading.score - shown.decoded.log_sum);
    reading.p_pole = s.number(4);
    if (reading.p_pole < 0 || reading.p_pole > 1 + 1e-6)
      state_->database.damaged("a probability is out of range");
    if (!std::isfinite(reading.p)) state_->database.damaged("a score is out of range");
    reading.text = tokens_.text(reading.token);
    labels.push_back({reading.token, static_cast<float>(reading.score)});
    readings.push_back(std::move(reading));
  }
}

Atlas::Atlas(const std::filesystem::path& path)
    : Atlas(std::make_unique<State>(Database::open_to_read(path))) {}
Atlas::Atlas(std::unique_ptr<State> state) : state_(std::move(state)) {}
Atlas::~Atlas() = default;
Atlas::Atlas(Atlas&&) noexcept = default;
Atlas& Atlas::operator=(Atlas&&) noexcept = default;

Atlas Atlas::over(Bytes bytes, std::string name) {
  return Atlas(std::make_unique<State>(Database::over(bytes, std::move(name))));
}

const Header& Atlas::header() const {
  return state_->stored.header;
}

std::vector<Set> Atlas::sets() const {
  return state_->sets;
}

std::string Atlas::token_text(int32_t token) const {
  if (token < 0 || token >= header().vocabulary)
    fail("{}: there is no token {}; there are {}", state_->database.name(), token, header().vocabulary);
  return TokenReader(*state_).text(token);
}

std::vector<int32_t> Atlas::spellings(std::string_view concept_text) const {
  const std::string word = word_of(concept_text);
  std::vector<int32_t> found;
  if (word.empty()) return found;
  Statement all(state_->database,
                "SELECT id FROM tokens WHERE word = ? AND special = 0 ORDER BY id LIMIT 100");
  for (all.with(word); all.next();)
    found.push_back(static_cast<int32_t>(all.integer(0, {0, header().vocabulary - 1})));
  return found;
}

std::vector<int32_t> Atlas::tokens_like(std::string_view start, int64_t limit) const {
  const std::string from = word_of(start), to = from + "\xF4\x8F\xBF\xBF";  // the last code point there is
  std::vector<int32_t> found;
  Statement all(
      state_->database,
      "SELECT id FROM tokens WHERE word >= ? AND word < ? AND special = 0 ORDER BY length(word), word, "
      "id LIMIT ?");
  for (all.with(from, to, std::max<int64_t>(0, limit)); all.next();)
    found.push_back(static_cast<int32_t>(all.integer(0, {0, header().vocabulary - 1})));
  return found;
}

Found Atlas::find(std::string_view concept_text, const FindOptions& options) const {
  const State& state = *state_;
  Found found{.spellings = spellings(concept_text), .hits = {}, .controls = {}};
  if (found.spellings.empty()) {
    const std::string names = starts_of(*this, concept_text);
    fail("{}: no single token spells it in {}{}{}", in_quotes(concept_text), state.database.name(),
         names.empty() ? "" : "; tokens that begin like it: ", names);
  }
  std::vector<bool> wanted;
  for (const Set& set : state.sets) {
    const bool named = std::ranges::find(options.rows, set.rows) != options.rows.end();
    wanted.push_back(options.rows.empty() ? set.rows != Rows::random : named);
  }
  for (Rows rows : options.rows) {
    if (std::ranges::none_of(state.sets, [&](const Set& set) { return set.rows == rows; }))
      fail("{}: holds no {} rows; map them with --rows", state.database.name(), rows_name(rows));
  }

  struct Place {
    double p = 0;
    int64_t row = 0;
    int pole = 0, rank = 0;
    int32_t token = 0;
  };
  std::vector<Place> places;
  const IntegerRange all_rows{0, static_cast<int64_t>(state.sets.size()) * stride(header()) - 1};
  Statement by_token(
      state.database,
      "SELECT p, neuron_id, pole, rank FROM labels WHERE token = ? ORDER BY p DESC, neuron_id, "
      "pole, rank");
  for (int32_t token : found.spellings) {
    int64_t count = 0;
    for (by_token.with(token); count < options.top && by_token.next();) {
      const int64_t row = by_token.integer(1, all_rows);
      if (!wanted[static_cast<size_t>(row / stride(header()))]) continue;
      places.push_back({by_token.number(0), row, static_cast<int>(by_token.integer(2, {kTop, kBottom})),
                        static_cast<int>(by_token.integer(3, {1, header().top})), token});
      ++count;
    }
  }
  std::ranges::sort(places, [](const Place& a, const Place& b) {
    return std::tuple(-a.p, a.row, a.pole, a.rank) < std::tuple(-b.p, b.row, b.pole, b.rank);
  });
  if (static_cast<int64_t>(places.size()) > options.top)
    places.resize(static_cast<size_t>(std::max<int64_t>(0, options.top)));

  NeuronReader neurons(state);
  LabelReader labels(state);
  for (const Place& place : places) {
    const std::optional<Decoded> decoded = neurons.read(place.row);
    if (!decoded) state.database.damaged("a label has no neuron");
    Shown shown{.decoded = *decoded, .top = {}, .bottom = {}};
    labels.read(place.row, shown);
    const auto& at_pole = place.pole == kBottom ? shown.bottom : shown.top;
    const auto index = static_cast<size_t>(place.rank) - 1;
    if (index >= at_pole.size() || at_pole[index].token != place.token)
      state.database.damaged("the index of labels does not agree with them");
    found.hits.push_back({.id = state.neuron_of(place.row),
                          .set = state.sets[static_cast<size_t>(place.row / stride(header()))],
                          .bottom = place.pole == kBottom,
                          .rank = place.rank,
                          .reading = at_pole[index],
                          .kurtosis = decoded->kurtosis,
                          .first = at_pole[0].text});
  }

  Statement best(
      state.database,
      "SELECT block, neuron, score, log_p, below FROM best WHERE set_id = ? AND pole = ? AND token = ?");
  for (int32_t token : found.spellings) {
    for (size_t id = 0; id < state.sets.size(); ++id) {
      const Set set = state.sets[id];
      if (!wanted[id] || set.rows == Rows::random) continue;
      for (int pole : {kTop, kBottom}) {
        if (!best.with(static_cast<int64_t>(id), pole, token).next()) continue;
        Control control{.set = set,
                        .bottom = pole == kBottom,
                        .token = token,
                        .best = best_of(state, best, 0),
                        .random = {}};
        const int64_t others = std::max<int64_t>(1, state.stored.plain_tokens - 1);
        control.above_tokens =
            static_cast<double>(best.integer(4, {0, others})) / static_cast<double>(others);
        if (const auto random = state.id_of({Rows::random, set.head});
            random && best.with(*random, pole, token).next()) {
          control.random = best_of(state, best, 0);
          control.random_directions = header().random;
        }
        found.controls.push_back(std::move(control));
      }
    }
  }
  return found;
}

std::optional<Shown> Atlas::show(Set set, NeuronId id) const {
  const State& state = *state_;
  const auto set_id = state.id_of(set);
  if (!set_id || !state.holds(set, id)) return std::nullopt;
  const int64_t row = row_of(header(), *set_id, id.block, id.neuron);
  const std::optional<Decoded> decoded = NeuronReader(state).read(row);
  if (!decoded) state.database.damaged(fmt::format("neuron {}.{} is missing", id.block, id.neuron));
  Shown shown{.decoded = *decoded, .top = {}, .bottom = {}};
  LabelReader(state).read(row, shown);
  shown.of = neurons_of(header(), set.rows);
  shown.kurtosis_rank = shown.of;
  if (std::isfinite(decoded->kurtosis)) {
    Statement above(state.database, "SELECT count(*) FROM neurons WHERE set_id = ? AND kurtosis > ?");
    if (above.with(*set_id, decoded->kurtosis).next())
      shown.kurtosis_rank = 1 + above.integer(0, {0, shown.of - 1});
  }
  return shown;
}

std::optional<Angles> Atlas::angles(NeuronId id) const {
  const State& state = *state_;
  if (!state.holds({Rows::up, Head::own}, id)) return std::nullopt;
  Statement statement(state.database, "SELECT gate_up, up_down, gate_down FROM angles WHERE id = ?");
  if (!statement.with(row_of(header(), 0, id.block, id.neuron)).next()) return std::nullopt;
  return Angles{.gate_up = statement.number_or_null(0).value_or(kNone),
                .up_down = statement.number_or_null(1).value_or(kNone),
                .gate_down = statement.number_or_null(2).value_or(kNone)};
}

std::vector<Hit> Atlas::by_kurtosis(Set set, int block, int64_t limit, int64_t offset) const {
  const State& state = *state_;
  std::vector<Hit> hits;
  const auto set_id = state.id_of(set);
  if (!set_id || (block >= 0 && !state.holds(set, {block, 0}))) return hits;
  limit = std::max<int64_t>(0, limit), offset = std::max<int64_t>(0, offset);
  std::vector<int64_t> rows;
  const IntegerRange range = block < 0 ? state.rows_of(*set_id) : state.rows_of(*set_id, block);
  Statement order(state.database,
                  block < 0
                      ? "SELECT id FROM neurons WHERE set_id = ? AND id BETWEEN ? AND ? ORDER BY kurtosis "
                        "DESC, id LIMIT ? OFFSET ?"
                      : "SELECT id FROM neurons WHERE +set_id = ? AND id BETWEEN ? AND ? ORDER BY kurtosis "
                        "DESC, id LIMIT ? OFFSET ?");
  for (order.with(*set_id, range.min, range.max, limit, offset); order.next();)
    rows.push_back(order.integer(0, range));
  NeuronReader neurons(state);
  LabelReader labels(state);
  for (int64_t row : rows) {
    const std::optional<Decoded> decoded = neurons.read(row);
    if (!decoded) state.database.damaged("a neuron is missing");
    Shown shown{.decoded = *decoded, .top = {}, .bottom = {}};
    labels.read(row, shown);
    if (shown.top.empty() && shown.bottom.empty()) continue;
    const bool bottom =
        shown.top.empty() || (!shown.bottom.empty() && shown.bottom[0].p_pole > shown.top[0].p_pole);
    const Reading& first = bottom ? shown.bottom[0] : shown.top[0];
    hits.push_back({.id = state.neuron_of(row),
                    .set = set,
                    .bottom = bottom,
                    .rank = 1,
                    .reading = first,
                    .kurtosis = decoded->kurtosis,
                    .first = first.text});
  }
  return hits;
}

std::vector<Atlas::BlockSummary> Atlas::summary(Set set, double threshold) const {
  const State& state = *state_;
  std::vector<BlockSummary> blocks;
  const auto set_id = state.id_of(set);
  if (!set_id) return blocks;
  // In the order of the index: each block's list is sorted by itself.
  const IntegerRange range = state.rows_of(*set_id);
  std::vector<std::vector<double>> values(
      static_cast<size_t>(set.rows == Rows::random ? 1 : header().blocks));
  Statement all(state.database, "SELECT id, kurtosis FROM neurons WHERE set_id = ? ORDER BY kurtosis DESC");
  for (all.with(*set_id); all.next();) {
    const NeuronId id = state.neuron_of(all.integer(0, range));
    if (const auto kurtosis = all.number_or_null(1))
      values[static_cast<size_t>(id.block)].push_back(*kurtosis);
  }
  for (int block : blocks_of(header(), set.rows)) {
    const std::vector<double>& sorted = values[static_cast<size_t>(block)];
    const size_t n = sorted.size();
    const int64_t neurons = set.rows == Rows::random ? header().random : header().neurons;
    const auto high = std::ranges::count_if(sorted, [&](double kurtosis) { return kurtosis > threshold; });
    blocks.push_back(
        {.block = block,
         .neurons = neurons,
         .median_kurtosis = n == 0 ? kNone : (sorted[(n - 1) / 2] + sorted[n / 2]) / 2,
         .high_kurtosis = static_cast<double>(high) / static_cast<double>(std::max<int64_t>(1, neurons))});
  }
  return blocks;
}

}  // namespace lamina::atlas
