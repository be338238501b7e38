#include "lamina/heal/pictures.h"

#include <algorithm>
#include <vector>

#include "lamina/base/error.h"
#include "lamina/base/file.h"
#include "lamina/base/hash.h"
#include "lamina/base/text.h"
#include "lamina/image/captions.h"

namespace lamina {

namespace fs = std::filesystem;

namespace {

class Scenes : public CaptionedPictures {
 public:
  Scenes(const scene::Options& options, int64_t count) : options_(options), count_(count) {
    if (count < 1) fail("{} scenes were asked for; it takes one or more", count);
  }
  int64_t size() const override { return count_; }
  Captioned at(int64_t index) const override {
    const scene::Scene scene = scene::scene_at(static_cast<uint64_t>(index), options_);
    return {.picture = scene::painted(scene), .caption = scene::caption(scene)};
  }
  std::string digest() const override {
    return fmt::format("{} scenes of {}, seed {}, side {}", count_, scene::split_name(options_.split),
                       options_.seed, options_.side);
  }
  std::string said() const override {
    return fmt::format("{} generated scenes of {} pixels a side ({}, seed {})", thousands(count_),
                       options_.side, scene::split_name(options_.split), options_.seed);
  }

 private:
  scene::Options options_;
  int64_t count_;
};

bool is_png(const fs::path& path) {
  return path.extension() == ".png" || path.extension() == ".PNG";
}

// The middle of the aspect that is wanted.
Picture cropped(const Picture& picture, const PictureSize& size) {
  int64_t width = picture.width, height = picture.height;
  if (width * size.height > height * size.width)
    width = std::max<int64_t>(1, height * size.width / size.height);
  else
    height = std::max<int64_t>(1, width * size.height / size.width);
  if (width == picture.width && height == picture.height) return picture;
  Picture part = blank(width, height, picture.channels);
  const int64_t left = (picture.width - width) / 2, top = (picture.height - height) / 2;
  for (int64_t y = 0; y < height; ++y)
    std::copy_n(picture.at(left, top + y), width * picture.channels, part.at(0, y));
  return part;
}

// Grey or RGB, as RGB.
Picture coloured(const Picture& picture) {
  if (picture.channels == 3) return picture;
  Picture rgb = blank(picture.width, picture.height);
  for (int64_t y = 0; y < picture.height; ++y) {
    for (int64_t x = 0; x < picture.width; ++x) std::fill_n(rgb.at(x, y), 3, *picture.at(x, y));
  }
  return rgb;
}

class Folder : public CaptionedPictures {
 public:
  Folder(const fs::path& folder, const PictureSize& size) : folder_(folder), size_(size) {
    if (!fs::is_directory(folder)) fail("{}: there is no such folder of pictures", folder.string());
    std::map<std::string, std::string> captions;
    if (const fs::path list = folder / "metadata.jsonl"; fs::is_regular_file(list))
      captions = parse_captions(read_file(list), list.string());
    for (const auto& entry : fs::directory_iterator(folder)) {
      if (entry.is_regular_file() && is_png(entry.path())) names_.push_back(entry.path().filename());
    }
    std::ranges::sort(names_);
    if (names_.empty()) fail("{}: holds no PNG files", folder.string());
    for (const std::string& name : names_) captions_.push_back(caption(captions, name));
  }
  int64_t size() const override { return std::ssize(names_); }
  Captioned at(int64_t index) const override {
    const auto i = static_cast<size_t>(index);
    const Picture read = coloured(flat(read_png(folder_ / names_[i]).picture));
    return {.picture = resized(cropped(read, size_), size_.width, size_.height), .caption = captions_[i]};
  }
  std::string digest() const override {
    Sha256 hash;
    hash.add(fmt::format("{} x {}", size_.width, size_.height));
    for (size_t i = 0; i < names_.size(); ++i)
      hash.add(
          fmt::format("{}\n{}\n{}\n", names_[i], captions_[i], sha256_hex(read_file(folder_ / names_[i]))));
    return hash.hex();
  }
  std::string said() const override {
    return fmt::format("{}: {} pictures, as {} x {}", folder_.filename().string(), thousands(size()),
                       size_.width, size_.height);
  }

 private:
  std::string caption(const std::map<std::string, std::string>& captions, const std::string& name) const {
    if (const auto it = captions.find(name); it != captions.end()) return it->second;
    const fs::path beside = (folder_ / name).replace_extension(".txt");
    if (!fs::is_regular_file(beside))
      fail("{}: has no caption, neither in metadata.jsonl nor in {}", (folder_ / name).string(),
           beside.filename().string());
    return std::string(trim(read_file(beside)));
  }

  fs::path folder_;
  PictureSize size_;
  std::vector<std::string> names_, captions_;
};

class Some : public CaptionedPictures {
 public:
  Some(const CaptionedPictures& whole, int64_t first, int64_t count)
      : whole_(whole), first_(first), count_(count) {
    if (first < 0 || count < 1 || first + count > whole.size())
      fail("pictures {} to {} were asked for, and there are {}", first, first + count, whole.size());
  }
  int64_t size() const override { return count_; }
  Captioned at(int64_t index) const override { return whole_.at(first_ + index); }
  std::string digest() const override {
    return fmt::format("{} from {} of {}", count_, first_, whole_.digest());
  }
  std::string said() const override { return fmt::format("{} of {}", thousands(count_), whole_.said()); }

 private:
  const CaptionedPictures& whole_;
  int64_t first_, count_;
};

}  // namespace

std::unique_ptr<CaptionedPictures> scene_pictures(const scene::Options& options, int64_t count) {
  return std::make_unique<Scenes>(options, count);
}

std::unique_ptr<CaptionedPictures> folder_pictures(const fs::path& folder, const PictureSize& size) {
  if (size.width < 1 || size.height < 1) fail("a picture of {} x {} has no pixels", size.width, size.height);
  return std::make_unique<Folder>(folder, size);
}

std::unique_ptr<CaptionedPictures> some_of(const CaptionedPictures& whole, int64_t first, int64_t count) {
  return std::make_unique<Some>(whole, first, count);
}

}  // namespace lamina
