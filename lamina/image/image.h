// Pictures of eight bits a channel, and PNG files with text in them. Files are untrusted: sizes are bounded
// before anything is decoded.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lamina/base/file.h"

namespace lamina {

inline constexpr int64_t max_picture_pixels = 100'000'000;

struct Picture {
  int64_t width = 0, height = 0;
  int channels = 3;                  // 1 grey, 3 RGB, 4 RGBA (alpha not premultiplied)
  std::vector<uint8_t> pixels = {};  // rows from the top, channels together

  uint8_t* at(int64_t x, int64_t y) { return &pixels[static_cast<size_t>((y * width + x) * channels)]; }
  const uint8_t* at(int64_t x, int64_t y) const {
    return &pixels[static_cast<size_t>((y * width + x) * channels)];
  }
};
Picture blank(int64_t width, int64_t height, int channels = 3, uint8_t value = 0);

using ImageTexts = std::vector<std::pair<std::string, std::string>>;  // keyword and text, UTF-8

// A PNG file as bytes, the same for the same picture and texts.
std::string png_bytes(const Picture& picture, const ImageTexts& texts = {});
void write_png(const std::filesystem::path& path, const Picture& picture, const ImageTexts& texts = {});

struct ReadPicture {
  Picture picture;
  ImageTexts texts = {};
};
// Palettes, 16 bits and interlacing become 8 bits a channel; animation is its first picture. Throws Error for
// damaged files and pictures of more than `max_picture_pixels`.
ReadPicture read_png(Bytes bytes, std::string_view what);
ReadPicture read_png(const std::filesystem::path& path);

// Onto white, without alpha.
Picture flat(const Picture& picture);
// Area average when smaller, bilinear when larger.
Picture resized(const Picture& picture, int64_t width, int64_t height);
// The same number of pictures a row, `gap` pixels of white between them; all of one size.
Picture grid(const std::vector<Picture>& pictures, int64_t columns, int64_t gap = 2);

}  // namespace lamina
