// The "pre_tokenizer" of a tokenizer.json: cuts a text into the pieces that the model sees one by one.
// Pieces are handed on as they are found and never stored, so that one line of 100 MB needs no list of its
// words.
#pragma once

#include <functional>
#include <string_view>
#include <type_traits>

#include "lamina/base/json.h"

namespace lamina {

struct Piece {
  std::string_view text;  // lives only as long as the call that hands it on
  bool at_start = false;  // begins where the whole input begins
};

// Refers to a callable that takes a Piece, and does not own it.
class PieceSink {
 public:
  template <class Callable>
    requires(!std::is_same_v<std::remove_cvref_t<Callable>, PieceSink>)
  PieceSink(Callable&& callable)  // implicit: a lambda stands where a sink is asked for
      : object_(const_cast<void*>(static_cast<const void*>(&callable))), call_([](void* object, Piece piece) {
          (*static_cast<std::remove_reference_t<Callable>*>(object))(piece);
        }) {}
  void operator()(Piece piece) const { call_(object_, piece); }

 private:
  void* object_;
  void (*call_)(void*, Piece);
};

using PreTokenizer = std::function<void(Piece, PieceSink)>;  // empty pieces are neither taken nor handed on

PreTokenizer make_pre_tokenizer(const Json& component, std::string_view what);

}  // namespace lamina
