// metadata.jsonl of a folder of pictures, as image folders for diffusers' training scripts have it.
#pragma once

#include <map>
#include <string>
#include <string_view>

namespace lamina {

// Captions by file name: a line {"file_name": "a.png", "text": "..."} each. Throws Error that names the line
// for what is none, for names that lead out of the folder and for those that stand twice. Outside bytes.
std::map<std::string, std::string> parse_captions(std::string_view lines, std::string_view what);

}  // namespace lamina
