#include "lamina/serve/local_page.h"

#include <httplib.h>
#include <poll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <optional>
#include <string_view>
#include <thread>
#include <utility>

#include "lamina/base/error.h"

namespace lamina::serve {

namespace {

using Clock = std::chrono::steady_clock;
constexpr std::string_view kHost = "127.0.0.1";

std::string random_token() {
  std::array<unsigned char, 16> bytes{};
  if (getrandom(bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size()))
    fail("the system gave no random bytes for the page's address: {}", std::strerror(errno));
  std::string token;
  for (const unsigned char byte : bytes) token += fmt::format("{:02x}", byte);
  return token;
}

// Takes the same time wherever the two differ.
bool same_secret(std::string_view asked, std::string_view secret) {
  if (asked.size() != secret.size()) return false;
  unsigned different = 0;
  for (size_t i = 0; i < secret.size(); ++i)
    different |= static_cast<unsigned char>(asked[i]) ^ static_cast<unsigned char>(secret[i]);
  return different == 0;
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + ('a' - 'A'));
  return out;
}

std::string dumped(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string complaint(std::string_view sentence) {
  return dumped({{"error", sentence}});
}

std::string_view type_of(std::string_view name) {
  const std::string_view ending = name.substr(std::min(name.rfind('.'), name.size()));
  if (ending == ".html") return "text/html; charset=utf-8";
  if (ending == ".css") return "text/css; charset=utf-8";
  if (ending == ".js") return "text/javascript; charset=utf-8";
  if (ending == ".svg") return "image/svg+xml";
  return "application/octet-stream";
}

const httplib::Headers& safe_headers() {
  static const httplib::Headers headers = {
      {"Content-Security-Policy",
       "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
       "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"},
      {"X-Content-Type-Options", "nosniff"},
      {"X-Frame-Options", "DENY"},
      {"Referrer-Policy", "no-referrer"},
      {"Cross-Origin-Resource-Policy", "same-origin"},
      {"Cross-Origin-Opener-Policy", "same-origin"},
      {"Cache-Control", "no-store"},
  };
  return headers;
}

// One connection, whose request head was read and found small before the library parses any of it.
// The members are those of httplib::Stream in every version from 0.11 on; later ones ask for more of them.
class Connection : public httplib::Stream {
 public:
  Connection(int socket, const Limits& limits)
      : socket_(socket), limits_(limits), deadline_(Clock::now() + limits.patience) {}

  // Nothing: the head is there. Else the status and the sentence to refuse it with (status 0: nobody there).
  std::optional<std::pair<int, std::string>> read_head() {
    size_t end = std::string::npos;
    while ((end = buffer_.find("\r\n\r\n")) == std::string::npos) {
      if (buffer_.size() >= limits_.head) return {{431, "The request has too many or too long headers."}};
      std::array<char, 4096> piece{};
      const ssize_t got = receive(piece.data(), piece.size());
      if (got <= 0) return {{buffer_.empty() ? 0 : 408, "The request did not arrive in time."}};
      buffer_.append(piece.data(), static_cast<size_t>(got));
    }
    const std::string_view head = std::string_view(buffer_).substr(0, end);
    if (head.size() > limits_.head || std::ranges::count(head, '\n') > limits_.headers)
      return {{431, "The request has too many or too long headers."}};
    if (head.find('\0') != std::string_view::npos) return {{400, "The request holds a zero byte."}};
    if (std::min(head.find('\r'), head.size()) > limits_.target) return {{414, "The address is too long."}};
    // The library parses ranges with a regular expression, and no answer here is worth a part of itself.
    if (lower(head).find("\nrange:") != std::string::npos)
      return {{400, "Parts of an answer are not given; leave the Range header away."}};
    return std::nullopt;
  }

  void refuse(int status, std::string_view sentence) {
    const std::string body = complaint(sentence);
    std::string text = fmt::format("HTTP/1.1 {} Refused\r\nConnection: close\r\n", status);
    for (const auto& [name, value] : safe_headers()) text += name + ": " + value + "\r\n";
    text += fmt::format("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{}", body.size(), body);
    write(text.data(), text.size());
  }

  // Closing while unread bytes lie there would reset the connection and lose the answer on its way.
  void close() {
    shutdown(socket_, SHUT_WR);
    const auto until = Clock::now() + std::chrono::milliseconds(500);
    std::array<char, 4096> rest{};
    for (size_t drained = 0; drained < (size_t{1} << 20);) {
      if (!wait(POLLIN, until)) break;
      const ssize_t got = recv(socket_, rest.data(), rest.size(), 0);
      if (got <= 0) break;
      drained += static_cast<size_t>(got);
    }
    ::close(socket_);
  }

  // The other side has not gone away: it has either nothing to say or more to say, but no end.
  bool alive() const {
    char byte = 0;
    const ssize_t got = recv(socket_, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return got > 0 || (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR));
  }

  virtual bool is_readable() const { return at_ < buffer_.size() || alive(); }
  virtual bool is_writable() const { return alive(); }
  virtual bool wait_readable() const { return is_readable(); }
  virtual bool wait_writable() const { return is_writable(); }
  virtual time_t duration() const { return 0; }
  virtual bool is_peer_alive() const { return alive(); }

  virtual ssize_t read(char* to, size_t size) {
    if (at_ < buffer_.size()) {
      const size_t count = std::min(size, buffer_.size() - at_);
      std::memcpy(to, buffer_.data() + at_, count);
      at_ += count;
      return static_cast<ssize_t>(count);
    }
    return receive(to, size);
  }

  virtual ssize_t write(const char* from, size_t size) {
    const auto until = Clock::now() + limits_.patience;
    size_t sent = 0;
    while (sent < size) {
      const ssize_t count = send(socket_, from + sent, size - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (count > 0)
        sent += static_cast<size_t>(count);
      else if (errno == EAGAIN || errno == EWOULDBLOCK) {
        if (!wait(POLLOUT, until)) return -1;
      } else if (errno != EINTR)
        return -1;
    }
    return static_cast<ssize_t>(size);
  }

  virtual void get_remote_ip_and_port(std::string& ip, int& port) const { ip = kHost, port = 0; }
  virtual void get_local_ip_and_port(std::string& ip, int& port) const { ip = kHost, port = 0; }
  virtual int socket() const { return socket_; }

 private:
  bool wait(short what, Clock::time_point until) const {
    for (;;) {
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - Clock::now()).count();
      if (left <= 0) return false;
      pollfd one{.fd = socket_, .events = what, .revents = 0};
      const int ready = poll(&one, 1, static_cast<int>(left));
      if (ready > 0) return true;
      if (ready == 0 || errno != EINTR) return false;
    }
  }

  ssize_t receive(char* to, size_t size) const {
    for (;;) {
      if (!wait(POLLIN, deadline_)) return -1;
      const ssize_t got = recv(socket_, to, size, 0);
      if (got >= 0 || errno != EINTR) return got;
    }
  }

  int socket_;
  const Limits& limits_;
  Clock::time_point deadline_;  // for the whole request
  std::string buffer_;
  size_t at_ = 0;
};

}  // namespace

struct LocalPage::State : httplib::Server {
  explicit State(LocalPage::Options given) : options(std::move(given)), token(random_token()) {}

  LocalPage::Options options;
  std::string token, authority, local_authority, url;
  std::map<std::string, Answer, std::less<>> answers;
  std::map<std::string, Computation, std::less<>> computations;
  std::atomic<int> connections = 0;
  std::atomic<bool> computing = false;
  std::stop_source stopping;

  bool process_and_close_socket(int socket) override;
  // The library's later versions want the addresses of both ends handed in.
  template <class Server>
  static bool processed(Server& server, httplib::Stream& stream) {
    bool closed = false;
    if constexpr (requires { server.process_request(stream, true, closed, nullptr); })
      return server.process_request(stream, true, closed, nullptr);
    else
      return server.process_request(stream, std::string(kHost), 0, std::string(kHost), 0, true, closed,
                                    nullptr);
  }
  httplib::Server::HandlerResponse before_body(const httplib::Request& request, httplib::Response& response);
  void after_body(const httplib::Request& request, httplib::Response& response);
  std::string sentence_of(const std::exception& error) const;
};

namespace {

void reply(httplib::Response& response, int status, const std::string& body,
           std::string_view type = "application/json") {
  response.status = status;
  response.set_content(body, std::string(type).c_str());
}

// What stands behind "/TOKEN/", parted into path and query.
struct Target {
  std::string path;
  std::string query;
};
std::optional<Target> target_of(std::string_view target, std::string_view token) {
  if (!target.starts_with('/')) return std::nullopt;
  target.remove_prefix(1);
  const size_t slash = target.find('/');
  if (!same_secret(target.substr(0, slash), token) || slash == std::string_view::npos) return std::nullopt;
  target.remove_prefix(slash + 1);
  const size_t mark = std::min(target.find('?'), target.size());
  return Target{std::string(target.substr(0, mark)),
                std::string(target.substr(std::min(mark + 1, target.size())))};
}

class ChunkedLines : public Lines {
 public:
  ChunkedLines(httplib::DataSink& sink, std::stop_token stop) : sink_(sink), stop_(std::move(stop)) {}
  bool wanted() override {
    return !gone_ && !stop_.stop_requested() && (gone_ = !sink_.is_writable(), !gone_);
  }
  void add(const Json& line) override {
    if (!wanted()) throw Stopped{};
    send(line);
  }
  void send(const Json& line) {
    const std::string text = dumped(line) + "\n";
    if (!sink_.write(text.data(), text.size())) {
      gone_ = true;
      throw Stopped{};
    }
  }

 private:
  httplib::DataSink& sink_;
  std::stop_token stop_;
  bool gone_ = false;
};

// Held while a computation runs.
class Turn {
 public:
  explicit Turn(std::atomic<bool>& taken) : taken_(&taken) {}
  ~Turn() { end(); }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;
  void end() {
    if (taken_) taken_->store(false);
    taken_ = nullptr;
  }

 private:
  std::atomic<bool>* taken_;
};

// "a=1&b=x+y%C3%A9"; what stands twice counts once. A percent sign without two digits stands for itself.
std::string decoded(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    unsigned char byte = 0;
    const char* from = text.data() + i + 1;
    if (text[i] == '%' && i + 2 < text.size() && std::from_chars(from, from + 2, byte, 16).ptr == from + 2) {
      out += static_cast<char>(byte);
      i += 2;
    } else {
      out += text[i] == '+' ? ' ' : text[i];
    }
  }
  return out;
}

Query query_of(std::string_view text) {
  Query query;
  while (!text.empty()) {
    const std::string_view pair = text.substr(0, text.find('&'));
    text.remove_prefix(std::min(pair.size() + 1, text.size()));
    const size_t sign = std::min(pair.find('='), pair.size());
    query.emplace(decoded(pair.substr(0, sign)), decoded(pair.substr(std::min(sign + 1, pair.size()))));
  }
  return query;
}

}  // namespace

std::string LocalPage::State::sentence_of(const std::exception& error) const {
  return options.message ? options.message(error) : error.what();
}

bool LocalPage::State::process_and_close_socket(int socket) {
  Connection connection(socket, options.limits);
  bool fine = false;
  if (++connections > options.limits.connections) {
    connection.refuse(503, "Too many connections at a time; close other windows of this page.");
  } else if (const auto refused = connection.read_head()) {
    if (refused->first != 0) connection.refuse(refused->first, refused->second);
  } else {
    fine = processed(*this, connection);
  }
  connection.close();
  --connections;
  return fine;
}

// Everything that can be said without the body. A request that is refused here is never read on: every
// connection carries one request, so what is left of it is nobody's next one.
httplib::Server::HandlerResponse LocalPage::State::before_body(const httplib::Request& request,
                                                               httplib::Response& response) {
  using enum httplib::Server::HandlerResponse;
  const auto refuse = [&](int status, std::string_view sentence) {
    reply(response, status, complaint(sentence));
    return Handled;
  };
  const std::string host = request.get_header_value("Host");
  if (request.get_header_value_count("Host") != 1 || (host != authority && host != local_authority))
    return refuse(403, "This page answers to its own address only.");
  if (request.get_header_value_count("Origin") > 1 ||
      (request.has_header("Origin") && request.get_header_value("Origin") != "http://" + host))
    return refuse(403, "This page answers to itself only.");
  const auto target = target_of(request.target, token);
  if (!target) return refuse(404, "not found");
  const bool get = request.method == "GET";
  if (!get && request.method != "POST") return refuse(405, "Only GET and POST are answered here.");
  if (!get) {
    if (!computations.contains(target->path)) return refuse(404, "not found");
    const std::string length = request.get_header_value("Content-Length");
    size_t bytes = 0;
    const auto [end, wrong] = std::from_chars(length.data(), length.data() + length.size(), bytes);
    if (request.get_header_value_count("Content-Length") != 1 || request.has_header("Transfer-Encoding") ||
        request.has_header("Content-Encoding") || wrong == std::errc::invalid_argument ||
        end != length.data() + length.size()) {
      return refuse(411, "The body must be plain and its length given.");
    }
    if (wrong != std::errc() || bytes > options.limits.body) {
      return refuse(413, fmt::format("The body may have {} bytes.", options.limits.body));
    }
    const std::string type = lower(request.get_header_value("Content-Type"));
    if (type.substr(0, type.find(';')) != "application/json")
      return refuse(415, "The body must be JSON, and Content-Type say so.");
    return Unhandled;
  }
  if (const auto found = answers.find(target->path); found != answers.end()) {
    try {
      reply(response, 200, dumped(found->second(query_of(target->query))));
    } catch (const Error& error) {
      return refuse(400, error.what());
    } catch (const std::exception& error) {
      return refuse(500, sentence_of(error));
    }
    return Handled;
  }
  const std::string_view name = target->path.empty() ? "index.html" : std::string_view(target->path);
  for (const EmbeddedFile& file : options.files) {
    if (file.name != name) continue;
    reply(response, 200, std::string(file.bytes), type_of(name));
    return Handled;
  }
  return refuse(404, "not found");
}

void LocalPage::State::after_body(const httplib::Request& request, httplib::Response& response) {
  if (computing.exchange(true)) {
    reply(response, 429, complaint("One computation runs at a time; stop the other one or wait for it."));
    return;
  }
  const auto turn = std::make_shared<Turn>(computing);
  Work work;
  try {
    const Json body =
        parse_json(request.body, "the request", {.depth = 16, .bytes = options.limits.body, .values = 4096});
    work = computations.at(target_of(request.target, token)->path)(body);
  } catch (const Error& error) {
    reply(response, 400, complaint(error.what()));
    return;
  } catch (const std::exception& error) {
    reply(response, 500, complaint(sentence_of(error)));
    return;
  }
  response.status = 200;
  response.set_chunked_content_provider(
      "application/x-ndjson", [this, turn, work = std::move(work)](size_t, httplib::DataSink& sink) {
        ChunkedLines lines(sink, stopping.get_token());
        bool whole = true;
        try {
          try {
            work(lines);
          } catch (const std::exception& error) {
            lines.send({{"event", "error"}, {"error", sentence_of(error)}});
          }
        } catch (const Stopped&) {
          whole = false;
        }
        turn->end();  // before the last byte: who has read it may ask again
        if (whole) sink.done();
        return whole;
      });
}

LocalPage::LocalPage(Options options) : state_(std::make_unique<State>(std::move(options))) {
  State& state = *state_;
  state.set_address_family(AF_INET);
  // Without SO_REUSEPORT, which would let another program take a share of the connections.
  state.set_socket_options([](int socket) {
    const int yes = 1;
    setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  });
  // Two more than are served: they tell whoever comes next that there are too many.
  state.new_task_queue = [count = state.options.limits.connections + 2] {
    return new httplib::ThreadPool(static_cast<size_t>(count));
  };
  state.set_default_headers(safe_headers());
  state.set_payload_max_length(state.options.limits.body);
  state.set_pre_routing_handler(
      [&state](const auto& request, auto& response) { return state.before_body(request, response); });
  state.Post(".*", [&state](const httplib::Request& request, httplib::Response& response) {
    state.after_body(request, response);
  });
  state.set_error_handler([](const httplib::Request&, httplib::Response& response) {
    if (response.body.empty())
      response.set_content(complaint("The request could not be read."), "application/json");
  });
  const int port = state.options.port;
  const std::string host(kHost);
  const int taken = port == 0 ? state.bind_to_any_port(host) : state.bind_to_port(host, port) ? port : -1;
  if (taken <= 0) {
    fail("port {} of {} could not be taken: {}; choose another one, or 0 for any that is free", port, kHost,
         std::strerror(errno));
  }
  state.authority = fmt::format("{}:{}", kHost, taken);
  state.local_authority = fmt::format("localhost:{}", taken);
  state.url = fmt::format("http://{}/{}/", state.authority, state.token);
}

LocalPage::~LocalPage() = default;

void LocalPage::answer(std::string path, Answer answer) {
  state_->answers.emplace(std::move(path), std::move(answer));
}

void LocalPage::compute(std::string path, Computation compute) {
  state_->computations.emplace(std::move(path), std::move(compute));
}

const std::string& LocalPage::address() const {
  return state_->url;
}

void LocalPage::run(const Watch& watch) {
  State& state = *state_;
  std::atomic<bool> ended = false;
  std::jthread listening([&] {
    state.listen_after_bind();
    ended = true;
  });
  const auto pause = [] { std::this_thread::sleep_for(std::chrono::milliseconds(50)); };
  while (!watch.stop.stop_requested() && !ended) {
    watch.report({.phase = "serve", .detail = ""});
    pause();
  }
  const bool asked = watch.stop.stop_requested();
  state.stopping.request_stop();
  while (!ended && !state.is_running()) pause();
  state.stop();
  listening.join();
  if (!asked) fail("the page ended by itself: {}; start it again", std::strerror(errno));
  throw Stopped{};
}

}  // namespace lamina::serve
