// Chat templates: the part of Jinja2 that the templates of language models use, with the settings of
// transformers (trim_blocks, lstrip_blocks, loop controls) and its sandbox: a template can neither change its
// inputs nor reach anything but them. Steps, memory, nesting and output are bounded; every failure is an
// Error with the line.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lamina/base/json.h"

namespace lamina {

struct ChatMessage {
  std::string role;  // "system", "user", "assistant", ...
  std::string content;
  Json more = Json::object();  // further keys: "tool_calls", ... ; "content" here replaces the text above
};

struct ChatOptions {
  bool add_generation_prompt = false;  // end with the opening of the assistant's answer
  std::optional<std::string> bos_token = {};
  std::optional<std::string> eos_token = {};
  Json variables = Json::object();  // what else the template may ask for: "tools", "enable_thinking", ...
  std::function<std::chrono::system_clock::time_point()> clock =
      std::chrono::system_clock::now;  // strftime_now: UTC
  std::string what = "chat template";  // names the template in messages
};

std::string render_chat(std::string_view template_text, const std::vector<ChatMessage>& messages,
                        const ChatOptions& options = {});

}  // namespace lamina
