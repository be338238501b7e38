// The one file that includes ProcessGroupGloo.hpp, over declarations of our own (third_party/gloo_decl).
#include <arpa/inet.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include "lamina/base/error.h"
#include "lamina/heal/impl/backend.h"

namespace lamina {

namespace {

// The address of this machine from which packets to the store leave. Gloo's own way, to look up the host's
// name, often ends at the loopback, where other machines cannot reach it.
std::string address_towards(const Place& place) {
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_DGRAM;
  if (getaddrinfo(place.address.c_str(), std::to_string(place.port).c_str(), &hints, &found) != 0) return "";
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> keep(found, freeaddrinfo);
  const int descriptor = socket(found->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (descriptor < 0) return "";
  sockaddr_storage local{};
  socklen_t length = sizeof local;
  char text[NI_MAXHOST] = {};
  const bool ok = connect(descriptor, found->ai_addr, found->ai_addrlen) == 0 &&
                  getsockname(descriptor, reinterpret_cast<sockaddr*>(&local), &length) == 0 &&
                  getnameinfo(reinterpret_cast<sockaddr*>(&local), length, text, sizeof text, nullptr, 0,
                              NI_NUMERICHOST) == 0;
  close(descriptor);
  return ok ? text : "";
}

}  // namespace

Backend gloo_backend(const Store& store, const Place& place, const GroupOptions& options) {
  using c10d::ProcessGroupGloo;
  const auto gloo = ProcessGroupGloo::Options::create(options.timeout);
  std::string interface = options.interface;
  if (interface.empty()) interface = environment("GLOO_SOCKET_IFNAME").value_or("");
  interface = interface.substr(0, interface.find(','));
  if (!interface.empty()) {
    gloo->devices.push_back(ProcessGroupGloo::createDeviceForInterface(interface, false));
  } else if (place.one_machine()) {
    gloo->devices.push_back(ProcessGroupGloo::createDeviceForHostname("127.0.0.1", false));
  } else {
    const std::string address = address_towards(place);
    if (address.empty() || address.starts_with("127.") || address == "::1") {
      fail("{}: no network address of this machine leads to {}; name its interface with GLOO_SOCKET_IFNAME",
           place.shown(), place.address);
    }
    gloo->devices.push_back(ProcessGroupGloo::createDeviceForHostname(address, false));
  }
  return c10::make_intrusive<ProcessGroupGloo>(store, place.rank, place.size, gloo);
}

}  // namespace lamina
