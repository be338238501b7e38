// Where this process stands among the ranks, as the launcher says it in environment variables.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "lamina/heal/group.h"

namespace lamina {

struct Place {
  int rank = 0, size = 1;
  int local_rank = 0, local_size = 0;  // on this machine; size 0: not said
  std::string address;                 // of the store through which the ranks find each other
  int port = 0;
  bool agent = false;           // torchrun's agent serves the store; else rank 0 does
  std::string run = "0";        // tells jobs apart that meet at one address
  std::string attempt = "0";    // torchrun's restarts keep the store, with what a dead attempt left there
  std::string error_file = {};  // where torchrun reads a sentence
  bool one_machine() const;
  std::string shown() const;  // "rank 3 of 4"
};

using Variables = std::function<std::optional<std::string>(const char* name)>;

// Nothing when no variable is set. Throws Error for what is half set or no number.
std::optional<Place> place_of(const GroupOptions& options, const Variables& variable);
std::optional<std::string> environment(const char* name);

// torchrun's table shows the sentence beside the status of a rank that failed.
void write_error_file(const std::string& path, const std::string& sentence);

std::unique_ptr<Group> join_at(const Place& place, const GroupOptions& options);

}  // namespace lamina
