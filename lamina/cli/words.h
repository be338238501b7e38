// Running text as words, the way tagged corpora of social text cut it (WNUT 2017): punctuation is split off;
// @user, #tag, addresses of the web, numbers such as 7:30 or 30,000, abbreviations such as U.S., emoticons
// and emoji stay whole; 's is a word of its own, other contractions are not. An ideograph is a word. Nothing
// is lost or changed: a word is a piece of the text, and between words stand white space and control
// characters alone.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

namespace lamina::cli {

struct WordPiece {
  size_t begin = 0, end = 0;  // bytes of the text
};

// `text` is UTF-8.
std::vector<WordPiece> words_of(std::string_view text);

}  // namespace lamina::cli
