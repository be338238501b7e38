#include "lamina/data/token_decoder.h"

#include <charconv>

#include "lamina/data/byte_level.h"
#include "lamina/data/component.h"
#include "lamina/data/unicode.h"

namespace lamina {

namespace {

using Tokens = std::vector<std::string>;

std::string join(const Tokens& tokens) {
  std::string text;
  for (const std::string& token : tokens) text += token;
  return text;
}

size_t bytes_of(const Tokens& tokens) {
  size_t bytes = 0;
  for (const std::string& token : tokens) bytes += token.size();
  return bytes;
}

TokenDecoder byte_level(const Json&, std::string_view) {
  return [](Tokens tokens) {
    // A character may be spread over tokens, so the bytes are joined before they are read as UTF-8.
    for (std::string& token : tokens) {
      if (auto bytes = letters_to_bytes(token)) token = *std::move(bytes);
    }
    return Tokens{repair_utf8(join(tokens))};
  };
}

std::optional<char> byte_of_token(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || !token.ends_with('>')) return std::nullopt;
  uint8_t byte = 0;
  const auto [end, error] = std::from_chars(token.data() + 3, token.data() + 5, byte, 16);
  if (error != std::errc() || end != token.data() + 5) return std::nullopt;
  return static_cast<char>(byte);
}

TokenDecoder byte_fallback(const Json&, std::string_view) {
  return [](Tokens tokens) {
    Tokens out;
    std::string bytes;
    const auto flush = [&] {
      // As HF does: a run of bytes that is not UTF-8 as a whole becomes one U+FFFD for each of its bytes.
      if (!is_utf8(bytes)) {
        const size_t count = bytes.size();
        bytes.clear();
        for (size_t i = 0; i < count; ++i) bytes += "\xEF\xBF\xBD";
      }
      if (!bytes.empty()) out.push_back(std::exchange(bytes, {}));
    };
    for (std::string& token : tokens) {
      if (const auto byte = byte_of_token(token)) {
        bytes += *byte;
      } else {
        flush();
        out.push_back(std::move(token));
      }
    }
    flush();
    return out;
  };
}

TokenDecoder fuse(const Json&, std::string_view) {
  return [](Tokens tokens) { return Tokens{join(tokens)}; };
}

TokenDecoder strip(const Json& component, std::string_view what) {
  const auto start = static_cast<size_t>(json_integer_or(component, "start", 0, what, {0, 1 << 20}));
  const auto stop = static_cast<size_t>(json_integer_or(component, "stop", 0, what, {0, 1 << 20}));
  return [content = json_string(component, "content", what), start, stop](Tokens tokens) {
    for (std::string& token : tokens) {
      std::string_view kept = token;
      for (size_t i = 0; i < start && !content.empty() && kept.starts_with(content); ++i) {
        kept.remove_prefix(content.size());
      }
      for (size_t i = 0; i < stop && !content.empty() && kept.ends_with(content); ++i) {
        kept.remove_suffix(content.size());
      }
      token = std::string(kept);
    }
    return tokens;
  };
}

TokenDecoder replace(const Json& component, std::string_view what) {
  return [pattern = make_pattern(component, what),
          content = json_string(component, "content", what)](Tokens tokens) {
    for (std::string& token : tokens) token = replace_all(token, pattern, content);
    return tokens;
  };
}

TokenDecoder metaspace(const Json& component, std::string_view what) {
  const std::string mark = json_string_or(component, "replacement", "\xE2\x96\x81", what);
  const bool prepended = json_string_or(component, "prepend_scheme", "always", what) != "never" &&
                         json_bool_or(component, "add_prefix_space", true, what);
  return [marks = Pattern::literal(mark, what), prepended](Tokens tokens) {
    for (size_t i = 0; i < tokens.size(); ++i) {
      tokens[i] = replace_all(tokens[i], marks, i == 0 && prepended ? "" : " ");
    }
    return tokens;
  };
}

TokenDecoder sequence(const Json& component, std::string_view what) {
  return [parts =
              make_components<TokenDecoder>("decoders", component, what, make_token_decoder)](Tokens tokens) {
    const size_t longest = longest_from(bytes_of(tokens));
    for (const TokenDecoder& part : parts) {
      tokens = part(std::move(tokens));
      check_growth(bytes_of(tokens), longest);
    }
    return tokens;
  };
}

constexpr ComponentType<TokenDecoder> types[] = {
    {"ByteLevel", byte_level}, {"ByteFallback", byte_fallback}, {"Fuse", fuse},         {"Strip", strip},
    {"Replace", replace},      {"Metaspace", metaspace},        {"Sequence", sequence},
};

}  // namespace

TokenDecoder make_token_decoder(const Json& component, std::string_view what) {
  return make_component<TokenDecoder>("decoder", types, component, what);
}

}  // namespace lamina
