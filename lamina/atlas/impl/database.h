// SQLite in C++: connections and statements that close themselves, and errors as one sentence. What is read
// is checked where it is read: a value of another type or out of its range is damage, and says so.
#pragma once

#include <sqlite3.h>

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "lamina/base/file.h"
#include "lamina/base/json.h"

namespace lamina::atlas {

// A reader may be used from several threads at once, each with statements of its own; a writer from one.
class Database {
 public:
  static Database open_to_write(const std::filesystem::path& path);
  // As it lies there: no locks, no journals. A statement that takes more steps than a sound file of this size
  // could need is stopped, since a damaged one may hold a page that leads back to itself.
  static Database open_to_read(const std::filesystem::path& path);
  static Database over(Bytes bytes, std::string name);  // a copy in memory

  Database(Database&&) noexcept = default;
  Database& operator=(Database&&) noexcept = default;

  void run(const std::string& sql);  // statements without results
  const std::string& name() const { return name_; }
  uint64_t bytes() const { return bytes_; }                // of the file that is read
  [[noreturn]] void failed() const;                        // says what SQLite says
  [[noreturn]] void damaged(std::string_view what) const;  // "atlas.sqlite is damaged: ..."
  void close();

 private:
  friend class Statement;
  struct Close {
    void operator()(sqlite3* connection) const { sqlite3_close_v2(connection); }
  };
  struct Steps {
    std::atomic<int64_t> taken = 0;
    int64_t most = 0;  // 0: no limit
  };
  Database(std::string name, const std::string& uri, int flags);
  void distrust(uint64_t bytes);

  std::string name_;
  bool writes_ = false;
  uint64_t bytes_ = 0;
  std::unique_ptr<Steps> steps_;
  std::unique_ptr<sqlite3, Close> connection_;
};

class Statement {
 public:
  Statement(const Database& database, std::string_view sql);

  // Binds all parameters and forgets the rows before. Text is not copied: it must live until the last row.
  template <class... Values>
  Statement& with(const Values&... values) {
    sqlite3_reset(statement_.get());
    if (database_->steps_) database_->steps_->taken = 0;
    return bind_from(0, values...);
  }
  // Binds the parameters that follow the first `index`.
  template <class... Values>
  Statement& bind_from(int index, const Values&... values) {
    (bind(++index, values), ...);
    return *this;
  }
  template <class... Values>
  void run(const Values&... values) {
    with(values...);
    while (next()) {
    }
    sqlite3_reset(statement_.get());
  }
  bool next();  // a row, or the end

  int64_t integer(int column, IntegerRange range = {}) const;
  double number(int column) const;  // finite
  std::optional<double> number_or_null(int column) const;
  std::string text(int column) const;        // UTF-8
  std::string_view bytes(int column) const;  // valid until the next row
  bool is_integer(int column) const {
    return sqlite3_column_type(statement_.get(), column) == SQLITE_INTEGER;
  }

 private:
  struct Finalize {
    void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
  };
  template <class Value>
  void bind(int index, const Value& value) {
    int status = SQLITE_OK;
    if constexpr (std::is_integral_v<Value>) {
      status = sqlite3_bind_int64(statement_.get(), index, static_cast<int64_t>(value));
    } else if constexpr (std::is_floating_point_v<Value>) {
      status = sqlite3_bind_double(statement_.get(), index, value);  // NaN becomes NULL
    } else if constexpr (std::is_same_v<Value, Bytes>) {
      status = sqlite3_bind_blob64(statement_.get(), index, value.data(), value.size(), SQLITE_STATIC);
    } else {
      const std::string_view text = value;
      status = sqlite3_bind_text64(statement_.get(), index, text.data() ? text.data() : "", text.size(),
                                   SQLITE_STATIC, SQLITE_UTF8);
    }
    if (status != SQLITE_OK) database_->failed();
  }

  const Database* database_;
  std::unique_ptr<sqlite3_stmt, Finalize> statement_;
};

// All that is done with it, or nothing: without `commit` it is rolled back.
class Transaction {
 public:
  explicit Transaction(Database& database) : database_(&database) { database.run("BEGIN IMMEDIATE"); }
  ~Transaction();
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;
  void commit();

 private:
  Database* database_;
};

}  // namespace lamina::atlas
