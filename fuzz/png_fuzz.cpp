#include "fuzz/invariant.h"
#include "lamina/image/image.h"

// What is read has the size that it says, and comes back from a PNG of our own as it was.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lamina;
  const auto read = fuzz::accepted([&] { return read_png(as_bytes(fuzz::text_of(data, size)), "fuzz"); });
  if (!read) return 0;
  const Picture& picture = read->picture;
  fuzz::must(picture.pixels.size() == static_cast<size_t>(picture.width * picture.height * picture.channels));
  const std::string written = png_bytes(picture);
  const ReadPicture back = read_png(as_bytes(written), "written again");
  fuzz::must(back.picture.pixels == picture.pixels && back.picture.channels == picture.channels);
  fuzz::must(flat(picture).channels != 4);
  return 0;
}
