#include "lamina/atlas/impl/database.h"

#include <fmt/format.h>

#include <cmath>
#include <cstring>
#include <utility>

#include "lamina/base/error.h"
#include "lamina/base/text.h"

namespace lamina::atlas {

namespace fs = std::filesystem;

namespace {

// A path as SQLite takes it, whatever its bytes mean there (":memory:", "?", "#", "%").
std::string uri_of(const fs::path& path, std::string_view options) {
  const std::string whole = fs::absolute(path).native();
  std::string uri = "file:";
  for (char c : whole) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '/' || c == '.' || c == '-' || c == '_';
    uri += plain ? std::string(1, c) : fmt::format("%{:02x}", static_cast<unsigned char>(c));
  }
  return uri + std::string(options);
}

std::string readable(const fs::path& path) {
  const std::string quoted = in_quotes(path.native(), path.native().size() + 1);
  return quoted == "\"" + path.native() + "\"" ? path.native() : quoted;
}

}  // namespace

Database::Database(std::string name, const std::string& uri, int flags) : name_(std::move(name)) {
  sqlite3* connection = nullptr;
  const int status = sqlite3_open_v2(uri.c_str(), &connection, flags | SQLITE_OPEN_URI, nullptr);
  connection_.reset(connection);
  writes_ = (flags & SQLITE_OPEN_READWRITE) != 0;
  if (status != SQLITE_OK) {
    const int reason = connection ? sqlite3_system_errno(connection) : ENOMEM;
    fail("{}: cannot be opened: {}", name_, reason ? std::strerror(reason) : sqlite3_errstr(status));
  }
  sqlite3_extended_result_codes(connection, 1);
}

Database Database::open_to_write(const fs::path& path) {
  return {readable(path), uri_of(path, ""), SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX};
}

Database Database::open_to_read(const fs::path& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  const std::string name = readable(path);
  if (error) fail("{}: cannot be opened: {}", name, error.message());
  if (fs::is_directory(status)) fail("{}: is a folder where an atlas was expected", name);
  if (!fs::is_regular_file(status)) fail("{}: is a pipe or a device; save it to a file first", name);
  const uint64_t bytes = fs::file_size(path, error);
  if (error) fail("{}: cannot be read: {}", name, error.message());
  Database database(name, uri_of(path, "?immutable=1"), SQLITE_OPEN_READONLY | SQLITE_OPEN_FULLMUTEX);
  database.distrust(bytes);
  return database;
}

Database Database::over(Bytes bytes, std::string name) {
  Database database(std::move(name), "file::memory:", SQLITE_OPEN_READWRITE | SQLITE_OPEN_FULLMUTEX);
  database.writes_ = false;
  const auto size = static_cast<sqlite3_int64>(bytes.size());
  auto* copy = static_cast<unsigned char*>(sqlite3_malloc64(bytes.size() + 1));
  if (!copy) fail("{}: out of memory", database.name_);
  if (!bytes.empty()) std::memcpy(copy, bytes.data(), bytes.size());
  const int status = sqlite3_deserialize(
      database.connection_.get(), "main", copy, size, size,
      SQLITE_DESERIALIZE_FREEONCLOSE | SQLITE_DESERIALIZE_READONLY);  // frees it on failure too
  if (status != SQLITE_OK) database.failed();
  database.distrust(bytes.size());
  return database;
}

// What a stranger's file could do through its schema, it cannot.
void Database::distrust(uint64_t bytes) {
  bytes_ = bytes;
  sqlite3* const connection = connection_.get();
  sqlite3_db_config(connection, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  sqlite3_db_config(connection, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
  sqlite3_db_config(connection, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, nullptr);
  sqlite3_db_config(connection, SQLITE_DBCONFIG_ENABLE_VIEW, 0, nullptr);
  sqlite3_limit(connection, SQLITE_LIMIT_LENGTH, 64 << 20);
  steps_ = std::make_unique<Steps>();
  steps_->most = 1'000'000 + 16 * static_cast<int64_t>(bytes);  // a row has 15 bytes or more
  constexpr int every = 1000;
  sqlite3_progress_handler(
      connection, every,
      [](void* data) {
        Steps& steps = *static_cast<Steps*>(data);
        return (steps.taken += every) > steps.most ? 1 : 0;
      },
      steps_.get());
  run("PRAGMA cell_size_check = ON; PRAGMA query_only = ON; PRAGMA cache_size = -16384");
}

void Database::run(const std::string& sql) {
  if (steps_) steps_->taken = 0;
  if (sqlite3_exec(connection_.get(), sql.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK) failed();
}

void Database::failed() const {
  sqlite3* const connection = connection_.get();
  const int status = sqlite3_extended_errcode(connection), kind = status & 0xFF;
  const std::string message = sqlite3_errmsg(connection);
  const int reason = sqlite3_system_errno(connection);
  if (writes_) {
    if (kind == SQLITE_NOMEM) throw std::bad_alloc();
    if (kind == SQLITE_FULL || reason == ENOSPC)
      fail("{}: the disk is full; free some space and go on with --resume", name_);
    if (kind == SQLITE_IOERR)
      fail("{}: writing stopped: {}; is the disk full? Go on with --resume", name_,
           reason != 0 ? std::strerror(reason) : message);
    if (kind == SQLITE_CORRUPT || kind == SQLITE_NOTADB)
      fail("{}: what an earlier run left is damaged ({}); start again without --resume", name_, message);
    fail("{}: cannot be written: {}", name_, message);
  }
  if (kind == SQLITE_NOTADB || kind == SQLITE_CANTOPEN)
    fail("{}: is no atlas; lamina neurons map makes one", name_);
  // SQLite says so of some damaged schemas too.
  if (kind == SQLITE_NOMEM) fail("{}: needs more memory than there is; is it damaged?", name_);
  if (kind == SQLITE_INTERRUPT) damaged("its pages lead back to themselves");
  if (kind == SQLITE_IOERR && reason != 0) fail("{}: cannot be read: {}", name_, std::strerror(reason));
  damaged(message);
}

void Database::damaged(std::string_view what) const {
  // The message of SQLite may quote names from the file.
  const std::string quoted = in_quotes(what, 300);
  fail("{}: is damaged: {}; copy it again, or map the model again", name_,
       quoted.substr(1, quoted.size() - 2));
}

void Database::close() {
  if (connection_ && sqlite3_close(connection_.get()) != SQLITE_OK) failed();
  (void)connection_.release();
}

Statement::Statement(const Database& database, std::string_view sql) : database_(&database) {
  sqlite3_stmt* statement = nullptr;
  const int status = sqlite3_prepare_v3(database.connection_.get(), sql.data(), static_cast<int>(sql.size()),
                                        0, &statement, nullptr);
  statement_.reset(statement);
  if (status != SQLITE_OK) database.failed();
}

bool Statement::next() {
  const int status = sqlite3_step(statement_.get());
  if (status == SQLITE_ROW) return true;
  if (status != SQLITE_DONE) database_->failed();
  return false;
}

int64_t Statement::integer(int column, IntegerRange range) const {
  sqlite3_stmt* const statement = statement_.get();
  const int64_t value = sqlite3_column_int64(statement, column);
  if (sqlite3_column_type(statement, column) != SQLITE_INTEGER || value < range.min || value > range.max)
    database_->damaged(fmt::format("{} is out of range", sqlite3_column_name(statement, column)));
  return value;
}

double Statement::number(int column) const {
  const std::optional<double> value = number_or_null(column);
  if (!value)
    database_->damaged(fmt::format("{} is no number", sqlite3_column_name(statement_.get(), column)));
  return *value;
}

std::optional<double> Statement::number_or_null(int column) const {
  sqlite3_stmt* const statement = statement_.get();
  const int type = sqlite3_column_type(statement, column);
  if (type == SQLITE_NULL) return std::nullopt;
  const double value = sqlite3_column_double(statement, column);
  if ((type != SQLITE_FLOAT && type != SQLITE_INTEGER) || !std::isfinite(value))
    database_->damaged(fmt::format("{} is no number", sqlite3_column_name(statement, column)));
  return value;
}

std::string Statement::text(int column) const {
  sqlite3_stmt* const statement = statement_.get();
  const bool is_text = sqlite3_column_type(statement, column) == SQLITE_TEXT;
  // SQLite turns what a file in UTF-16 holds into UTF-8 here, and knows the size only then.
  const auto* data =
      is_text ? reinterpret_cast<const char*>(sqlite3_column_text(statement, column)) : nullptr;
  std::string text;
  if (data) text.assign(data, static_cast<size_t>(sqlite3_column_bytes(statement, column)));
  if (!data || !is_utf8(text))
    database_->damaged(fmt::format("{} is no text", sqlite3_column_name(statement, column)));
  return text;
}

std::string_view Statement::bytes(int column) const {
  const auto* data = static_cast<const char*>(sqlite3_column_blob(statement_.get(), column));
  const int size = sqlite3_column_bytes(statement_.get(), column);
  return data ? std::string_view(data, static_cast<size_t>(size)) : std::string_view();
}

Transaction::~Transaction() {
  if (!database_) return;
  try {
    database_->run("ROLLBACK");
  } catch (
      const std::exception&) {  // SQLite may have rolled back by itself; the journal is there in any case
  }
}

void Transaction::commit() {
  database_->run("COMMIT");
  database_ = nullptr;
}

}  // namespace lamina::atlas
