#include "fuzz/invariant.h"
#include "lamina/base/text.h"
#include "lamina/data/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lamina;
  const std::vector<ChatMessage> messages = {{.role = "system", .content = "Be brief."},
                                             {.role = "user", .content = "Hi, \"you\"\n"}};
  const ChatOptions options{.add_generation_prompt = true, .bos_token = "<s>", .eos_token = "</s>"};
  const auto text = fuzz::accepted([&] { return render_chat(fuzz::text_of(data, size), messages, options); });
  if (text) fuzz::must(is_utf8(*text));
  return 0;
}
