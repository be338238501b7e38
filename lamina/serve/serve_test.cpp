#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <latch>
#include <thread>

#include "lamina/base/error.h"
#include "lamina/serve/local_page.h"

namespace lamina::serve {
namespace {

using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

// A raw connection: what a browser would never send must be refused too.
class Client {
 public:
  explicit Client(int port) : socket_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  }
  ~Client() { close(); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;
  bool connected() const { return connected_; }
  void close() {
    if (socket_ >= 0) ::close(socket_);
    socket_ = -1;
  }
  void send(std::string_view text) {
    while (!text.empty()) {
      const ssize_t count = ::send(socket_, text.data(), text.size(), MSG_NOSIGNAL);
      if (count <= 0) return;
      text.remove_prefix(static_cast<size_t>(count));
    }
  }
  std::string read_until(std::string_view mark) {
    std::string text;
    std::array<char, 4096> piece{};
    while (mark.empty() || text.find(mark) == std::string::npos) {
      const ssize_t got = recv(socket_, piece.data(), piece.size(), 0);
      if (got <= 0) break;
      text.append(piece.data(), static_cast<size_t>(got));
    }
    return text;
  }
  std::string rest() { return read_until(""); }

 private:
  int socket_;
  bool connected_ = false;
};

class Serve : public testing::Test {
 protected:
  explicit Serve(Limits limits = {.patience = std::chrono::milliseconds(700)})
      : page({.files = {{"index.html", "<!doctype html><title>x</title>"}},
              .limits = limits,
              .message = [](const std::exception&) { return std::string("a short sentence"); }}) {
    page.answer("api/echo", [](const Query& query) {
      Json said = Json::object();
      for (const auto& [name, value] : query) said[name] = value;
      return said;
    });
    page.answer("api/wrong", [](const Query&) -> Json { fail("no such neuron"); });
    page.answer("api/broken", [](const Query&) -> Json { throw std::runtime_error("a\nlong\nbacktrace"); });
    page.compute("api/count", [this](const Json& body) -> Work {
      const int64_t to = json_integer(body, "to", "the request");
      const bool waits = json_bool_or(body, "wait", false, "the request");
      if (json_bool_or(body, "broken", false, "the request"))
        return [](Lines& lines) {
          lines.add({{"line", 0}});
          throw std::runtime_error("a\nlong\nbacktrace");
        };
      return [this, to, waits](Lines& lines) {
        for (int64_t i = 0; i < to; ++i) lines.add({{"line", i}});
        while (waits && !released && lines.wanted())
          std::this_thread::sleep_for(std::chrono::milliseconds(5));
        if (waits && !released) ++given_up;
      };
    });
    const std::string& url = page.address();
    port = std::stoi(url.substr(url.find(':', 6) + 1));
    path = url.substr(url.find('/', 7));
    serving = std::jthread([this] {
      try {
        page.run({.tick = {}, .stop = stop.get_token()});
      } catch (const Stopped&) {
        stopped = true;
      }
    });
  }
  ~Serve() override { end(); }
  void end() {
    stop.request_stop();
    if (serving.joinable()) serving.join();
  }

  std::string host() const { return "127.0.0.1:" + std::to_string(port); }
  std::string raw(std::string_view request) const {
    Client client(port);
    client.send(request);
    return client.rest();
  }
  std::string get(const std::string& target, const std::string& headers = "") const {
    return raw("GET " + target + " HTTP/1.1\r\nHost: " + host() + "\r\n" + headers + "\r\n");
  }
  std::string post_text(const std::string& target, const std::string& body,
                        const std::string& headers = "Content-Type: application/json\r\n") const {
    return "POST " + target + " HTTP/1.1\r\nHost: " + host() + "\r\n" + headers +
           "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
  }
  std::string post(const std::string& target, const std::string& body,
                   const std::string& headers = "Content-Type: application/json\r\n") const {
    return raw(post_text(target, body, headers));
  }

  std::stop_source stop;
  std::atomic<bool> released = false, stopped = false;
  std::atomic<int> given_up = 0;
  LocalPage page;
  int port = 0;
  std::string path;  // "/TOKEN/"
  std::jthread serving;
};

TEST_F(Serve, GivesThePageWithHeadersThatLockItIn) {
  const std::string answer = get(path);
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(answer, HasSubstr("<!doctype html>"));
  EXPECT_THAT(answer, HasSubstr("Content-Type: text/html; charset=utf-8"));
  for (const char* header :
       {"Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'",
        "X-Content-Type-Options: nosniff", "Referrer-Policy: no-referrer", "Cache-Control: no-store",
        "Connection: close"}) {
    EXPECT_THAT(answer, HasSubstr(header));
  }
  EXPECT_THAT(answer, Not(HasSubstr("Access-Control")));
  EXPECT_EQ(path.size(), 34U);
}

TEST_F(Serve, EveryAddressHasItsOwnToken) {
  LocalPage other({});
  EXPECT_NE(other.address().substr(other.address().find('/', 7)), path);
}

TEST_F(Serve, AnswersOnlyBehindTheToken) {
  std::string wrong = path;
  wrong[1] = wrong[1] == '0' ? '1' : '0';
  for (const std::string& target :
       {std::string("/"), std::string("/favicon.ico"), wrong, wrong + "api/echo", path.substr(0, 33),
        path.substr(0, 20) + "/", path + "..", path + "../", path + "../secret.txt", path + "..%2fsecret.txt",
        path + "%2e%2e/secret.txt", path + "page/index.html", path + "secret.txt", path + "/index.html",
        "/" + path, path + "api/none"}) {
    const std::string answer = get(target);
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 404")) << target;
    EXPECT_THAT(answer, HasSubstr("{\"error\":\"not found\"}")) << target;
    EXPECT_THAT(answer, HasSubstr("Content-Security-Policy")) << target;
  }
}

TEST_F(Serve, AnswersOnlyToItsOwnHostAndOrigin) {
  const auto with = [&](const std::string& lines) {
    return raw("GET " + path + "api/echo HTTP/1.1\r\n" + lines + "\r\n");
  };
  const std::string number = std::to_string(port);
  for (const std::string& lines :
       {std::string(), std::string("Host: evil.example\r\n"), "Host: evil.example:" + number + "\r\n",
        std::string("Host: 127.0.0.1\r\n"), "Host: 127.0.0.1.evil.example:" + number + "\r\n",
        "Host: " + host() + "\r\nHost: evil.example\r\n",
        "Host: " + host() + "\r\nOrigin: http://evil.example\r\n", "Host: " + host() + "\r\nOrigin: null\r\n",
        "Host: " + host() + "\r\nOrigin: https://" + host() + "\r\n",
        "Host: " + host() + "\r\nOrigin: http://" + host() + "\r\nOrigin: http://evil.example\r\n"}) {
    EXPECT_THAT(with(lines), StartsWith("HTTP/1.1 403")) << lines;
  }
  EXPECT_THAT(with("Host: " + host() + "\r\nOrigin: http://" + host() + "\r\n"), StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(with("Host: localhost:" + number + "\r\n"), StartsWith("HTTP/1.1 200"));
}

TEST_F(Serve, KnowsTwoMethods) {
  for (const char* method : {"PUT", "DELETE", "OPTIONS", "HEAD", "PATCH"}) {
    const std::string answer =
        raw(std::string(method) + " " + path + "api/echo HTTP/1.1\r\nHost: " + host() + "\r\n\r\n");
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 405")) << method;
  }
  EXPECT_THAT(post(path + "api/echo", "{}"), StartsWith("HTTP/1.1 404"));
  EXPECT_THAT(get(path + "api/count"), StartsWith("HTTP/1.1 404"));
  EXPECT_THAT(raw("NONSENSE\r\n\r\n"), StartsWith("HTTP/1.1 400"));
}

TEST_F(Serve, ReadsQueries) {
  EXPECT_THAT(get(path + "api/echo?a=1&b=x+y%20%C3%A9%26&a=2&c&d=5%"),
              HasSubstr(R"({"a":"1","b":"x y é&","c":"","d":"5%"})"));
  EXPECT_THAT(get(path + "api/echo?a=%ff"), HasSubstr("\xEF\xBF\xBD"));
}

TEST_F(Serve, AnExceptionIsOneSentence) {
  EXPECT_THAT(get(path + "api/wrong"), StartsWith("HTTP/1.1 400"));
  EXPECT_THAT(get(path + "api/wrong"), HasSubstr(R"({"error":"no such neuron"})"));
  EXPECT_THAT(get(path + "api/broken"), StartsWith("HTTP/1.1 500"));
  EXPECT_THAT(get(path + "api/broken"), HasSubstr(R"({"error":"a short sentence"})"));
}

TEST_F(Serve, BoundsWhatItReads) {
  EXPECT_THAT(get(path + "api/echo?a=" + std::string(3000, 'x')), StartsWith("HTTP/1.1 414"));
  EXPECT_THAT(get(path + "api/echo", "X: " + std::string(20000, 'x') + "\r\n"), StartsWith("HTTP/1.1 431"));
  std::string many;
  for (int i = 0; i < 100; ++i) many += "X: 1\r\n";
  EXPECT_THAT(get(path + "api/echo", many), StartsWith("HTTP/1.1 431"));
  EXPECT_THAT(get(path + "api/echo", "Range: bytes=0-1\r\n"), StartsWith("HTTP/1.1 400"));
  EXPECT_THAT(post(path + "api/count", std::string((64 << 10) + 1, ' ')), StartsWith("HTTP/1.1 413"));
  const std::string json = "Content-Type: application/json\r\n";
  const std::string start = "POST " + path + "api/count HTTP/1.1\r\nHost: " + host() + "\r\n" + json;
  EXPECT_THAT(raw(start + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"),
              StartsWith("HTTP/1.1 411"));
  EXPECT_THAT(raw(start + "Content-Length: -1\r\n\r\n"), StartsWith("HTTP/1.1 411"));
  EXPECT_THAT(raw(start + "Content-Length: 99999999999999999999999\r\n\r\n"), StartsWith("HTTP/1.1 413"));
  EXPECT_THAT(post(path + "api/count", "{}", json + "Content-Encoding: gzip\r\n"),
              StartsWith("HTTP/1.1 411"));
  EXPECT_THAT(post(path + "api/count", "{\"to\": 1}", "Content-Type: text/plain\r\n"),
              StartsWith("HTTP/1.1 415"));
  EXPECT_THAT(post(path + "api/count", "{\"to\": "), StartsWith("HTTP/1.1 400"));
  EXPECT_THAT(post(path + "api/count", "{}"), StartsWith("HTTP/1.1 400"));
}

TEST_F(Serve, DoesNotWaitForSlowRequests) {
  const auto before = std::chrono::steady_clock::now();
  Client slow(port);
  slow.send("GET " + path + " HTTP/1.1\r\nHost:");
  EXPECT_THAT(slow.rest(), StartsWith("HTTP/1.1 408"));
  Client shorter(port);  // says more than it sends
  shorter.send("POST " + path + "api/count HTTP/1.1\r\nHost: " + host() +
               "\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{");
  EXPECT_THAT(shorter.rest(), Not(HasSubstr(" 200 ")));
  EXPECT_LT(std::chrono::steady_clock::now() - before, std::chrono::seconds(20));
}

TEST_F(Serve, StreamsLinesAsTheyAreMade) {
  Client client(port);
  client.send(post_text(path + "api/count", R"({"to": 3, "wait": true})"));
  const std::string first = client.read_until(R"({"line":2})");
  EXPECT_THAT(first, HasSubstr("application/x-ndjson"));
  EXPECT_THAT(first, HasSubstr("{\"line\":0}\n"));
  EXPECT_EQ(given_up, 0);
  released = true;
  EXPECT_THAT(client.rest(), HasSubstr("0\r\n\r\n"));
}

TEST_F(Serve, AnErrorInTheMiddleIsTheLastLine) {
  const std::string answer = post(path + "api/count", R"({"to": 1, "broken": true})");
  EXPECT_THAT(answer, HasSubstr(R"({"line":0})"));
  EXPECT_THAT(answer, HasSubstr(R"({"event":"error","error":"a short sentence"})"));
  EXPECT_THAT(post(path + "api/count", R"({"to": 1})"), StartsWith("HTTP/1.1 200"));
}

TEST_F(Serve, OneComputationAtATime) {
  Client first(port);
  first.send(post_text(path + "api/count", R"({"to": 1, "wait": true})"));
  first.read_until(R"({"line":0})");
  const std::string second = post(path + "api/count", R"({"to": 1})");
  EXPECT_THAT(second, StartsWith("HTTP/1.1 429"));
  EXPECT_THAT(second, HasSubstr("One computation runs at a time"));
  EXPECT_THAT(get(path + "api/echo"), StartsWith("HTTP/1.1 200"));
  released = true;
  first.rest();
  EXPECT_THAT(post(path + "api/count", R"({"to": 1})"), StartsWith("HTTP/1.1 200"));
}

TEST_F(Serve, AClosedConnectionEndsTheComputation) {
  {
    Client client(port);
    client.send(post_text(path + "api/count", R"({"to": 1, "wait": true})"));
    client.read_until(R"({"line":0})");
  }
  for (int i = 0; i < 400 && given_up == 0; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_EQ(given_up, 1);
}

TEST_F(Serve, AStopEndsTheComputationAndThePage) {
  Client client(port);
  client.send(post_text(path + "api/count", R"({"to": 1, "wait": true})"));
  client.read_until(R"({"line":0})");
  end();
  EXPECT_TRUE(stopped);
  EXPECT_EQ(given_up, 1);
  EXPECT_FALSE(Client(port).connected());
}

class ServeFew : public Serve {
 protected:
  ServeFew() : Serve({.connections = 2, .patience = std::chrono::milliseconds(3000)}) {}
};

TEST_F(ServeFew, TooManyConnectionsAreToldSo) {
  Client one(port), two(port);
  one.send("GET ");
  two.send("GET ");
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  const std::string third = get(path);
  EXPECT_THAT(third, StartsWith("HTTP/1.1 503"));
  EXPECT_THAT(third, HasSubstr("Too many connections"));
  one.close();
  two.close();
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  EXPECT_THAT(get(path), StartsWith("HTTP/1.1 200"));
}

TEST_F(Serve, ManyAskAtOnce) {
  std::atomic<int> answered = 0, refused = 0;
  {
    std::vector<std::jthread> clients;
    for (int i = 0; i < 40; ++i) {
      clients.emplace_back([&] {
        const std::string answer = get(path + "api/echo?a=1");
        answered += answer.starts_with("HTTP/1.1 200");
        refused += answer.starts_with("HTTP/1.1 503");
      });
    }
  }
  EXPECT_EQ(answered + refused, 40);
  EXPECT_GT(answered, 0);
  EXPECT_THAT(get(path + "api/echo?a=1"), HasSubstr(R"({"a":"1"})"));
}

TEST_F(Serve, ATakenPortIsASentence) {
  try {
    LocalPage second({.port = port});
    FAIL() << "the port was taken twice";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("port " + std::to_string(port)));
  }
}

}  // namespace
}  // namespace lamina::serve
