#include "lamina/data/post_processor.h"

#include <string>

#include "lamina/data/component.h"
#include "lamina/data/vocabulary.h"

namespace lamina {

namespace {

PostProcessor byte_level(const Json&, std::string_view) {
  return {};
}  // it only moves offsets

int32_t checked_id(const Json& id, std::string_view token, std::string_view what) {
  if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() > Vocabulary::max_id) {
    fail("{}: the post_processor gives the token {} the id {}", what, in_quotes(token), id.dump());
  }
  return id.get<int32_t>();
}

// "cls" and "sep" are pairs of a token and its id.
PostProcessor bert(const Json& component, std::string_view what) {
  const auto id_of = [&](const std::string& key) {
    const Json pair = component.value(key, Json());
    if (!pair.is_array() || pair.size() != 2) fail("{}: the post_processor has no pair \"{}\"", what, key);
    return checked_id(pair[1], key, what);
  };
  return {{id_of("cls")}, {id_of("sep")}};
}

PostProcessor template_processing(const Json& component, std::string_view what) {
  const Json single = component.value("single", Json());
  if (!single.is_array()) fail("{}: TemplateProcessing has no list \"single\"", what);
  const Json special = component.value("special_tokens", Json());
  PostProcessor result;
  bool after_text = false;
  for (const Json& part : single) {
    if (json_has(part, "Sequence")) {
      if (after_text) fail("{}: TemplateProcessing holds the text twice", what);
      after_text = true;
    } else if (json_has(part, "SpecialToken")) {
      const std::string name = json_string(part.at("SpecialToken"), "id", what);
      const Json token = special.is_object() ? special.value(name, Json()) : Json();
      const Json ids = token.is_object() ? token.value("ids", Json()) : Json();
      if (!ids.is_array()) fail("{}: TemplateProcessing has no ids for the token {}", what, in_quotes(name));
      for (const Json& id : ids) {
        (after_text ? result.after : result.before).push_back(checked_id(id, name, what));
      }
    } else {
      fail("{}: TemplateProcessing holds {}, which is neither a Sequence nor a SpecialToken", what,
           in_quotes(part.dump()));
    }
  }
  if (!after_text) fail("{}: TemplateProcessing has no place for the text", what);
  return result;
}

PostProcessor sequence(const Json& component, std::string_view what) {
  PostProcessor result;
  for (PostProcessor& part :
       make_components<PostProcessor>("processors", component, what, make_post_processor)) {
    part.before.insert(part.before.end(), result.before.begin(), result.before.end());
    result.before = std::move(part.before);
    result.after.insert(result.after.end(), part.after.begin(), part.after.end());
  }
  return result;
}

constexpr ComponentType<PostProcessor> types[] = {
    {"ByteLevel", byte_level}, {"TemplateProcessing", template_processing},
    {"BertProcessing", bert},  {"RobertaProcessing", bert},
    {"Sequence", sequence},
};

}  // namespace

PostProcessor make_post_processor(const Json& component, std::string_view what) {
  return make_component<PostProcessor>("post_processor", types, component, what);
}

}  // namespace lamina
