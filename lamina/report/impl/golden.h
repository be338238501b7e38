// Compares a text with a file under tests/golden. LAMINA_BLESS=1 writes the file instead: look at the
// difference before it is committed.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "lamina/base/file.h"

namespace lamina::report::impl {

inline void expect_golden(const std::string& name, const std::string& text) {
  const std::filesystem::path path = std::filesystem::path("tests/golden") / name;
  if (const char* bless = std::getenv("LAMINA_BLESS"); bless && std::string(bless) == "1") {
    write_file(path, text);
    return;
  }
  ASSERT_TRUE(std::filesystem::exists(path))
      << path << " is missing: run again with LAMINA_BLESS=1 to write it";
  const std::string expected = read_file(path);
  const size_t at = static_cast<size_t>(
      std::mismatch(text.begin(), text.end(), expected.begin(), expected.end()).first - text.begin());
  EXPECT_TRUE(text == expected)
      << path << " differs from byte " << at << " on: it has\n  ..."
      << expected.substr(at > 40 ? at - 40 : 0, 120) << "\nand the report\n  ..."
      << text.substr(at > 40 ? at - 40 : 0, 120)
      << "\nIf the report is right, run again with LAMINA_BLESS=1 and look at the difference.";
}

}  // namespace lamina::report::impl
