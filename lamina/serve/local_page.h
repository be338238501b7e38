// A page on this machine and for one reader: files that were compiled in, answers as JSON, long answers line
// by line while they are made. Bound to 127.0.0.1; the first element of every address is a random token.
// Invariant: nothing is read, computed or told before token, Host and Origin are right and the size of the
// request is known to be small, so that no other page in the reader's browser and no other user can ask.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "lamina/base/embedded.h"
#include "lamina/base/json.h"
#include "lamina/base/progress.h"

namespace lamina::serve {

struct Limits {
  size_t head = size_t{16} << 10;  // bytes of the request line and the headers
  size_t target = 2048;            // bytes of the address
  int headers = 64;
  size_t body = size_t{64} << 10;
  int connections = 8;
  std::chrono::milliseconds patience{10000};  // until a request is there; for each write
};

// What stands behind the "?", decoded.
using Query = std::map<std::string, std::string>;
using Answer = std::function<Json(const Query&)>;

// Where a computation leaves its answer.
class Lines {
 public:
  virtual ~Lines() = default;
  // False once nobody waits for the answer any more, or the page is asked to end.
  virtual bool wanted() = 0;
  // One line, sent at once. Throws Stopped when it is not wanted.
  virtual void add(const Json& line) = 0;
};
using Work = std::function<void(Lines&)>;
// Checks what was asked, and throws Error when that makes no sense; what it returns does the work.
using Computation = std::function<Work(const Json& body)>;

class LocalPage {
 public:
  struct Options {
    int port = 0;                          // 0: any free one
    std::vector<EmbeddedFile> files = {};  // by address; "index.html" is the page
    Limits limits = {};
    // What is said of an exception that is no Error.
    std::function<std::string(const std::exception&)> message = {};
  };
  // Takes the port. Throws Error when it is not free.
  explicit LocalPage(Options options);
  ~LocalPage();
  LocalPage(const LocalPage&) = delete;
  LocalPage& operator=(const LocalPage&) = delete;

  void answer(std::string path, Answer answer);         // GET: "api/find"
  void compute(std::string path, Computation compute);  // POST of JSON; one runs at a time
  const std::string& address() const;                   // http://127.0.0.1:PORT/TOKEN/

  // Serves until the watch is asked to stop, then ends what runs and throws Stopped.
  [[noreturn]] void run(const Watch& watch);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lamina::serve
