// What the tests of this room share: the message of a refusal, held to the house's form, and bytes made by
// hand.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <string_view>

#include "lamina/base/error.h"
#include "lamina/base/text.h"

namespace lamina {

// The message with which `work` refuses; a test failure when it does not, or when the message is not one
// sentence that a terminal can show.
template <class Work>
std::string refusal(const Work& work) {
  try {
    work();
  } catch (const Error& error) {
    const std::string message = error.what();
    EXPECT_TRUE(is_utf8(message));
    EXPECT_EQ(message.find_first_of("\n\r\t\x1b"), std::string::npos) << message;
    EXPECT_LT(message.size(), 400U) << message;
    EXPECT_FALSE(message.ends_with('.')) << message;
    return message;
  }
  ADD_FAILURE() << "was accepted";
  return "";
}

template <class Number>
void append(std::string& bytes, Number value) {
  std::string raw(sizeof value, '\0');
  std::memcpy(raw.data(), &value, sizeof value);
  bytes += raw;
}

}  // namespace lamina
