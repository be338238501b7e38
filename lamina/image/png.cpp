#include <png.h>

#include <algorithm>
#include <array>
#include <csetjmp>
#include <cstring>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/image/image.h"

namespace lamina {

namespace {

constexpr int64_t kMaxPixels = max_picture_pixels;
constexpr size_t kMaxText = size_t{8} << 20;
constexpr uint64_t kDeflateRatio = 1032;  // the most bytes that one compressed byte can stand for

// libpng leaves by longjmp, which runs no destructors: everything that owns memory lives in a value outside
// of the functions that call setjmp, and those hold plain numbers and pointers alone.
struct Trouble {
  std::array<char, 160> message = {};
};

[[noreturn]] void on_error(png_structp png, png_const_charp message) {
  auto* trouble = static_cast<Trouble*>(png_get_error_ptr(png));
  std::strncpy(trouble->message.data(), message, trouble->message.size() - 1);
  png_longjmp(png, 1);
}

void on_warning(png_structp, png_const_charp) {}

std::string latin1_as_utf8(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x80) {
      out += c;
    } else {
      out += static_cast<char>(0xC0 | (byte >> 6));
      out += static_cast<char>(0x80 | (byte & 0x3F));
    }
  }
  return out;
}

bool is_ascii(std::string_view text) {
  for (const char c : text)
    if (static_cast<unsigned char>(c) >= 0x80) return false;
  return true;
}

struct Reading {
  Bytes rest = {};
  Trouble trouble = {};
  png_structp png = nullptr;
  png_infop info = nullptr, end = nullptr;
  std::vector<png_bytep> rows = {};

  explicit Reading(Bytes bytes) : rest(bytes) {
    png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &trouble, on_error, on_warning);
    if (png) info = png_create_info_struct(png), end = png_create_info_struct(png);
  }
  ~Reading() { png_destroy_read_struct(&png, &info, &end); }
  Reading(const Reading&) = delete;
  Reading& operator=(const Reading&) = delete;
};

void on_read(png_structp png, png_bytep to, size_t count) {
  auto* reading = static_cast<Reading*>(png_get_io_ptr(png));
  if (reading->rest.size() < count) png_error(png, "it ends too early");
  std::memcpy(to, reading->rest.data(), count);
  reading->rest = reading->rest.subspan(count);
}

// Each of the three says whether it came through; else `trouble` holds the message.
bool read_header(Reading& reading) {
  if (setjmp(png_jmpbuf(reading.png))) return false;
  png_set_read_fn(reading.png, &reading, on_read);
  png_set_user_limits(reading.png, kMaxPixels, kMaxPixels);
  png_set_chunk_malloc_max(reading.png, kMaxText);
  png_set_chunk_cache_max(reading.png, 200);
  png_read_info(reading.png, reading.info);
  return true;
}

// Everything becomes 8 bits a channel; grey with alpha becomes RGBA.
bool ask_for_bytes(Reading& reading) {
  if (setjmp(png_jmpbuf(reading.png))) return false;
  png_set_expand(reading.png);
  png_set_scale_16(reading.png);
  const bool grey = !(png_get_color_type(reading.png, reading.info) & PNG_COLOR_MASK_COLOR);
  const bool alpha = (png_get_color_type(reading.png, reading.info) & PNG_COLOR_MASK_ALPHA) ||
                     png_get_valid(reading.png, reading.info, PNG_INFO_tRNS);
  if (grey && alpha) png_set_gray_to_rgb(reading.png);
  png_set_interlace_handling(reading.png);
  png_read_update_info(reading.png, reading.info);
  return true;
}

bool read_rows(Reading& reading) {
  if (setjmp(png_jmpbuf(reading.png))) return false;
  png_read_image(reading.png, reading.rows.data());
  png_read_end(reading.png, reading.end);
  return true;
}

void add_texts(const Reading& reading, png_infop info, ImageTexts& texts) {
  png_textp entries = nullptr;
  const int count = png_get_text(reading.png, info, &entries, nullptr);
  for (int i = 0; i < count; ++i) {
    const png_text& entry = entries[i];
    const bool international = entry.compression >= PNG_ITXT_COMPRESSION_NONE;
    const std::string text(entry.text ? entry.text : "",
                           entry.text ? (international ? entry.itxt_length : entry.text_length) : 0);
    texts.emplace_back(latin1_as_utf8(entry.key),
                       international && is_utf8(text) ? text : latin1_as_utf8(text));
  }
}

struct Writing {
  std::string out = {};
  Trouble trouble = {};
  png_structp png = nullptr;
  png_infop info = nullptr;
  std::vector<png_text> texts = {};
  std::vector<png_bytep> rows = {};

  Writing() {
    png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &trouble, on_error, on_warning);
    if (png) info = png_create_info_struct(png);
  }
  ~Writing() { png_destroy_write_struct(&png, &info); }
  Writing(const Writing&) = delete;
  Writing& operator=(const Writing&) = delete;
};

void on_write(png_structp png, png_bytep bytes, size_t count) {
  static_cast<Writing*>(png_get_io_ptr(png))->out.append(reinterpret_cast<const char*>(bytes), count);
}

void on_flush(png_structp) {}

bool write_all(Writing& writing, const Picture& picture) {
  if (setjmp(png_jmpbuf(writing.png))) return false;
  const int kind = picture.channels == 1   ? PNG_COLOR_TYPE_GRAY
                   : picture.channels == 3 ? PNG_COLOR_TYPE_RGB
                                           : PNG_COLOR_TYPE_RGB_ALPHA;
  png_set_write_fn(writing.png, &writing, on_write, on_flush);
  png_set_user_limits(writing.png, kMaxPixels, kMaxPixels);
  png_set_compression_level(writing.png, 6);
  png_set_IHDR(writing.png, writing.info, static_cast<png_uint_32>(picture.width),
               static_cast<png_uint_32>(picture.height), 8, kind, PNG_INTERLACE_NONE,
               PNG_COMPRESSION_TYPE_BASE, PNG_FILTER_TYPE_BASE);
  png_set_text(writing.png, writing.info, writing.texts.data(), static_cast<int>(writing.texts.size()));
  png_write_info(writing.png, writing.info);
  png_write_image(writing.png, writing.rows.data());
  png_write_end(writing.png, nullptr);
  return true;
}

png_text text_entry(const std::string& keyword, const std::string& text) {
  const bool printable = std::ranges::all_of(keyword, [](char c) { return c >= 32 && c < 127; });
  if (keyword.empty() || keyword.size() > 79 || !printable || keyword.front() == ' ' ||
      keyword.back() == ' ' || keyword.find("  ") != std::string::npos)
    fail(
        "{} is no keyword for a text in a PNG file; it has 1 to 79 printable ASCII characters without spaces "
        "at "
        "its ends or two together",
        in_quotes(keyword));
  if (text.find('\0') != std::string::npos || !is_utf8(text))
    fail("the text \"{}\" for a PNG file is not UTF-8, or holds a zero byte", keyword);
  png_text entry = {};
  entry.compression = is_ascii(text) ? PNG_TEXT_COMPRESSION_NONE : PNG_ITXT_COMPRESSION_NONE;
  entry.key = const_cast<png_charp>(keyword.c_str());  // libpng copies both
  entry.text = const_cast<png_charp>(text.c_str());
  (is_ascii(text) ? entry.text_length : entry.itxt_length) = text.size();
  return entry;
}

void check_writable(const Picture& picture) {
  const bool known = picture.channels == 1 || picture.channels == 3 || picture.channels == 4;
  if (!known || picture.width < 1 || picture.height < 1 || picture.width > kMaxPixels ||
      picture.height > kMaxPixels || picture.width * picture.height > kMaxPixels ||
      picture.pixels.size() != static_cast<size_t>(picture.width * picture.height * picture.channels))
    fail("a picture of {} x {} pixels, {} channels and {} bytes cannot be written as PNG", picture.width,
         picture.height, picture.channels, picture.pixels.size());
}

}  // namespace

std::string png_bytes(const Picture& picture, const ImageTexts& texts) {
  check_writable(picture);
  Writing writing;
  if (!writing.info) fail("libpng cannot be used here: the library is another version than its header");
  for (const auto& [keyword, text] : texts) writing.texts.push_back(text_entry(keyword, text));
  for (int64_t y = 0; y < picture.height; ++y)
    writing.rows.push_back(const_cast<png_bytep>(picture.at(0, y)));  // read alone
  if (!write_all(writing, picture))
    fail("the picture cannot be written as PNG: {}", writing.trouble.message.data());
  return std::move(writing.out);
}

void write_png(const std::filesystem::path& path, const Picture& picture, const ImageTexts& texts) {
  write_file(path, png_bytes(picture, texts));
}

ReadPicture read_png(Bytes bytes, std::string_view what) {
  constexpr std::string_view signature = "\x89PNG\r\n\x1a\n";
  if (!as_text(bytes).starts_with(signature)) fail("{}: is not a PNG file", what);
  Reading reading(bytes);
  if (!reading.end)
    fail("{}: libpng cannot be used here: the library is another version than its header", what);
  const auto check = [&](bool fine) {
    if (!fine)
      fail("{}: is damaged, or no PNG that can be read ({}); save it anew", what,
           in_quotes(reading.trouble.message.data()));
  };
  check(read_header(reading));
  const auto width = static_cast<int64_t>(png_get_image_width(reading.png, reading.info));
  const auto height = static_cast<int64_t>(png_get_image_height(reading.png, reading.info));
  if (width * height > kMaxPixels)
    fail("{}: {} x {} are more than {} million pixels; make it smaller first", what, width, height,
         kMaxPixels / 1'000'000);
  if (png_get_rowbytes(reading.png, reading.info) * static_cast<uint64_t>(height) >
      kDeflateRatio * bytes.size())
    fail("{}: is too short a file for {} x {} pixels; was the download complete?", what, width, height);
  check(ask_for_bytes(reading));
  ReadPicture read{.picture = blank(width, height, png_get_channels(reading.png, reading.info))};
  for (int64_t y = 0; y < height; ++y) reading.rows.push_back(read.picture.at(0, y));
  check(read_rows(reading));
  add_texts(reading, reading.info, read.texts);
  add_texts(reading, reading.end, read.texts);
  return read;
}

ReadPicture read_png(const std::filesystem::path& path) {
  return read_png(as_bytes(read_file(path)), path.string());
}

}  // namespace lamina
