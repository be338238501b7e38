#include "lamina/data/normalizer.h"

#include "lamina/data/byte_level.h"
#include "lamina/data/component.h"
#include "lamina/data/unicode.h"

namespace lamina {

namespace {

template <NormalForm form>
Normalizer unicode_form(const Json&, std::string_view) {
  return [](std::string text) { return normalize(text, form); };
}

Normalizer lower_case(const Json&, std::string_view) {
  return [](std::string text) { return lowercase(text); };
}

Normalizer strip(const Json& component, std::string_view what) {
  const bool left = json_bool_or(component, "strip_left", true, what);
  const bool right = json_bool_or(component, "strip_right", true, what);
  return [left, right](std::string text) {
    std::string_view kept = text;
    if (left) kept = strip_left(kept);
    if (right) kept = strip_right(kept);
    return std::string(kept);
  };
}

Normalizer strip_accents(const Json&, std::string_view) {
  return [](std::string text) {
    std::string out;
    for (std::string_view rest = text; !rest.empty();) {
      const CodePoint c = first_code_point(rest);
      if (!is_combining_mark(c.value)) out += rest.substr(0, c.length);
      rest.remove_prefix(c.length);
    }
    return out;
  };
}

Normalizer replace(const Json& component, std::string_view what) {
  return [pattern = make_pattern(component, what), content = json_string(component, "content", what)](
             std::string text) { return replace_all(text, pattern, content); };
}

Normalizer prepend(const Json& component, std::string_view what) {
  return [prefix = json_string(component, "prepend", what)](std::string text) {
    return text.empty() ? text : prefix + text;
  };
}

Normalizer byte_level(const Json&, std::string_view) {
  return [](std::string text) { return bytes_to_letters(text); };
}

Normalizer sequence(const Json& component, std::string_view what) {
  return [parts = make_components<Normalizer>("normalizers", component, what, make_normalizer)](
             std::string text) {
    const size_t longest = longest_from(text.size());
    for (const Normalizer& part : parts) {
      text = part(std::move(text));
      check_growth(text.size(), longest);
    }
    return text;
  };
}

constexpr ComponentType<Normalizer> types[] = {
    {"NFC", unicode_form<NormalForm::nfc>},
    {"NFD", unicode_form<NormalForm::nfd>},
    {"NFKC", unicode_form<NormalForm::nfkc>},
    {"NFKD", unicode_form<NormalForm::nfkd>},
    {"Lowercase", lower_case},
    {"Strip", strip},
    {"StripAccents", strip_accents},
    {"Replace", replace},
    {"Prepend", prepend},
    {"ByteLevel", byte_level},
    {"Sequence", sequence},
};

}  // namespace

Normalizer make_normalizer(const Json& component, std::string_view what) {
  return make_component<Normalizer>("normalizer", types, component, what);
}

}  // namespace lamina
