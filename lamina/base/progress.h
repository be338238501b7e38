// How long work reports itself and is asked to stop. The library never prints: the caller decides what to
// show.
#pragma once

#include <functional>
#include <stop_token>
#include <string>
#include <vector>

namespace lamina {

// One part of a network, as a search shows it.
enum class StackCell { kept, cut, tried };

struct Tick {
  std::string phase;                  // "search"
  double done = 0;                    // in units of `total`
  double total = 0;                   // 0: unknown
  std::string detail;                 // "step 3 of 8, best F27 0.0213"
  std::vector<StackCell> stack = {};  // in the order of the walk; empty: nothing to draw
};

struct Watch {
  std::function<void(const Tick&)> tick;  // may be empty
  std::stop_token stop;                   // asked between two pieces of work; a stopped run throws Stopped

  void report(Tick t) const {
    if (tick) tick(t);
  }
};

// Thrown when the user asked to stop (Ctrl-C); what was done so far is kept where the work can resume.
struct Stopped {};

}  // namespace lamina
