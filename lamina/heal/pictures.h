// Pictures with captions: what a text-to-image model learns from.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "lamina/image/image.h"
#include "lamina/scene/scene.h"

namespace lamina {

struct Captioned {
  Picture picture;  // RGB
  std::string caption;
};

class CaptionedPictures {
 public:
  virtual ~CaptionedPictures() = default;
  virtual int64_t size() const = 0;
  virtual Captioned at(int64_t index) const = 0;
  virtual std::string digest() const = 0;
  virtual std::string said() const = 0;  // "pictures/: 1,234 PNG files"
};

// The first `count` scenes of a split.
std::unique_ptr<CaptionedPictures> scene_pictures(const scene::Options& options, int64_t count);

// PNG files of a folder, in the order of their names, each beside a caption NAME.txt, or with captions in
// metadata.jsonl, as diffusers' image folders have it. Cropped to the middle of the aspect asked for and
// resized; read when asked for. Throws Error when there is none, or one without a caption.
struct PictureSize {
  int64_t width = 512, height = 512;
};
std::unique_ptr<CaptionedPictures> folder_pictures(const std::filesystem::path& folder,
                                                   const PictureSize& size);

// Those of [first, first + count): to hold some out. `whole` outlives it.
std::unique_ptr<CaptionedPictures> some_of(const CaptionedPictures& whole, int64_t first, int64_t count);

}  // namespace lamina
