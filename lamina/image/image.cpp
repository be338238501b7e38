#include "lamina/image/image.h"

#include <algorithm>
#include <cmath>

#include "lamina/base/error.h"

namespace lamina {

namespace {

constexpr int64_t kMaxPixels = max_picture_pixels;

// What one output pixel reads along one axis: `weights` of the inputs from `first` on, with sum 1.
struct Reach {
  int64_t first = 0;
  std::vector<float> weights;
};

// The share of each input that the output's stretch of the axis covers.
Reach covered(int64_t at, int64_t in, int64_t out) {
  const double scale = static_cast<double>(in) / static_cast<double>(out);
  const double begin = static_cast<double>(at) * scale, end = static_cast<double>(at + 1) * scale;
  Reach reach{.first = std::clamp<int64_t>(static_cast<int64_t>(begin), 0, in - 1), .weights = {}};
  for (int64_t i = reach.first; i < in && (i == reach.first || static_cast<double>(i) < end - 1e-9); ++i) {
    const double share =
        std::min<double>(end, static_cast<double>(i + 1)) - std::max<double>(begin, static_cast<double>(i));
    reach.weights.push_back(static_cast<float>(std::max(share, 0.0) / scale));
  }
  return reach;
}

// The two inputs next to the output's centre; at the edges one.
Reach between(int64_t at, int64_t in, int64_t out) {
  const double centre =
      (static_cast<double>(at) + 0.5) * static_cast<double>(in) / static_cast<double>(out) - 0.5;
  const double place = std::clamp(centre, 0.0, static_cast<double>(in - 1));
  const auto first = static_cast<int64_t>(place);
  const auto share = static_cast<float>(place - static_cast<double>(first));
  return share > 0 ? Reach{.first = first, .weights = {1 - share, share}}
                   : Reach{.first = first, .weights = {1}};
}

std::vector<Reach> reaches(int64_t in, int64_t out) {
  std::vector<Reach> all;
  for (int64_t i = 0; i < out; ++i) all.push_back(out < in ? covered(i, in, out) : between(i, in, out));
  return all;
}

// Colours times alpha, so that the colour of a pixel that nobody sees does not bleed.
std::vector<float> weighted(const Picture& picture) {
  std::vector<float> values(picture.pixels.begin(), picture.pixels.end());
  if (picture.channels == 4) {
    for (size_t i = 0; i < values.size(); i += 4)
      for (size_t c = 0; c < 3; ++c) values[i + c] *= values[i + 3] / 255;
  }
  return values;
}

uint8_t to_byte(float value) {
  return static_cast<uint8_t>(std::lround(std::clamp(value, 0.0f, 255.0f)));
}

void check_whole(const Picture& picture, std::string_view what) {
  if (picture.width < 1 || picture.height < 1 ||
      picture.pixels.size() != static_cast<size_t>(picture.width * picture.height * picture.channels))
    fail("{}: the picture says {} x {} with {} channels, but holds {} bytes", what, picture.width,
         picture.height, picture.channels, picture.pixels.size());
}

}  // namespace

Picture blank(int64_t width, int64_t height, int channels, uint8_t value) {
  if (width < 1 || height < 1 || width > kMaxPixels || height > kMaxPixels || width * height > kMaxPixels)
    fail("a picture of {} x {} pixels cannot be made; give sizes from 1 on, {} million pixels at most", width,
         height, kMaxPixels / 1'000'000);
  if (channels != 1 && channels != 3 && channels != 4)
    fail("a picture has 1, 3 or 4 channels, not {}", channels);
  Picture picture{.width = width, .height = height, .channels = channels};
  picture.pixels.assign(static_cast<size_t>(width * height * channels), value);
  return picture;
}

Picture flat(const Picture& picture) {
  if (picture.channels != 4) return picture;
  check_whole(picture, "flat");
  Picture out = blank(picture.width, picture.height);
  for (size_t i = 0, o = 0; i < picture.pixels.size(); i += 4, o += 3) {
    const int alpha = picture.pixels[i + 3];
    for (size_t c = 0; c < 3; ++c)
      out.pixels[o + c] =
          static_cast<uint8_t>((picture.pixels[i + c] * alpha + 255 * (255 - alpha) + 127) / 255);
  }
  return out;
}

Picture resized(const Picture& picture, int64_t width, int64_t height) {
  check_whole(picture, "resized");
  Picture out = blank(width, height, picture.channels);
  const std::vector<Reach> across = reaches(picture.width, width), down = reaches(picture.height, height);
  const auto channels = static_cast<size_t>(picture.channels), row = static_cast<size_t>(width) * channels;
  const std::vector<float> in = weighted(picture);
  std::vector<float> narrowed(row * static_cast<size_t>(picture.height));
  for (size_t y = 0; y < static_cast<size_t>(picture.height); ++y) {
    for (size_t x = 0; x < static_cast<size_t>(width); ++x) {
      const Reach& reach = across[x];
      const size_t from =
          (y * static_cast<size_t>(picture.width) + static_cast<size_t>(reach.first)) * channels;
      for (size_t k = 0; k < reach.weights.size(); ++k)
        for (size_t c = 0; c < channels; ++c)
          narrowed[y * row + x * channels + c] += reach.weights[k] * in[from + k * channels + c];
    }
  }
  std::vector<float> line(row);
  for (size_t y = 0; y < static_cast<size_t>(height); ++y) {
    std::ranges::fill(line, 0.0f);
    for (size_t k = 0; k < down[y].weights.size(); ++k)
      for (size_t i = 0; i < row; ++i)
        line[i] += down[y].weights[k] * narrowed[(static_cast<size_t>(down[y].first) + k) * row + i];
    for (size_t i = 0; i < row; ++i) {
      const float alpha = channels == 4 ? line[i / 4 * 4 + 3] / 255 : 1;
      const bool colour = channels == 4 && i % 4 != 3 && alpha > 0;
      out.pixels[y * row + i] = to_byte(colour ? line[i] / alpha : line[i]);
    }
  }
  return out;
}

Picture grid(const std::vector<Picture>& pictures, int64_t columns, int64_t gap) {
  if (pictures.empty()) fail("a grid needs pictures");
  if (columns < 1 || gap < 0) fail("a grid has at least one column and no gap below 0");
  const Picture& first = pictures.front();
  const auto count = static_cast<int64_t>(pictures.size());
  columns = std::min(columns, count);
  const int64_t rows = (count + columns - 1) / columns;
  Picture out =
      blank(columns * (first.width + gap) - gap, rows * (first.height + gap) - gap, first.channels, 255);
  for (int64_t i = 0; i < count; ++i) {
    const Picture& picture = pictures[static_cast<size_t>(i)];
    check_whole(picture, "grid");
    if (picture.width != first.width || picture.height != first.height || picture.channels != first.channels)
      fail(
          "the pictures of a grid are of one size and kind: picture {} is {} x {} with {} channels, the "
          "first {} x {} with {}",
          i + 1, picture.width, picture.height, picture.channels, first.width, first.height, first.channels);
    const int64_t left = i % columns * (first.width + gap), top = i / columns * (first.height + gap);
    for (int64_t y = 0; y < first.height; ++y)
      std::copy_n(picture.at(0, y), first.width * first.channels, out.at(left, top + y));
  }
  return out;
}

}  // namespace lamina
