// lamina tokenize: ids for text, one line a line, and back.
#include <fmt/format.h>

#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <iterator>
#include <optional>

#include "lamina/base/error.h"
#include "lamina/base/text.h"
#include "lamina/cli/cli.h"
#include "lamina/cli/text_of.h"
#include "lamina/data/prompt_tokenizer.h"

namespace lamina::cli {

namespace {

std::string text_in(const std::string& line, const std::string& what) {
  const Json json = parse_json(line, what);
  if (!json.is_string()) fail("{}: is {} where a JSON string was expected", what, in_quotes(json.dump(), 40));
  return json.get<std::string>();
}

}  // namespace

int run_tokenize(int argc, char** argv) {
  CLI::App app(
      "Token ids for each line of standard input, or text for each line of ids.\n\n"
      "Example: echo 'Hello world' | lamina tokenize MODEL\n"
      "         echo 19556 905 | lamina tokenize MODEL --decode\n"
      "         echo 'a red ring' | lamina tokenize PIPELINE/tokenizer --prompt",
      "tokenize");
  std::filesystem::path model;
  bool decode = false, plain = false, whole = false, json = false, prompt = false;
  app.add_option("MODEL", model, "folder or GGUF file")->required();
  app.add_flag("--decode", decode, "ids to text");
  app.add_flag("--plain", plain, "no special tokens added, none read in the text");
  app.add_flag("--prompt", prompt,
               "cut and filled up to the length that a text-to-image pipeline asks for; MODEL is the folder "
               "of its tokenizer");
  app.add_flag("--whole", whole, "the whole input is one text, line breaks and all");
  app.add_flag("--json", json, "each line of input is a JSON string, each line of output a JSON value");
  parse(app, argc, argv);
  std::optional<PromptTokenizer> prompts;
  if (prompt) prompts = open_prompt_tokenizer(model);
  const Tokenizer tokenizer = prompts ? prompts->tokenizer : tokenizer_of(open(model).checkpoint);
  std::string line;
  const auto read = [&] {
    if (!whole) return static_cast<bool>(std::getline(std::cin, line));
    line.assign(std::istreambuf_iterator<char>(std::cin), {});
    return !line.empty();
  };
  for (size_t number = 1; read(); ++number) {
    if (decode) {
      std::vector<int32_t> ids;
      for (const std::string& word : split(line, ' ')) {
        if (trim(word).empty()) continue;
        int32_t id = -1;
        const std::string_view text = trim(word);
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
        if (error != std::errc() || end != text.data() + text.size() || !tokenizer.token(id))
          fail("line {}: {} is no token id of this model", number, in_quotes(word));
        ids.push_back(id);
      }
      const std::string text = tokenizer.decode(ids);
      print((json ? Json(text).dump() : text) + "\n");
    } else {
      const std::string text = json ? text_in(line, fmt::format("line {}", number)) : line;
      const auto ids = prompts ? prompts->ids(text)
                               : tokenizer.encode(text, {.special_tokens = !plain, .parse_special = !plain});
      print((json ? Json(ids).dump() : fmt::format("{}", fmt::join(ids, " "))) + "\n");
    }
  }
  if (std::ferror(stdin) != 0) fail("the standard input cannot be read: {}", std::strerror(errno));
  return Status::ok;
}

}  // namespace lamina::cli
